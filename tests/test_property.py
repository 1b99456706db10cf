"""The invariant, end to end: when writers stop, every client's documents equal its querysets' results.

Hypothesis invents transactions for several connections (inserts, updates, deletes, bulk statements,
truncates, rollbacks, savepoints) that interleave, and sessions that subscribe and unsubscribe between
them; a real server and real sockets are in between. `updated` is the only thing waited for: once it is
there, all that was committed before has been told. What clients should have is said in SQL, by hand;
tests/library does the same with every kind of publication, where Django's ORM says it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import Database
from tests.ddp import DDPClient
from tests.serving import Server
from tests.writing import Writer, examples, sql

EXAMPLES = examples(60)
WRITERS = 3
SESSIONS = 3

BOOK, AUTHOR = "bookstore.book", "bookstore.author"

#: Publication, its parameters, and SQL for the books and authors it stands for.
SUBSCRIPTIONS: list[tuple[str, list[Any], str, str | None]] = [
    ("AllBooks", [], "true", "true"),
    ("CheapBooks", [5], "b.price <= 5", None),
    ("CheapBooks", [8], "b.price <= 8", None),
    ("BooksByAuthorEmail", ["1@x"], "a.email = '1@x'", "email = '1@x'"),
    ("BooksByAuthorEmail", ["2@x"], "a.email = '2@x'", "email = '2@x'"),
    ("CheapestBooks", [3], "b.id IN (SELECT id FROM bookstore_book ORDER BY price, id LIMIT 3)", None),
    (
        "TaggedBooks",
        ["t1"],
        "EXISTS (SELECT FROM bookstore_book_tags WHERE book_id = b.id AND tag_id = 1)",
        None,
    ),
    (
        "BooksOfTheProlific",
        [2],
        "b.author_id IN (SELECT author_id FROM bookstore_book GROUP BY 1 HAVING count(*) >= 2)",
        None,
    ),
]

BOOKS_SQL = """
    SELECT b.id::text, b.title, b.author_id::text, b.price::text, b.in_stock,
        ARRAY(SELECT t.tag_id::text FROM bookstore_book_tags t WHERE t.book_id = b.id ORDER BY t.tag_id)
    FROM bookstore_book b JOIN bookstore_author a ON a.id = b.author_id WHERE """

ids = st.integers(1, 6)
authors = st.integers(1, 3)
prices = st.sampled_from(["NULL", "1", "5", "5.01", "8", "9"])
titles = st.sampled_from(["x", "y", "z%"])


statements = st.one_of(
    sql(
        "INSERT INTO bookstore_book (id, title, author_id, price, in_stock)"
        " VALUES ({0}, '{1}', {2}, {3}, true)"
        " ON CONFLICT (id) DO UPDATE SET title = EXCLUDED.title, price = EXCLUDED.price",
        ids, titles, authors, prices,
    ),
    sql(
        "INSERT INTO bookstore_book (id, title, author_id, price, in_stock)"
        " SELECT n, '{0}', {1}, {2}, false FROM generate_series(10, {3}) n ON CONFLICT DO NOTHING",
        titles, authors, prices, st.integers(10, 80),
    ),
    sql("UPDATE bookstore_book SET price = {1} WHERE id = {0}", ids, prices),
    sql("UPDATE bookstore_book SET title = '{1}' WHERE id <= {0}", ids, titles),
    sql("UPDATE bookstore_book SET author_id = {1} WHERE id = {0}", ids, authors),
    sql("UPDATE bookstore_book SET price = coalesce(price, 0) + 1", ),
    sql("UPDATE bookstore_book SET in_stock = NOT in_stock WHERE id % {0} = 0", ids),
    sql("UPDATE bookstore_author SET email = '{1}@x' || id WHERE id = {0}", authors, authors),
    sql("UPDATE bookstore_author SET email = id || '@x'"),
    sql("DELETE FROM bookstore_book_tags WHERE book_id = {0}", ids),
    sql(
        "INSERT INTO bookstore_book_tags (book_id, tag_id) SELECT id, {1} FROM bookstore_book WHERE id = {0}"
        " ON CONFLICT DO NOTHING",
        ids, authors,
    ),
    sql("WITH d AS (DELETE FROM bookstore_book_tags WHERE book_id = {0}) DELETE FROM bookstore_book"
         " WHERE id = {0} AND NOT EXISTS (SELECT 1 FROM bookstore_book_tags WHERE book_id = {0})", ids),
    sql("UPDATE bookstore_book SET id = id + 100 WHERE id = {0} AND NOT EXISTS"
         " (SELECT 1 FROM bookstore_book_tags WHERE book_id = {0}) AND NOT EXISTS"
         " (SELECT 1 FROM bookstore_book WHERE id = {0} + 100)", ids),
    sql("TRUNCATE bookstore_book CASCADE"),
)  # fmt: skip
steps = st.lists(
    st.one_of(
        st.tuples(st.just("sql"), st.integers(0, WRITERS - 1), statements),
        st.tuples(st.just("sql"), st.integers(0, WRITERS - 1), statements),
        st.tuples(st.just("sql"), st.integers(0, WRITERS - 1), statements),
        st.tuples(
            st.just("control"),
            st.integers(0, WRITERS - 1),
            st.sampled_from(Writer.CONTROLS),
        ),
        st.tuples(st.just("subscribe"), st.integers(0, SESSIONS - 1), st.integers(0, len(SUBSCRIPTIONS) - 1)),
        st.tuples(st.just("unsubscribe"), st.integers(0, SESSIONS - 1), st.integers(0, 3)),
    ),
    min_size=5,
    max_size=40,
)


def reset(db: Database) -> None:
    db.psql(
        "TRUNCATE bookstore_author, bookstore_tag CASCADE;"
        "INSERT INTO bookstore_author (id, name, email)"
        " SELECT n, 'a' || n, n || '@x' FROM generate_series(1, 3) n;"
        "INSERT INTO bookstore_tag (id, name) SELECT n, 't' || n FROM generate_series(1, 3) n;"
        "INSERT INTO bookstore_book (id, title, author_id, price, in_stock)"
        " SELECT n, 'x', n, n * 3, true FROM generate_series(1, 3) n"
    )


def expected(db: Database, subscriptions: list[int]) -> dict[str, dict[str, dict[str, Any]]]:
    """What SQL says that a client with these subscriptions has."""
    books: dict[str, dict[str, Any]] = {}
    authors: dict[str, dict[str, Any]] = {}
    with db.connect() as reader:
        for number in subscriptions:
            _, _, books_where, authors_where = SUBSCRIPTIONS[number]
            for row in reader.execute(BOOKS_SQL + books_where):
                fields = dict(
                    zip(("title", "author_id", "price", "in_stock", "tags_ids"), row[1:], strict=True)
                )
                books[row[0]] = fields | {"published": None}
            if authors_where:
                for row in reader.execute(
                    f"SELECT id::text, name, email FROM bookstore_author WHERE {authors_where}"
                ):
                    authors[row[0]] = {"name": row[1], "email": row[2]}
    return {BOOK: books, AUTHOR: authors}


def test_clients_equal_their_querysets_when_writers_stop(db: Database, serve: Callable[..., Server]) -> None:
    server = serve()

    @settings(
        max_examples=EXAMPLES, deadline=None, print_blob=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )  # fmt: skip
    @given(steps)
    def check(script: list[tuple[Any, ...]]) -> None:
        reset(db)
        writers = [Writer(db) for _ in range(WRITERS)]
        clients = [DDPClient(server.url) for _ in range(SESSIONS)]
        subscribed: list[list[tuple[str, int]]] = [[] for _ in clients]
        try:
            for what, who, argument in [("subscribe", 0, 0), ("subscribe", 1, 1), *script]:
                if what == "sql":
                    writers[who].sql(argument)
                elif what == "control":
                    writers[who].control(argument)
                elif what == "subscribe":
                    name, params, _, _ = SUBSCRIPTIONS[argument]
                    subscribed[who].append((clients[who].start_subscription(name, *params), argument))
                elif subscribed[who]:
                    subscription, _ = subscribed[who].pop(argument % len(subscribed[who]))
                    # Not waited for: before it comes a subscription that a writer here may lock out.
                    clients[who].send(msg="unsub", id=subscription)
            for writer in writers:
                writer.control("commit")
            for client, subscriptions in zip(clients, subscribed, strict=True):
                client.settle()
                told = {name: documents for name, documents in client.documents.items() if documents}
                wanted = expected(db, [number for _, number in subscriptions])
                assert told == {name: documents for name, documents in wanted.items() if documents}
                assert client.violations == []
        finally:
            for writer in writers:
                writer.close()
            for client in clients:
                client.close()

    check()
