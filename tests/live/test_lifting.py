"""What is lifted out of a queryset's conditions, and that routes find the rows that PostgreSQL finds."""

from __future__ import annotations

import datetime
import decimal
import enum
import uuid
from typing import Any

import pytest
from django.db import DatabaseError, OperationalError, connection
from django.db.models import Count, F, Q, TextChoices, Value
from django.db.models.functions import Lower, TruncMonth
from psycopg import DataError

from tests.live.asking import load, look_at
from tests.zoo.models import Animal, Cage, Custom, Every, Keeper, Species, Ticket
from trigger_ddp.api import Collection
from trigger_ddp.demo.bookstore.models import Author, Book
from trigger_ddp.live.compile import compile_queryset
from trigger_ddp.live.compiled import CompiledQuery
from trigger_ddp.live.lifting import MOST_ROUTES, MOST_VALUES, _compares_by_bytes
from trigger_ddp.server.database import is_passing

pytestmark = pytest.mark.usefixtures("db")

NEW_YEAR = datetime.datetime(2025, 1, 1, tzinfo=datetime.UTC)
DAY, MOMENT = datetime.date(2024, 2, 29), datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.UTC)
ID = uuid.UUID(int=7)


class Colour(TextChoices):
    RED = "r"


class Number(enum.IntEnum):
    SEVEN = 7


def compiled(queryset: Any) -> CompiledQuery:
    class Anything(Collection):
        model = queryset.model
        name = f"anything.{queryset.model.__name__}"

    return compile_queryset(Anything(), queryset)


LIFTED: dict[str, tuple[Any, list[tuple[Any, ...]]]] = {
    "text": (lambda: Every.objects.filter(char="x"), [("x",)]),
    "an empty text": (lambda: Every.objects.filter(text=""), [("",)]),
    "a percent sign": (lambda: Every.objects.filter(text="100%"), [("100%",)]),
    "an enum's member": (lambda: Every.objects.filter(char=Colour.RED), [("r",)]),
    "an integer": (lambda: Every.objects.filter(integer=7), [(7,)]),
    "an integer as text": (lambda: Every.objects.filter(big_integer="7"), [(7,)]),
    "an integer's enum": (lambda: Every.objects.filter(small_integer=Number.SEVEN), [(7,)]),
    "a boolean": (lambda: Every.objects.filter(boolean=False), [(False,)]),
    "a date": (lambda: Every.objects.filter(date=DAY), [(DAY,)]),
    "a decimal": (lambda: Every.objects.filter(decimal=decimal.Decimal("1.50")), [(decimal.Decimal("1.5"),)]),
    "a UUID": (lambda: Cage.objects.filter(pk=str(ID)), [(ID,)]),
    "an odd column": (lambda: Every.objects.filter(writer="x"), [("x",)]),
    "a generated column": (lambda: Every.objects.filter(doubled=4), [(4,)]),
    "a primary key": (lambda: Species.objects.filter(pk="ant"), [("ant",)]),
    "an own subclass": (lambda: Custom.objects.filter(shouted="X"), [("X",)]),
    "a converted field": (lambda: Custom.objects.filter(point=_point(1, 2)), [("1,2",)]),
    "a foreign key": (lambda: Book.objects.filter(author=7), [(7,)]),
    "a foreign key by its object": (lambda: Book.objects.filter(author=Author(pk=7)), [(7,)]),
    "a foreign key to text": (lambda: Animal.objects.filter(by_latin_name="lupus"), [("lupus",)]),
    "through a foreign key": (lambda: Book.objects.filter(author__email="a@x"), [("a@x",)]),
    "through two": (lambda: Animal.objects.filter(mother__keeper__name="x"), [("x",)]),
    "through many-to-many": (lambda: Book.objects.filter(tags__name="x"), [("x",)]),
    "a year": (lambda: Every.objects.filter(date__year=2024), [(2024,)]),
    "a year of a moment": (lambda: Every.objects.filter(datetime__year=2024), [(2024,)]),
    "an ISO year": (lambda: Every.objects.filter(date__iso_year=2024), [(2024,)]),
    "the date of a moment": (lambda: Every.objects.filter(datetime__date=DAY), [(DAY,)]),
    "months in a list": (lambda: Every.objects.filter(date__month__in=[2, 1]), [(1,), (2,)]),
    "a list": (lambda: Every.objects.filter(char__in=["b", "a", "b", None]), [("a",), ("b",)]),
    "a list of objects": (
        lambda: Book.objects.filter(author__in=[Author(pk=2), Author(pk=1)]), [(1,), (2,)],
    ),
    "two conditions": (lambda: Every.objects.filter(char="x", integer=1), [("x", 1)]),
    "a condition and a list": (
        lambda: Every.objects.filter(integer__in=[1, 2]).filter(char="x"), [("x", 1), ("x", 2)],
    ),
    "in nested Qs": (
        lambda: Every.objects.filter(Q(Q(char="x") & Q(text="")) & Q(date=DAY)), [("x", DAY, "")],
    ),
    "an annotation": (lambda: Book.objects.annotate(w=F("author__name")).filter(w="x"), [("x",)]),
    "a transform as an annotation": (lambda: Book.objects.alias(t=Lower("title")).filter(t="x"), [("x",)]),
    "in a slice": (lambda: Book.objects.filter(author=7).order_by("price")[:3], [(7,)]),
    "in DISTINCT ON": (
        lambda: Book.objects.filter(in_stock=True).order_by("author").distinct("author"), [(True,)],
    ),
    "contradictions": (lambda: Book.objects.filter(author=1).filter(author=2), [(1, 2)]),
}  # fmt: skip

NOT_LIFTED: dict[str, Any] = {
    "other lookups": lambda: Every.objects.filter(integer__gte=1, text__contains="x", char__iexact="x"),
    "NULL": lambda: Every.objects.filter(integer=None),
    "OR": lambda: Every.objects.filter(Q(integer=1) | Q(text="x")),
    "NOT": lambda: Every.objects.filter(~Q(integer=1)),
    "exclude": lambda: Every.objects.exclude(integer=1),
    "another column": lambda: Every.objects.filter(integer=F("big_integer")),
    "an expression": lambda: Every.objects.filter(char=Lower(Value("X"))),
    "a subquery": lambda: Book.objects.filter(author__in=Author.objects.filter(name="x")),
    "a float": lambda: Every.objects.filter(float=1.5),
    "a moment": lambda: Every.objects.filter(datetime=MOMENT),
    "a time": lambda: Every.objects.filter(time=MOMENT.time()),
    "a duration": lambda: Every.objects.filter(duration=datetime.timedelta(1)),
    "JSON": lambda: Every.objects.filter(json={"a": 1}),
    "a JSON key": lambda: Every.objects.filter(json__a=1),
    "an address": lambda: Every.objects.filter(generic_ip_address="::1"),
    "bytes": lambda: Every.objects.filter(binary=b"x"),
    "what is no date in PostgreSQL": lambda: Every.objects.annotate(month=TruncMonth("date")).filter(
        month=DAY.replace(day=1)
    ),
    "a list in a slice": lambda: Book.objects.filter(author__in=[1, 2]).order_by("price")[:3],
    "a list in an aggregate": lambda: Book.objects.filter(tags__name__in=["a", "b"]).annotate(
        n=Count("tags")
    ),
    "a long list": lambda: Every.objects.filter(integer__in=range(MOST_VALUES + 1)),
    "a list with an expression": lambda: Every.objects.filter(integer__in=[1, F("big_integer")]),
}


def _point(x: int, y: int) -> Any:
    from tests.zoo.models import Point

    return Point(x, y)


@pytest.mark.parametrize("name", LIFTED)
def test_what_is_lifted(name):
    queryset, routes = LIFTED[name]
    assert list(compiled(queryset()).routes) == routes


@pytest.mark.parametrize("name", NOT_LIFTED)
def test_what_is_not_lifted(name):
    assert compiled(NOT_LIFTED[name]()).shape.lifted == ()


def test_the_combinations_of_lists_are_bounded():
    many = list(range(MOST_VALUES))
    query = compiled(Every.objects.filter(integer__in=many, big_integer__in=many, small_integer=1))
    assert len(query.routes) == MOST_VALUES <= MOST_ROUTES
    assert len(query.shape.lifted) == 2


def test_the_order_of_writing_makes_no_other_shape():
    one = compiled(Every.objects.filter(char="x").filter(integer=1))
    other = compiled(Every.objects.filter(integer=2).filter(char="y"))
    assert one.shape is other.shape


@pytest.mark.every_major
def test_what_postgresql_compares_otherwise_than_the_model_says():
    kinds = {"bpchar": "char(10)", "plain": 'text COLLATE "C"', "varying": "varchar(3)", "other": "uuid"}
    with connection.cursor() as cursor:
        try:
            cursor.execute("CREATE COLLATION odd (provider = icu, locale = 'und', deterministic = false)")
            kinds["nondeterministic"] = "varchar(10) COLLATE odd"
        except DatabaseError:
            assert connection.pg_version // 10000 > 15  # these wheels come without ICU; Debian's 15 has it
        try:
            cursor.execute("CREATE EXTENSION citext")
            kinds["citext"] = "citext"
        except DatabaseError:
            assert connection.pg_version // 10000 > 15
        for kind, db_type in kinds.items():
            cursor.execute(f'CREATE TABLE "Kind {kind}" (id serial PRIMARY KEY, "a name" {db_type})')
    found = {kind: _compares_by_bytes(connection, f"Kind {kind}", "a name") for kind in kinds}
    assert found == {kind: kind in ("plain", "varying", "other") for kind in kinds}


def test_a_locked_table_holds_nobody_up_who_compiles(db):
    with db.connect() as other, other.transaction():
        other.execute("LOCK zoo_every")
        with pytest.raises(OperationalError) as refused:
            compiled(Every.objects.filter(date__year=2024))
    assert is_passing(refused.value)  # so the server tries again
    assert compiled(Every.objects.filter(date__year=2024)).shape.lifted


@pytest.mark.parametrize("text", ["a\0", "\ud800"])
def test_text_that_postgresql_refuses_is_its_senders_trouble(text):
    """It is not lifted, so it is never asked about together with others' constants."""
    with pytest.raises((DataError, UnicodeEncodeError)):
        compiled(Every.objects.filter(text=text))


ROWS: list[dict[str, Any]] = [
    {}, {"char": "x", "integer": 1, "decimal": "1.5", "date": DAY, "boolean": True},
    {"char": "X", "integer": 2, "decimal": "1.50", "date": None, "boolean": False},
    {"char": "x ", "integer": 1, "decimal": "-0.0", "date": datetime.date(2023, 12, 31), "boolean": True},
    {"char": "é", "integer": -1, "decimal": "0", "datetime": MOMENT, "boolean": None},
    {"char": "e\u0301", "integer": 0, "datetime": NEW_YEAR - datetime.timedelta(minutes=1)},
    {"char": "", "text": "", "big_integer": 2**62, "datetime": NEW_YEAR},
]  # fmt: skip
CONDITIONS: list[dict[str, Any]] = [
    *({"char": value} for value in ("x", "X", "x ", "é", "e\u0301", "")),
    *({"lower": value} for value in ("x", "X")),
    *({"decimal": value} for value in ("1.5", "1.500", 0, "-0")),
    *({"decimal__in": value} for value in (["1.50", "7"], [0, "1.5"])),
    *({"date__year": value} for value in (2023, 2024)),
    *({"datetime__year": value} for value in (2024, 2025)),
    *({"datetime__date": value} for value in (DAY, "2024-12-31")),
    *({"boolean": value} for value in (True, False)),
    *({"integer": value, "boolean": True} for value in (1, 2)),
    {"big_integer": 2**62}, {"char__in": ["x", "é"], "integer__in": [1, -1]}, {"text": ""},
]  # fmt: skip


def test_routes_find_what_postgresql_finds():
    keys = [(str(Every.objects.create(**row).pk),) for row in ROWS]
    for condition in CONDITIONS:
        queryset = Every.objects.alias(lower=Lower("char")).filter(**condition)
        query = compiled(queryset)
        assert query.shape.lifted, condition
        wanted = {str(pk) for pk in queryset.values_list("pk", flat=True)}
        assert set(load(query)) == wanted, condition
        assert {key for _, key, _ in look_at(query, *keys)} == wanted, condition


def test_an_alea_id_and_a_keeper_are_text():
    assert compiled(Ticket.objects.filter(pk="abc")).routes == (("abc",),)
    assert compiled(Keeper.objects.filter(aid="abc")).routes == (("abc",),)
