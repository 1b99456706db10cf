"""A look at the database, as values: what to ask, about which rows and for whom, and what the answer was.

Nothing here runs a statement. `Evaluation.steps` is a conversation: it yields what to run, is sent the rows,
and returns the answers at its end; `server.pipeline` holds it on the event loop, or `server.database` on a
worker thread.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Container, Generator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from trigger_ddp.live.document import Document, Key, Name

if TYPE_CHECKING:
    from trigger_ddp.live.compiled import CompiledShape
    from trigger_ddp.live.links import Link
    from trigger_ddp.live.query import LiveQuery
    from trigger_ddp.live.shape import Shape

#: Rows to look at by their keys, above which looking at everything is cheaper; bounds the memory too.
MOST_KEYS = 10_000

#: The values of a shape's lifted expressions for one row, or those that a live query wants: () if none are.
Route = tuple[Any, ...]

#: A row as psycopg gives it.
Row = Sequence[Any]

#: SQL and what it is to be run with.
Bound = tuple[str, tuple[Any, ...]]


#: Which rows match, for which live queries of the shape, and as what documents: None where the question was
#: only whom a row concerns.
Found = Mapping[Route, Mapping[Name, Document | None]]


class Part:
    """Stands in a statement's parameters where the n-th parts of the tuples asked about belong, as a list."""

    __slots__ = ("position",)

    def __init__(self, position: int) -> None:
        self.position = position

    def __repr__(self) -> str:
        return f"<part {self.position} of what is asked about>"


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Statement:
    """SQL with ``%s`` placeholders and its parameters, among them `Part`s."""

    sql: str
    params: tuple[Any, ...]

    def about(self, tuples: Iterable[tuple[Any, ...]]) -> Bound:
        """The statement asked about these keys, routes or foreign keys, whichever its `Part`s stand for."""
        columns = [list(column) for column in zip(*tuples, strict=True)]
        params = [columns[param.position] if isinstance(param, Part) else param for param in self.params]
        return self.sql, tuple(params)


class Question(NamedTuple):
    """A statement, and the keys, routes or foreign keys that it is asked about."""

    statement: Statement
    tuples: Collection[tuple[Any, ...]]


@dataclasses.dataclass(frozen=True, slots=True)
class Answers:
    """What the database said to one evaluation.

    Args:
        found: the rows that match.
        keys: the rows that were asked about; those not found do not match.
        too_many: there were more rows to ask about than `MOST_KEYS`: nothing was asked.
    """

    found: Found = dataclasses.field(default_factory=dict)
    keys: Iterable[Key] = ()
    too_many: bool = False


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """One look for one shape, to be run by the server and handed back to `Engine.complete`.

    It is either about rows (``keys`` and ``follow``), or about whole live queries (``queries``).

    Args:
        shape: whose inbox it answers.
        keys: rows of the root's table to look at.
        follow: rows of joined tables, as the values by which a link leads from them to more rows to look at.
        queries: live queries to ask for all their rows.
        since: when the earliest of the changes came that it answers, as `Engine.receive` was told; infinity
            where it answers none, as when live queries are loaded for the first time.
    """

    shape: Shape
    keys: tuple[Key, ...] = ()
    follow: tuple[tuple[Link, tuple[Key, ...]], ...] = ()
    queries: tuple[LiveQuery, ...] = ()
    since: float = math.inf

    def steps(self) -> Generator[Question, Sequence[Row], Answers]:
        """What to run, one after the other. Reading the rows may query too, or take its time, unless the
        shape `reads_plainly`: then all of it belongs on the worker thread that runs the statements."""
        compiled, wanted = self.shape.compiled, self.shape.by_route
        if self.queries:
            return (yield from _load(compiled, self.queries, wanted))
        keys = set(self.keys)
        for link, values in self.follow:
            assert link.find is not None
            keys.update([tuple(row) for row in (yield Question(link.find, values))])
            if len(keys) > MOST_KEYS:
                return Answers(too_many=True)
        if not keys or compiled.look is None:
            return Answers(keys=keys)
        rows = yield Question(compiled.look, keys)
        return Answers(compiled.read_look(rows, wanted), keys)


def _load(
    compiled: CompiledShape, queries: Sequence[LiveQuery], wanted: Container[Route]
) -> Generator[Question, Sequence[Row], Answers]:
    if compiled.load is None:
        return Answers(compiled.read((), wanted))
    routes = dict.fromkeys(route for query in queries for route in query.routes)
    return Answers(compiled.read((yield Question(compiled.load, routes)), wanted))
