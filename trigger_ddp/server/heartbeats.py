"""Every session's heartbeat, kept by one task: a task for each would be a good part of an idle session."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable

import trio

from trigger_ddp.protocol.heartbeat import Beat, Heartbeat


class Heartbeats:
    """Calls back whoever `add`s a heartbeat, when its next beat is due."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        # With a number, so that no two are equal. One that was removed stays until it would be due.
        self._due: list[tuple[float, int, Heartbeat]] = []
        self._callbacks: dict[Heartbeat, Callable[[Beat], object]] = {}
        self._sleep = trio.CancelScope()

    def add(self, heartbeat: Heartbeat, callback: Callable[[Beat], object]) -> None:
        """From now on call back with each of its beats, until `remove`."""
        self._callbacks[heartbeat] = callback
        self._push(heartbeat)

    def remove(self, heartbeat: Heartbeat) -> None:
        """Call back no more."""
        self._callbacks.pop(heartbeat, None)

    def _push(self, heartbeat: Heartbeat) -> None:
        due = heartbeat.next
        heapq.heappush(self._due, (due, next(self._numbers), heartbeat))
        self._sleep.deadline = min(self._sleep.deadline, due)

    async def run(self) -> None:
        """Run until cancelled."""
        while True:
            with trio.CancelScope(deadline=self._due[0][0] if self._due else math.inf) as self._sleep:
                await trio.sleep_forever()
            now = trio.current_time()
            while self._due and self._due[0][0] <= now:
                _, _, heartbeat = heapq.heappop(self._due)
                callback = self._callbacks.get(heartbeat)
                if callback is not None:
                    callback(heartbeat.beat(now))
                    if heartbeat in self._callbacks:
                        self._push(heartbeat)
