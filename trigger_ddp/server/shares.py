"""How several workers share the clients of one port evenly, although the kernel lets the quickest one accept.

A file holds how many connections each worker has. A worker that has more than another waits a moment before
it accepts, so that the other can be quicker; if that one is too busy, nobody waits for long.
"""

from __future__ import annotations

import mmap
import struct
from typing import BinaryIO

import trio

#: Seconds that a worker with more than its share waits before each connection that it accepts.
COURTESY_SECONDS = 0.01
#: Connections that a worker may have more than another, besides an eighth, before it waits: who waits at each
#: difference accepts but few in a second.
SLACK = 4
#: Seconds between two looks at how many connections have been closed.
REFRESH_SECONDS = 1.0

#: What stands for a worker that does not run: nobody waits for it.
_AWAY = 2**32 - 1
_COUNT = struct.Struct("=I")


class Shares:
    """The number of connections of each worker.

    Args:
        file: descriptor of the file that all of them share.
        number: whose own number it is, 1 for the first worker.
    """

    def __init__(self, file: int, number: int) -> None:
        self._counts = mmap.mmap(file, 0)
        self._number = number

    @staticmethod
    def create(file: BinaryIO, workers: int) -> None:
        """Fill the file, for workers that do not run yet."""
        file.write(_COUNT.pack(_AWAY) * workers)
        file.flush()

    def put(self, count: int | None) -> None:
        """Say how many connections the own worker has; None: it does not run."""
        offset = (self._number - 1) * _COUNT.size
        _COUNT.pack_into(self._counts, offset, _AWAY if count is None else count)

    async def refresh(self, nursery: trio.Nursery) -> None:
        """Keep the own number that of the tasks in a nursery, until cancelled."""
        while True:
            self.put(len(nursery.child_tasks))
            await trio.sleep(REFRESH_SECONDS)

    async def wait_for_others(self, count: int) -> None:
        """Wait a moment if another worker has clearly fewer connections than this one, ``count``."""
        self.put(count)
        least: int = min(_COUNT.iter_unpack(self._counts))[0]
        if count > least + least // 8 + SLACK:
            await trio.sleep(COURTESY_SECONDS)
