"""What a notification means once it is read: a Change, or a Gap where something can't be told."""

from __future__ import annotations

import dataclasses
from typing import Literal

#: One changed row as its notification tells it: the primary key's parts first, in the order of the
#: table's primary key, then the foreign keys in the order of `capture.tables.Table.foreign_keys`.
#: Every value is the text that `capture.tables.Column` defines for it, or None.
Row = tuple[str | None, ...]

#: INSERT, UPDATE, DELETE.
Operation = Literal["I", "U", "D"]


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """Rows of one table that one committed statement wrote. Says where to look, not what is there.

    Args:
        table: the table as `capture.tables.Table.name` spells it (quoted where PostgreSQL needs it).
        op: the statement's kind.
        rows: the rows as they are now; for a DELETE as they were.
        old: for an UPDATE, the rows as they were where a key column differs, in no particular order.
    """

    table: str
    op: Operation
    rows: tuple[Row, ...]
    old: tuple[Row, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Gap:
    """Anything may have changed: look at everything again.

    Args:
        table: the table concerned, or None for every table (the listening connection was lost).
        reason: for the log: "bulk", "truncate", "version", "undecodable", "reconnected", …
    """

    table: str | None
    reason: str
