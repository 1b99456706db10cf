"""The HTTP requests that are being answered, for whoever waits for their end."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import trio


class Answering:
    """Those of one process.

    Attributes:
        active: how many there are.
        closing: whether `drained` was called; the Django project's connections end with the response then.
    """

    def __init__(self) -> None:
        self.active = 0
        self.closing = False
        self._ended = trio.Event()

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """A block that answers one."""
        self.active += 1
        try:
            yield
        finally:
            self.active -= 1
            self._ended.set()

    async def drained(self) -> None:
        """Return when no request is being answered."""
        self.closing = True
        while self.active:
            self._ended = trio.Event()
            await self._ended.wait()
