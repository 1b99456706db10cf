"""Stop requests that arrive at any moment, and are only looked at where nothing can be left half done."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

#: What `signal.signal` takes and returns.
Handler = Callable[[int, FrameType | None], Any] | int | signal.Handlers | None

NOTED_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequested(Exception):
    """Somebody asked the program to end."""


class StopSignals:
    """While active, SIGINT and SIGTERM only leave a note; `check` raises once there is one.

    A KeyboardInterrupt can strike between the creation of a process or a directory and the line that
    would remember it; a note cannot. SIGHUP, which the end of a terminal sends, becomes a SIGTERM: also
    while somebody else handles that, such as the running server.
    """

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[signal.Signals, Handler] = {}

    def __enter__(self) -> Self:
        for number in NOTED_SIGNALS:
            self._replace(number, self._note)
        self._replace(signal.SIGHUP, self._hung_up)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _replace(self, number: signal.Signals, handler: Handler) -> None:
        self._previous[number] = signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = True

    def _hung_up(self, number: int, frame: FrameType | None) -> None:
        signal.raise_signal(signal.SIGTERM)

    def check(self) -> None:
        """Raise StopRequested if a stop signal has arrived."""
        if self.requested:
            raise StopRequested
