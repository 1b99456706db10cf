"""Clients' params against Python signatures."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import re
import uuid
from typing import TYPE_CHECKING, Annotated, Any, Literal, NotRequired, TypedDict

import msgspec
import pytest

from trigger_ddp import ejson
from trigger_ddp.api.arguments import bind
from trigger_ddp.demo.bookstore.models import Book
from trigger_ddp.ejson import ObjectID, RegExp
from trigger_ddp.errors import MeteorError

if TYPE_CHECKING:
    pass

NOON = datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.UTC)
OID = ObjectID("a" * 24)


class Wish(TypedDict):
    title: str
    count: int


class Colour:
    def __init__(self, name: Any) -> None:
        self.name = name


ejson.add_type("test-colour", Colour, lambda colour: colour.name, Colour)
RED = Colour("red")


def accepts(hint: Any, value: Any) -> Any:
    def function(it: Any) -> None:
        """Stands for a method."""

    function.__annotations__["it"] = hint
    (argument,) = bind(function, [value])
    return argument


@pytest.mark.parametrize(
    ("hint", "value", "argument"),
    [
        (int, 1, 1),
        (float, 1, 1.0),
        (float, float("inf"), float("inf")),
        (str, "", ""),
        (str, OID, OID),
        (bool, False, False),
        (None, None, None),
        (int | None, None, None),
        (list[int], [1], [1]),
        (dict[str, int], {"a": 1}, {"a": 1}),
        (dict, {"a": OID, "b": [NOON, b""]}, {"a": OID, "b": [NOON, b""]}),
        (tuple[int, str], [1, "a"], (1, "a")),
        (Wish, {"title": "a", "count": 1}, {"title": "a", "count": 1}),
        (Literal["a", "b"], "b", "b"),
        (datetime.datetime, NOON, NOON),
        (datetime.date, NOON, datetime.date(2024, 2, 29)),
        (datetime.date | None, NOON, datetime.date(2024, 2, 29)),
        (bytes, b"a", b"a"),
        (uuid.UUID, str(uuid.UUID(int=1)), uuid.UUID(int=1)),
        (decimal.Decimal, "1.50", decimal.Decimal("1.50")),
        (decimal.Decimal, decimal.Decimal("1.50"), decimal.Decimal("1.50")),
        (ObjectID, OID, OID),
        (Colour, RED, RED),
        (list[Colour], [RED], [RED]),
        (RegExp, RegExp("a", "i"), RegExp("a", "i")),
        (RegExp | None, RegExp("a", "i"), RegExp("a", "i")),
        (list[RegExp], [RegExp("a")], [RegExp("a")]),
        (Any, RED, RED),
        (object, RED, RED),
        # Hints that say nothing about params, or that can't be evaluated:
        (Book, "1", "1"),
        (list[Book], ["1"], ["1"]),
        ("Nothing", 1, 1),
        ("not even Python", 1, 1),
        ("int", 1, 1),
        (datetime.datetime | datetime.date, "x", "x"),
        (3, 1, 1),
    ],
)
def test_accepted(hint: Any, value: Any, argument: Any) -> None:
    assert accepts(hint, value) == argument


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (int, "1"),
        (int, True),
        (int, 1.5),
        (int, None),
        (float, "1"),
        (str, 1),
        (bool, 0),
        (list[int], ["1"]),
        (list[int], {}),
        (Wish, {"title": "a"}),
        (Wish, {"title": "a", "count": "1"}),
        (Literal["a", "b"], "c"),
        (Annotated[int, msgspec.Meta(ge=3)], 2),
        (uuid.UUID, "x"),
        (decimal.Decimal, "one"),
        (datetime.datetime, 0),
        (datetime.date, "today"),
        (ObjectID, "a" * 24),
        (Colour, "red"),
        (RegExp, "a"),
        (str, RegExp("a")),
        (re.Pattern, "a"),
        (re.Pattern, RegExp("a")),
        ("int", "1"),
    ],
)
def test_refused(hint: Any, value: Any) -> None:
    with pytest.raises(MeteorError) as caught:
        accepts(hint, value)
    assert (caught.value.error, caught.value.reason) == (400, "Match failed")
    assert re.match(r"it\S*: ", caught.value.details)


@dataclasses.dataclass
class Line:
    sku: str
    count: int = 1
    due: datetime.date | None = None


class Order(msgspec.Struct):
    lines: list[Line]
    parts: list[Order] = []
    days: dict[str, tuple[datetime.date, ...]] = {}
    at: datetime.datetime | None = None


class Basket(TypedDict):
    order: Order
    day: NotRequired[datetime.date]
    pair: NotRequired[tuple[int, datetime.date]]


@dataclasses.dataclass
class Positive:
    amount: int

    def __post_init__(self) -> None:
        if self.amount < 0:
            raise ValueError("the application's secret - at `$.secret`")


@pytest.mark.parametrize(
    ("hint", "value", "details"),
    [
        (Basket, {"order": {"lines": [{"sku": "a"}, {"sku": 1}]}},
         "it.order.lines[1].sku: Expected `str`, got `int`"),
        (Basket, {"order": {"lines": [{"sku": "a", "count": "1"}]}},
         "it.order.lines[0].count: Expected `int`, got `str`"),
        (Basket, {"order": {"lines": [{}]}}, "it.order.lines[0]: Object missing required field `sku`"),
        (Basket, {"order": None}, "it.order: Expected `object`, got `null`"),
        (Basket, {"order": {"lines": [], "parts": [{"lines": 0}]}},
         "it.order.parts[0].lines: Expected `array`, got `int`"),
        (Basket | None, 1, "it: Expected `object | null`, got `int`"),
        (list[RegExp], [RegExp("a"), "a"], "it[1]: Expected `object`, got `str`"),
        (dict[str, list[int]], {"a": [1, "b"]}, "it[...][1]: Expected `int`, got `str`"),
        (list[Positive], [{"amount": 1}, {"amount": -1}], "it[1]: Invalid value"),
        (Positive, {"amount": -1}, None),  # the path that its words pretend is of no use
    ],
)  # fmt: skip
def test_the_details_name_the_path(hint: Any, value: Any, details: str | None) -> None:
    with pytest.raises(MeteorError) as caught:
        accepts(hint, value)
    if details is not None:
        assert caught.value.details == details
    assert "application" not in str(caught.value.details)


def test_objects_become_what_the_hint_says() -> None:
    day = datetime.date(2024, 2, 29)
    assert accepts(Basket | None, {
        "order": {
            "lines": [{"sku": "a", "due": NOON}, {"sku": "b", "due": None}],
            "parts": [{"lines": [], "days": {"x": [NOON, NOON]}}], "at": NOON,
        },
        "day": NOON, "pair": [1, NOON],
    }) == {
        "order": Order([Line("a", 1, day), Line("b")], [Order([], [], {"x": (day, day)})], {}, NOON),
        "day": day, "pair": (1, day),
    }  # fmt: skip
    assert accepts(list[datetime.date | datetime.datetime], [1]) == [1]  # msgspec has no rules for it
    assert accepts(set[datetime.date], [NOON]) == {day}


def function(first: int, second: str = "b", *rest: int, third: int = 3) -> None:
    """Stands for a method."""


@pytest.mark.parametrize(
    ("params", "arguments"), [([1], (1,)), ([1, "x"], (1, "x")), ([1, "x", 2, 3], (1, "x", 2, 3))]
)
def test_number_of_params(params: list[Any], arguments: tuple[Any, ...]) -> None:
    assert bind(function, params) == arguments


def test_keyword_only_parameters_keep_their_defaults() -> None:
    def needs(a: int, b: int | None = None, *, c: int) -> None:
        """Can't be called by a client."""

    assert bind(function, [1, "x"]) == (1, "x")
    with pytest.raises(MeteorError) as caught:
        bind(needs, [1])
    assert (caught.value.error, caught.value.details) == (400, "missing a required argument: 'c'")


@pytest.mark.parametrize(("params", "words"), [([], "first"), ([1, "x", "y"], "rest"), ([1, 2], "second")])
def test_wrong_params_are_named(params: list[Any], words: str) -> None:
    with pytest.raises(MeteorError) as caught:
        bind(function, params)
    assert words in caught.value.details


def test_bound_methods_and_coroutines() -> None:
    class Some:
        def method(self, a: int) -> None:
            """No self among the params."""

        async def later(self, a: int) -> None:
            """Async."""

    assert bind(Some().method, [1]) == (1,)
    assert bind(Some().later, [1]) == (1,)
    for params in ([], [1, 2]):
        with pytest.raises(MeteorError):
            bind(Some().method, params)
