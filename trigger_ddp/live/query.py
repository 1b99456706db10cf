"""A live query: what it holds, in which state it is, and what a look changed in it."""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from trigger_ddp.live.document import Document, Name, Transition
from trigger_ddp.live.evaluation import Route

if TYPE_CHECKING:
    from trigger_ddp.live.shape import Shape


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
        routes: the lifted constants whose rows are its own.
        documents: what it holds now, by `Name`. Read it freely; only `Shape.complete` writes it.
        state: LOADING until the first look is back; FAILED once a look failed, and never again anything else.
        error: why it failed.
        holds: how many have acquired and not yet released it.
        asked, answered: how often it was to be loaded (again), and up to which of these times it is.
        since: when the earliest change came for which it waits to be loaded again; infinity if for none.
        load_at: earliest start of the next load, against `now` of `Engine.due`.
        alone: whether it must be loaded by a statement of its own, because a shared one failed.
    """

    def __init__(self, shape: Shape, routes: tuple[Route, ...]) -> None:
        self.shape = shape
        self.routes = routes
        self.documents: dict[Name, Document] = {}
        self.state = State.LOADING
        self.error: BaseException | None = None
        self.holds = 0
        self.asked = self.answered = 0
        self.since = math.inf
        self.load_at = 0.0
        self.alone = False
        self._names: dict[str, Name] = {}  # of the documents whose id is another
        self._settled: list[Callable[[], None]] = []

    @property
    def collection(self) -> str:
        """The name of the collection it publishes."""
        return self.shape.compiled.collection

    @property
    def group(self) -> Shape:
        """What knows which live queries hold a document, without asking each."""
        return self.shape

    @property
    def is_begun(self) -> bool:
        """Whether it has been loaded, or is just being."""
        running = self.shape.running
        return self.state is State.LIVE or (running is not None and self in running.queries)

    def when_settled(self, callback: Callable[[], None]) -> None:
        """Call back once the first look succeeded or failed; at once if that has been."""
        if self.state is State.LOADING:
            self._settled.append(callback)
        else:
            callback()

    def settle(self, state: State) -> None:
        """The first look has ended."""
        self.state = state
        callbacks, self._settled = self._settled, []
        for callback in callbacks:
            callback()

    def find(self, document_id: str) -> Document | None:
        """The document with this id, if the query holds it."""
        document = self.documents.get(self._names.get(document_id, document_id))
        return document if document is not None and document.id == document_id else None

    def replace(self, found: Mapping[Name, Document], names: Iterable[Name]) -> tuple[Transition, ...]:
        """Make what was found under ``names`` the truth. Returns what that changes, in a delta's order.

        Ids are unique at every moment, but a look at some rows may find an id that a row not looked at still
        holds here: it has moved. That row has changed then and its own notification is on the way, so
        its document gives way.
        """
        changed: list[Transition] = []
        before: dict[str, Document | None] = {}  # of every other id concerned
        came: list[tuple[Name, Document]] = []
        for name in names:
            old, new = self.documents.get(name), found.get(name)
            if old == new:
                continue
            if old is not None and new is not None and old.id == new.id:
                self.documents[name] = new
                changed.append(Transition(old.id, old, new))
                continue
            if old is not None:
                before.setdefault(old.id, old)
                self._drop(name, old)
            if new is not None:
                came.append((name, new))
        for name, new in came:
            holder = self.find(new.id)
            before.setdefault(new.id, holder)
            if holder is not None:
                self._drop(self._names.get(new.id, new.id), holder)
            self.documents[name] = new
            self.shape.held_by.note(self, name, new)
            if name != new.id:
                self._names[new.id] = name
        if not before:
            return tuple(changed)
        others = [(document_id, old, self.find(document_id)) for document_id, old in before.items()]
        changed += [Transition(*other) for other in others if other[1] != other[2]]
        return tuple(sorted(changed, key=lambda step: (step.new is not None, step.old is None)))

    def fill(self, found: Mapping[Name, Document]) -> None:
        """Hold these documents, after a first look."""
        if self.documents or any(name != new.id for name, new in found.items()):
            self.replace(found, found)
        else:
            self.documents.update(found)
            self.shape.held_by.note_all(self, found)

    def _drop(self, name: Name, document: Document) -> None:
        del self.documents[name]
        self.shape.held_by.drop(self, name, document)
        if self._names.get(document.id) == name:
            del self._names[document.id]
