"""What compiling makes of a queryset, as values."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Container, Mapping, Sequence

from trigger_ddp.live.depends import Dependency
from trigger_ddp.live.evaluation import Found, Route, Row, Statement

#: The SQL without what was lifted out of it, and whatever else tells shapes apart.
Identity = tuple[str, ...]

#: What rows say, those whose routes are wanted.
Read = Callable[[Sequence[Row], Container[Route]], Found]


@dataclasses.dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class CompiledShape:
    """What all live queries have in common that differ in lifted constants only.

    Args:
        collection: the collection's name.
        fields: the names of the documents' fields; an own ``serialize`` may add to them.
        identity: equal for two querysets just when they can share a shape.
        lifted: the lifted expressions as SQL, in the order of a route's values.
        tables: table name to dependency, for every table the query or its documents read.
        load: the statement for all rows of some routes; None where there can't be any, or ``read`` asks
            by itself.
        look: the statement for given keys, None likewise.
        by_keys: whether ``look`` answers with documents. If not, it tells which live queries may be
            concerned, and these are loaded again.
        read: tells what the rows say that ``load`` selects.
        read_look: tells it of those that ``look`` selects.
        rerun_because: for people: why it is not kept by keys.
        looks_plainly: whether ``read_look`` calls nothing of the application's, so that it neither queries
            nor waits.
    """

    collection: str
    fields: tuple[str, ...]
    identity: Identity
    lifted: tuple[str, ...]
    tables: Mapping[str, Dependency]
    load: Statement | None
    look: Statement | None
    by_keys: bool
    read: Read
    read_look: Read
    rerun_because: str = ""
    looks_plainly: bool = True


@dataclasses.dataclass(frozen=True, slots=True)
class CompiledQuery:
    """One queryset of one collection, ready to be kept live.

    Args:
        shape: what it shares with others.
        routes: its own lifted constants; several where an ``__in`` was lifted.
    """

    shape: CompiledShape
    routes: tuple[Route, ...]
