"""Values as documents have them, turned into what model fields hold: the way back of `encoders`."""

from __future__ import annotations

import datetime
import decimal
from typing import Any

from django.conf import settings
from django.contrib.postgres import fields as postgres
from django.contrib.postgres.search import SearchVectorField
from django.core.exceptions import ValidationError
from django.db import models
from django.utils import timezone

from trigger_ddp import ejson

#: Fields whose values are no client's to give: a file's name leads to whatever is stored under it.
UNWRITABLE = (models.FileField, models.FilePathField, models.GeneratedField, SearchVectorField)

#: The Python types that a field of these classes takes, as EJSON decodes them; the first class counts.
_TYPES: tuple[tuple[tuple[type, ...], tuple[type, ...]], ...] = (
    ((models.BooleanField,), (bool,)),
    ((models.DecimalField,), (str, int, float, decimal.Decimal)),
    ((models.IntegerField, models.AutoField), (int, str)),
    ((models.FloatField,), (int, float)),
    ((models.DateTimeField, models.DateField), (datetime.datetime,)),
    ((models.BinaryField,), (bytes,)),
    ((postgres.HStoreField,), (dict,)),
    (
        (
            models.CharField, models.TextField, models.TimeField, models.DurationField, models.UUIDField,
            models.GenericIPAddressField,
        ),
        (str,),
    ),
    ((models.Field,), (str, int, float, bool)),
)  # fmt: skip


class Unfit(Exception):
    """A value not of the form that the field's values have in documents; ``str()`` says what is expected."""


def python_value(field: Any, value: Any) -> Any:
    """``value`` as an instance has it under ``field``, which is no relation. None stays None.

    Whether it fulfils the field's validators is for ``full_clean`` to say.

    Raises:
        Unfit: it is of another kind, or there is no such value.
    """
    if value is None:
        return None
    if isinstance(field, models.JSONField):
        return _json(value)
    if isinstance(field, postgres.ArrayField):
        return [python_value(field.base_field, item) for item in _of(list, value, "a list")]
    if isinstance(field, postgres.RangeField):
        return _range(field, _of(dict, value, "a range"))
    types = next(types for kinds, types in _TYPES if isinstance(field, kinds))
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        raise Unfit(f"a value of {type(field).__name__}")
    if isinstance(value, str):
        value = _text(value)
    if isinstance(value, bytes):
        return value
    if isinstance(value, dict):
        return _strings(value)
    if isinstance(value, datetime.datetime):
        return _instant(field, value)
    try:
        return field.to_python(value)
    except (ValidationError, ValueError, TypeError, ArithmeticError):
        raise Unfit(f"a value of {type(field).__name__}") from None


def document_id(value: Any) -> str:
    """A document's id.

    Raises:
        Unfit: it is no text.
    """
    return _text(_of(str, value, "a document's id"))


def document_ids(value: Any) -> list[str]:
    """A list of document ids, each once.

    Raises:
        Unfit: it is none.
    """
    return list(dict.fromkeys(document_id(item) for item in _of(list, value, "a list of ids")))


def _of(kind: type, value: Any, what: str) -> Any:
    if not isinstance(value, kind):
        raise Unfit(what)
    return value


def _text(value: str) -> str:
    """PostgreSQL has no NUL in texts, and half a surrogate pair has no form in UTF-8."""
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise Unfit("a text without NUL characters")
    return str.__str__(value)


def _instant(field: Any, value: datetime.datetime) -> Any:
    if not isinstance(field, models.DateTimeField):
        return value.astimezone(datetime.UTC).date()
    return value if settings.USE_TZ else timezone.make_naive(value, timezone.get_default_timezone())


def _strings(value: dict[str, Any]) -> dict[str, str | None]:
    return {
        _text(key): None if item is None else _text(_of(str, item, "an object of texts"))
        for key, item in value.items()
    }


def _range(field: Any, value: dict[str, Any]) -> Any:
    if value.get("empty") is True:
        return field.range_type(empty=True)
    bounds = value.get("bounds", "[)")
    if bounds not in ("[)", "[]", "(]", "()"):
        raise Unfit("a range")
    lower, upper = (python_value(field.base_field, value.get(end)) for end in ("lower", "upper"))
    try:
        if lower is not None and upper is not None and lower > upper:
            raise Unfit("a range whose lower bound is not above its upper one")
    except TypeError:
        raise Unfit("a range") from None
    return field.range_type(lower, upper, bounds)


def _json(value: Any) -> Any:
    """Plain JSON: EJSON's own values have no place in it."""
    if isinstance(value, dict):
        return {_text(key): _json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_json(item) for item in value]
    if isinstance(value, str) and not isinstance(value, ejson.ObjectID):
        return _text(value)
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and value - value == 0):
        return value
    raise Unfit("JSON")
