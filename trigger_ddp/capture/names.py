"""Names of channels, functions and triggers: readable, unique, and at most 63 bytes by construction.

PostgreSQL cuts longer identifiers silently, and ``pg_notify`` with a longer channel raises inside the
statement that fired the trigger. The readable part is plain ASCII in lower case, so a name has the same
number of bytes in every server encoding and never needs quotes when a person types it.
"""

from __future__ import annotations

import hashlib
import re
from typing import Literal

#: The statements that have a trigger of their own; as they stand in names.
Event = Literal["insert", "update", "delete", "truncate"]
EVENTS: tuple[Event, ...] = ("insert", "update", "delete", "truncate")

#: The 1 is the version of the payload's layout: a server that reads another layout listens elsewhere.
PREFIX = "ddp1_"

#: Every object of ours, of whatever layout version, matches this (a regular expression for PostgreSQL).
OURS = "^ddp[0-9]+_[a-z0-9_]*_(insert|update|delete|truncate)_[0-9a-f]{8}$"

_MOST_BYTES = 63  # NAMEDATALEN - 1
_HASH_DIGITS = 8
#: 63 - "ddp1_" 5 - "_truncate" 9 - "_" 1 - hash 8 = 40 bytes of the table's name.
_MOST_READABLE = _MOST_BYTES - len(PREFIX) - 1 - max(map(len, EVENTS)) - 1 - _HASH_DIGITS


def channel(schema: str | None, relation: str) -> str:
    """The channel that tells the changes of a table.

    Args:
        schema: the schema that the model names, or None where it leaves it to the search path.
        relation: the table's name as PostgreSQL knows it, without quotes.
    """
    return f"{PREFIX}{_readable(relation)}_{_digest(schema, relation)}"


def trigger(schema: str | None, relation: str, event: Event) -> str:
    """The name shared by a table's trigger for ``event`` and the function it calls."""
    return f"{PREFIX}{_readable(relation)}_{event}_{_digest(schema, relation)}"


def _readable(relation: str) -> str:
    return re.sub(r"[^a-z0-9_]+", "_", relation.lower())[:_MOST_READABLE]


def _digest(schema: str | None, relation: str) -> str:
    identity = f"{schema or ''}\0{relation}".encode("utf-8", "surrogatepass")
    return hashlib.sha256(identity).hexdigest()[:_HASH_DIGITS]
