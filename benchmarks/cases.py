"""What `benchmarks.scaling` subscribes to and writes: each write with the messages that must follow."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from benchmarks.bookstore import Bookstore
from benchmarks.fleet import Message

#: Sessions that different parameters are dealt out to, or more if these may not hold as many.
SESSIONS = 10
#: Most subscriptions of a session, as DDP_MAX_SUBSCRIPTIONS has it by default.
SUBSCRIPTIONS_EACH = 1000
WINDOW = 5  # as CheapestOfAuthor has it

BOOKS, AUTHORS = "bookstore.book", "bookstore.author"
RETITLE = "UPDATE bookstore_book SET title = %s WHERE id = %s"
REPRICE = "UPDATE bookstore_book SET price = %s WHERE id = %s"
RENAME = "UPDATE bookstore_author SET name = %s WHERE id = %s"
MOVE = "UPDATE bookstore_author SET email = %s WHERE id = %s"


@dataclasses.dataclass(frozen=True)
class Write:
    """A statement, and what whoever subscribed to its author's rows is told."""

    sql: str
    params: tuple[Any, ...]
    messages: list[Message]


#: Makes the n-th write, about an author. Writes come in pairs about one author, the second of which may undo
#: the first.
Writes = Callable[[Bookstore, int, int], Write]


def title(store: Bookstore, author: int, number: int) -> Write:
    """A row that stays where it is."""
    book, text = store.book(author, number % 2), f"Title {author} {number}"
    return Write(RETITLE, (text, book), [Message("changed", BOOKS, str(book), (("title", text),))])


def name(store: Bookstore, author: int, number: int) -> Write:
    """A joined row, in a column that the join does not look at."""
    text = f"Name {author} {number}"
    return Write(RENAME, (text, author), [Message("changed", AUTHORS, str(author), (("name", text),))])


def address(store: Bookstore, author: int, number: int) -> Write:
    """A joined row, in the column that decides: everything leaves, and comes back with the next."""
    msg, value = ("added", "@x") if number % 2 else ("removed", "@away")
    books = [Message(msg, BOOKS, str(store.book(author, n))) for n in range(store.books_each)]
    return Write(MOVE, (f"{author}{value}", author), [Message(msg, AUTHORS, str(author)), *books])


def price(store: Bookstore, author: int, number: int) -> Write:
    """The cheapest book goes up, so that the first one outside the window takes its place, and down again."""
    cheapest, next_in = (str(store.book(author, n)) for n in (0, WINDOW))
    comes, goes = (cheapest, next_in) if number % 2 else (next_in, cheapest)
    return Write(
        REPRICE,
        (1 if number % 2 else 999, cheapest),
        [Message("removed", BOOKS, goes), Message("added", BOOKS, comes)],
    )


@dataclasses.dataclass(frozen=True)
class Case:
    """Subscriptions on a server of their own, and the writes that are measured with them.

    Args:
        publication: what is subscribed to.
        params: of the n-th subscription, from 1.
        documents: how many documents a subscription has.
        writes: what is measured, by its title.
        shared: every subscription is the first author's, and has a session of its own.
    """

    publication: str
    params: Callable[[int], list[Any]]
    documents: Callable[[Bookstore], int]
    writes: dict[str, Writes]
    shared: bool = False

    def sessions(self, subscriptions: int, most_subscriptions: int) -> int:
        """How many sessions there are: of different parameters as many as the largest number needs."""
        return subscriptions if self.shared else max(SESSIONS, -(-most_subscriptions // SUBSCRIPTIONS_EACH))

    def authors(self, subscriptions: int) -> int:
        """How many authors somebody has subscribed to: they are the first."""
        return 1 if self.shared else subscriptions


CASES = [
    Case("BooksOfAuthor", lambda n: [n], lambda store: store.books_each, {"filter: a row": title}),
    Case(
        "BooksByAuthorEmail",
        lambda n: [f"{n}@x"],
        lambda store: store.books_each + 1,
        {"join: a row": title, "join: a joined row": name, "join: its key column": address},
    ),
    Case("CheapestOfAuthor", lambda n: [n], lambda _: WINDOW, {"window: in and out": price}),
    Case("BooksOfAuthor", lambda _: [1], lambda store: store.books_each, {"one query, shared": title}, True),
]
