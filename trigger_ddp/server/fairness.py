"""Keeps one client's messages from taking the event loop's time from all others.

Tasks take turns, so that no client waits for all messages of another. But turns are as long as what is done
in them, and whoever always has something to do slows the turns of all. So the time that a session's messages
take is counted, and who has used up his share rests, which TCP lets the client feel.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import trio

#: Seconds of work that a session may ask for at once after it was quiet.
BURST = 0.25
#: Seconds that a message counts for besides those of decoding it, and each of its characters: its frames are
#: read before anybody can count …
MESSAGE = 0.0001
CHARACTER = 25e-9
#: … and what a method or subscription does after it …
REQUEST = 0.0003
#: … and a live query that it is the first to want, for all that is done elsewhere to load it.
LOAD = 0.004


def cost(text: str) -> float:
    """Seconds that reading a message counts for, besides decoding it."""
    return MESSAGE + CHARACTER * len(text)


class Share:
    """One session's share of the event loop's time.

    Args:
        most: how much of each second it may take in the long run; 1: any.
    """

    def __init__(self, most: float) -> None:
        self._most = most
        self._credit = BURST
        self._at = trio.current_time()

    @contextmanager
    def spending(self, besides: float = 0.0) -> Iterator[None]:
        """A ``with`` block of work that does not wait; it counts with so many seconds ``besides``."""
        begun = time.thread_time()
        try:
            yield
        finally:
            self._credit -= time.thread_time() - begun + besides

    def charge(self, seconds: float) -> None:
        """Count work that was done elsewhere, as on a thread, which takes time from the loop as well."""
        self._credit -= seconds

    async def rest(self) -> None:
        """Leave the loop to others for as long as is fair; not at all where little was spent."""
        now = trio.current_time()
        self._credit = min(BURST, self._credit + (now - self._at) * self._most)
        self._at = now
        if self._credit < 0 and self._most < 1:
            await trio.sleep(-self._credit / self._most)
