"""What becomes of each model field's values in a document: docs/fields.md as code.

`form_of` picks a field's `Form` once; the form's functions then run for every row.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import json
import math
import types
import uuid
from collections.abc import Callable
from typing import Any

import msgspec
from django.contrib.postgres import fields as postgres
from django.contrib.postgres.search import SearchVectorField
from django.db import models
from django.db.models.fields.files import FieldFile
from django.utils import timezone
from django.utils.duration import duration_string

from trigger_ddp import ejson

NULL = b"null"

_encode_json = msgspec.json.Encoder().encode
_decode_json = msgspec.json.Decoder().decode
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_EPOCH_DAY = _EPOCH.toordinal()
_MILLISECOND = datetime.timedelta(milliseconds=1)


@dataclasses.dataclass(frozen=True, slots=True)
class Form:
    """How the values of one field are published. Neither function is given None.

    Args:
        publish: gives a Python value that `ejson.encode` encodes as this field's form.
        encode: gives the EJSON text at once.
        accepts: the Python types the functions are made for.
    """

    publish: Callable[[Any], Any]
    encode: Callable[[Any], bytes]
    accepts: tuple[type, ...]


def _same(value: Any) -> Any:
    return value


def _encode_integer(value: int) -> bytes:
    if -ejson.MAX_SAFE_INTEGER <= value <= ejson.MAX_SAFE_INTEGER:
        return b"%d" % value
    return b'"%d"' % value


def _encode_float(value: float) -> bytes:
    return _encode_json(value) if math.isfinite(value) else ejson.encode(value)


def _encode_boolean(value: bool) -> bytes:
    return b"true" if value else b"false"


def _aware(value: datetime.datetime) -> datetime.datetime:
    """With ``USE_TZ = False`` Django's datetimes are naive in the project's time zone."""
    if value.tzinfo is None:
        return timezone.make_aware(value, timezone.get_default_timezone())
    return value


def _encode_datetime(value: datetime.datetime) -> bytes:
    return b'{"$date":%d}' % ((_aware(value) - _EPOCH) // _MILLISECOND)


def _encode_date(value: datetime.date) -> bytes:
    return b'{"$date":%d}' % ((value.toordinal() - _EPOCH_DAY) * 86_400_000)


def _by_publish(publish: Callable[[Any], str], *accepts: type) -> Form:
    return Form(publish, lambda value: _encode_json(publish(value)), accepts)


def _file_name(value: Any) -> Any:
    return value.name if isinstance(value, FieldFile) else value


def _encode_file_name(value: Any) -> bytes:
    # An unsaved FieldFile is an object without a name.
    return _encode_json(_file_name(value))


def _fixed_point(value: decimal.Decimal) -> str:
    # str() would give "1E+2" for some.
    return format(value, "f")


def _encode_fixed_point(value: decimal.Decimal) -> bytes:
    return b'"%b"' % format(value, "f").encode()


TEXT = Form(_same, _encode_json, (str,))
BOOLEAN = Form(_same, _encode_boolean, (bool,))
INTEGER = Form(_same, _encode_integer, (int,))
FLOAT = Form(_same, _encode_float, (float,))
DATETIME = Form(_aware, _encode_datetime, (datetime.datetime,))
DATE = Form(_same, _encode_date, (datetime.date,))
TIME = _by_publish(datetime.time.isoformat, datetime.time)
DURATION = _by_publish(duration_string, datetime.timedelta)
UUID = _by_publish(str, uuid.UUID)
BINARY = Form(_same, ejson.encode, (bytes, bytearray, memoryview))
FILE = Form(_file_name, _encode_file_name, (str, FieldFile))
HSTORE = Form(_same, ejson.encode, (dict,))

DECIMALS = {
    "string": Form(_fixed_point, _encode_fixed_point, (decimal.Decimal,)),
    "number": Form(float, lambda value: _encode_float(float(value)), (decimal.Decimal,)),
    "ejson": Form(_same, ejson.encode, (decimal.Decimal,)),
}

#: From special to general: a field takes the first of its classes.
_FORMS: tuple[tuple[type, Form], ...] = (
    (models.BooleanField, BOOLEAN),
    (models.IntegerField, INTEGER),
    (models.AutoField, INTEGER),
    (models.FloatField, FLOAT),
    (models.FileField, FILE),
    (models.CharField, TEXT),
    (models.TextField, TEXT),
    (models.GenericIPAddressField, TEXT),
    (models.FilePathField, TEXT),
    (models.DateTimeField, DATETIME),
    (models.DateField, DATE),
    (models.TimeField, TIME),
    (models.DurationField, DURATION),
    (models.UUIDField, UUID),
    (models.BinaryField, BINARY),
    (postgres.HStoreField, HSTORE),
    (SearchVectorField, TEXT),
)


def form_of(field: Any, decimal_as: str = "string") -> Form:
    """The form of a field that is not a relation.

    Args:
        field: a model field, or the base field of an array or range.
        decimal_as: "string", "number" or "ejson".
    """
    if isinstance(field, models.GeneratedField):
        return form_of(field.output_field, decimal_as)
    form = _known_form(field, decimal_as)
    if form is None:
        return _fallback(field, decimal_as)
    return form if is_stock(field) else _guarded(field, form, decimal_as)


def _known_form(field: Any, decimal_as: str) -> Form | None:
    if isinstance(field, models.DecimalField):
        return DECIMALS[decimal_as]
    if isinstance(field, models.JSONField):
        return _json_form(field)
    if isinstance(field, postgres.ArrayField):
        return _array_form(form_of(field.base_field, decimal_as))
    if isinstance(field, postgres.RangeField):
        return _range_form(form_of(field.base_field, decimal_as))
    return next((form for kind, form in _FORMS if isinstance(field, kind)), None)


def is_stock(field: Any) -> bool:
    """Whether the field's values are what Django's own class gives: a subclass may convert them."""
    kind = type(field)
    if kind.__module__.startswith("django."):
        return True
    nearest = next(base for base in kind.__mro__ if base.__module__.startswith("django."))
    return all(
        getattr(kind, name, None) is getattr(nearest, name, None)
        for name in ("from_db_value", "to_python", "descriptor_class", "contribute_to_class")
    )


def _guarded(field: Any, form: Form, decimal_as: str) -> Form:
    """``form`` for the types it is made for, the fallback for whatever else the field's class makes."""
    fallback = _fallback(field, decimal_as)
    return Form(
        lambda value: (form if isinstance(value, form.accepts) else fallback).publish(value),
        lambda value: (form if isinstance(value, form.accepts) else fallback).encode(value),
        (object,),
    )


def _fallback(field: Any, decimal_as: str) -> Form:
    """As Django's serializers: values of simple types as they are, anything else by ``value_to_string``."""

    def publish(value: Any) -> Any:
        if isinstance(value, decimal.Decimal):
            return DECIMALS[decimal_as].publish(value)
        if isinstance(value, datetime.datetime):
            return _aware(value)
        if isinstance(value, bool | int | float | str | datetime.date | datetime.time):
            return value
        return field.value_to_string(types.SimpleNamespace(**{field.attname or "value": value}))

    return Form(publish, lambda value: ejson.encode(publish(value)), (object,))


def _array_form(item: Form) -> Form:
    def publish(values: Any) -> Any:
        # The base field of a nested array is an array itself, so values here are items of one level.
        return [None if value is None else item.publish(value) for value in values]

    def encode(values: Any) -> bytes:
        return b"[%s]" % b",".join([NULL if value is None else item.encode(value) for value in values])

    return Form(publish, encode, (list, tuple))


def _range_form(bound: Form) -> Form:
    def publish(value: Any) -> Any:
        if value.isempty:
            return {"empty": True}
        return {
            "lower": None if value.lower is None else bound.publish(value.lower),
            "upper": None if value.upper is None else bound.publish(value.upper),
            "bounds": value.bounds,
        }

    def encode(value: Any) -> bytes:
        if value.isempty:
            return b'{"empty":true}'
        lower = NULL if value.lower is None else bound.encode(value.lower)
        upper = NULL if value.upper is None else bound.encode(value.upper)
        return b'{"lower":%s,"upper":%s,"bounds":"%s"}' % (lower, upper, value.bounds.encode())

    return Form(publish, encode, (object,))


def _json_form(field: models.JSONField[Any, Any]) -> Form:
    encoder = field.encoder or json.JSONEncoder

    def plain(value: Any) -> Any:
        # Through the field's encoder: its decoder may have made anything of the JSON.
        return json.loads(json.dumps(value, cls=encoder))

    publish = plain if field.encoder or field.decoder else _same
    return Form(publish, lambda value: _encode_json(ejson.escape(plain(value))), (object,))
