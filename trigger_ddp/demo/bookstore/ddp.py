"""What the bookstore publishes, and the methods its clients may call."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any

from django.db import transaction
from django.db.models import Count, F
from django.db.models.functions import Least

from trigger_ddp.api import API, APIMixin, Collection, MeteorError, Publication, api_endpoint
from trigger_ddp.demo.bookstore import data, models

#: The most that `Book.price`, a numeric(8, 2), holds.
HIGHEST_PRICE = Decimal("999999.99")


class Author(Collection):
    model = models.Author


class Book(Collection):
    model = models.Book


class Tag(Collection):
    model = models.Tag


class AllBooks(Publication):
    queries = [
        models.Author.objects.all(),
        models.Book.objects.all(),
    ]


class BooksByAuthorEmail(Publication):
    def get_queries(self, author_email: str) -> list[Any]:
        return [
            models.Author.objects.filter(email=author_email),
            models.Book.objects.filter(author__email=author_email),
        ]


class AllTags(Publication):
    queries = [models.Tag.objects.all()]


class Shop(APIMixin):
    """The methods `bookstore/…`."""

    api_path_prefix = "bookstore/"

    @api_endpoint("raisePrices")
    def raise_prices(self, percent: int | float) -> int:
        """Raise (or, with a negative number, lower) every price; returns the number of books."""
        if not -90 <= percent <= 100:
            raise MeteorError("invalid-percent", "Prices change by -90 to 100 percent")
        factor = 1 + Decimal(str(percent)) / 100
        priced = models.Book.objects.filter(price__isnull=False)
        return priced.update(price=Least(F("price") * factor, HIGHEST_PRICE))

    @api_endpoint("setPrice")
    def set_price(self, book_id: str, price: str | int | float | None) -> None:
        """Give one book a price: a number, also as text; None or an empty text means none."""
        self._update(book_id, price=_price(price))

    @api_endpoint("toggleStock")
    def toggle_stock(self, book_id: str) -> None:
        """Say that a book is in stock, or that it no longer is."""
        self._update(book_id, in_stock=~F("in_stock"))

    @api_endpoint("addBook")
    def add_book(self) -> str:
        """Add one more book, by the author who has fewest; returns its title."""
        with transaction.atomic():
            author = (
                models.Author.objects.annotate(written=Count("books")).order_by("written", "name").first()
            )
            if author is None:
                raise MeteorError("no-author", "There is no author left who could write it")
            titles = data.MORE_TITLES
            title = titles[models.Book.objects.count() % len(titles)]
            models.Book.objects.create(title=title, author=author, price=Decimal("10.00"))
        return title

    @api_endpoint("removeBook")
    def remove_book(self, book_id: str) -> None:
        """Delete one book, and with it its tags' rows in the many-to-many table."""
        self._find(book_id).delete()

    @api_endpoint("restore")
    def restore(self) -> None:
        """Put the whole example back as it was at first."""
        data.restore()

    def _find(self, book_id: str) -> Any:
        """The queryset of one book. Raises MeteorError if it is not there."""
        if book_id.isascii() and book_id.isdigit():
            found = models.Book.objects.filter(pk=book_id)
            if found.exists():
                return found
        raise MeteorError(404, "There is no such book")

    def _update(self, book_id: str, **values: Any) -> None:
        self._find(book_id).update(**values)


def _price(price: str | int | float | None) -> Decimal | None:
    if price is None or price == "":
        return None
    try:
        value = Decimal(str(price).strip().replace(",", "."))
    except InvalidOperation:
        value = Decimal("NaN")
    if not value.is_finite() or not 0 <= value <= HIGHEST_PRICE:
        raise MeteorError("invalid-price", f"A price is a number from 0 to {HIGHEST_PRICE}")
    return round(value, 2)


API.register([Author, Book, Tag, AllBooks, BooksByAuthorEmail, AllTags, Shop])
