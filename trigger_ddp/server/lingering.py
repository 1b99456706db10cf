"""Live queries that nobody wants at the moment, kept for a while in case somebody comes back to them."""

from __future__ import annotations

import math
from collections.abc import Callable

import trio

from trigger_ddp.live.query import LiveQuery

#: Live queries that may linger at a time: whoever subscribes in a loop must not fill the memory …
MOST_LINGERING = 1000
#: … and of those that share no statement with others, each of which is a query more whenever a row changes.
MOST_LINGERING_ALONE = 50


class Lingering:
    """What lingers, each for equally long.

    Args:
        seconds: for how long.
        release: called with a live query that has lingered long enough.
    """

    def __init__(self, seconds: float, release: Callable[[LiveQuery], None]) -> None:
        self._seconds = seconds
        self._release = release
        # Until when, in the order in which they were let go.
        self._sharing: dict[LiveQuery, float] = {}
        self._alone: dict[LiveQuery, float] = {}

    def add(self, query: LiveQuery) -> None:
        """Keep a live query for a while; perhaps another one goes, because there are too many."""
        self._among(query)[query] = trio.current_time() + self._seconds
        self.end_due()

    def take(self, query: LiveQuery) -> bool:
        """Somebody wants a live query again. Returns whether it lingered."""
        return self._among(query).pop(query, None) is not None

    def end_due(self) -> None:
        """Release those whose time is over."""
        now = trio.current_time()
        for lingering, most in (self._sharing, MOST_LINGERING), (self._alone, MOST_LINGERING_ALONE):
            while lingering:
                query, until = next(iter(lingering.items()))
                if until > now and len(lingering) <= most:
                    break
                del lingering[query]
                self._release(query)

    @property
    def next_due(self) -> float:
        """When the next one's time is over; infinity if none lingers."""
        return min(next(iter(one.values()), math.inf) for one in (self._sharing, self._alone))

    def _among(self, query: LiveQuery) -> dict[LiveQuery, float]:
        return self._sharing if query.shape.compiled.lifted else self._alone
