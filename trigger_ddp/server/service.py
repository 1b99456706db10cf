"""The running server's heart: changes in, evaluations out, deltas to sessions, frames to sockets.

One Service to a process. It owns the engine and is the only one that calls it; everything here runs
on the trio thread, only database work is handed to worker threads.
"""

from __future__ import annotations

import contextvars
import dataclasses
import inspect
import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import trio

from trigger_ddp.alea import meteor_random_id
from trigger_ddp.api import API, this
from trigger_ddp.capture.tables import Table
from trigger_ddp.changes.change import Gap
from trigger_ddp.conf import Settings
from trigger_ddp.errors import MeteorError, TriggersMissing
from trigger_ddp.live.compile import forget_columns
from trigger_ddp.live.compiled import CompiledQuery, CompiledShape
from trigger_ddp.live.engine import Barrier, Engine
from trigger_ddp.live.evaluation import Answers, Evaluation
from trigger_ddp.live.query import LiveQuery, State
from trigger_ddp.protocol.ending import Ending
from trigger_ddp.protocol.fanout import Fanout
from trigger_ddp.protocol.published import Layer
from trigger_ddp.protocol.session import Session, Subscription
from trigger_ddp.server.backoff import Backoff
from trigger_ddp.server.connection import Connection
from trigger_ddp.server.database import answer, first_line, is_locked, is_passing
from trigger_ddp.server.guard import no_queries_on_this_thread
from trigger_ddp.server.heartbeats import Heartbeats
from trigger_ddp.server.leases import Lease, Leases
from trigger_ddp.server.lingering import Lingering
from trigger_ddp.server.metrics import Metrics, kind_of
from trigger_ddp.server.pipeline import TOGETHER, Pipeline
from trigger_ddp.server.siblings import Siblings
from trigger_ddp.server.source import ChangeSource, Event, Fence
from trigger_ddp.server.triggers import Triggers
from trigger_ddp.server.users import Users, Watch
from trigger_ddp.server.workers import Workers

if TYPE_CHECKING:
    from trigger_ddp.server.conversation import Conversation

logger = logging.getLogger("trigger_ddp.service")

T = TypeVar("T")

#: Seconds after which a table that was locked is asked about again.
LOCKED_SECONDS = 0.5

#: Seconds between two looks at how much waits for all clients together.
OUTBOXES_SECONDS = 1.0

#: Seconds for which a query's documents are kept ready for the next who subscribes to it.
PIECES_SECONDS = 20.0

#: Subscriptions of one session above which live queries that nobody else has are looked at after others.
MANY_SUBSCRIPTIONS = 50

#: Seconds after which a few of those that are looked at after others have their turn whatever else goes on.
LATER_SECONDS = 0.1

INTERNAL_ERROR = MeteorError(500, "Internal server error")


@dataclasses.dataclass(eq=False, slots=True)
class _Fenced:
    """Somebody who waits until everything before a fence is told: for the fence, then for the barrier."""

    queries: Callable[[], Iterable[LiveQuery]]  # for which, asked once the fence is there
    done: trio.Event
    barrier: Barrier | None = None


class Service:
    """Keeps live queries current and sessions told.

    Args:
        source: where changes come from.
        workers: threads for the application's code, which may take its time.
        evaluators: threads for asking the database, which nothing of the application holds up.
        settings: the ``DDP_*`` settings.
        siblings: the other processes that serve the same port; None: there are none.
        metrics: where it counts what it does.

    Attributes:
        pipeline: where looks at single rows are asked, while somebody runs it.
        draining: whether the server is about to stop.
        evaluated_at: when the database last gave an answer; minus infinity if it never has.
    """

    def __init__(
        self,
        source: ChangeSource,
        workers: Workers,
        evaluators: Workers,
        settings: Settings,
        siblings: Siblings | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self.source = source
        self.metrics = metrics or Metrics()
        self.draining = False
        self.evaluated_at = -math.inf
        self.workers = workers
        self.evaluators = evaluators
        self.pools = {"application": workers, "evaluation": evaluators}  # all threads, for who looks on
        self.settings = settings
        self.siblings = siblings
        self.new_session_id = meteor_random_id if siblings is None else siblings.new_id
        self.engine = Engine(settings.requery_interval)
        self.pipeline = Pipeline(
            settings.database, self._answered, partial(self._start_shared, self._evaluate), self._settled
        )
        self.fanout = Fanout()
        self.heartbeats = Heartbeats()
        self.triggers = Triggers(evaluators, settings.database, lambda gap: self._deliver([gap]))
        self.users = Users(source, self.triggers)
        self.leases = Leases(source, evaluators, self.patiently, self.triggers)
        self.connections: dict[Session, Connection] = {}
        self.passed_on: set[Connection] = set()  # whose sessions are in other workers
        self.conversations: dict[str, Conversation] = {}  # by session id; those whose client is away too
        self._away: dict[Session, None] = {}  # sessions whose client is, the longest first
        self._nursery: trio.Nursery | None = None
        # What serves all must not begin in the context of the client that happened to need it first.
        self._context = contextvars.copy_context()
        self._lingering = Lingering(settings.linger, self._release)
        self._warned_of: set[str] = set()  # tables that DDP_ALLOW_STALE lets be read
        self._waiting_for_others: deque[Evaluation] = deque()
        self._others_at = math.inf  # when a few of these are begun in any case
        self._fences: dict[str, list[_Fenced]] = {}  # by token
        self._behind_barriers: list[_Fenced] = []
        self._dirty: dict[Session, None] = {}
        self._told: list[float] = []  # of evaluations told and not yet flushed, when their changes came
        self._something_dirty = trio.Event()
        self._timetable_changed = trio.Event()
        self._database_away = Backoff(most=2.0)
        self._database_back_at = 0.0

    # -- running --------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled; started once the first listening connection is up."""
        with no_queries_on_this_thread():
            await self._run(task_status)

    async def _run(self, task_status: trio.TaskStatus[None]) -> None:
        self._context = contextvars.copy_context()
        async with trio.open_nursery() as self._nursery:
            self._nursery.start_soon(self._flush_whenever_dirty)
            self._nursery.start_soon(self._start_when_due)
            self._nursery.start_soon(self.leases.run)
            self._nursery.start_soon(self._bound_outboxes)
            self._nursery.start_soon(self._drop_pieces)
            self._nursery.start_soon(self.heartbeats.run)
            self._nursery.start_soon(self.triggers.run, self.settings.trigger_check_seconds)
            await self._nursery.start(self.source.run, self._deliver)
            for seconds, function in API.periodic:
                self._nursery.start_soon(self._call_every, seconds, function)
            task_status.started()

    async def _call_every(self, seconds: float, function: Callable[[], object]) -> None:
        while True:
            await trio.sleep(seconds)
            try:
                await self._call(function)
            except Exception:
                logger.exception("%r, called every %g s, failed", function, seconds)

    async def _bound_outboxes(self) -> None:
        """Cut those off who are the furthest behind, while too much waits for all together."""
        while True:
            await trio.sleep(OUTBOXES_SECONDS)
            waiting = {one: one.statistics().bytes_waiting for one in self.connections.values()}
            total = sum(waiting.values())
            for connection in sorted(waiting, key=lambda one: -waiting[one]):
                if total <= self.settings.outbox_total_bytes:
                    break
                connection.abort(
                    f"the client is too slow: of {total} bytes for all, {waiting[connection]} waited for it",
                    Ending.SLOW,
                )
                total -= waiting[connection]

    async def _drop_pieces(self) -> None:
        while True:
            await trio.sleep(PIECES_SECONDS / 2)
            self.fanout.drop_pieces(trio.current_time() - PIECES_SECONDS)

    async def reload(self) -> None:
        """Call what `API.on_reload` registered, one after the other. What they raise is logged."""
        for callback in API.reload_hook.callbacks:
            try:
                await self._call(callback)
            except Exception:
                logger.exception("%r, called to reload, failed", callback)

    async def _call(self, function: Callable[[], object]) -> None:
        """Call a function of the application: an async one here, another on a worker thread."""
        if inspect.iscoroutinefunction(function):
            with this.bound(in_thread=self.workers.run):
                await function()
        else:
            await self.patiently(lambda: self.workers.run(function))

    def _deliver(self, events: list[Event]) -> None:
        now = trio.current_time()
        for event in events:
            if isinstance(event, Fence):
                for fenced in self._fences.pop(event.token, ()):
                    fenced.barrier = Barrier(fenced.queries())
                    self._behind_barriers.append(fenced)
                continue
            if isinstance(event, Gap) and event.table is None:
                self.triggers.doubt()  # a restored or failed-over database may have others
                forget_columns()  # … and other columns
            self.metrics.change(event)
            self.engine.receive(event, now)
            self.users.receive(event)
            self.leases.receive(event)
        self._continue()

    def _continue(self) -> None:
        """Start what is due, and let those go on whose barrier is behind everything."""
        now = trio.current_time()
        for evaluation in self.engine.due(now):
            if self._may_wait(evaluation):
                self._waiting_for_others.append(evaluation)
                self._others_at = min(self._others_at, now + LATER_SECONDS)
            elif not self.pipeline.take(evaluation):
                self._start_shared(self._evaluate, evaluation)
        self.pipeline.send()
        self._start_those_that_wait()
        if self._waiting_for_others or self.engine.next_due() is not None:
            self._timetable_changed.set()
        self._let_pass()

    def _let_pass(self) -> None:
        """Let those go on whose barrier is behind everything."""
        waiting = []
        for fenced in self._behind_barriers:
            assert fenced.barrier is not None
            if fenced.barrier.passed:
                fenced.done.set()
            else:
                waiting.append(fenced)
        self._behind_barriers = waiting

    async def _start_when_due(self) -> None:
        while True:
            due = self.engine.next_due()
            start = min(math.inf if due is None else due, self._others_at)
            with trio.move_on_at(min(start, self._lingering.next_due)):
                await self._timetable_changed.wait()
            self._timetable_changed = trio.Event()
            self._lingering.end_due()
            if start <= trio.current_time():
                self._continue()

    def _start_those_that_wait(self) -> None:
        """A few at a time, while nothing else is under way, or now and then: they can be very many."""
        waiting, now = self._waiting_for_others, trio.current_time()
        while waiting and (not self.pipeline.busy or self._others_at <= now):
            for _ in range(min(len(waiting), TOGETHER)):
                evaluation = waiting.popleft()
                if not self.pipeline.take(evaluation):
                    self._start_shared(self._evaluate, evaluation)
            self.pipeline.send()
            self._others_at = now + LATER_SECONDS if waiting else math.inf

    def _may_wait(self, evaluation: Evaluation) -> bool:
        """Whether it is for nobody, or only for one who has very many live queries.

        Who has just subscribed is nobody yet, but waits for the documents.
        """
        shape = evaluation.shape
        if len(shape.by_route) != 1:
            return False
        (queries,) = shape.by_route.values()
        sessions = [session for query in queries for session in self.fanout.sessions(query)]
        if not sessions:
            return not evaluation.queries
        return len(sessions) == 1 and len(sessions[0].subscriptions) > MANY_SUBSCRIPTIONS

    def _start_shared(self, task: Callable[..., Awaitable[None]], *args: object) -> None:
        assert self._nursery is not None
        self._context.run(self._nursery.start_soon, task, *args)

    async def _evaluate(self, evaluation: Evaluation) -> None:
        kind, begun = kind_of(evaluation), trio.current_time()
        self.metrics.evaluations[kind] += 1
        try:
            answers = await self.evaluators.run(answer, evaluation, self.settings.database)
        except Exception as error:
            self.metrics.evaluation_failures[kind] += 1
            if is_passing(error):
                self.engine.restart(evaluation, self._ask_again_at(error))
            elif not evaluation.queries:
                # Any role may NOTIFY: a key that is none must not end subscriptions.
                logger.warning("looking at all of a query, not at its changed keys: %s", first_line(error))
                self.engine.widen(evaluation)
            elif len(evaluation.queries) > 1:
                logger.warning(
                    "loading %d live queries one by one: %s", len(evaluation.queries), first_line(error)
                )
                self.engine.fail(evaluation, error)
            else:
                collection = evaluation.shape.compiled.collection
                logger.exception("a live query of collection %s failed; its subscriptions end", collection)
                for query in self.engine.fail(evaluation, error):
                    self._end_subscriptions(query)
        else:
            self._complete(evaluation, answers, kind, trio.current_time() - begun)
        self._continue()

    def _answered(self, evaluation: Evaluation, answers: Answers, seconds: float) -> None:
        """The pipeline has answers."""
        kind = kind_of(evaluation)
        self.metrics.evaluations[kind] += 1
        self._complete(evaluation, answers, kind, seconds)

    def _settled(self) -> None:
        """The pipeline has no more answers at the moment."""
        self._flush_dirty()
        self._continue()

    def _complete(self, evaluation: Evaluation, answers: Answers, kind: str, seconds: float) -> None:
        self.evaluated_at = now = trio.current_time()
        self._database_away.succeeded(now)
        self.metrics.evaluation_seconds[kind].observe(seconds)
        if self.fanout.tell(self.engine.complete(evaluation, answers)) and evaluation.since < math.inf:
            self._told.append(evaluation.since)

    def _ask_again_at(self, error: BaseException) -> float:
        """When to ask the database again that gave no answer, the same for all whom it left without."""
        now = trio.current_time()
        if is_locked(error):
            return now + LOCKED_SECONDS
        if now >= self._database_back_at:
            delay = self._database_away.failed(now)
            self._database_back_at = now + delay
            logger.warning(
                "the database gave no answer, asking again in %.1f s: %s", delay, first_line(error)
            )
        return self._database_back_at

    async def patiently(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """The result of ``attempt``, which is made again for as long as the database is away."""
        while True:
            try:
                return await attempt()
            except Exception as error:
                if not is_passing(error):
                    raise
                await trio.sleep_until(self._ask_again_at(error))

    def _end_subscriptions(self, query: LiveQuery) -> None:
        for session in self.fanout.sessions(query):
            for subscription in list(session.running):
                if query in subscription.queries:
                    self.end(session, subscription, INTERNAL_ERROR)

    # -- live queries ---------------------------------------------------------------------------

    async def hold(self, compiled: CompiledQuery, begun: list[LiveQuery] | None = None) -> LiveQuery:
        """The live query for ``compiled``, its tables being listened to. Pair with `let_go`.

        Args:
            compiled: the query.
            begun: gets the live query, if what it holds, or will hold first, may be of before this call.

        Raises:
            TriggersMissing: a table it reads has no current trigger, and the settings insist on one.
        """
        tables = _tables(compiled.shape)
        await self.source.subscribe(tables)
        self.triggers.use(tables)
        try:
            await self._check_triggers(tables)
        except BaseException:
            self._unuse(compiled.shape)
            raise
        query = self.engine.acquire(compiled)
        if begun is not None and query.is_begun:
            begun.append(query)
        if self._lingering.take(query):
            self._release(query)  # whoever let go last kept it for this
        self._continue()
        return query

    def let_go(self, query: LiveQuery) -> None:
        """End one `hold`. The last one ends some time later, in case somebody comes back to the query."""
        if query.holds == 1 and query.state is not State.FAILED and self.settings.linger:
            self._lingering.add(query)
            self._timetable_changed.set()
        else:
            self._release(query)

    def _release(self, query: LiveQuery) -> None:
        self.engine.release(query)
        self._unuse(query.shape.compiled)
        self._let_pass()  # a barrier does not wait for what nobody wants

    def _unuse(self, compiled: CompiledShape) -> None:
        self._start_shared(self.source.unsubscribe, _tables(compiled))
        self.triggers.unuse(_tables(compiled))

    async def _check_triggers(self, tables: list[Table]) -> None:
        stale = await self.triggers.check(tables)
        if stale and not self.settings.allow_stale:
            raise TriggersMissing(list(stale))
        if new := [name for name in stale if name not in self._warned_of]:
            self._warned_of.update(new)
            logger.warning("%s; DDP_ALLOW_STALE serves them, but not live", TriggersMissing(new))

    @property
    def stale_tables(self) -> dict[str, str]:
        """The tables in use whose changes may go unnoticed now, each with a sentence that says why."""
        return self.triggers.stale()

    async def loaded(self, query: LiveQuery) -> None:
        """Wait until ``query`` has its documents.

        Raises:
            MeteorError: it could not be loaded; the log has said why.
        """
        settled = trio.Event()
        query.when_settled(settled.set)
        await settled.wait()
        if query.error is not None:
            raise MeteorError(500, "Internal server error")

    # -- sessions -------------------------------------------------------------------------------

    def open_session(self, connection: Connection) -> Session:
        """A session that writes to ``connection``. Pair with `close_session`."""
        session = Session(connection.wire, self._mark_dirty, self.settings.max_message_values)
        session.on_refusal = self._note_refusal
        self._connect(session, connection)
        return session

    def _connect(self, session: Session, connection: Connection) -> None:
        self.connections[session] = connection
        session.outlet = connection.send

    def _note_refusal(self) -> None:
        self.metrics.refusals["message_too_complex"] += 1

    def close_session(self, session: Session) -> None:
        """Let go of everything the session holds; nothing is sent any more."""
        self.connections.pop(session, None)
        session.outlet = None
        self._away.pop(session, None)
        self._dirty.pop(session, None)
        for subscription in (*session.running, *session.coming):
            self._let_go_all(session, subscription, list(subscription.queries))
        session.subscriptions.clear()
        session.universal.clear()
        session.coming.clear()

    @contextmanager
    def passing_on(self, connection: Connection) -> Iterator[None]:
        """``connection`` belongs to a session of another worker, but is closed with this one."""
        self.passed_on.add(connection)
        try:
            yield
        finally:
            self.passed_on.discard(connection)

    def start(self, task: Callable[[], Awaitable[None]]) -> None:
        """Run what outlives the connection that asked for it, in its context; it must not raise."""
        assert self._nursery is not None
        self._nursery.start_soon(task)

    def carry(self, session: Session, connection: Connection | None) -> None:
        """``session`` goes on over another connection, or for the moment over none."""
        if connection is not None:
            self._connect(session, connection)
            self._away.pop(session, None)
            return
        del self.connections[session]
        session.outlet = None
        self._away[session] = None
        if len(self._away) > self.settings.max_resumable:
            longest = next(iter(self._away))
            del self._away[longest]  # at once: others may be lost before it has ended
            self.metrics.refusals["too_many_away"] += 1
            self.conversations[longest.id].end("too many clients are away")

    def end(self, session: Session, subscription: Subscription, error: MeteorError | None = None) -> None:
        """End a subscription and tell the client so; nothing happens if it has ended already."""
        if session.runs(subscription):
            left = session.stop(subscription, error)
            self._let_go_all(session, subscription, left)

    def _let_go_all(self, session: Session, subscription: Subscription, left: list[Layer]) -> None:
        for query in left:
            self.fanout.unwatch(query, session)
        for query in subscription.release():
            self.let_go(query)

    def forget_user(self, watch: Watch) -> None:
        """End a watch of `users`."""
        assert self._nursery is not None
        self.users.forget(watch, self._nursery)

    def let_go_lease(self, lease: Lease) -> None:
        """End a hold of `leases`."""
        assert self._nursery is not None
        self.leases.let_go(lease, self._nursery)

    def _mark_dirty(self, session: Session) -> None:
        if not self._dirty:
            self._something_dirty.set()
        self._dirty[session] = None

    async def _flush_whenever_dirty(self) -> None:
        while True:
            await self._something_dirty.wait()
            self._flush_dirty()

    def _flush_dirty(self) -> None:
        if self._something_dirty.is_set():
            self._something_dirty = trio.Event()
        dirty, self._dirty = self._dirty, {}
        told, self._told = self._told, []
        connections = self.connections
        for session in dirty:
            if (connection := connections.get(session)) is not None:
                connection.send(session.take())
        now = trio.current_time()
        for since in told:
            self.metrics.change_to_socket.observe(now - since)

    def flush(self, session: Session) -> None:
        """Write the session's outgoing frames as far as its socket takes them; the rest follows by itself."""
        connection = self.connections.get(session)
        if connection is not None:
            connection.send(session.take())

    @property
    def away(self) -> int:
        """Number of sessions whose clients may come back."""
        return len(self._away)

    def lag(self) -> float:
        """Seconds since the oldest change was read that is not evaluated; 0.0 if all are."""
        oldest = self.engine.oldest_change()
        return 0.0 if oldest is None else trio.current_time() - oldest

    # -- fences ---------------------------------------------------------------------------------

    async def everything_told(self, session: Session) -> None:
        """Wait until every change committed before this call is in the outgoing frames of ``session``."""
        await self._fence(lambda: session.queries).wait()

    def catching_up(self, queries: Sequence[LiveQuery]) -> trio.Event:
        """Set once ``queries`` hold, and have told, everything committed before this call."""
        return self._fence(lambda: queries)

    def _fence(self, queries: Callable[[], Iterable[LiveQuery]]) -> trio.Event:
        fenced = _Fenced(queries, trio.Event())
        self._fences.setdefault(self.source.fence().token, []).append(fenced)
        return fenced.done


def _tables(compiled: CompiledShape) -> list[Table]:
    return [dependency.table for dependency in compiled.tables.values()]
