"""From a notification's payload to a Change, or to a Gap where it can't be told."""

from __future__ import annotations

from typing import Annotated, Literal, Protocol

import msgspec

from trigger_ddp.changes.change import Change, Gap, Operation, Row

_Value = str | Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)] | None
_Rows = tuple[tuple[_Value, ...], ...]


class WrittenTable(Protocol):
    """What must be known of a table to read its notifications; `capture.tables.Table` is one."""

    @property
    def name(self) -> str:
        """The table as changes name it."""

    @property
    def version(self) -> str:
        """The fingerprint that its notifications must carry."""

    @property
    def primary_key(self) -> tuple[object, ...]:
        """The columns of its key."""

    @property
    def width(self) -> int:
        """Values of one row."""


class _Payload(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    """``[version, op, rows, old]``; B: too many rows were written to tell them; T: TRUNCATE."""

    version: str
    op: Literal["I", "U", "D", "B", "T"]
    rows: _Rows = ()
    old: _Rows = ()


class _Malformed(ValueError):
    """The payload is no trigger's of ours."""


_decoder = msgspec.json.Decoder(_Payload)


def decode(table: WrittenTable, payload: str) -> Change | Gap:
    """Read one notification of ``table``. Any role can send one, so whatever it says, nothing is raised.

    Returns:
        The change; or a Gap with the reason "bulk" or "truncate", "version" if the trigger is not of the
        table's version, or "undecodable" if no trigger of ours can have sent it.
    """
    try:
        told = _decoder.decode(payload.encode())
        if told.version != table.version:
            return Gap(table.name, "version")
        match told.op:
            case "B" | "T" if not told.rows and not told.old:
                return Gap(table.name, "bulk" if told.op == "B" else "truncate")
            case "I" | "U" | "D":
                return _change(table, told.op, told.rows, told.old)
            case _:
                return Gap(table.name, "undecodable")
    except (msgspec.DecodeError, _Malformed, UnicodeError, RecursionError):
        return Gap(table.name, "undecodable")


def _change(table: WrittenTable, op: Operation, rows: _Rows, old: _Rows) -> Change:
    if not (rows or old) or (old and op != "U"):
        raise _Malformed
    return Change(table.name, op, _rows(table, rows), _rows(table, old))


def _rows(table: WrittenTable, rows: _Rows) -> tuple[Row, ...]:
    width, key = table.width, len(table.primary_key)
    if any(len(row) != width or None in row[:key] for row in rows):
        raise _Malformed
    return tuple(
        tuple(value if value is None or isinstance(value, str) else str(value) for value in row)
        for row in rows
    )
