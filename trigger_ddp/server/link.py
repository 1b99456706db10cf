"""An open psycopg connection, spoken to from trio without blocking it.

psycopg's async connection is asyncio's. This goes through ``connection.pgconn`` instead, psycopg's documented
wrapper of libpq's non-blocking calls. Compared with `Connection.execute()` and `Connection.notifies()`, it
needs no thread for a statement (which could not be cancelled while the network stalls), receives
notifications while a statement runs, and finds what libpq has left in TLS's buffer.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

import psycopg
import trio
from psycopg import pq, sql

T = TypeVar("T")

#: Notifications that one `Link.receive` returns at most.
BATCH = 1000


class LinkLostError(Exception):
    """The connection is no more, or can't be made; ``str()`` of it is one line that says why."""


@dataclasses.dataclass(frozen=True, slots=True)
class Reply:
    """How a statement ended.

    Args:
        error: PostgreSQL's message if it was not executed, else None.
        row: the columns of the first row that came back, as text; empty if none did.
    """

    error: str | None
    row: tuple[str | None, ...] = ()


class Link:
    """An open connection in one task's hands: `send`, `wait`, `receive`, `take_reply`, over and over.

    Args:
        connection: in autocommit mode, with UTF8 as its client encoding. From now on it belongs to the link.
    """

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self._pgconn = connection.pgconn
        self._running = False
        self._results: list[pq.abc.PGresult] = []
        self._reply: Reply | None = None
        self._unsent = False  # libpq holds bytes that the socket did not take
        self._more = False  # libpq may hold notifications that `receive` has not returned
        self._farewell: str | None = None
        connection.add_notice_handler(self._on_notice)

    def close(self) -> None:
        """Close the connection; a statement that is running may or may not be executed."""
        self._connection.close()

    @property
    def busy(self) -> bool:
        """Whether a statement has been sent whose reply was not yet taken."""
        return self._running

    def send(self, statement: sql.Composable) -> None:
        """Start a statement, or several separated by semicolons, which then commit together.

        Raises:
            LinkLostError: the connection is lost.
        """
        assert not self._running, "one statement at a time"
        self._running = True
        with self._losing():
            self._pgconn.send_query(statement.as_bytes(self._connection))
            self._unsent = self._pgconn.flush() != 0

    async def wait(self) -> None:
        """Return when there is something to `receive`."""
        if self._more:
            await trio.lowlevel.checkpoint()
        elif self._unsent:
            await self._wait_for_either()
        else:
            await trio.lowlevel.wait_readable(self._pgconn.socket)

    async def _wait_for_either(self) -> None:
        # Readable as well as writable: PostgreSQL does not read our rest while it can't write its own.
        async with trio.open_nursery() as nursery:

            async def ready(wait: Callable[[int], Awaitable[None]]) -> None:
                await wait(self._pgconn.socket)
                nursery.cancel_scope.cancel()

            nursery.start_soon(ready, trio.lowlevel.wait_readable)
            nursery.start_soon(ready, trio.lowlevel.wait_writable)

    def receive(self) -> list[pq.PGnotify]:
        """Read what is there, without waiting; return at most `BATCH` notifications, in their order.

        Raises:
            LinkLostError: the connection is lost.
        """
        notifications: list[pq.PGnotify] = []
        with self._losing():
            if self._unsent:
                self._unsent = self._pgconn.flush() != 0
            self._more = True
            while self._more and len(notifications) < BATCH:
                before = len(notifications)
                # The first round reads the socket. The next finds nothing there as a rule; but under TLS
                # older libpqs leave the end of a record in OpenSSL, where no wait for the socket finds it.
                self._pgconn.consume_input()
                self._collect_results()  # first: libpq looks behind a result only after it was taken
                while len(notifications) < BATCH and (notification := self._pgconn.notifies()):
                    notifications.append(notification)
                self._more = len(notifications) > before
        return notifications

    def take_reply(self) -> Reply | None:
        """The reply to the statement, once, as soon as `receive` has read it; the next may then be sent."""
        reply, self._reply = self._reply, None
        if reply is not None:
            self._running = False
        return reply

    def _collect_results(self) -> None:
        while self._running and self._reply is None and not self._pgconn.is_busy():
            result = self._pgconn.get_result()
            if result is not None:
                self._results.append(result)
            elif self._pgconn.status != pq.ConnStatus.OK:
                raise psycopg.OperationalError(_message(self._results[-1]) if self._results else "closed")
            else:
                self._reply, self._results = _reply(self._results), []

    def _on_notice(self, notice: psycopg.errors.Diagnostic) -> None:
        # Why PostgreSQL hangs up while no statement runs: libpq has only a notice for that.
        if notice.severity_nonlocalized in ("FATAL", "PANIC"):
            self._farewell = notice.message_primary

    @contextlib.contextmanager
    def _losing(self) -> Iterator[None]:
        """In this block an error of libpq's means that the connection is lost."""
        try:
            yield
        except psycopg.Error as error:
            raise LinkLostError(self._farewell or one_line(str(error))) from error


async def connect(conninfo: str) -> psycopg.Connection[Any]:
    """Connect, in a thread, which nobody waits for if this is cancelled; raises LinkLostError."""
    try:
        return await opened(
            lambda: psycopg.connect(conninfo, autocommit=True), lambda connection: connection.close()
        )
    except psycopg.Error as error:
        raise LinkLostError(one_line(str(error))) from error


async def opened(make: Callable[[], T], close: Callable[[T], object]) -> T:
    """What ``make`` returns, on a thread. If cancelled, what the thread may yet make is closed there."""
    lock = threading.Lock()
    made: list[T] = []
    abandoned = False

    def open_it() -> None:
        one = make()
        with lock:
            if abandoned:
                close(one)
            else:
                made.append(one)

    try:
        await trio.to_thread.run_sync(open_it, abandon_on_cancel=True)
    except BaseException:
        with lock:
            abandoned = True
            for one in made:
                close(one)
        raise
    return made[0]


def one_line(text: str) -> str:
    """libpq's messages have several lines and tabs; a log line has none."""
    return " ".join(text.split())


def _reply(results: list[pq.abc.PGresult]) -> Reply:
    for result in results:
        if result.status == pq.ExecStatus.FATAL_ERROR:
            return Reply(_message(result))
    for result in results:
        if result.ntuples:
            values = [result.get_value(0, column) for column in range(result.nfields)]
            return Reply(None, tuple(None if value is None else value.decode() for value in values))
    return Reply(None)


def _message(result: pq.abc.PGresult) -> str:
    message = result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or result.error_message
    return one_line(message.decode(errors="replace"))
