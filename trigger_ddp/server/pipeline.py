"""Looks at changed rows over one connection, straight from the event loop.

Most changes concern a row or two, and what PostgreSQL needs for those is less than handing a question to a
thread and its answer back costs. So they are asked here: prepared, and one behind the other without waiting
for the answers, in libpq's pipeline mode, https://www.postgresql.org/docs/current/libpq-pipeline-mode.html.

All that is out of the ordinary is left to the threads of `server.database`, which can do everything: what
calls code of the application, many rows, what takes its time, what fails; and everything while there is no
connection. So nothing depends on this but the speed.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import logging
import math
from collections.abc import Awaitable, Callable, Generator, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import psycopg
import trio
from django.db import connections
from psycopg import pq
from psycopg.adapt import Dumper, PyFormat, Transformer

from trigger_ddp.live.compiled import CompiledShape
from trigger_ddp.live.evaluation import Answers, Evaluation, Part, Question, Row, Statement
from trigger_ddp.server.backoff import Backoff
from trigger_ddp.server.database import LOCK_MILLISECONDS
from trigger_ddp.server.link import one_line

logger = logging.getLogger(__name__)

#: Rows that are asked about at most, and rows of an answer that are read: more would hold up the event loop.
MOST_KEYS, MOST_ROWS = 200, 500
#: Questions under way at most, and those that are answered together.
MOST_ASKED, TOGETHER = 32, 8
#: Milliseconds that a statement may run. Others wait behind it.
STATEMENT_MILLISECONDS = 500
#: Seconds for which a shape is left to the threads that took too long, or failed.
ELSEWHERE_SECONDS = 30.0
#: Seconds without any answer after which all are asked elsewhere, on other connections.
SILENCE_SECONDS = 2.0
#: Statements that a connection keeps prepared: PostgreSQL has each in its memory.
MOST_PREPARED = 300

Steps = Generator[Question, Sequence[Row], Answers]


class _Lost(Exception):
    """The connection is of no use any more; ``str()`` of it says why."""


class _PartDumper(Dumper):
    """Leaves a `Part` open, as a parameter of the prepared statement."""

    def dump(self, obj: Part) -> bytes:
        return b"$%d" % (obj.position + 1)

    quote = dump


@dataclasses.dataclass(eq=False, slots=True)
class _Look:
    """An evaluation that was taken, and the question that it is at."""

    evaluation: Evaluation
    steps: Steps
    question: Question
    begun: float
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


class Pipeline:
    """Runs evaluations that look at rows, if they are simple enough.

    Args:
        alias: the database, connected to as Django connects.
        answered: called with an evaluation, its answers, and how many seconds it took.
        unanswered: called with an evaluation that was taken, and that is to be run in another way after all.
        settled: called when no more answers are there at the moment.
    """

    def __init__(
        self,
        alias: str,
        answered: Callable[[Evaluation, Answers, float], None],
        unanswered: Callable[[Evaluation], None],
        settled: Callable[[], None],
    ) -> None:
        self._alias = alias
        self._answered, self._unanswered, self._settled = answered, unanswered, settled
        self._connection: _Connection | None = None
        self._waiting: collections.deque[_Look] = collections.deque()
        self._elsewhere: WeakKeyDictionary[CompiledShape, float] = WeakKeyDictionary()  # until when

    @property
    def connected(self) -> bool:
        """Whether it takes anything now."""
        return self._connection is not None

    # -- asking ---------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether anything is under way."""
        return self._connection is not None and bool(self._waiting or self._connection.under_way)

    def take(self, evaluation: Evaluation) -> bool:
        """Begin an evaluation for `send` to send; False if it belongs to a thread."""
        if self._connection is None or evaluation.queries or not self._is_simple(evaluation):
            return False
        steps = evaluation.steps()
        try:
            question = next(steps)
        except StopIteration:
            return False  # there is nothing to ask, and no hurry
        self._waiting.append(_Look(evaluation, steps, question, trio.current_time()))
        return True

    def _is_simple(self, evaluation: Evaluation) -> bool:
        compiled = evaluation.shape.compiled
        if not compiled.looks_plainly:
            return False
        if len(evaluation.keys) + sum(len(values) for _, values in evaluation.follow) > MOST_KEYS:
            return False
        until = self._elsewhere.get(compiled)
        if until is None:
            return True
        if until > trio.current_time():
            return False
        del self._elsewhere[compiled]
        return True

    def send(self) -> None:
        """Send what was taken, as far as not too much is under way."""
        connection = self._connection
        if connection is None or not self._waiting:
            return
        try:
            while self._waiting and (room := connection.room) > 0:
                for _ in range(min(TOGETHER, room, len(self._waiting))):
                    connection.ask(self._waiting.popleft())
                connection.sync()
            connection.flush()
        except (psycopg.Error, _Lost) as error:
            # The task sees it, too; what is under way it gives back.
            connection.lose(str(error))

    # -- the task -------------------------------------------------------------------------------

    async def run(self) -> None:
        """Run until cancelled."""
        backoff = Backoff(least=0.5, most=30.0)
        while True:
            try:
                driver = await trio.to_thread.run_sync(_open, self._alias, abandon_on_cancel=True)
            except Exception as error:  # noqa: BLE001  whatever Django or a signal's receiver raises
                logger.debug("no connection for looking at single rows: %s", error)
            else:
                if driver is None:
                    logger.info("a proxy that pools is in between: threads look at all changed rows")
                    return
                backoff.succeeded(trio.current_time())
                await self._serve(_Connection(driver))
            await trio.sleep(backoff.failed(trio.current_time()))

    async def _serve(self, connection: _Connection) -> None:
        """Answer until the connection is lost."""
        self._connection = connection
        try:
            while True:
                await connection.wait()
                for look in connection.receive():
                    connection.under_way.remove(look)
                    self._conclude(connection, look)
                self.send()
                self._settled()
        except (psycopg.Error, _Lost) as error:
            logger.debug("the connection for looking at single rows is lost: %s", error)
        finally:
            self._connection = None
            connection.close()
        given_back = [*connection.under_way, *self._waiting]
        self._waiting.clear()
        for look in given_back:
            self._give_back(look)
        self._settled()

    def _conclude(self, connection: _Connection, look: _Look) -> None:
        if look.aborted or (look.result is not None and look.result.ntuples > MOST_ROWS):
            self._give_back(look)
            return
        if look.result is None:
            self._leave(look, look.error or "there was no answer")
            return
        try:
            question = look.steps.send(connection.read(look.result))
        except StopIteration as end:
            self._answered(look.evaluation, end.value, trio.current_time() - look.begun)
        except Exception as error:  # noqa: BLE001  a thread meets it again, and tells it
            self._leave(look, repr(error))
        else:
            if len(question.tuples) > MOST_KEYS:
                self._give_back(look)
            else:
                self._waiting.append(_Look(look.evaluation, look.steps, question, look.begun))

    def _leave(self, look: _Look, error: str) -> None:
        """Give back what failed, and take nothing more of its shape for a while."""
        logger.debug("looking at single rows of a query is left to threads: %s", error)
        self._elsewhere[look.evaluation.shape.compiled] = trio.current_time() + ELSEWHERE_SECONDS
        self._give_back(look)

    def _give_back(self, look: _Look) -> None:
        look.steps.close()
        self._unanswered(look.evaluation)


def _open(alias: str) -> psycopg.Connection[Any] | None:
    """A connection as Django makes them, with all that its settings and signals do; None if it is pooled."""
    wrapper: Any = connections.create_connection(alias)
    options = {name: value for name, value in wrapper.settings_dict["OPTIONS"].items() if name != "pool"}
    wrapper.settings_dict = {**wrapper.settings_dict, "OPTIONS": options, "AUTOCOMMIT": True}
    try:
        with wrapper.cursor() as cursor:
            cursor.execute("SELECT pg_catalog.pg_backend_pid()")
            if cursor.fetchone() != (wrapper.connection.info.backend_pid,):
                wrapper.close()
                return None
            cursor.execute(
                f"SET lock_timeout = {LOCK_MILLISECONDS}; SET statement_timeout = {STATEMENT_MILLISECONDS}"
            )
    except BaseException:
        wrapper.close()
        raise
    driver: psycopg.Connection[Any] = wrapper.connection
    return driver


class _Connection:
    """The connection and what is under way on it.

    Attributes:
        under_way: the looks that were asked and are not concluded, also if the connection is lost.
    """

    def __init__(self, driver: psycopg.Connection[Any]) -> None:
        self._driver = driver
        self._pgconn = driver.pgconn
        driver.adapters.register_dumper(Part, _PartDumper)
        self._composer: psycopg.ClientCursor[Any] = psycopg.ClientCursor(driver)
        self._transformer = Transformer(driver)
        self._pgconn.nonblocking = 1
        self._pgconn.enter_pipeline_mode()
        self.under_way: set[_Look] = set()
        self._flying: collections.deque[_Look | _Prepared | str] = collections.deque()
        self._prepared: collections.OrderedDict[Statement, _Prepared] = collections.OrderedDict()
        self._names = itertools.count(1)
        self._error: str | None = None  # why what follows is aborted
        self._answered: list[_Look] = []  # of those that are answered together
        self._unsent = False
        self._nap: trio.CancelScope | None = None
        self._lost: str | None = None

    def close(self) -> None:
        """Close it; what is under way is not answered any more."""
        self._driver.close()

    def lose(self, why: str) -> None:
        """Have `wait` raise `_Lost`."""
        self._lost = why
        if self._nap is not None:
            self._nap.cancel()

    @property
    def room(self) -> int:
        """How many more questions may be under way."""
        return MOST_ASKED - len(self.under_way) if self._lost is None else 0

    # -- asking ---------------------------------------------------------------------------------

    def ask(self, look: _Look) -> None:
        """Put a question into libpq's buffer."""
        self.under_way.add(look)
        statement, tuples = look.question
        prepared = self._prepared.get(statement)
        if prepared is None:
            prepared = self._prepare(statement)
        else:
            self._prepared.move_to_end(statement)
        columns = [list(column) for column in zip(*tuples, strict=True)]
        values = self._transformer.dump_sequence(columns, [PyFormat.TEXT] * len(columns))
        self._pgconn.send_query_prepared(prepared.name, values)
        self._flying.append(look)

    def _prepare(self, statement: Statement) -> _Prepared:
        if len(self._prepared) >= MOST_PREPARED:
            _, oldest = self._prepared.popitem(last=False)
            self._pgconn.send_query_params(b"DEALLOCATE " + oldest.name, None)
            self._flying.append(oldest)
        prepared = _Prepared(statement, b"tddp_%d" % next(self._names))
        sql = self._composer.mogrify(statement.sql, statement.params)
        self._pgconn.send_prepare(prepared.name, sql.encode())
        self._flying.append(prepared)
        self._prepared[statement] = prepared
        return prepared

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
            raise _Lost(self._lost)
        if trio.current_time() >= deadline:
            raise _Lost(f"PostgreSQL has been silent for {SILENCE_SECONDS:g} s")

    async def _readable(self) -> None:
        await trio.lowlevel.wait_readable(self._pgconn.socket)

    async def _wait_for_either(self) -> None:
        # Readable as well as writable: PostgreSQL does not read our rest while it can't write its own.
        async with trio.open_nursery() as nursery:

            async def ready(wait: Callable[[int], Awaitable[None]]) -> None:
                await wait(self._pgconn.socket)
                nursery.cancel_scope.cancel()

            nursery.start_soon(ready, trio.lowlevel.wait_readable)
            nursery.start_soon(ready, trio.lowlevel.wait_writable)

    def receive(self) -> list[_Look]:
        """Read what is there: the looks that PostgreSQL has dealt with, each with its result or error."""
        if self._unsent:
            self._unsent = self._pgconn.flush() != 0
        self._pgconn.consume_input()
        ended: list[_Look] = []
        while self._flying and not self._pgconn.is_busy():
            result = self._pgconn.get_result()
            current = self._flying[0]
            if result is None:
                self._flying.popleft()
                if isinstance(current, _Look):
                    self._answered.append(current)
            elif current is _SYNC:
                self._flying.popleft()
                # Not before: an error of the next one may undo what was prepared.
                ended += self._answered
                self._answered.clear()
                self._error = None
            elif result.status == pq.ExecStatus.TUPLES_OK:
                assert isinstance(current, _Look)
                current.result = result
            elif result.status == pq.ExecStatus.COMMAND_OK:
                assert isinstance(current, _Prepared)
                current.confirmed = True
            else:
                self._failed(current, result)
        if not ended and self._pgconn.status != pq.ConnStatus.OK:
            raise _Lost("closed")
        return ended

    def _failed(self, current: _Look | _Prepared | str, result: pq.abc.PGresult) -> None:
        """What was asked has failed, or follows what has."""
        aborted = result.status == pq.ExecStatus.PIPELINE_ABORTED
        if isinstance(current, _Prepared):
            self._prepared.pop(current.statement, None)
            if not aborted:
                self._error = one_line(result.error_message.decode(errors="replace"))
        elif isinstance(current, _Look):
            # Of what could not be prepared, the look that follows is the one that failed.
            current.aborted = aborted and self._error is None
            current.error = self._error or one_line(result.error_message.decode(errors="replace"))
            self._error = None

    def read(self, result: pq.abc.PGresult) -> Sequence[Row]:
        """The rows of a result, as psycopg gives them."""
        if not result.ntuples:
            return ()
        self._transformer.set_pgresult(result)
        rows: Sequence[Row] = self._transformer.load_rows(0, result.ntuples, tuple)
        return rows
