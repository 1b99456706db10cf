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
import logging
from collections.abc import Callable
from weakref import WeakKeyDictionary

import psycopg
import trio

from trigger_ddp.live.compiled import CompiledShape
from trigger_ddp.live.evaluation import Answers, Evaluation
from trigger_ddp.server.backoff import Backoff
from trigger_ddp.server.link import opened
from trigger_ddp.server.pipelined import Look, LostError, PipelinedConnection, UnfitError, open_cursor

logger = logging.getLogger(__name__)

#: Rows that are asked about at most, and rows of an answer that are read: more would hold up the event loop.
MOST_KEYS, MOST_ROWS = 200, 500
#: Questions under way at most, and those that are answered together.
MOST_ASKED, TOGETHER = 32, 8
#: Seconds for which a shape is left to the threads that took too long, or failed.
ELSEWHERE_SECONDS = 30.0
#: Seconds that reading an answer may take.
READ_SECONDS = 0.05


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
        self._connection: PipelinedConnection | None = None
        self._waiting: collections.deque[Look] = collections.deque()
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
        self._waiting.append(Look(evaluation, steps, question, trio.current_time()))
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
            while self._waiting and (room := connection.room(MOST_ASKED)) > 0:
                for _ in range(min(TOGETHER, room, len(self._waiting))):
                    self._ask(connection, self._waiting.popleft())
                connection.sync()
            connection.flush()
        except (psycopg.Error, LostError) as error:
            # The task sees it, too; what is under way it gives back.
            connection.lose(str(error))

    def _ask(self, connection: PipelinedConnection, look: Look) -> None:
        try:
            values = connection.values(look.question)
            sql = connection.sql(look.question)
        except Exception as error:  # noqa: BLE001  a thread meets it again, and tells it
            self._leave(look, repr(error))
        else:
            connection.ask(look, sql, values)

    # -- the task -------------------------------------------------------------------------------

    async def run(self) -> None:
        """Run until cancelled, with all that it serves: what is under way then is not given back."""
        backoff = Backoff(least=0.5, most=30.0)
        while True:
            try:
                cursor = await opened(
                    lambda: open_cursor(self._alias), lambda cursor: cursor.connection.close()
                )
            except UnfitError as error:
                logger.info("threads look at all changed rows: %s", error)
                return
            except Exception as error:  # noqa: BLE001  whatever Django or a signal's receiver raises
                logger.debug("no connection for looking at single rows: %s", error)
            else:
                backoff.succeeded(trio.current_time())
                await self._serve(PipelinedConnection(cursor))
            await trio.sleep(backoff.failed(trio.current_time()))

    async def _serve(self, connection: PipelinedConnection) -> None:
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
        except (psycopg.Error, LostError) as error:
            logger.debug("the connection for looking at single rows is lost: %s", error)
        finally:
            self._connection = None
            connection.close()
        given_back = [*connection.under_way, *self._waiting]
        self._waiting.clear()
        for look in given_back:
            self._give_back(look)
        self._settled()

    def _conclude(self, connection: PipelinedConnection, look: Look) -> None:
        if look.aborted or (look.result is not None and look.result.ntuples > MOST_ROWS):
            self._give_back(look)
            return
        if look.result is None:
            self._leave(look, look.error or "there was no answer")
            return
        begun = trio.current_time()
        try:
            question = look.steps.send(connection.read(look.result))
        except StopIteration as end:
            now = trio.current_time()
            if now - begun > READ_SECONDS:  # by a decoder of the application, or of huge rows
                self._elsewhere[look.evaluation.shape.compiled] = now + ELSEWHERE_SECONDS
            self._answered(look.evaluation, end.value, now - look.begun)
        except Exception as error:  # noqa: BLE001  a thread meets it again, and tells it
            self._leave(look, repr(error))
        else:
            if len(question.tuples) > MOST_KEYS:
                self._give_back(look)
            else:
                self._waiting.append(Look(look.evaluation, look.steps, question, look.begun))

    def _leave(self, look: Look, error: str) -> None:
        """Give back what failed, and take nothing more of its shape for a while."""
        logger.debug("looking at single rows of a query is left to threads: %s", error)
        self._elsewhere[look.evaluation.shape.compiled] = trio.current_time() + ELSEWHERE_SECONDS
        self._give_back(look)

    def _give_back(self, look: Look) -> None:
        look.steps.close()
        self._unanswered(look.evaluation)
