"""What clients give to methods: arguments for type hints, and values for the fields of models."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import uuid
from collections.abc import Callable
from typing import Any, Literal

import msgspec
from django.contrib.postgres import fields as postgres
from django.db import models

from trigger_ddp import ejson
from trigger_ddp.api import incoming
from trigger_ddp.api.arguments import bind
from trigger_ddp.errors import MeteorError

SEEDS = (
    b'[1,"a",true,null,1.5,{"a":[1]},[{"b":"c"}]]',
    b'[{"$date":0},{"$date":253402300799999},{"$binary":"AAE="},{"$InfNaN":0},{"$InfNaN":-1}]',
    b'["00000000-0000-0000-0000-000000000000","2024-02-29","12:00:00","P1DT2S","127.0.0.1","::1"]',
    b'[{"$type":"Decimal","$value":"1.50"},{"$type":"oid","$value":"0123456789abcdef01234567"}]',
    b'[{"lower":1,"upper":2,"bounds":"[]"},{"lower":{"$date":0},"upper":null},{"empty":true}]',
    b'[{"day":{"$date":0},"price":{"$type":"Decimal","$value":"2"},"kind":"h","tags":["a"]}]',
    b'[{"$regexp":"a","$flags":"g"},18446744073709551616,-9223372036854775809,"\\u0000","1e400"]',
)
WORDS = (
    '"$date":', '"$binary":', '"$InfNaN":', '"$type":', '"Decimal"', '"$value":', '"oid"', '"$regexp":',
    '"$flags":', '"$escape":', '"lower":', '"upper":', '"bounds":', '"empty":', '"day":', '"price":',
    '"kind":', '"tags":', "sNaN", "-0", "1e308", "9007199254740993",
    "00000000-0000-0000-0000-000000000000", "12:00:00", "2024-02-29", "P1DT2S", "\\\\u0000",
    "253402300799999", "-62135596800000",
)  # fmt: skip


class Suit(enum.StrEnum):
    HEARTS = "h"


@dataclasses.dataclass
class Order:
    day: datetime.date
    price: decimal.Decimal
    kind: Suit = Suit.HEARTS
    tags: tuple[str, ...] = ()


class Line(msgspec.Struct):
    day: datetime.datetime | None = None
    count: int = 0
    order: Order | None = None


def _several(first: int, second: str, third: bool = False, *rest: float | None) -> None: ...
def _days(day: datetime.date, *days: datetime.datetime) -> None: ...
def _texts(
    a: uuid.UUID, b: datetime.date | str, c: datetime.time, d: datetime.timedelta, *e: Any
) -> None: ...
def _values(price: decimal.Decimal | bytes, oid: ejson.ObjectID | ejson.RegExp) -> None: ...
def _orders(*orders: Order | dict[str, list[int]]) -> None: ...
def _lines(line: Line, *lines: Line) -> None: ...
def _mixed(*values: int | Literal["a"] | list[Suit] | set[int] | None) -> None: ...


_FUNCTIONS: tuple[Callable[..., None], ...] = (_several, _days, _texts, _values, _orders, _lines, _mixed)
_FIELDS: tuple[models.Field[Any, Any], ...] = (
    models.BooleanField(), models.IntegerField(), models.BigIntegerField(),
    models.PositiveSmallIntegerField(), models.FloatField(),
    models.DecimalField(max_digits=9, decimal_places=2), models.CharField(max_length=9),
    models.TextField(), models.SlugField(), models.EmailField(), models.URLField(), models.DateField(),
    models.DateTimeField(), models.TimeField(), models.DurationField(), models.UUIDField(),
    models.GenericIPAddressField(), models.JSONField(), models.BinaryField(),
    postgres.ArrayField(models.IntegerField()), postgres.ArrayField(postgres.ArrayField(models.CharField())),
    postgres.HStoreField(), postgres.IntegerRangeField(), postgres.DecimalRangeField(),
    postgres.DateTimeRangeField(), postgres.DateRangeField(),
)  # fmt: skip


def feed(data: bytes) -> None:
    """EJSON: a list of arguments, each of which is tried for every field as well."""
    try:
        params = ejson.decode(data)
    except ejson.EJSONError:
        return
    if not isinstance(params, list):
        params = [params]
    for function in _FUNCTIONS:
        try:
            bind(function, params)
        except MeteorError as refusal:
            assert refusal.error == 400
            # what the client is told has to have a form
            ejson.encode(refusal.details)
    for value in params[:8]:
        for field in _FIELDS:
            try:
                converted = incoming.python_value(field, value)
            except incoming.Unfit as unfit:
                assert str(unfit)
                continue
            assert (converted is None) == (value is None)
        for read in (incoming.document_id, incoming.document_ids):
            try:
                read(value)
            except incoming.Unfit as unfit:
                assert str(unfit)
