"""A document as clients see it, and the difference between what was and what is."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

#: A row's primary key, each part as the text that notifications carry. It names the row inside the server;
#: the document's id, which clients see, may be another column (an AleaIdField).
Key = tuple[str | None, ...]

#: Field name to its value, already encoded as EJSON.
Fields = Mapping[str, bytes]


class Document(NamedTuple):
    """One row as its collection shows it. Replaced when the row changes, never altered."""

    id: str
    fields: Fields


class Transition(NamedTuple):
    """What became of one document: it left (no new one), came (no old one), or changed."""

    id: str
    old: Document | None
    new: Document | None


@dataclasses.dataclass(frozen=True, slots=True)
class Difference:
    """Two versions of one document's fields compared.

    Args:
        fields: what is new or has another value.
        cleared: names of the fields that are gone.
    """

    fields: dict[str, bytes]
    cleared: list[str]

    def __bool__(self) -> bool:
        return bool(self.fields or self.cleared)


def difference(old: Fields, new: Fields) -> Difference:
    """What a client that has ``old`` must be told to have ``new``."""
    return Difference(
        {name: value for name, value in new.items() if old.get(name) != value},
        [name for name in old if name not in new],
    )
