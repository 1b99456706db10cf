"""Calls what the application has registered with `API.on_connection` and `API.on_message`."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import trio

from trigger_ddp.api import this
from trigger_ddp.api.hooks import Hook

logger = logging.getLogger("trigger_ddp.hooks")

#: Async callbacks of one session that may run at a time before its next message has to wait: a client
#: must not be able to fill the memory with them.
MOST_RUNNING = 100


class Hooks:
    """Runs callbacks for one session.

    Args:
        nursery: for async callbacks; its cancellation ends them.
        context: what `this` shows to them.
    """

    def __init__(self, nursery: trio.Nursery, context: Callable[[], dict[str, Any]]) -> None:
        self._nursery = nursery
        self._context = context
        self._running = 0
        self._room: trio.Event | None = None  # while somebody waits for it

    def call(self, hook: Hook, *arguments: Any) -> None:
        """Call a hook's callbacks; async ones go on by themselves. What they raise is logged."""
        for callback in hook.callbacks:
            context = self._context()
            try:
                with this.bound(**context):
                    returned = callback(*arguments)
            except (Exception, SystemExit, KeyboardInterrupt):  # noqa: BLE001 - logged
                # A callback's sys.exit() must not end the server. Signals don't arrive as KeyboardInterrupt.
                _log_failure(hook, callback)
            else:
                if inspect.iscoroutine(returned):
                    self._running += 1
                    self._nursery.start_soon(self._finish, hook, callback, returned, context)

    async def wait_for_room(self) -> None:
        """Wait until not too many async callbacks run."""
        while self._running >= MOST_RUNNING:
            self._room = self._room or trio.Event()
            await self._room.wait()

    async def _finish(
        self,
        hook: Hook,
        callback: Callable[..., Any],
        coroutine: Coroutine[Any, Any, object],
        context: dict[str, Any],
    ) -> None:
        try:
            with this.bound(**context):
                await coroutine
        except BaseExceptionGroup as group:
            _, failure = group.split(trio.Cancelled)
            if failure is None:
                raise
            _log_failure(hook, callback)
        except (Exception, SystemExit, KeyboardInterrupt):  # noqa: BLE001 - logged
            _log_failure(hook, callback)
        finally:
            self._running -= 1
            if self._room is not None:
                self._room.set()
                self._room = None


def _log_failure(hook: Hook, callback: Callable[..., Any]) -> None:
    name = getattr(callback, "__qualname__", None) or repr(callback)
    module = getattr(callback, "__module__", None)
    logger.exception("API.%s: %s failed", hook.name, f"{module}.{name}" if module else name)
