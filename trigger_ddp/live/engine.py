"""All live queries of a process: finds the shared one, sends changes to the shapes they touch.

No I/O and no clock. The server feeds it and runs what it asks for:

    query = engine.acquire(compiled)        a subscription wants this queryset
    engine.receive(change, now)             a notification arrived
    for evaluation in engine.due(now):      run each, then
        engine.complete(evaluation, answers)    … and tell every delta to the sessions
        engine.restart(evaluation, at)          … or the database was away: ask again
        engine.widen(evaluation)                … or these rows can't be asked about: ask about all
        engine.fail(evaluation, error)          … or it can't be answered: live queries failed
    engine.release(query)                   the subscription ended
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator

from trigger_ddp.changes.change import Change, Gap
from trigger_ddp.live.compiled import CompiledQuery, Identity
from trigger_ddp.live.document import Key
from trigger_ddp.live.evaluation import Answers, Evaluation
from trigger_ddp.live.query import Delta, LiveQuery
from trigger_ddp.live.shape import Shape


@dataclasses.dataclass(frozen=True, slots=True)
class Statistics:
    """How much there is. Whole numbers at one moment."""

    shapes: int
    live_queries: int
    documents: int
    waiting_shapes: int


class Barrier:
    """Everything that some live queries had received when it was made; passed once that is evaluated."""

    def __init__(self, queries: Iterable[LiveQuery]) -> None:
        self._queries = set(queries)
        shapes = {query.shape for query in self._queries}
        self._looks = {shape: shape.received for shape in shapes}
        self._loads: dict[LiveQuery, int] | None = None

    @property
    def passed(self) -> bool:
        """Whether all of it is evaluated, or nobody wants it any more."""
        self._looks = {
            shape: count for shape, count in self._looks.items() if shape and shape.evaluated < count
        }
        if self._looks:
            return False
        if self._loads is None:  # only now all those are known that the looks have asked for
            self._loads = {query: query.asked for query in self._queries}
        self._loads = {
            query: count for query, count in self._loads.items() if query.holds and query.answered < count
        }
        return not self._loads


class Engine:
    """The live queries of one process.

    Args:
        requery_interval: least seconds between the starts of two loads of one live query.
    """

    def __init__(self, requery_interval: float = 0.05) -> None:
        self._requery_interval = requery_interval
        self._shapes: dict[Identity, Shape] = {}
        self._readers: dict[str, dict[Shape, None]] = {}  # table name to the shapes that depend on it
        self._active: dict[Shape, None] = {}  # shapes with something in the inbox and nothing running

    def acquire(self, compiled: CompiledQuery) -> LiveQuery:
        """The live query for ``compiled``, shared with everyone who has it. Pair with `release`.

        Before this call a LISTEN on every table in ``compiled.shape.tables`` must be in force, or a change
        between the first look and the LISTEN is lost.
        """
        shape = self._shapes.get(compiled.shape.identity)
        if shape is None:
            shape = self._shapes[compiled.shape.identity] = Shape(compiled.shape)
            for name in compiled.shape.tables:
                self._readers.setdefault(name, {})[shape] = None
        query = shape.query(compiled)
        self._activate(shape)
        query.holds += 1
        return query

    def release(self, query: LiveQuery) -> None:
        """One who acquired ``query`` has let go; the last one ends it."""
        query.holds -= 1
        if not query.holds:
            self._forget(query)

    def _forget(self, query: LiveQuery) -> None:
        shape = query.shape
        if not shape.forget(query) or shape:
            return
        del self._shapes[shape.compiled.identity]
        self._active.pop(shape, None)
        for name in shape.compiled.tables:
            self._readers[name].pop(shape)
            if not self._readers[name]:
                del self._readers[name]

    def receive(self, event: Change | Gap, at: float = math.inf) -> None:
        """Note for every shape that ``event`` touches what it must look at again.

        Args:
            event: what was notified.
            at: when it came, on the clock of `due`, for `Evaluation.since`. Infinity: nobody wants to know.
        """
        if isinstance(event, Gap):
            shapes = self._shapes.values() if event.table is None else self._readers.get(event.table, ())
            for shape in shapes:
                shape.look_at_everything(at)
                self._activate(shape)
            return
        led: dict[tuple[int, ...], set[Key]] = {}  # nearly all shapes are led to by the same values
        for shape in self._readers.get(event.table, ()):
            links = shape.compiled.tables[event.table].links
            if links is None:
                shape.look_at_everything(at)
            else:
                for link in links:
                    values = led.get(link.positions)
                    if values is None:
                        values = led[link.positions] = set(link.values(event))
                    if link.find is None:
                        shape.look_at(values, at)
                    else:
                        shape.follow(link, values, at)
            self._activate(shape)

    def _activate(self, shape: Shape) -> None:
        if shape.running is None and shape.waiting:
            self._active[shape] = None

    def due(self, now: float) -> list[Evaluation]:
        """The evaluations to run now, begun: each must end in `complete`, `restart`, `widen` or `fail`.

        Args:
            now: seconds on any steady clock, the same one in every call.
        """
        ready = [shape for shape in self._active if shape.start_at <= now]
        evaluations = []
        for shape in ready:
            del self._active[shape]
            evaluation = shape.start(now, self._requery_interval)
            if evaluation is None:
                self._activate(shape)
            else:
                evaluations.append(evaluation)
        return evaluations

    def next_due(self) -> float | None:
        """When `due` will have something though nothing else happens; None if never."""
        return min((shape.start_at for shape in self._active), default=None)

    def complete(self, evaluation: Evaluation, answers: Answers) -> Iterator[Delta]:
        """What the answers change. Tell each delta before asking for the next, and ask to the end."""
        yield from evaluation.shape.complete(answers)
        self._resume(evaluation.shape)

    def restart(self, evaluation: Evaluation, at: float) -> None:
        """There was no answer and there may be one later: `due` will ask again, not before ``at``."""
        evaluation.shape.restart()
        evaluation.shape.retry_at = at
        self._resume(evaluation.shape)

    def widen(self, evaluation: Evaluation) -> None:
        """The rows could not be asked about: `due` will ask about everything instead."""
        evaluation.shape.widen()
        self._resume(evaluation.shape)

    def fail(self, evaluation: Evaluation, error: BaseException) -> list[LiveQuery]:
        """There will be no answer: the live queries that are no longer live, each with its ``error``.

        They are forgotten, so that the next subscription tries anew. What was loaded together with others
        is loaded again by itself instead.
        """
        failed = evaluation.shape.fail(error)
        for query in failed:
            self._forget(query)
        self._resume(evaluation.shape)
        return failed

    @property
    def shapes(self) -> list[Shape]:
        """All shapes, the oldest first. For reading only."""
        return list(self._shapes.values())

    def _resume(self, shape: Shape) -> None:
        if self._shapes.get(shape.compiled.identity) is shape:
            self._activate(shape)

    def statistics(self) -> Statistics:
        """How much there is now. Takes the longer the more live queries there are."""
        queries = [query for shape in self._shapes.values() for query in shape.queries]
        return Statistics(
            shapes=len(self._shapes),
            live_queries=len(queries),
            documents=sum(len(query.documents) for query in queries),
            waiting_shapes=len(self._active),
        )

    def oldest_change(self) -> float | None:
        """When the oldest change came that is not evaluated, as `receive` was told; None if all are."""
        oldest = min((shape.oldest for shape in self._shapes.values()), default=math.inf)
        return oldest if oldest < math.inf else None
