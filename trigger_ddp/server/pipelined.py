"""A connection on which questions are asked one behind the other, without waiting for the answers.

That is libpq's pipeline mode, https://www.postgresql.org/docs/current/libpq-pipeline-mode.html. Each question
is prepared once, and some are answered together, in one transaction. What comes out of its order ends the
connection, so that nothing else can pass for an answer.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import math
from collections.abc import Awaitable, Callable, Generator, Sequence
from typing import Any

import psycopg
import trio
from django.db import connections
from psycopg import pq
from psycopg.adapt import Dumper, PyFormat, Transformer

from trigger_ddp.live.evaluation import Answers, Evaluation, Part, Question, Row, Statement
from trigger_ddp.server.database import LOCK_MILLISECONDS
from trigger_ddp.server.link import one_line

#: Milliseconds that a statement may run. Others wait behind it.
STATEMENT_MILLISECONDS = 500
#: Seconds without any answer after which all are asked elsewhere, on other connections.
SILENCE_SECONDS = 2.0
#: Statements that a connection keeps prepared: PostgreSQL has each in its memory.
MOST_PREPARED = 300

Steps = Generator[Question, Sequence[Row], Answers]


class LostError(Exception):
    """The connection is of no use any more; ``str()`` of it says why."""


class UnfitError(Exception):
    """There can't be a connection of any use; ``str()`` of it says why."""


class _PartDumper(Dumper):
    """Leaves a `Part` open, as a parameter of the prepared statement."""

    def dump(self, obj: Part) -> bytes:
        return b"$%d" % (obj.position + 1)

    quote = dump


@dataclasses.dataclass(eq=False, slots=True)
class Look:
    """An evaluation that was taken, and the question that it is at."""

    evaluation: Evaluation
    steps: Steps
    question: Question
    begun: float
    prepared: _Prepared | None = None
    result: pq.abc.PGresult | None = None
    error: str | None = None
    aborted: bool = False  # because of another one's error


@dataclasses.dataclass(eq=False, slots=True)
class _Prepared:
    """A statement that PostgreSQL was asked to prepare."""

    statement: Statement
    name: bytes
    confirmed: bool = False


#: Ends some questions that are answered together.
_SYNC = "sync"

#: What PostgreSQL was sent: a statement that it is to forget is there by its name.
_Sent = Look | _Prepared | bytes | str

#: What a connection of Django's is asked for a cursor by.
_CURSORS = ("cursor", "_cursor", "make_cursor", "create_cursor")


def open_cursor(alias: str) -> psycopg.Cursor[Any]:
    """A cursor of a connection as Django makes them, with all that its settings and signals do.

    Raises:
        UnfitError: what a thread asks on such a connection may be answered differently.
        Exception: there is none.
    """
    if not psycopg.capabilities.has_pipeline():
        raise UnfitError("libpq is older than version 14")
    wrapper: Any = connections.create_connection(alias)
    options = {name: value for name, value in wrapper.settings_dict["OPTIONS"].items() if name != "pool"}
    wrapper.settings_dict = {**wrapper.settings_dict, "OPTIONS": options, "AUTOCOMMIT": True}
    try:
        with wrapper.cursor() as cursor:
            cursor.execute("SELECT pg_catalog.pg_backend_pid()")
            if cursor.fetchone() != (wrapper.connection.info.backend_pid,):
                raise UnfitError("a proxy that pools is in between")
            # Not before: the proxy would keep it. By one statement each, which any kind of cursor can run.
            for name, value in (("lock", LOCK_MILLISECONDS), ("statement", STATEMENT_MILLISECONDS)):
                cursor.execute(f"SET {name}_timeout = {value}")
        driver: psycopg.Connection[Any] = wrapper.connection
        if driver.pgconn.transaction_status != pq.TransactionStatus.IDLE:
            raise UnfitError("its connections are always in a transaction")
        found: psycopg.Cursor[Any] = wrapper.create_cursor()
        makers = [type(found), *(getattr(wrapper, name) for name in _CURSORS)]
        if wrapper.execute_wrappers or not all(one.__module__.startswith("django.") for one in makers):
            raise UnfitError("statements are run by more than Django")
        driver.adapters.register_dumper(Part, _PartDumper)
        driver.pgconn.nonblocking = 1
        driver.pgconn.enter_pipeline_mode()
    except BaseException:
        wrapper.close()
        raise
    return found


class PipelinedConnection:
    """The connection and what is under way on it.

    Attributes:
        under_way: the looks that were asked and are not concluded, also if the connection is lost.
    """

    def __init__(self, cursor: psycopg.Cursor[Any]) -> None:
        self._driver = cursor.connection
        self._pgconn = self._driver.pgconn
        self._composer: psycopg.ClientCursor[Any] = psycopg.ClientCursor(self._driver)
        self._transformer = Transformer(cursor)
        self.under_way: set[Look] = set()
        self._flying: collections.deque[_Sent] = collections.deque()
        self._prepared: collections.OrderedDict[Statement, _Prepared] = collections.OrderedDict()
        self._forgotten: list[bytes] = []  # names of those that PostgreSQL is to forget, too
        self._names = itertools.count(1)
        self._error: str | None = None  # why what follows is aborted
        self._answered: list[Look] = []  # of those that are answered together
        self._dealt_with = False  # the first of what is flying
        self._unsent = False
        self._overdue = False
        self._nap: trio.CancelScope | None = None
        self._lost: str | None = None

    def close(self) -> None:
        """Close it; what is under way is not answered any more."""
        self._driver.close()

    def lose(self, why: str) -> None:
        """Have `wait` raise `LostError`."""
        self._lost = why
        if self._nap is not None:
            self._nap.cancel()

    def room(self, most: int) -> int:
        """How many more questions may be asked for ``most`` to be under way."""
        return most - len(self.under_way) if self._lost is None else 0

    # -- asking ---------------------------------------------------------------------------------

    def values(self, question: Question) -> Sequence[Any]:
        """What a question is about, as parameters; raises whatever psycopg does where that can't be."""
        columns = [list(column) for column in zip(*question.tuples, strict=True)]
        return self._transformer.dump_sequence(columns, [PyFormat.TEXT] * len(columns))

    def sql(self, question: Question) -> bytes:
        """What to prepare for a question, empty if it has been; raises likewise."""
        statement = question.statement
        if statement in self._prepared:
            return b""
        return self._composer.mogrify(statement.sql, statement.params).encode()

    def ask(self, look: Look, sql: bytes, values: Sequence[Any]) -> None:
        """Put a question into libpq's buffer."""
        self.under_way.add(look)
        statement = look.question.statement
        look.prepared = self._prepared.get(statement) or self._prepare(statement, sql)
        self._prepared.move_to_end(statement)
        self._pgconn.send_query_prepared(look.prepared.name, values)
        self._flying.append(look)

    def _prepare(self, statement: Statement, sql: bytes) -> _Prepared:
        if len(self._prepared) >= MOST_PREPARED:
            self._forget(next(iter(self._prepared.values())))
        for name in self._forgotten:
            self._pgconn.send_query_params(b"DEALLOCATE " + name, None)
            self._flying.append(name)
        self._forgotten.clear()
        prepared = self._prepared[statement] = _Prepared(statement, b"tddp_%d" % next(self._names))
        self._pgconn.send_prepare(prepared.name, sql)
        self._flying.append(prepared)
        return prepared

    def _forget(self, prepared: _Prepared) -> None:
        if self._prepared.get(prepared.statement) is prepared:
            del self._prepared[prepared.statement]
            self._forgotten.append(prepared.name)

    def sync(self) -> None:
        """What was asked since the last time is answered together."""
        self._flying.append(_SYNC)
        self._pgconn.pipeline_sync()

    def flush(self) -> None:
        """Write to the socket what it takes."""
        self._unsent = self._pgconn.flush() != 0
        if self._nap is not None:
            if self._unsent:
                self._nap.cancel()
            elif self._nap.deadline == math.inf:
                self._nap.deadline = trio.current_time() + SILENCE_SECONDS

    # -- answers --------------------------------------------------------------------------------

    async def wait(self) -> None:
        """Return when there may be something to `receive`."""
        deadline = trio.current_time() + SILENCE_SECONDS if self._flying else math.inf
        with trio.CancelScope(deadline=deadline) as self._nap:
            try:
                if self._lost is None:
                    await (self._wait_for_either() if self._unsent else self._readable())
            finally:
                deadline, self._nap = self._nap.deadline, None
        if self._lost is not None:
            raise LostError(self._lost)
        self._overdue = trio.current_time() >= deadline

    async def _readable(self) -> None:
        await trio.lowlevel.wait_readable(self._pgconn.socket)

    async def _wait_for_either(self) -> None:
        # Readable as well as writable: PostgreSQL does not read our rest while it can't write its own.
        socket = self._pgconn.socket
        async with trio.open_nursery() as nursery:

            async def ready(wait: Callable[[int], Awaitable[None]]) -> None:
                await wait(socket)
                nursery.cancel_scope.cancel()

            nursery.start_soon(ready, trio.lowlevel.wait_readable)
            nursery.start_soon(ready, trio.lowlevel.wait_writable)

    def receive(self) -> list[Look]:
        """Read what is there: the looks that PostgreSQL has dealt with, each with its result or error."""
        if self._unsent:
            self._unsent = self._pgconn.flush() != 0
        self._pgconn.consume_input()
        ended: list[Look] = []
        while self._flying and not self._pgconn.is_busy():
            self._deal_with(self._flying[0], self._pgconn.get_result(), ended)
            self._overdue = False
        if self._overdue:  # and not only seen late
            raise LostError(f"PostgreSQL has been silent for {SILENCE_SECONDS:g} s")
        if not ended and self._pgconn.status != pq.ConnStatus.OK:
            raise LostError("closed")
        return ended

    def _deal_with(self, current: _Sent, result: pq.abc.PGresult | None, ended: list[Look]) -> None:
        status = None if result is None else result.status
        if result is None:
            # Also if there is no connection any more. Then nothing may pass for an answer.
            if not self._dealt_with:
                raise LostError("it was closed, or an answer has nothing that it belongs to")
            self._dealt_with = False
            if current is not _SYNC:  # else its error is dealt with, and it is still to come
                self._flying.popleft()
            if isinstance(current, Look):
                self._answered.append(current)
            return
        if status == pq.ExecStatus.PIPELINE_SYNC and current is _SYNC:
            self._flying.popleft()
            # Not before: the end of the transaction may fail.
            ended += self._answered
            self._answered.clear()
            self._error, self._dealt_with = None, False
            return
        self._dealt_with = True
        if status == pq.ExecStatus.TUPLES_OK and isinstance(current, Look):
            current.result = result
        elif status == pq.ExecStatus.COMMAND_OK and isinstance(current, (_Prepared, bytes)):
            if isinstance(current, _Prepared):
                current.confirmed = True
        elif status in (pq.ExecStatus.FATAL_ERROR, pq.ExecStatus.PIPELINE_ABORTED):
            self._failed(current, result)
        else:
            raise LostError(f"an answer that was not asked for, of status {status}")

    def _failed(self, current: _Sent, result: pq.abc.PGresult) -> None:
        """What was asked has failed, or follows what has."""
        aborted = result.status == pq.ExecStatus.PIPELINE_ABORTED
        error = one_line(result.error_message.decode(errors="replace"))
        if isinstance(current, Look):
            assert current.prepared is not None
            # Of what could not be prepared, the look that follows is the one that failed.
            current.aborted = self._error is None and (aborted or not current.prepared.confirmed)
            current.error = self._error or error
            self._error = None
            if not aborted:
                self._forget(current.prepared)  # the plan may be the reason: of a table that was altered
        elif isinstance(current, _Prepared):
            if self._prepared.get(current.statement) is current:
                del self._prepared[current.statement]
            if not aborted:
                self._error = error
        elif isinstance(current, bytes):
            if aborted:
                self._forgotten.append(current)
        else:  # the end of the transaction, and all that it has answered is void
            for look in self._answered:
                look.aborted = True

    def read(self, result: pq.abc.PGresult) -> Sequence[Row]:
        """The rows of a result, as psycopg gives them."""
        if not result.ntuples:
            return ()
        self._transformer.set_pgresult(result)
        rows: Sequence[Row] = self._transformer.load_rows(0, result.ntuples, tuple)
        return rows
