"""A shape and its live queries: what they hold, what waits to be looked at, and what a look changed."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from trigger_ddp.live.document import Document, Key, Transition
from trigger_ddp.live.evaluation import Answer, Evaluation, Route

if TYPE_CHECKING:
    from trigger_ddp.live.compile import CompiledQuery

#: Keys waiting for one shape above which looking at everything once is cheaper; bounds the memory too.
INBOX_KEYS = 10_000


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Delta:
    """What one look changed in one live query.

    It describes the query's documents at the moment it is handed out; tell every session of it
    before asking for the next one, because sessions compare with what other live queries hold now.

    Args:
        query: the live query, its documents already as they are after the transitions.
        transitions: what left first, then what changed, then what came; each document id once.
    """

    query: LiveQuery
    transitions: tuple[Transition, ...]


class State(enum.Enum):
    LOADING = "loading"
    LIVE = "live"
    FAILED = "failed"


class LiveQuery:
    """One queryset with its parameters, kept current and shared by all who subscribe to it.

    Attributes:
        documents: what it holds now, by key. Read it freely; only `Shape.complete` writes it.
        state: LOADING until the first look is back; FAILED once a look failed, and never again anything else.
        error: why it failed.
        holds: how many have acquired and not yet released it.
    """

    def __init__(self, shape: Shape, route: Route) -> None:
        self.shape = shape
        self.route = route
        self.documents: dict[Key, Document] = {}
        self.state = State.LOADING
        self.error: BaseException | None = None
        self.holds = 0
        self._keys: dict[str, Key] = {}  # of the documents whose id is not their key
        self._settled: list[Callable[[], None]] = []

    @property
    def collection(self) -> str:
        """The name of the collection it publishes."""
        return self.shape.compiled.collection

    def when_settled(self, callback: Callable[[], None]) -> None:
        """Call back once the first look succeeded or failed; at once if that has been."""
        if self.state is State.LOADING:
            self._settled.append(callback)
        else:
            callback()

    def _settle(self, state: State) -> None:
        self.state = state
        callbacks, self._settled = self._settled, []
        for callback in callbacks:
            callback()

    def find(self, document_id: str) -> Document | None:
        """The document with this id, if the query holds it."""
        document = self.documents.get(self._keys.get(document_id, (document_id,)))
        return document if document is not None and document.id == document_id else None

    def _replace(self, found: Mapping[Key, Document], keys: Iterable[Key]) -> tuple[Transition, ...]:
        """Make what was found under ``keys`` the truth. Returns what that changes, in a delta's order.

        Ids are unique at every moment, but a look at some keys may find an id that a row not looked at still
        holds here: it has moved. That row has changed then and its own notification is on the way, so
        its document gives way.
        """
        before: dict[str, Document | None] = {}  # of every id concerned
        came: list[tuple[Key, Document]] = []
        for key in keys:
            old, new = self.documents.get(key), found.get(key)
            if old == new:
                continue
            if old is not None:
                before.setdefault(old.id, old)
                self._drop(key, old)
            if new is not None:
                came.append((key, new))
        for key, new in came:
            holder = self.find(new.id)
            before.setdefault(new.id, holder)
            if holder is not None:
                self._drop(self._keys.get(new.id, (new.id,)), holder)
            self.documents[key] = new
            if key != (new.id,):
                self._keys[new.id] = key
        changes = [(document_id, old, self.find(document_id)) for document_id, old in before.items()]
        transitions = [Transition(*change) for change in changes if change[1] != change[2]]
        return tuple(sorted(transitions, key=lambda step: (step.new is not None, step.old is None)))

    def _drop(self, key: Key, document: Document) -> None:
        del self.documents[key]
        if self._keys.get(document.id) == key:
            del self._keys[document.id]


class Shape:
    """All live queries that one statement answers, and the keys that statement is still to look at.

    One evaluation runs at a time. What arrives meanwhile waits in the inbox and makes the next
    one: an idle shape answers at once, a busy one in batches.
    """

    def __init__(self, compiled: CompiledQuery) -> None:
        self.compiled = compiled
        self.queries: dict[Route, LiveQuery] = {}
        self.running: Evaluation | None = None
        #: How often something was put into the inbox, and up to which of them all is evaluated.
        self.received = self.evaluated = 0
        #: Earliest starts, against `now` of `Engine.due`: of a whole run, and of any after a failed one.
        self.whole_run_at = self.retry_at = 0.0
        self._asked_at = 0  # what `received` was when the running evaluation began
        self._keys: set[Key] = set()
        self._everything = False

    @property
    def waiting(self) -> bool:
        """Whether the inbox holds anything."""
        return self._everything or bool(self._keys)

    @property
    def start_at(self) -> float:
        """When what waits may be started."""
        return max(self.retry_at, self.whole_run_at) if self._everything else self.retry_at

    @property
    def wants_everything(self) -> bool:
        return self._everything

    def look_at(self, keys: Iterable[Key]) -> None:
        """These rows may have changed."""
        if not self._everything:
            self._keys.update(keys)
            if len(self._keys) > INBOX_KEYS:
                self._everything = True
                self._keys.clear()
        if self.waiting:
            self.received += 1

    def look_at_everything(self) -> None:
        """Any row may have changed."""
        self.received += 1
        self._everything = True
        self._keys.clear()

    def start(self) -> Evaluation:
        """Empty the inbox into an evaluation. Only while none runs and something waits."""
        assert self.running is None
        compiled = self.compiled
        if self._everything:
            statement = compiled.everything
            keys, params = None, statement.params if statement else ()
        else:
            statement = compiled.by_keys
            keys = tuple(self._keys)
            params = statement.for_keys(keys) if statement else ()
        self._keys, self._everything, self._asked_at = set(), False, self.received
        self.running = Evaluation(self, keys, statement, params, compiled.read)
        return self.running

    def restart(self) -> None:
        """The running evaluation got no answer: put what it asked about back into the inbox."""
        assert self.running is not None
        keys, self.running = self.running.keys, None
        if keys is None:
            self.look_at_everything()
        else:
            self.look_at(keys)

    def complete(self, answers: Iterable[Answer]) -> Iterator[Delta]:
        """Compare the answers with what the live queries hold, one live query at a time.

        A generator on purpose: the documents of the next live query are untouched until the
        delta of the one before has been dealt with.
        """
        assert self.running is not None
        keys, self.running = self.running.keys, None
        self.evaluated = self._asked_at
        found: dict[Route, dict[Key, Document]] = {}
        for key, route, document in answers:
            found.setdefault(route, {})[key] = document
        for route, query in list(self.queries.items()):
            if keys is not None and query.state is State.LOADING:
                continue  # rows here and there can't load it; the whole run it asked for is in the inbox
            documents = found.get(route, {})
            looked_at = keys if keys is not None else [*query.documents.keys() - documents.keys(), *documents]
            transitions = query._replace(documents, looked_at)
            if query.state is State.LOADING:
                query._settle(State.LIVE)  # nobody was told anything yet: whoever waited reads `documents`
            elif transitions:
                yield Delta(query, transitions)

    def fail(self, error: BaseException) -> list[LiveQuery]:
        """The running evaluation can't be answered: its live queries can't be kept current any more."""
        self.running = None
        self.evaluated = self._asked_at
        failed = list(self.queries.values())
        for query in failed:
            query.error = error
            query._settle(State.FAILED)
        return failed
