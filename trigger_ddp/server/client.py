"""`this.connection`: the client's connection as methods and publications see it."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar

import trio

from trigger_ddp.protocol.session import Session
from trigger_ddp.server.connection import Connection

logger = logging.getLogger("trigger_ddp.session")


@dataclasses.dataclass(slots=True, eq=False)
class _Answer:
    """The method that runs here: whose client's, whether it wants to close that, and whether it has ended."""

    client: Client
    closing: bool = False
    over: bool = False


_answer: ContextVar[_Answer | None] = ContextVar("trigger_ddp.answer", default=None)


class Client:
    """One client's connection. May be used from any thread.

    Args:
        session: the DDP session.
        connection: what carries it.
        close: closes both; for the event loop.

    Attributes:
        connection: what carries the session now, or did last.
    """

    def __init__(self, session: Session, connection: Connection, close: Callable[[], object]) -> None:
        self.connection = connection
        self._session = session
        self._close = close
        self._token = trio.lowlevel.current_trio_token()
        self._ended = False
        self._on_close: list[Callable[[], object]] = []

    @property
    def id(self) -> str:
        """The session's id."""
        return self._session.id

    @property
    def client_address(self) -> str:
        """The address at the other end of the socket, without the port."""
        return self.connection.client_address

    @property
    def http_headers(self) -> Mapping[str, str]:
        """The headers of the request that opened the connection, by lower-case name."""
        return self.connection.request.http_headers

    def close(self) -> None:
        """Close the connection, soon; what was sent to the client before still goes out.

        A method that closes its own client's connection is done to its end, and its result goes out too.
        """
        answer = _answer.get()
        self._soon(lambda: self._close_after(answer))

    def on_close(self, callback: Callable[[], object]) -> None:
        """Have a plain function called once when the client is gone for good; soon if it is.

        A client whose connection is lost may come back for ``DDP_DISCONNECT_GRACE_PERIOD`` seconds. The
        function runs on the server's event loop and must not wait. What it raises is logged.
        """
        self._soon(lambda: self._call(callback) if self._ended else self._on_close.append(callback))

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """A ``with`` block that runs a method of this client: what it closes is closed after the block."""
        answer = _Answer(self)
        token = _answer.set(answer)
        try:
            yield
        finally:
            _answer.reset(token)
            answer.over = True
            if answer.closing:
                self._close()

    def ended(self) -> None:
        """The session has ended: tell those who wanted to know."""
        self._ended = True
        callbacks, self._on_close = self._on_close, []
        for callback in callbacks:
            self._call(callback)

    def _soon(self, function: Callable[[], object]) -> None:
        if trio.lowlevel.in_trio_run():
            function()
        else:
            self._token.run_sync_soon(function)

    def _close_after(self, answer: _Answer | None) -> None:
        if answer is not None and answer.client is self and not answer.over:
            answer.closing = True
        else:
            self._close()

    def _call(self, callback: Callable[[], object]) -> None:
        try:
            callback()
        except (Exception, SystemExit, KeyboardInterrupt):
            # A callback's sys.exit() must not end the server. Signals don't arrive as KeyboardInterrupt.
            logger.exception("an on_close callback failed")
