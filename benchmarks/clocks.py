"""How much processor time another process has used. Linux only."""

from __future__ import annotations

import time

#: What clock_getcpuclockid(3) makes of a process id: CPUCLOCK_SCHED of the whole process.
_SCHEDULED = 2


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads of a process, to the nanosecond, those that ended included.

    Raises:
        OSError: there is no such process.
    """
    return time.clock_gettime(~pid << 3 | _SCHEDULED)
