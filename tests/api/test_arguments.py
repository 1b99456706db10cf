"""Clients' params against Python signatures."""

from __future__ import annotations

import datetime
import decimal
import re
import uuid
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypedDict

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
    assert caught.value.details.startswith("it: ")


def function(first: int, second: str = "b", *rest: int, third: int = 3) -> None:
    """Stands for a method."""


@pytest.mark.parametrize(
    ("params", "arguments"), [([1], (1,)), ([1, "x"], (1, "x")), ([1, "x", 2, 3], (1, "x", 2, 3))]
)
def test_number_of_params(params: list[Any], arguments: tuple[Any, ...]) -> None:
    assert bind(function, params) == arguments


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
