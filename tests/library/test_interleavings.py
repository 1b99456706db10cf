"""The invariant with every kind of publication: when writers stop, clients have what Django's ORM says.

Hypothesis makes up writers whose transactions interleave, sessions that subscribe, unsubscribe, reconnect,
log in and out, and cuts of the listening connection. At no time is a client told `added` of a document it
has, or `changed` or `removed` of one it has not.

A long run: TDDP_PROPERTY_EXAMPLES=5000 pytest tests/library/test_interleavings.py
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from django.contrib.auth import get_user_model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import Database
from tests.ddp import DDPClient
from tests.library import data
from tests.library.ddp import SAMPLES
from tests.oracle import Oracle, differences, queries
from tests.serving import Server
from tests.writing import Writer, examples, sql, weighted

WRITERS = 3
SESSIONS = 3
#: The method that logs a session in as the user with a primary key, or out.
LOGIN = "library/login"
#: How often one server's listening connection is cut: the pauses before it connects again grow.
CUTS = 3

_CUT = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE application_name LIKE 'trigger_ddp%' AND datname = current_database()"
)

books = st.integers(1, 7)
authors = st.integers(1, 4)
publishers = st.integers(1, 3)
genres = st.integers(1, 3)
awards = st.integers(1, 2)
users = st.integers(1, 3)
nullable_users = st.sampled_from(["NULL", "1", "2", "3"])
nullable_authors = st.sampled_from(["NULL", "1", "2", "3", "4"])
nullable_books = st.sampled_from(["NULL", "1", "2", "3", "4", "5"])
titles = st.sampled_from(["x", "X", "y", "it''s %", "ann"])
names = st.sampled_from(["ann", "bob", "cid"])
prices = st.sampled_from(["NULL", "1", "5", "5.00", "8.5", "9"])
years = st.integers(2019, 2022)
dates = st.sampled_from(["NULL", "'2020-01-01'", "'2020-06-15'", "'2021-06-16'", "'2021-12-31'"])
bools = st.booleans()
stars = st.integers(1, 5)
weights = st.integers(1, 3)
countries = st.sampled_from(["de", "fr"])
few = st.integers(10, 30)
conditions = st.sampled_from(["new", "worn"])

_of_books = [
    sql(
        "INSERT INTO library_book (id, author_id, title, price, year, published, in_stock, shelf, slot)"
        " VALUES ({0}, {1}, '{2}', {3}, {4}, {5}, {6}, 'c', {0}) ON CONFLICT (id) DO UPDATE"
        " SET title = EXCLUDED.title, price = EXCLUDED.price, author_id = EXCLUDED.author_id",
        books, authors, titles, prices, years, dates, bools,
    ),
    sql(
        "INSERT INTO library_book (id, author_id, editor_id, title, price, year, in_stock, shelf, slot)"
        " SELECT n, {0}, {1}, '{2}', n % 7, 2019 + n % 3, n % 2 = 0, 'd', n FROM generate_series(10, {3}) n"
        " ON CONFLICT (id) DO NOTHING",
        authors, nullable_authors, titles, few,
    ),
    sql("UPDATE library_book SET price = {1} WHERE id = {0}", books, prices),
    sql("UPDATE library_book SET price = coalesce(price, 0) + 1"),
    sql("UPDATE library_book SET title = '{1}' WHERE id <= {0}", books, titles),
    sql("UPDATE library_book SET year = {1}, published = {2} WHERE id = {0}", books, years, dates),
    sql("UPDATE library_book SET in_stock = NOT in_stock WHERE id % {0} = 0", books),
    sql("UPDATE library_book SET author_id = {1} WHERE id = {0}", books, authors),
    sql("UPDATE library_book SET editor_id = {1} WHERE id = {0}", books, nullable_authors),
    sql("UPDATE library_book SET author_id = author_id % 4 + 1, editor_id = author_id WHERE id < {0}", books),
    sql("UPDATE library_book SET sequel_of_id = {1} WHERE id = {0}", books, nullable_books),
    sql("UPDATE library_book SET owner_id = {1} WHERE id <= {0}", books, nullable_users),
    sql(
        "UPDATE library_book b SET (shelf, slot) = (SELECT shelf, slot FROM library_book o"
        " WHERE o.id = {0} + {1} - b.id) WHERE id IN ({0}, {1}) AND"
        " (SELECT count(*) = 2 FROM library_book WHERE id IN ({0}, {1}))",
        books, books,
    ),
    sql("UPDATE library_book SET id = id + 100 WHERE id = {0}", books),
    sql("UPDATE library_book SET id = id - 100 WHERE id = {0} + 100", books),
    sql("DELETE FROM library_book WHERE id = {0}", books),
    sql("DELETE FROM library_book WHERE id >= {0}", few),
]  # fmt: skip
_of_authors_and_publishers = [
    sql("UPDATE library_author SET name = '{1}' WHERE id <= {0}", authors, names),
    sql("UPDATE library_author SET email = '{1}@x' WHERE id = {0}", authors, authors),
    sql(
        "UPDATE library_author SET email = 'z' WHERE id = {0}; UPDATE library_author SET email = '{0}@x'"
        " WHERE email = '{1}@x'; UPDATE library_author SET email = '{1}@x' WHERE email = 'z'",
        authors, authors,
    ),
    sql("UPDATE library_author SET publisher_id = {1} WHERE id = {0}", authors, publishers),
    sql("UPDATE library_author SET publisher_id = NULL WHERE id >= {0}", authors),
    sql("UPDATE library_author SET id = id + 10 WHERE id = {0}", authors),
    sql("UPDATE library_author SET id = id - 10 WHERE id = {0} + 10", authors),
    sql("DELETE FROM library_author WHERE id = {0}", authors),
    sql(
        "INSERT INTO library_author (id, publisher_id, name, email) VALUES ({0}, {1}, '{2}', '{0}@x')"
        " ON CONFLICT (id) DO UPDATE SET name = EXCLUDED.name",
        authors, publishers, names,
    ),
    sql(
        "UPDATE library_publisher SET country = '{1}', active = {2} WHERE id <= {0}",
        publishers, countries, bools,
    ),
    sql("DELETE FROM library_publisher WHERE id = {0}", publishers),
    sql(
        "INSERT INTO library_publisher (id, country, active) VALUES ({0}, '{1}', {2}) ON CONFLICT DO NOTHING",
        publishers, countries, bools,
    ),
]  # fmt: skip
_of_genres_and_awards = [
    sql(
        "INSERT INTO library_bookgenre (id, book_id, genre_id, weight)"
        " SELECT coalesce(max(id), 0) + 1, {0}, {1}, {2} FROM library_bookgenre",
        books, genres, weights,
    ),
    sql("UPDATE library_bookgenre SET weight = {1} WHERE book_id = {0}", books, weights),
    sql("UPDATE library_bookgenre SET genre_id = {1} WHERE genre_id = {0}", genres, genres),
    sql("UPDATE library_bookgenre SET book_id = {1} WHERE book_id = {0}", books, books),
    sql("DELETE FROM library_bookgenre WHERE book_id = {0}", books),
    sql("DELETE FROM library_bookgenre WHERE genre_id = {0}", genres),
    sql("UPDATE library_genre SET name = '{1}' WHERE id = {0}", genres, st.sampled_from(["crime", "poetry"])),
    sql(
        "UPDATE library_genre SET aid = 'z' WHERE id = {0}; UPDATE library_genre SET aid = 'g{0}'"
        " WHERE aid = 'g{1}'; UPDATE library_genre SET aid = 'g{1}' WHERE aid = 'z'",
        genres, genres,
    ),
    sql(
        "INSERT INTO library_book_awards (id, book_id, award_id) SELECT coalesce(max(id), 0) + 1, {0}, {1}"
        " FROM library_book_awards ON CONFLICT DO NOTHING",
        books, awards,
    ),
    sql("DELETE FROM library_book_awards WHERE book_id = {0}", books),
    sql("UPDATE library_award SET name = '{1}' WHERE id = {0}", awards, st.sampled_from(["gold", "silver"])),
]  # fmt: skip
_of_others = [
    sql(
        "INSERT INTO library_review (id, book_id, reviewer_id, stars)"
        " SELECT coalesce(max(id), 0) + 1, {0}, {1}, {2} FROM library_review",
        books, nullable_users, stars,
    ),
    sql("UPDATE library_review SET stars = {1} WHERE book_id = {0}", books, stars),
    sql("UPDATE library_review SET stars = 6 - stars"),
    sql(
        "UPDATE library_review SET book_id = {1}, reviewer_id = {2} WHERE book_id = {0}",
        books, books, nullable_users,
    ),
    sql("DELETE FROM library_review WHERE stars = {0}", stars),
    sql(
        "MERGE INTO library_review r USING (SELECT id FROM library_book WHERE id < 10) b ON r.book_id = b.id"
        " WHEN MATCHED THEN UPDATE SET stars = {0} WHEN NOT MATCHED THEN"
        " INSERT (id, book_id, stars) VALUES (100 + b.id, b.id, {1})",
        stars, stars,
    ),
    sql(
        "INSERT INTO library_copy (book_id, number, condition) VALUES ({0}, {1}, '{2}')"
        " ON CONFLICT (book_id, number) DO UPDATE SET condition = EXCLUDED.condition",
        books, weights, conditions,
    ),
    sql("UPDATE library_copy SET number = number + 1 WHERE book_id = {0} AND number = {1}", books, weights),
    sql(
        "UPDATE library_copy SET book_id = {1}, condition = '{2}' WHERE book_id = {0}",
        books, books, conditions,
    ),
    sql("DELETE FROM library_copy WHERE number = {0}", weights),
    sql(
        "INSERT INTO library_comic (book_ptr_id, colour, artist_id) VALUES ({0}, {1}, {2})"
        " ON CONFLICT (book_ptr_id) DO UPDATE SET colour = EXCLUDED.colour, artist_id = EXCLUDED.artist_id",
        books, bools, nullable_authors,
    ),
    sql("DELETE FROM library_comic WHERE book_ptr_id = {0}", books),
    sql("UPDATE auth_user SET is_superuser = NOT is_superuser WHERE id = {0}", users),
]  # fmt: skip
_rare = [
    sql(
        "TRUNCATE library_{0} CASCADE",
        st.sampled_from(["book", "author", "publisher", "review", "bookgenre", "genre", "comic"]),
    ),
    sql("DELETE FROM library_book"),
]  # fmt: skip
statements = weighted(
    (7, st.one_of(_of_books)),
    (5, st.one_of(_of_authors_and_publishers)),
    (3, st.one_of(_of_genres_and_awards)),
    (3, st.one_of(_of_others)),
    (2, st.just(data.MISSING_ROWS)),
    (1, st.one_of(_rare)),
)

subscriptions = st.sampled_from([(name, p) for name in SAMPLES for p in SAMPLES[name]])
writer = st.integers(0, WRITERS - 1)
session = st.integers(0, SESSIONS - 1)

_subscribe = st.tuples(st.just("subscribe"), session, subscriptions)
steps = weighted(
    (12, st.tuples(st.just("sql and commit"), writer, statements)),
    (6, st.tuples(st.just("sql"), writer, statements)),
    (3, st.tuples(st.just("control"), writer, st.sampled_from(Writer.CONTROLS))),
    (3, _subscribe),
    (2, st.tuples(st.just("unsubscribe"), session, st.integers(0, 5))),
    (1, st.tuples(st.just("reconnect"), session, st.none())),
    (1, st.tuples(st.just("cut"), st.just(0), st.none())),
    # A later statement may well mend what an earlier one broke.
    (5, st.tuples(st.just("check"), st.just(0), st.none())),
    (2, st.tuples(st.just("login"), session, st.sampled_from([None, 1, 2, 3]))),
)  # fmt: skip
scripts = st.tuples(st.lists(_subscribe, min_size=9, max_size=30), st.lists(steps, min_size=15, max_size=50))


class Session:
    """A client that remembers what it asked for, as Meteor's does."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.user: int | None = None
        self.subscribed: dict[str, tuple[str, list[Any]]] = {}
        self.client = DDPClient(server.url)
        self._logins: list[str] = []
        self._violations: list[str] = []

    def close(self) -> None:
        self.client.close()
        self._violations += self.client.violations

    def reconnect(self, _: None) -> None:
        self.close()
        again = self.subscribed.values()
        self.client, self.user, self.subscribed, self._logins = DDPClient(self.server.url), None, {}, []
        for subscription in again:
            self.subscribe(subscription)

    def subscribe(self, subscription: tuple[str, list[Any]]) -> None:
        name, params = subscription
        self.subscribed[self.client.start_subscription(name, *params)] = subscription

    def unsubscribe(self, number: int) -> None:
        if self.subscribed:
            subscription = list(self.subscribed)[number % len(self.subscribed)]
            del self.subscribed[subscription]
            # Not waited for: before it comes a subscription that a writer here may lock out.
            self.client.send(msg="unsub", id=subscription)

    def login(self, user: int | None) -> None:
        self._logins.append(self.client.start_call(LOGIN, user))
        self.user = user

    def check(self) -> None:
        """Wait until everything committed is told, and compare."""
        user = self.user
        self.client.settle()
        assert self._violations + self.client.violations == []
        assert [message for message in self.client.messages if "error" in message] == []
        for call in self._logins:
            self.client.finish_call(call)
        subscriber = None if user is None else get_user_model().objects.get(pk=user)
        asked = [
            query for name, params in self.subscribed.values() for query in queries(name, params, subscriber)
        ]
        wrong = differences(self.client.documents, Oracle().documents(asked))
        assert wrong == [], f"of user {user} with {list(self.subscribed.values())}"


class Servers:
    """The server that scripts run against: another one after some cuts of its listening connection."""

    def __init__(self, db: Database, serve: Callable[..., Server]) -> None:
        self._db, self._serve = db, serve
        self._cuts = 0
        self._server = self._start()

    def _start(self) -> Server:
        return self._serve(DDP_REQUERY_INTERVAL="0.01")

    def current(self) -> Server:
        if self._cuts >= CUTS:
            self._server.stop()
            self._server, self._cuts = self._start(), 0
        return self._server

    def cut(self) -> None:
        with self._db.connect() as connection:
            self._cuts += len(connection.execute(_CUT).fetchall())


@contextlib.contextmanager
def closing(things: list[Any]) -> Iterator[None]:
    try:
        yield
    finally:
        for thing in things:
            thing.close()


Step = tuple[str, int, Any]


def run(db: Database, servers: Servers, script: list[Step]) -> None:
    """Run one script from the rows of `data` on; fails as soon as a client is told what is wrong."""
    data.reset(db)
    server = servers.current()
    writers = [Writer(db) for _ in range(WRITERS)]
    sessions = [Session(server) for _ in range(SESSIONS)]
    with closing([*writers, *sessions]):
        for what, who, argument in [*script, ("check", 0, None)]:
            if what == "cut":
                servers.cut()
            elif what == "check":
                for one in writers:
                    one.control("commit")
                for session in sessions:
                    session.check()
            elif what == "sql and commit":
                writers[who].sql(argument)
                writers[who].control("commit")
            else:
                getattr(writers[who] if what in ("sql", "control") else sessions[who], what)(argument)


def test_clients_have_what_the_orm_says_when_writers_stop(db: Database, serve: Callable[..., Server]) -> None:
    data.prepare(db)
    servers = Servers(db, serve)

    @settings(
        max_examples=examples(30), deadline=None, print_blob=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )  # fmt: skip
    @given(scripts)
    def check(script: tuple[list[Step], list[Step]]) -> None:
        beginning, steps = script
        run(db, servers, [*beginning, *steps])

    check()
