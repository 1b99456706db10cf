"""The SockJS sessions without a WebSocket, found by the ids that their clients chose, and how many may be."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import NoReturn

import trio

from trigger_ddp.protocol.ending import Ending
from trigger_ddp.server.admission import NOWHERE
from trigger_ddp.server.connection import Connection, ConnectionClosed, Limits
from trigger_ddp.server.exchange import Request
from trigger_ddp.server.metrics import Metrics
from trigger_ddp.server.sockjs_session import SockJSSession

logger = logging.getLogger(__name__)

#: Seconds for which it is enough to have warned of refused sessions once.
_WARN_EVERY = 60.0


class TooManySessions(Exception):
    """No further session can be opened; the log has said why."""


class Sessions:
    """All sessions of a process.

    Args:
        on_connection: runs the whole DDP session of one; it is closed when this returns.
        limits: what one client, and all together, may take up.
        metrics: where sessions and their ends are counted.
    """

    def __init__(
        self,
        on_connection: Callable[[Connection], Awaitable[None]],
        limits: Limits,
        metrics: Metrics | None = None,
    ) -> None:
        self.limits = limits
        self._metrics = metrics or Metrics()
        self._on_connection = on_connection
        self._open: dict[str, SockJSSession] = {}
        self._of_address: Counter[str] = Counter()
        self._closed: dict[str, tuple[float, bytes]] = {}  # until when it is known, and the close frame
        self._warned_at = -math.inf
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the sessions that are opened, until cancelled."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()

    def find(self, key: str) -> SockJSSession | bytes | None:
        """The session of this id, or the close frame of one that is over, or None."""
        if session := self._open.get(key):
            return session
        self._forget()
        _, frame = self._closed.get(key, (0, None))
        return frame

    def open(self, key: str, request: Request) -> SockJSSession:
        """A new session; there is none of this id.

        Raises:
            TooManySessions: there are too many.
        """
        assert self._nursery is not None
        address = request.client_address
        if len(self._open) >= self.limits.sockjs_sessions:
            self._refuse("DDP_SOCKJS_SESSIONS are open")
        if address not in NOWHERE and self._of_address[address] >= self.limits.sockjs_sessions_per_address:
            self._refuse(f"DDP_SOCKJS_SESSIONS_PER_ADDRESS are open with {address}")
        while self._closed and len(self._open) + len(self._closed) >= self.limits.sockjs_sessions:
            del self._closed[next(iter(self._closed))]
        session = self._open[key] = SockJSSession(request, self.limits)
        self._of_address[address] += 1
        self._nursery.start_soon(self._run, key, session, name=f"SockJS session {request.client}")
        return session

    def _refuse(self, why: str) -> NoReturn:
        self._metrics.refusals["sockjs_sessions"] += 1
        now = trio.current_time()
        if now >= self._warned_at + _WARN_EVERY:
            self._warned_at = now
            logger.warning("SockJS clients are refused sessions over HTTP: %s", why)
        raise TooManySessions

    def _forget(self) -> None:
        """Forget the sessions that have been closed for long enough; the oldest are the first."""
        now = trio.current_time()
        while self._closed:
            key, (until, _) = next(iter(self._closed.items()))
            if until > now:
                return
            del self._closed[key]

    async def _run(self, key: str, session: SockJSSession) -> None:
        logger.debug("%r opened", session)
        self._metrics.connections[session.wire] += 1
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(session.watch)
                await self._converse(session)
                nursery.cancel_scope.cancel()
        finally:
            session.abort("the server is stopping", Ending.SHUTDOWN)
            self._metrics.disconnections[session.ending] += 1
            logger.debug("%r: %s", session, session.close_reason)
            del self._open[key]
            self._of_address[session.client_address] -= 1
            if not self._of_address[session.client_address]:
                del self._of_address[session.client_address]
            assert session.close_frame is not None
            self._closed[key] = trio.current_time() + self.limits.sockjs_disconnect_delay, session.close_frame

    async def _converse(self, session: SockJSSession) -> None:
        try:
            await self._on_connection(session)
        except ConnectionClosed:
            pass  # the session had nothing to add
        except Exception:
            logger.exception("the session of %r failed", session)
            await session.close(1011, "Internal server error")
        await session.close()
