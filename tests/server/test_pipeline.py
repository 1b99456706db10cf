"""Looks from the event loop: the same answers as a thread's, or none, and then a thread's."""

from __future__ import annotations

import contextlib
import datetime
import decimal
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import psycopg
import pytest
import trio
from django.db import connections
from django.db.models import Value
from django.db.models.functions import Concat

from tests.conftest import Database
from tests.live.asking import compiled, flat
from tests.proxy import Proxy
from tests.server.listening import eventually
from tests.zoo.models import Every
from trigger_ddp.api import Collection
from trigger_ddp.demo.bookstore.models import Author, Book, Tag
from trigger_ddp.live.compile import compile_queryset
from trigger_ddp.live.engine import Engine
from trigger_ddp.live.evaluation import Answers, Evaluation
from trigger_ddp.server import pipeline, pipelined
from trigger_ddp.server.database import answer
from trigger_ddp.server.pipeline import Pipeline

pytestmark = pytest.mark.usefixtures("db")


class Asking:
    """A pipeline, and what came of what it has taken."""

    def __init__(self) -> None:
        self.answered: dict[Evaluation, Answers] = {}
        self.given_back: list[Evaluation] = []
        self.settled = 0
        self.pipeline = Pipeline("default", self._answered, self.given_back.append, self._settled)
        self._engine = Engine()

    def _answered(self, evaluation: Evaluation, answers: Answers, seconds: float) -> None:
        assert seconds >= 0
        assert evaluation not in self.answered
        self.answered[evaluation] = answers

    def _settled(self) -> None:
        self.settled += 1

    def look(self, queryset: Any, *keys: str, of: Any = None) -> Evaluation:
        """An evaluation about rows of a queryset, or about rows of a joined model that are followed."""
        query = queryset if hasattr(queryset, "shape") else compiled(queryset)
        shape = self._engine.acquire(query).shape
        tuples = tuple((key,) for key in keys)
        if of is None:
            return Evaluation(shape, tuples)
        links = [link for link in query.shape.tables[of._meta.db_table].links if link.find is not None]
        return Evaluation(shape, follow=tuple((link, tuples) for link in links))

    async def ask(self, *evaluations: Evaluation) -> None:
        """Take all of them, and wait until each is answered or given back."""
        for evaluation in evaluations:
            assert self.pipeline.take(evaluation)
        self.pipeline.send()
        await eventually(lambda: all(one in self.answered or one in self.given_back for one in evaluations))


@contextlib.asynccontextmanager
async def asking() -> AsyncIterator[Asking]:
    async with trio.open_nursery() as nursery:
        found = Asking()
        nursery.start_soon(found.pipeline.run)
        await eventually(lambda: found.pipeline.connected)
        yield found
        nursery.cancel_scope.cancel()


def run(test: Callable[[Asking], Awaitable[None]]) -> None:
    async def main() -> None:
        with trio.fail_after(60):
            async with asking() as found:
                await test(found)

    trio.run(main)


def threads_answer(evaluation: Evaluation) -> Answers:
    return answer(evaluation, "default")


def make_books(count: int = 3) -> list[Author]:
    authors = [Author.objects.create(name=f"Author {n}%", email=f"a{n}@x") for n in range(2)]
    for number in range(count):
        book = Book.objects.create(title=f"100 % {number} ünï", author=authors[number % 2], price=number)
        book.tags.add(Tag.objects.get_or_create(name=f"tag {number}")[0])
    return authors


def backend(db: Database) -> int:
    """The process of the pipeline's connection: its last statement says so, or it has asked nothing yet."""
    (pid,) = db.psql(
        "SELECT max(pid) FROM pg_stat_activity WHERE datname = current_database() AND"
        " (query LIKE '%statement_timeout%' OR query LIKE '%tddp_%' OR query LIKE '%unnest%')"
        " AND pid <> pg_backend_pid()"
    ).split()
    return int(pid)


@pytest.mark.parametrize(
    "made",
    [
        lambda: Book.objects.all(),
        lambda: Book.objects.filter(author__email="a1@x"),
        lambda: Book.objects.filter(author__email__in=["a1@x", "a0@x"], price__gte=1),
        lambda: Book.objects.filter(title__contains="%"),
        lambda: Book.objects.filter(tags__name="tag 1").distinct(),
        lambda: Book.objects.annotate(both=Concat("title", Value("100%s"), "author__name")),
        lambda: Book.objects.order_by("price")[:2],
        lambda: Book.objects.filter(price__in=[0, 1.5, 2]).exclude(title="x'y\\z"),
    ],
)
def test_the_answers_are_those_of_a_thread(made: Any) -> None:
    make_books()

    async def test(found: Asking) -> None:
        evaluation = found.look(made(), "1", "2", "3", "77")
        await found.ask(evaluation)
        expected = threads_answer(evaluation)
        assert found.given_back == []
        assert found.answered[evaluation].found == expected.found
        assert set(found.answered[evaluation].keys) == set(expected.keys)

    run(test)


def test_every_kind_of_field() -> None:
    class Everything(Collection):
        model = Every
        name = "everything"

    query = compile_queryset(Everything(), Every.objects.all())
    moment = datetime.datetime(2024, 2, 29, 12, 30, 1, 999999, tzinfo=datetime.UTC)
    Every.objects.create(
        big_integer=2**62, binary=b"\0\xff%", boolean=True, char="ä'\"\\", date=moment.date(),
        datetime=moment, decimal=decimal.Decimal("1.5000"), float=1e300,
        duration=datetime.timedelta(days=3, microseconds=5),
        generic_ip_address="::1", json={"a": [None, 1, "%s"]}, time=moment.time(), uuid=uuid.UUID(int=7),
    )  # fmt: skip
    Every.objects.create(float=float("nan"), json=None)
    keys = [str(every.pk) for every in Every.objects.all()]

    async def test(found: Asking) -> None:
        evaluation = found.look(query, *keys)
        await found.ask(evaluation)
        expected = threads_answer(evaluation)
        assert len(flat(expected.found)) == 2
        assert found.answered[evaluation].found == expected.found

    run(test)


def test_rows_of_a_joined_table_are_followed() -> None:
    make_books()

    async def test(found: Asking) -> None:
        for key in ("1", "99"):
            evaluation = found.look(Book.objects.filter(author__name__contains="1"), key, of=Author)
            assert evaluation.follow
            await found.ask(evaluation)
            expected = threads_answer(evaluation)
            assert found.answered[evaluation].keys == expected.keys
            assert found.answered[evaluation].found == expected.found

    run(test)


def test_many_at_once_each_get_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipelined, "MOST_PREPARED", 7)
    make_books(40)

    async def test(found: Asking) -> None:
        for _ in range(3):
            found.answered.clear()
            looks = {
                found.look(Book.objects.filter(price__gt=n), *map(str, range(1, 41))): n for n in range(40)
            }
            await found.ask(*looks)
            assert found.given_back == []
            for evaluation, n in looks.items():
                assert len(flat(found.answered[evaluation].found)) == 39 - n

    run(test)


def test_what_belongs_to_a_thread_is_not_taken() -> None:
    class Own(Collection):
        model = Book
        name = "own"

        def serialize(self, obj: Any, *args: Any, **kwargs: Any) -> Any:
            raise AssertionError("on the event loop")

    async def test(found: Asking) -> None:
        own = compile_queryset(Own(), Book.objects.all())
        assert not found.pipeline.take(found.look(own, "1"))
        many = [str(key) for key in range(pipeline.MOST_KEYS + 1)]
        assert not found.pipeline.take(found.look(Book.objects.all(), *many))
        evaluation = found.look(Book.objects.all(), "1")
        assert not found.pipeline.take(Evaluation(evaluation.shape, queries=tuple(evaluation.shape.queries)))
        assert found.pipeline.take(evaluation)

    run(test)


def test_many_rows_are_left_to_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "MOST_ROWS", 2)
    make_books()

    async def test(found: Asking) -> None:
        evaluation = found.look(Book.objects.all(), "1", "2", "3")
        await found.ask(evaluation)
        assert found.given_back == [evaluation]
        few = found.look(Book.objects.all(), "1", "2")
        await found.ask(few)
        assert len(flat(found.answered[few].found)) == 2

    run(test)


def test_a_locked_table_holds_nobody_up(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    make_books()

    async def test(found: Asking) -> None:
        with db.connect() as holder:
            holder.execute("BEGIN")
            holder.execute("LOCK TABLE bookstore_book")
            book = found.look(Book.objects.all(), "1")
            names = [Author.objects.filter(name__contains=str(n)) for n in range(pipeline.TOGETHER - 1)]
            await found.ask(book, *(found.look(name, "1") for name in names))
            assert book in found.given_back
            assert not found.pipeline.take(book), "it would hold up others once more"
            # Those that were aborted for its sake are not to blame.
            found.given_back.clear()
            found.answered.clear()
            again = [found.look(name, "1") for name in names]
            await found.ask(*again)
            for evaluation in again:
                assert found.answered[evaluation].found == threads_answer(evaluation).found

    run(test)


def test_a_slow_look_is_left_to_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipelined, "STATEMENT_MILLISECONDS", 50)
    make_books()

    async def test(found: Asking) -> None:
        slow = Book.objects.extra(where=["pg_sleep(0.5) IS NOT NULL"])
        evaluation = found.look(slow, "1")
        await found.ask(evaluation)
        assert found.given_back == [evaluation]
        await found.ask(fast := found.look(Book.objects.all(), "1"))
        assert fast in found.answered

    run(test)


def test_a_column_that_becomes_another(db: Database) -> None:
    make_books()

    async def test(found: Asking) -> None:
        await found.ask(found.look(Book.objects.all(), "1"))
        db.psql(
            "ALTER TABLE bookstore_book ALTER COLUMN title TYPE text, ALTER COLUMN price TYPE numeric(12, 4)"
        )
        evaluation = found.look(Book.objects.all(), "1")
        await found.ask(evaluation)
        if evaluation in found.answered:
            expected = threads_answer(evaluation)
            assert found.answered[evaluation].found == expected.found

    run(test)


@pytest.mark.parametrize("locked", [True, False])
def test_the_connection_is_lost(db: Database, locked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipelined, "LOCK_MILLISECONDS", 20_000)
    monkeypatch.setattr(pipelined, "STATEMENT_MILLISECONDS", 20_000)
    make_books()

    async def test(found: Asking) -> None:
        pid = backend(db)
        with db.connect() as holder:
            holder.execute("BEGIN")
            if locked:
                holder.execute("LOCK TABLE bookstore_book")
            looks = [found.look(Book.objects.filter(price__gt=n), "1", "2", "3") for n in range(40)]
            for evaluation in looks:
                assert found.pipeline.take(evaluation)
            found.pipeline.send()
            settled = found.settled
            db.psql(f"SELECT pg_terminate_backend({pid})")
            await eventually(lambda: not found.pipeline.connected or found.settled > settled)
            await eventually(lambda: all(one in found.answered or one in found.given_back for one in looks))
            holder.execute("ROLLBACK")
        assert len(found.answered) + len(found.given_back) == 40
        for evaluation, answers in found.answered.items():
            expected = threads_answer(evaluation)
            assert answers.found == expected.found, "an answer that was none"
        await eventually(lambda: found.pipeline.connected and backend(db) != pid)
        await found.ask(found.look(Author.objects.all(), "1"))

    run(test)


def test_a_silent_network(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipelined, "SILENCE_SECONDS", 0.3)
    make_books()
    with Proxy(db.cluster.host, db.cluster.port) as proxy:
        settings = connections["default"].settings_dict
        monkeypatch.setitem(settings, "HOST", proxy.host)
        monkeypatch.setitem(settings, "PORT", str(proxy.port))

        async def test(found: Asking) -> None:
            proxy.stall()
            looks = [found.look(Book.objects.filter(price__gt=n), "1") for n in range(3)]
            await found.ask(*looks)
            assert set(found.given_back) == set(looks)
            assert not found.pipeline.take(found.look(Book.objects.all(), "1"))
            proxy.resume()
            await eventually(lambda: found.pipeline.connected)
            await found.ask(found.look(Book.objects.all(), "1"))

        with connections["default"].cursor():  # compiles ask the database
            pass
        run(test)


def test_a_proxy_that_pools_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psycopg.ConnectionInfo, "backend_pid", property(lambda self: -1))

    async def main() -> None:
        found = Asking()
        with trio.fail_after(20):
            await found.pipeline.run()
        assert not found.pipeline.connected

    trio.run(main)
