"""Runs the methods that clients call: functions marked ``@api_endpoint``."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Any

import trio
from django.db import transaction

from trigger_ddp import ejson
from trigger_ddp.api import API, this
from trigger_ddp.api.arguments import bind
from trigger_ddp.api.failures import as_meteor_error
from trigger_ddp.conf import Settings
from trigger_ddp.errors import MeteorError
from trigger_ddp.protocol.requests import Call
from trigger_ddp.server.metrics import Metrics
from trigger_ddp.server.workers import Workers

logger = logging.getLogger("trigger_ddp.methods")


class Invocation:
    """One method that a client has called.

    Args:
        call: what the client asked for.

    Attributes:
        call: the same.
        unblocked: set when the client's next message may be dealt with.
    """

    def __init__(self, call: Call) -> None:
        self.call = call
        self.unblocked = trio.Event()
        self._token = trio.lowlevel.current_trio_token()
        self._unblocked_itself = False

    def unblock(self) -> None:
        """Let the client's next message be dealt with. For any thread, and more than once."""
        if trio.lowlevel.in_trio_run():
            self.unblocked.set()
        else:
            self._token.run_sync_soon(self.unblocked.set)

    def unblock_itself(self) -> None:
        """``this.unblock()``: `unblock` by the method, which can't set the user afterwards."""
        self._unblocked_itself = True
        self.unblock()

    def may_set_user(self) -> None:
        """Raises: RuntimeError, since what runs beside the method would change under its hands."""
        if self._unblocked_itself:
            # The text of Meteor's server.
            raise RuntimeError("Can't call setUserId in a method after calling unblock")


async def run_method(
    invocation: Invocation,
    workers: Workers,
    context: dict[str, Any],
    settings: Settings,
    admit: Callable[[str], None],
    metrics: Metrics,
) -> bytes | None:
    """Run one method: a plain function on a worker thread in a transaction, an async one right here.

    Args:
        invocation: what the client asked for.
        workers: the threads.
        context: what `this` shows while it runs.
        settings: say which database's transaction a plain function runs in, if any.
        admit: called with the name of the method before it runs; raises `MeteorError` if it may not.
        metrics: where calls are counted.

    Returns:
        The result as EJSON, None where the method returned None.

    Raises:
        MeteorError: what the client is to be told; unexpected errors are logged here and become a 500.
    """
    call = invocation.call
    method = API.api_path_map().get(call.method)
    if method is None:
        raise MeteorError(404, f"Method '{call.method}' not found")
    admit(call.method)
    begun, failed = trio.current_time(), True
    try:
        arguments = bind(method, call.params)
        with this.bound(**context, random_seed=call.random_seed, unblock=invocation.unblock_itself):
            if inspect.iscoroutinefunction(method):
                value = method(*arguments)
            elif _is_atomic(method, settings):
                value = await workers.run(_in_transaction, settings.database, method, arguments)
            else:
                value = await workers.run(method, *arguments)
            if inspect.isawaitable(value):  # a decorator has made a plain function of an async one
                value = await value
        result = None if value is None else ejson.encode(value)
        failed = False
        return result
    except BaseExceptionGroup as group:  # of a nursery's tasks
        _, failure = group.split(trio.Cancelled)
        if failure is None:
            raise
        raise _for_the_client(call, failure) from None
    except (Exception, SystemExit, KeyboardInterrupt) as error:  # noqa: BLE001 - told or logged
        # An async method's sys.exit() must not end the server. Signals don't arrive as KeyboardInterrupt.
        raise _for_the_client(call, error) from None
    finally:
        metrics.method(call.method, trio.current_time() - begun, failed=failed)


def _for_the_client(call: Call, error: BaseException) -> MeteorError:
    told = as_meteor_error(error)
    if told is None:
        logger.error("method %s failed", call.method, exc_info=error)
        told = MeteorError(500, "Internal server error")
    return told


def _is_atomic(method: Callable[..., Any], settings: Settings) -> bool:
    """Whether a method runs in a transaction; Django's ``@transaction.non_atomic_requests`` says not."""
    return settings.atomic_methods and settings.database not in getattr(method, "_non_atomic_requests", ())


def _in_transaction(alias: str, method: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    with transaction.atomic(using=alias):
        return method(*arguments)
