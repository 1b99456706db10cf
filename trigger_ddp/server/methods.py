"""Runs the methods that clients call: functions marked ``@api_endpoint``."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Any

from django.db import transaction

from trigger_ddp import ejson
from trigger_ddp.api import API, this
from trigger_ddp.api.arguments import bind
from trigger_ddp.api.failures import as_meteor_error
from trigger_ddp.errors import MeteorError
from trigger_ddp.protocol.requests import Call
from trigger_ddp.server.workers import Workers

logger = logging.getLogger("trigger_ddp.methods")


async def run_method(call: Call, workers: Workers, context: dict[str, Any], alias: str) -> bytes | None:
    """Run one method: a plain function on a worker thread in a transaction, an async one right here.

    Args:
        call: what the client asked for.
        workers: the threads.
        context: what `this` shows while it runs.
        alias: the database whose transaction a plain function runs in.

    Returns:
        The result as EJSON, None where the method returned None.

    Raises:
        MeteorError: what the client is to be told; unexpected errors are logged here and become a 500.
    """
    method = API.api_path_map().get(call.method)
    if method is None:
        raise MeteorError(404, f"Method '{call.method}' not found")
    try:
        arguments = bind(method, call.params)
        with this.bound(**context, random_seed=call.random_seed):
            if inspect.iscoroutinefunction(method):
                value = method(*arguments)
            else:
                value = await workers.run(_in_transaction, alias, method, arguments)
            if inspect.isawaitable(value):  # a decorator has made a plain function of an async one
                value = await value
        return None if value is None else ejson.encode(value)
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        if (told := as_meteor_error(error)) is not None:
            raise told from None
        # An async method's sys.exit() must not end the server. Signals don't arrive as KeyboardInterrupt.
        logger.exception("method %s failed", call.method)
        raise MeteorError(500, "Internal server error") from None


def _in_transaction(alias: str, method: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    with transaction.atomic(using=alias):
        return method(*arguments)
