"""Callbacks as an application registers them: `API.on_connection`, `API.on_message`, `API.on_reload`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any


class Hook:
    """Callbacks in the order in which they were registered.

    Args:
        name: what the registry calls it, for the log.

    Attributes:
        callbacks: replaced, never changed: whoever goes through them may add or remove some.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.callbacks: tuple[Callable[..., Any], ...] = ()

    def register(self, callback: Callable[..., Any]) -> None:
        """Have ``callback`` called from now on, once however often it is registered.

        Raises:
            TypeError: it can't be called.
        """
        if not callable(callback):
            raise TypeError(f"API.{self.name} takes a function, not {type(callback).__name__}")
        if callback not in self.callbacks:
            self.callbacks = (*self.callbacks, callback)

    def remove(self, callback: Callable[..., Any]) -> bool:
        """Have it called no more. Returns whether it was registered."""
        before = self.callbacks
        self.callbacks = tuple(one for one in before if one != callback)
        return len(self.callbacks) < len(before)

    @contextlib.contextmanager
    def restored(self) -> Iterator[None]:
        """A ``with`` block whose registrations are undone at its end; for tests."""
        before = self.callbacks
        try:
            yield
        finally:
            self.callbacks = before
