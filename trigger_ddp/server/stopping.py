"""How a server ends: it accepts nobody, closes every session, and waits for what is being answered."""

from __future__ import annotations

import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable

import trio

from trigger_ddp.server.answering import Answering
from trigger_ddp.server.connection import SHUTTING_DOWN
from trigger_ddp.server.service import Service

logger = logging.getLogger("trigger_ddp.server")

#: Seconds from the first SIGINT or SIGTERM until sessions that don't close by themselves are cut …
DRAIN_SECONDS = 6.5


async def stop_at_signal(
    signals: AsyncIterator[int],
    hurry: Callable[[], Awaitable[object]],
    service: Service,
    answering: Answering,
    accepting: trio.CancelScope,
    everything: trio.CancelScope,
) -> None:
    """Drain at the first signal; give up draining when told to, or when it takes too long.

    Args:
        signals: those that end the server.
        hurry: returns when draining is to be given up.
        service: has the sessions.
        answering: the requests that are being answered.
        accepting: where new clients are accepted.
        everything: what is cancelled at last.
    """
    signum = await anext(signals)
    service.draining = True
    logger.info("%s: closing %d sessions", signal.Signals(signum).name, len(service.connections))
    accepting.cancel()
    with trio.move_on_after(DRAIN_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_after, hurry, nursery.cancel_scope)
            async with trio.open_nursery() as closing:
                closing.start_soon(answering.drained)
                for connection in (*service.connections.values(), *service.passed_on):
                    closing.start_soon(connection.close, *SHUTTING_DOWN)
            nursery.cancel_scope.cancel()
    everything.cancel()


async def _cancel_after(wait: Callable[[], Awaitable[object]], scope: trio.CancelScope) -> None:
    await wait()
    scope.cancel()
