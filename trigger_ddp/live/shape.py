"""A shape: its live queries, who of them holds what, and what waits to be looked at."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, cast

from trigger_ddp.live.document import Document, Key, Name, name_of
from trigger_ddp.live.evaluation import MOST_KEYS, Answers, Evaluation, Route
from trigger_ddp.live.holders import Holders
from trigger_ddp.live.query import Delta, LiveQuery, State

if TYPE_CHECKING:
    from trigger_ddp.live.compiled import CompiledQuery, CompiledShape
    from trigger_ddp.live.links import Link

#: Live queries that are loaded by one statement. More make others wait too long for the rows of all.
MOST_LOADED = 500


class Shape:
    """All live queries that the same statements answer, and what these are still to look at.

    One evaluation runs at a time. What arrives meanwhile waits in the inbox and makes the next one: an
    idle shape answers at once, a busy one in batches. An evaluation either looks at rows, for all live
    queries, or loads some live queries whole.

    Attributes:
        by_route: the live queries by each of their routes.
        held_by: who of them holds what; kept by the live queries.
        received, evaluated: how often rows to look at were put into the inbox, and up to which of these
            times they are looked at.
        retry_at: earliest start of an evaluation after a failed one, against `now` of `Engine.due`.
    """

    def __init__(self, compiled: CompiledShape) -> None:
        self.compiled = compiled
        self.by_route: dict[Route, dict[LiveQuery, None]] = {}
        self.held_by = Holders()
        self.running: Evaluation | None = None
        self.received = self.evaluated = 0
        self.retry_at = 0.0
        self._queries: dict[tuple[Route, ...], LiveQuery] = {}
        self._keys: set[Key] = set()
        self._follow: dict[Link, set[Key]] = {}
        self._since = math.inf  # when the earliest change came that they are of
        self._load: dict[LiveQuery, None] = {}  # to be loaded, in the order in which they were asked for
        self._load_from = math.inf  # the earliest of their `load_at`
        self._load_is_next = True  # looks and loads take turns
        self._asked_at = 0  # what `received` was when the running look began …
        self._asked: dict[LiveQuery, int] = {}  # … and `asked` when the running load did

    def __bool__(self) -> bool:
        return bool(self._queries)

    @property
    def queries(self) -> list[LiveQuery]:
        """Its live queries."""
        return list(self._queries.values())

    # -- live queries ---------------------------------------------------------------------------

    def query(self, compiled: CompiledQuery) -> LiveQuery:
        """The live query with these routes; a new one is to be loaded."""
        query = self._queries.get(compiled.routes)
        if query is None:
            query = self._queries[compiled.routes] = LiveQuery(self, compiled.routes)
            for route in compiled.routes:
                self.by_route.setdefault(route, {})[query] = None
            self.held_by.begin(query)
            self.load(query)
        return query

    def forget(self, query: LiveQuery) -> bool:
        """Keep a live query current no longer. Returns whether it was."""
        if not self._has(query):
            return False
        del self._queries[query.routes]
        for route in query.routes:
            del self.by_route[route][query]
            if not self.by_route[route]:
                del self.by_route[route]
        self._load.pop(query, None)
        self.held_by.end(query)
        return True

    def holders(self, document_id: str) -> Collection[LiveQuery]:
        """The live queries that hold a document with this id, and perhaps some that do not."""
        return self.held_by.of_document(document_id)

    # -- the inbox ------------------------------------------------------------------------------

    @property
    def waiting(self) -> bool:
        """Whether the inbox holds anything."""
        return bool(self._keys or self._follow or self._load)

    @property
    def oldest(self) -> float:
        """When the earliest change came that is not evaluated; infinity if all are."""
        running = self.running.since if self.running is not None else math.inf
        return min(self._since, running, min((query.since for query in self._load), default=math.inf))

    @property
    def start_at(self) -> float:
        """When what waits may be started."""
        return max(self.retry_at, 0 if self._keys or self._follow else self._load_from)

    def look_at(self, keys: Collection[Key], at: float = math.inf) -> None:
        """These rows may have changed; ``at``: when it was heard of."""
        if keys:
            self._keys.update(keys)
            self._received(at)

    def follow(self, link: Link, values: Collection[Key], at: float = math.inf) -> None:
        """Rows of a joined table may have changed, from which ``link`` leads to rows to look at."""
        if values:
            self._follow.setdefault(link, set()).update(values)
            self._received(at)

    def _received(self, at: float) -> None:
        self.received += 1
        self._since = min(self._since, at)
        self._bound()

    def _bound(self) -> None:
        """Rather than note ever more rows to look at, look at everything."""
        if len(self._keys) + sum(map(len, self._follow.values())) > MOST_KEYS:
            self.look_at_everything()

    def look_at_everything(self, at: float = math.inf) -> None:
        """Any row may have changed: load all live queries again instead of looking at single rows."""
        at = min(at, self._since)
        self._keys, self._follow, self._since = set(), {}, math.inf
        if len(self._load) < len(self._queries):
            for query in self._queries.values():
                self.load(query, at)
        if self.running is None or self.running.queries:
            self.evaluated = self.received  # what comes of it, each live query's `answered` tells

    def load(self, query: LiveQuery, at: float = math.inf) -> None:
        """Load one live query, or load it again because of a change that came ``at`` that time."""
        if query not in self._load:  # else what it waits for already is late enough
            query.asked += 1
            self._put(query, at)

    def _put(self, query: LiveQuery, since: float) -> None:
        self._load[query] = None
        query.since = min(query.since, since)
        self._load_from = min(self._load_from, query.load_at)

    # -- evaluations ----------------------------------------------------------------------------

    def start(self, now: float, interval: float) -> Evaluation | None:
        """Empty the inbox into an evaluation. Only when `start_at` has come, and none runs.

        Args:
            now: as for `Engine.due`.
            interval: seconds before which the live queries that it loads are not loaded again.

        Returns:
            The evaluation; None if what was due is no longer wanted.
        """
        assert self.running is None
        looks = bool(self._keys or self._follow)
        queries = self._due(now) if self._load_is_next or not looks else ()
        self._load_is_next = not queries
        if not queries and not looks:
            self._load_from = min((query.load_at for query in self._load), default=math.inf)
            return None
        if queries:
            self._asked = {query: query.asked for query in queries}
            since = min(query.since for query in queries)
            for query in queries:
                del self._load[query]
                query.load_at, query.since = now + interval, math.inf
            self._load_from = min((query.load_at for query in self._load), default=math.inf)
            self.running = Evaluation(self, queries=queries, since=since)
        else:
            follow = tuple((link, tuple(values)) for link, values in self._follow.items())
            self.running = Evaluation(self, tuple(self._keys), follow, since=self._since)
            self._asked_at = self.received
            self._keys, self._follow, self._since = set(), {}, math.inf
        return self.running

    def _due(self, now: float) -> tuple[LiveQuery, ...]:
        due = [query for query in self._load if query.load_at <= now]
        together = [query for query in due if not query.alone]
        return tuple(together[:MOST_LOADED] or due[:1])

    def restart(self) -> None:
        """The running evaluation got no answer: put what it asked about back into the inbox."""
        evaluation = self._end()
        for query in evaluation.queries:
            if self._has(query):
                query.load_at = 0.0
                self._put(query, evaluation.since)
        self._keys.update(evaluation.keys)
        for link, values in evaluation.follow:
            self._follow.setdefault(link, set()).update(values)
        if not evaluation.queries:
            self._since = min(self._since, evaluation.since)
            self._bound()

    def widen(self) -> None:
        """The running evaluation, about rows, can't be answered: ask about everything instead."""
        self.look_at_everything(self._end().since)
        self._looked()

    def fail(self, error: BaseException) -> list[LiveQuery]:
        """The running evaluation, a load, can't be answered.

        Returns:
            The live query that can't be kept current any more; none where several were loaded together: each
            is then loaded alone, since one client's constant must not end the subscriptions of others.
        """
        evaluation = self._end()
        queries = [query for query in evaluation.queries if self._has(query)]
        if len(evaluation.queries) > 1:
            for query in queries:
                query.alone, query.load_at = True, 0.0
                self._put(query, evaluation.since)
            return []
        for query in queries:
            query.error = error
            query.answered = query.asked
            query.settle(State.FAILED)
        return queries

    def complete(self, answers: Answers) -> Iterator[Delta]:
        """Compare the answers with what the live queries hold, one live query at a time.

        A generator on purpose: the documents of the next live query are untouched until the
        delta of the one before has been dealt with.
        """
        evaluation = self._end()
        if evaluation.queries:
            yield from self._loaded(evaluation.queries, answers)
            return
        if answers.too_many:
            self.look_at_everything(evaluation.since)
            self._looked()
            return
        by_query: dict[LiveQuery, dict[Name, Document | None]] = {}
        for name in map(name_of, answers.keys):
            for query in self.held_by.of_row(name):
                if name in query.documents:
                    by_query.setdefault(query, {})[name] = None
        # Of a document found by several constants of a list, the first one's stands; as in `_loaded`.
        for route in sorted(answers.found):
            for query in self.by_route.get(route, ()):
                documents = by_query.setdefault(query, {})
                for name, document in answers.found[route].items():
                    if documents.get(name) is None:
                        documents[name] = document
        if not self.compiled.by_keys:
            for query in by_query:
                self.load(query, evaluation.since)
        self._looked()
        if self.compiled.by_keys:
            for query, looked_at in by_query.items():
                # What is not loaded yet can't be kept by keys; its load comes later than this look.
                if query.state is State.LIVE and self._has(query):
                    found = {name: document for name, document in looked_at.items() if document is not None}
                    if transitions := query.replace(found, looked_at):
                        yield Delta(query, transitions)

    def _loaded(self, queries: Iterable[LiveQuery], answers: Answers) -> Iterator[Delta]:
        for query in queries:
            query.answered = self._asked[query]
            query.alone = False
            if not self._has(query):
                continue
            found: dict[Name, Document] = {}
            for route in query.routes:
                part = cast("Mapping[Name, Document]", answers.found.get(route, {}))
                if found:  # of a document found by several, the first one's stands
                    part = {name: document for name, document in part.items() if name not in found}
                found.update(part)
            if query.state is State.LOADING:
                query.fill(found)
                query.settle(State.LIVE)  # nobody was told anything yet: whoever waited reads `documents`
                continue
            gone = query.documents.keys() - found.keys()
            if transitions := query.replace(found, [*gone, *found]):
                yield Delta(query, transitions)

    def _end(self) -> Evaluation:
        assert self.running is not None
        evaluation, self.running = self.running, None
        return evaluation

    def _looked(self) -> None:
        """A look at rows is dealt with."""
        self.evaluated = self._asked_at if self._keys or self._follow else self.received

    def _has(self, query: LiveQuery) -> bool:
        return self._queries.get(query.routes) is query
