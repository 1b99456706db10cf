"""The example's data and methods."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from tests.conftest import Database
from trigger_ddp.api import API, MeteorError
from trigger_ddp.demo.bookstore import data
from trigger_ddp.demo.bookstore.models import Author, Book, Tag


@pytest.fixture
def shop(db: Database) -> dict[str, Callable[..., Any]]:
    """The methods clients call, by name without the prefix, on a filled bookstore."""
    assert data.fill_if_empty()
    methods = API.api_path_map()
    return {
        name.removeprefix("bookstore/"): methods[name] for name in methods if name.startswith("bookstore/")
    }


def contents() -> list[list[tuple[Any, ...]]]:
    tables: list[Any] = [Author, Tag, Book, Book.tags.through]
    return [list(model.objects.order_by("pk").values_list()) for model in tables]


def price(pk: int) -> Decimal | None:
    book: Any = Book.objects.get(pk=pk)
    value: Decimal | None = book.price
    return value


def test_the_data_is_always_the_same(db: Database) -> None:
    assert data.fill_if_empty()
    first = contents()
    assert [len(rows) for rows in first[:3]] == [8, 8, 25]
    assert not data.fill_if_empty()
    Author.objects.all().delete()
    Tag.objects.create(name="new")
    data.restore()
    assert contents() == first


def test_restore(shop: dict[str, Callable[..., Any]]) -> None:
    first = contents()
    shop["removeBook"]("3")
    shop["addBook"]()
    assert contents() != first
    shop["restore"]()
    assert contents() == first


def test_prices_are_raised_and_stay_below_what_the_column_holds(shop: dict[str, Callable[..., Any]]) -> None:
    Book.objects.filter(pk=2).update(price=Decimal("999999.00"))
    unpriced = Book.objects.get(price=None).pk
    assert shop["raisePrices"](10) == 24
    assert price(1) == Decimal("20.79")
    assert price(2) == Decimal("999999.99")
    assert price(unpriced) is None
    shop["raisePrices"](-50.5)
    assert price(1) == Decimal("10.29")


@pytest.mark.parametrize("percent", [-91, 101, float("nan"), float("inf")])
def test_prices_do_not_change_beyond_reason(shop: dict[str, Callable[..., Any]], percent: float) -> None:
    with pytest.raises(MeteorError, match="invalid-percent"):
        shop["raisePrices"](percent)
    assert price(1) == Decimal("18.90")


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("12.5", "12.50"),
        (7, "7.00"),
        (0.1, "0.10"),
        (" 3,99 ", "3.99"),
        ("999999.99", "999999.99"),
        ("", None),
        (None, None),
    ],
)
def test_a_price_is_set(shop: dict[str, Callable[..., Any]], given: Any, stored: str | None) -> None:
    shop["setPrice"]("1", given)
    assert price(1) == (None if stored is None else Decimal(stored))


@pytest.mark.parametrize("given", ["abc", "-1", "1000000", "NaN", "Infinity", "1e9", "--", "999999.999"])
def test_what_is_no_price_is_refused(shop: dict[str, Callable[..., Any]], given: str) -> None:
    with pytest.raises(MeteorError, match="invalid-price"):
        shop["setPrice"]("1", given)
    assert price(1) == Decimal("18.90")


def test_stock_is_toggled(shop: dict[str, Callable[..., Any]]) -> None:
    shop["toggleStock"]("1")
    assert not Book.objects.get(pk=1).in_stock
    shop["toggleStock"]("1")
    assert Book.objects.get(pk=1).in_stock


@pytest.mark.parametrize("book_id", ["999", "x", "", "-1", "٣", "99999999999999999999999"])
@pytest.mark.parametrize("method", ["toggleStock", "removeBook"])
def test_a_book_that_is_not_there(shop: dict[str, Callable[..., Any]], method: str, book_id: str) -> None:
    with pytest.raises(MeteorError, match="no such book"):
        shop[method](book_id)


def test_adding_needs_an_author(shop: dict[str, Callable[..., Any]]) -> None:
    shop["addBook"]()
    assert Book.objects.count() == 26
    Author.objects.all().delete()
    with pytest.raises(MeteorError, match="no author left"):
        shop["addBook"]()


def test_the_publications_are_those_of_the_readme(shop: dict[str, Callable[..., Any]]) -> None:
    everything = API.get_pub_by_name("AllBooks").user_queries(None)
    assert [query.count() for query in everything] == [8, 25]
    leila = API.get_pub_by_name("BooksByAuthorEmail").user_queries(None, "leila@haddad.example")
    assert [query.count() for query in leila] == [1, 3]
