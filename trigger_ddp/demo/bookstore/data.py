"""The example's contents: always the same eight authors, eight tags and twenty-five books."""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import NamedTuple

from django.db import connection, transaction

from trigger_ddp.demo.bookstore.models import Author, Book, Tag

AUTHORS = {
    "Amara Okafor": "amara@okafor.example",
    "Birgit Lindqvist": "birgit@lindqvist.example",
    "Henrik Sandvik": "henrik@sandvik.example",
    "Inês Carvalho": "ines@carvalho.example",
    "Leila Haddad": "leila@haddad.example",
    "Mei-Lin Zhao": "meilin@zhao.example",
    "Oscar Bellamy": "oscar@bellamy.example",
    "Tomasz Wrona": "tomasz@wrona.example",
}

TAGS = ("cooking", "essays", "fiction", "history", "mystery", "poetry", "science", "travel")


class Sample(NamedTuple):
    """One book of the example; `price` in euros, None where it is not for sale yet."""

    title: str
    author: str
    price: str | None
    published: str
    tags: str
    in_stock: bool = True


BOOKS = (
    Sample("The Salt Road", "Amara Okafor", "18.90", "2019-04-11", "history travel"),
    Sample("What the River Kept", "Amara Okafor", "14.50", "2021-09-02", "fiction"),
    Sample("Market Day in Enugu", "Amara Okafor", "27.00", "2016-05-19", "cooking travel"),
    Sample("Letters to a Lighthouse", "Birgit Lindqvist", "12.00", "2014-02-27", "fiction"),
    Sample("Winter Has No Witness", "Birgit Lindqvist", "11.95", "2017-10-05", "fiction mystery"),
    Sample("The Cartographer's Daughter", "Birgit Lindqvist", "13.40", "2020-01-30", "fiction history"),
    Sample("Nine Kinds of Snow", "Birgit Lindqvist", "9.80", "2023-11-16", "poetry"),
    Sample("A Short History of Tides", "Henrik Sandvik", "22.50", "2018-08-23", "history science"),
    Sample("The Herring Years", "Henrik Sandvik", "19.90", "2012-03-08", "history", False),
    Sample("Fathoms", "Henrik Sandvik", "16.75", "2022-06-14", "science"),
    Sample("Saudade for Beginners", "Inês Carvalho", "10.50", "2015-07-01", "essays travel"),
    Sample("The Tile Painter", "Inês Carvalho", "15.20", "2019-11-28", "fiction history"),
    Sample("Seven Hills, Eight Breakfasts", "Inês Carvalho", "24.00", "2024-03-21", "cooking travel"),
    Sample("The Library at Dusk", "Leila Haddad", "13.90", "2018-01-18", "fiction mystery"),
    Sample("Arithmetic of Gardens", "Leila Haddad", "17.30", "2021-05-06", "essays science"),
    Sample("Everyone Left by Sea", "Leila Haddad", "12.80", "2013-09-12", "fiction", False),
    Sample("Small Gods of Traffic", "Mei-Lin Zhao", "11.20", "2020-10-22", "essays"),
    Sample("The Quiet Algorithm", "Mei-Lin Zhao", "21.60", "2022-02-03", "science"),
    Sample("Rain on the Eleventh Floor", "Mei-Lin Zhao", "8.90", "2016-12-01", "poetry"),
    Sample("Murder at Low Water", "Oscar Bellamy", "9.99", "2011-06-30", "mystery"),
    Sample("Murder at High Table", "Oscar Bellamy", "9.99", "2013-06-27", "mystery"),
    Sample("Murder on Request", "Oscar Bellamy", None, "2027-06-24", "mystery", False),
    Sample("Bread, Mostly", "Tomasz Wrona", "26.40", "2017-04-20", "cooking"),
    Sample("The Amber Ledger", "Tomasz Wrona", "14.10", "2019-02-14", "history mystery"),
    Sample("Field Notes from a Balcony", "Tomasz Wrona", "12.60", "2023-05-25", "essays science"),
)

#: What the page's "add a book" button adds, one after the other.
MORE_TITLES = (
    "The Second Edition",
    "Notes in the Margin",
    "An Index of Lost Things",
    "The Last Bookshop but One",
    "Unbound",
)


def fill_if_empty() -> bool:
    """Create the example unless there are authors already; returns whether it did."""
    if Author.objects.exists():
        return False
    restore()
    return True


def restore() -> None:
    """Put everything back as it was at first, primary keys included, in one transaction.

    Subscribers see only what is different afterwards: the rows are new, their documents are mostly not.
    """
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute(
                "TRUNCATE bookstore_author, bookstore_tag, bookstore_book, bookstore_book_tags "
                "RESTART IDENTITY"
            )
        authors = {
            author.name: author
            for author in Author.objects.bulk_create(
                Author(name=name, email=email) for name, email in AUTHORS.items()
            )
        }
        tags = {tag.name: tag for tag in Tag.objects.bulk_create(Tag(name=name) for name in TAGS)}
        books = Book.objects.bulk_create(
            Book(
                title=sample.title,
                author=authors[sample.author],
                price=None if sample.price is None else Decimal(sample.price),
                published=datetime.date.fromisoformat(sample.published),
                in_stock=sample.in_stock,
            )
            for sample in BOOKS
        )
        through = Book.tags.through
        through.objects.bulk_create(
            through(book_id=book.pk, tag_id=tags[name].pk)
            for book, sample in zip(books, BOOKS, strict=True)
            for name in sample.tags.split()
        )
