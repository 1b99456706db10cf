"""Dates without a time among a client's params: EJSON has only instants, of which hints may want the day."""

from __future__ import annotations

import datetime
from typing import Any

import msgspec
from msgspec import inspect as kinds


class DayFinder:
    """Finds where values of a hint are to be dates.

    Args:
        hint: one that msgspec can check.
    """

    def __init__(self, hint: Any) -> None:
        kind = msgspec.inspect.type_info(hint)
        self._kind = kind if _has_days(kind, set()) else None

    def convert(self, value: Any) -> Any:
        """``value``, in which each datetime that is to be a `datetime.date` is that day in UTC."""
        return value if self._kind is None else _convert(value, self._kind)


def _has_days(kind: kinds.Type, seen: set[int]) -> bool:
    if id(kind) in seen:  # a type that refers to itself
        return False
    seen.add(id(kind))
    return isinstance(kind, kinds.DateType) or any(_has_days(part, seen) for part in _parts(kind))


def _parts(kind: kinds.Type) -> list[kinds.Type]:
    match kind:
        case kinds.Metadata(type=inner):
            return [inner]
        case kinds.UnionType(types=types) | kinds.TupleType(item_types=types):
            return list(types)
        case kinds.CollectionType(item_type=item):
            return [item]
        case kinds.DictType(value_type=item):
            return [item]
        case _ if isinstance(kind, _OBJECTS):
            return [field.type for field in kind.fields]
    return []


_OBJECTS = (kinds.StructType, kinds.DataclassType, kinds.TypedDictType, kinds.NamedTupleType)


def _convert(value: Any, kind: kinds.Type) -> Any:
    if isinstance(value, datetime.datetime):
        alternatives = kind.types if isinstance(kind, kinds.UnionType) else (kind,)
        wants = {type(alternative) for alternative in alternatives}
        if kinds.DateType in wants and kinds.DateTimeType not in wants:
            return value.astimezone(datetime.UTC).date()
    elif isinstance(value, list):
        match kind:
            case kinds.TupleType(item_types=types) if len(types) == len(value):
                return [_convert(item, part) for item, part in zip(value, types, strict=True)]
            case kinds.CollectionType(item_type=part):
                return [_convert(item, part) for item in value]
            case kinds.UnionType(types=types):
                return _by_first(value, types, (kinds.CollectionType, kinds.TupleType))
    elif isinstance(value, dict):
        if isinstance(kind, kinds.DictType):
            return {key: _convert(item, kind.value_type) for key, item in value.items()}
        if isinstance(kind, _OBJECTS):
            parts = {field.encode_name: field.type for field in kind.fields}
            return {key: _convert(item, parts[key]) if key in parts else item for key, item in value.items()}
        if isinstance(kind, kinds.UnionType):
            return _by_first(value, kind.types, (kinds.DictType, *_OBJECTS))
    return value


def _by_first(value: Any, alternatives: tuple[kinds.Type, ...], wanted: tuple[type, ...]) -> Any:
    """By the one alternative that is a list or an object; msgspec allows more of them only if tagged."""
    found = [kind for kind in alternatives if isinstance(kind, wanted)]
    return _convert(value, found[0]) if len(found) == 1 else value
