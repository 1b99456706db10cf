"""When to ask a silent client whether it is there, and when to stop waiting.

As Meteor's ``packages/ddp-common/heartbeat.js``: a tick every interval; after an interval of silence a ping;
without any message within the timeout after it, the client is gone.
"""

from __future__ import annotations

import enum


class Beat(enum.Enum):
    NOTHING = "nothing"
    PING = "send a ping"
    GONE = "the client is gone"


class Heartbeat:
    """The heartbeat of one session, without a clock of its own.

    Args:
        interval: seconds between ticks.
        timeout: seconds a client has to say anything after a ping.
        now: seconds on the clock that all later calls use.
    """

    def __init__(self, interval: float, timeout: float, now: float) -> None:
        self._interval = interval
        self._timeout = timeout
        self._tick = now + interval
        self._deadline: float | None = None
        self._heard = False

    def heard(self) -> None:
        """The client sent something; anything counts as a pong."""
        self._heard = True
        self._deadline = None

    @property
    def next(self) -> float:
        """When to call `beat`, if not before."""
        return self._tick if self._deadline is None else min(self._tick, self._deadline)

    def beat(self, now: float) -> Beat:
        """What to do at ``now``."""
        if self._deadline is not None and now >= self._deadline:
            return Beat.GONE
        if now < self._tick:
            return Beat.NOTHING
        self._tick = now + self._interval
        heard, self._heard = self._heard, False
        if heard or self._deadline is not None:
            return Beat.NOTHING
        self._deadline = now + self._timeout
        return Beat.PING
