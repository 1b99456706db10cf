"""A look at the database, as a value: what to ask, about which keys, and for whom."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from trigger_ddp.live.document import Document, Key

if TYPE_CHECKING:
    from trigger_ddp.live.shape import Shape

#: What a shape's lifted parameters are for one row or one live query: () while nothing is lifted.
Route = tuple[Any, ...]

#: One row of an answer: which row, for which live queries of the shape, and as what document.
Answer = tuple[Key, Route, Document]


class KeyPart:
    """Stands in a statement's parameters where the n-th parts of the keys asked about belong."""

    __slots__ = ("position",)

    def __init__(self, position: int) -> None:
        self.position = position

    def __repr__(self) -> str:
        return f"<part {self.position} of the keys>"


@dataclasses.dataclass(frozen=True, slots=True)
class Statement:
    """SQL with ``%s`` placeholders and its parameters, among them `KeyPart`s in a keyed statement."""

    sql: str
    params: tuple[Any, ...]

    def for_keys(self, keys: Sequence[Key]) -> tuple[Any, ...]:
        """The parameters with the keys put in their places."""
        columns = list(zip(*keys, strict=True))
        return tuple(
            list(columns[param.position]) if isinstance(param, KeyPart) else param for param in self.params
        )


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """One look for one shape, to be run by the server and handed back to `Engine.complete`.

    Args:
        shape: whose inbox it answers.
        keys: the rows to look at, or None for all of them.
        statement: what to run, or None where the answer is known to be empty.
        params: the statement's parameters.
        read: turns the fetched rows into answers. It may query (a `serialize` of the application's
            own), so it belongs on the thread that ran the statement.
    """

    shape: Shape
    keys: tuple[Key, ...] | None
    statement: Statement | None
    params: tuple[Any, ...]
    read: Callable[[Iterable[Sequence[Any]]], list[Answer]]
