"""What must not become of a look that is asked from the event loop: a wrong answer, or none at all."""

from __future__ import annotations

import contextlib
import datetime
import random
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
import trio
from django.core.management import call_command
from django.db import connections
from django.db.backends.signals import connection_created
from django.test import override_settings

from tests.conftest import Database
from tests.live.asking import compiled, flat
from tests.proxy import Proxy
from tests.server.listening import eventually
from tests.server.test_pipeline import Asking, asking, backend, make_books, run, threads_answer
from tests.zoo.models import Every
from trigger_ddp.api import Collection
from trigger_ddp.changes.decode import decode
from trigger_ddp.conf import Settings
from trigger_ddp.demo.bookstore.models import Author, Book
from trigger_ddp.live.compile import compile_queryset
from trigger_ddp.live.compiled import CompiledQuery
from trigger_ddp.live.evaluation import Evaluation, Statement
from trigger_ddp.server import pipeline, pipelined, stalled
from trigger_ddp.server.backoff import Backoff
from trigger_ddp.server.database import answer
from trigger_ddp.server.listener import Listener
from trigger_ddp.server.pipeline import Pipeline
from trigger_ddp.server.pipelined import _SYNC, Look, LostError, _Prepared
from trigger_ddp.server.service import Service
from trigger_ddp.server.stalled import StalledWatch
from trigger_ddp.server.workers import Workers

#: For which writers write while connections are ended.
WRITING_SECONDS = 5.0

pytestmark = pytest.mark.usefixtures("db")


def forget() -> None:
    """Have this thread's connection made anew, of what the settings are now."""
    connections.close_all()
    with contextlib.suppress(AttributeError):
        del connections["default"]


@pytest.fixture
def default(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The settings of the database, for the test to change."""
    settings = connections.settings["default"]
    before = {**settings, "OPTIONS": dict(settings["OPTIONS"])}
    connections.close_all()
    yield settings
    connections.close_all()
    settings.clear()
    settings.update(before)
    forget()


@contextlib.contextmanager
def whenever_connected(receiver: Any) -> Iterator[None]:
    connection_created.connect(receiver, weak=False)
    try:
        yield
    finally:
        connection_created.disconnect(receiver)


def everything() -> CompiledQuery:
    class Everything(Collection):
        model = Every
        name = "everything"

    return compile_queryset(Everything(), Every.objects.all())


def same(found: Asking, evaluation: Evaluation) -> bool:
    """Whether it was answered as a thread answers it."""
    return found.answered[evaluation].found == threads_answer(evaluation).found


def test_a_key_that_can_not_be_sent_harms_no_other() -> None:
    make_books()

    async def test(found: Asking) -> None:
        for key in ("\0", "\ud800", "no number"):
            forged = found.look(Book.objects.all(), key)
            other = found.look(Author.objects.all(), "1")
            await found.ask(forged, other)
            assert forged in found.given_back
            await found.ask(again := found.look(Author.objects.all(), "1"))
            assert same(found, again), "the connection was given up"
            found.pipeline._elsewhere.clear()

    run(test)


def test_keys_of_another_width_harm_no_other() -> None:
    make_books()

    async def test(found: Asking) -> None:
        shape = found.look(Book.objects.all(), "1").shape
        await found.ask(uneven := Evaluation(shape, (("1",), ("2", "3"))))
        assert uneven in found.given_back
        await found.ask(again := found.look(Author.objects.all(), "1"))
        assert same(found, again)

    run(test)


def test_a_connection_that_has_nothing_to_do_is_not_taken_for_stalled(
    db: Database, default: dict[str, Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(stalled, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(stalled, "PATIENCE", 0.3)
    monkeypatch.setattr(stalled, "SETTLE_SECONDS", 0.1)
    monkeypatch.setattr(stalled, "ANSWER_SECONDS", 0.3)
    default.update(HOST=db.cluster.host, PORT=str(db.cluster.port))
    make_books()

    async def main() -> None:
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(StalledWatch("default").run)
                async with asking() as found:
                    await found.ask(found.look(Book.objects.all(), "1"))
                    connection = found.pipeline._connection
                    await trio.sleep(1.5)  # nothing happens, which is the point
                    assert found.pipeline._connection is connection
                nursery.cancel_scope.cancel()

    trio.run(main)
    assert "lost on the way" not in caplog.text


def test_an_error_when_the_transaction_ends_takes_the_answers_with_it(db: Database) -> None:
    make_books()
    db.psql(
        "CREATE TABLE once (a int UNIQUE DEFERRABLE INITIALLY DEFERRED); INSERT INTO once VALUES (1);"
        "CREATE FUNCTION twice() RETURNS bool LANGUAGE plpgsql AS"
        " $$ BEGIN INSERT INTO once VALUES (1); RETURN true; END $$"
    )

    async def test(found: Asking) -> None:
        twice = found.look(Book.objects.extra(where=["twice()"]), "1")
        other = found.look(Author.objects.all(), "1")
        await found.ask(twice, other)
        assert set(found.given_back) == {twice, other}
        for _ in range(3):
            looks = [found.look(Book.objects.filter(price__gt=n), "1", "2", "3") for n in range(4)]
            await found.ask(*looks)
            assert all(same(found, look) for look in looks)

    run(test)


def test_a_statement_whose_plan_has_changed_is_prepared_anew(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "ELSEWHERE_SECONDS", 0.0)
    make_books()

    async def test(found: Asking) -> None:
        await found.ask(found.look(Book.objects.all(), "1"))
        db.psql("ALTER TABLE bookstore_book ALTER COLUMN title TYPE text")
        await found.ask(stale := found.look(Book.objects.all(), "1"))
        assert stale in found.given_back
        await found.ask(look := found.look(Book.objects.all(), "1"))
        assert look in found.answered, "no look of this shape is answered any more"
        assert same(found, look)

    run(test)


def test_a_cancelled_one_leaves_no_connection(db: Database) -> None:
    make_books()

    async def main() -> None:
        with trio.fail_after(20), db.connect() as holder:
            holder.execute("BEGIN; LOCK TABLE bookstore_book")
            async with asking() as found:
                pid = backend(db)
                look = found.look(Book.objects.all(), "1")
                assert found.pipeline.take(look)
                found.pipeline.send()
            assert not found.pipeline.connected
            assert not found.pipeline.take(look), "nobody would answer it"
            holder.execute("ROLLBACK")
            await eventually(lambda: not db.psql(f"SELECT 1 FROM pg_stat_activity WHERE pid = {pid}"))

    trio.run(main)


def test_a_libpq_that_has_no_pipeline_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psycopg.capabilities, "has_pipeline", lambda: False)

    async def main() -> None:
        with trio.fail_after(20):
            await Asking().pipeline.run()

    trio.run(main)


@pytest.mark.parametrize(
    "options",
    [
        {"server_side_binding": True, "prepare_threshold": 0},
        {"server_side_binding": True},
        {"isolation_level": psycopg.IsolationLevel.SERIALIZABLE},
        {"assume_role": "pg_read_all_data"},
        {"options": "-c TimeZone=Asia/Kolkata -c IntervalStyle=iso_8601 -c default_transaction_read_only=on"},
        {"pool": {"min_size": 1}},
    ],
)
def test_options_of_the_database(options: dict[str, Any], default: dict[str, Any]) -> None:
    make_books()
    Every.objects.create(datetime=datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.UTC), json={"a": [1]})
    queries = [compiled(Book.objects.filter(title__contains="%")), everything()]
    forget()
    default["OPTIONS"].update(options)
    default["CONN_MAX_AGE"] = 0  # as pools insist

    async def test(found: Asking) -> None:
        looks = [found.look(query, "1", "2") for query in queries]
        await found.ask(*looks)
        default["OPTIONS"].pop("pool", None)  # psycopg_pool need not be there, for the pipeline neither
        forget()
        assert all(same(found, look) for look in looks)

    run(test)


@pytest.mark.parametrize(("use_tz", "zone"), [(False, None), (True, "Asia/Kolkata"), (True, None)])
def test_moments_are_read_as_django_reads_them(
    use_tz: bool, zone: str | None, default: dict[str, Any]
) -> None:
    with override_settings(USE_TZ=use_tz):
        default["TIME_ZONE"] = zone
        forget()
        moment = datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.UTC if use_tz else None)
        Every.objects.create(datetime=moment, date=moment.date(), time=moment.time())

        async def test(found: Asking) -> None:
            await found.ask(every := found.look(everything(), "1"))
            assert same(found, every)

        run(test)


@pytest.mark.parametrize("what", ["transaction", "wrapper", "cursor"])
def test_connections_that_do_more_than_django_are_left_to_threads(what: str) -> None:
    def more(connection: Any, **kwargs: Any) -> None:
        if what == "transaction":
            connection.set_autocommit(False)
        elif what == "wrapper":
            connection.execute_wrappers.append(lambda execute, *args: execute(*args))
        else:
            create = connection.create_cursor
            connection.create_cursor = lambda name=None: create(name)

    async def main() -> None:
        found = Asking()
        with trio.fail_after(20):
            await found.pipeline.run()

    with whenever_connected(more):
        trio.run(main)


def test_an_event_loop_that_is_late_is_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipelined, "SILENCE_SECONDS", 0.2)
    make_books()

    async def test(found: Asking) -> None:
        connection = found.pipeline._connection
        look = found.look(Book.objects.all(), "1")
        assert found.pipeline.take(look)
        found.pipeline.send()
        time.sleep(0.5)  # the answer arrives meanwhile
        await eventually(lambda: look in found.answered or look in found.given_back)
        assert look in found.answered
        assert found.pipeline._connection is connection

    run(test)


def test_what_comes_out_of_order_ends_the_connection() -> None:
    make_books()

    async def test(found: Asking) -> None:
        connection = found.pipeline._connection
        assert connection is not None
        look = Look(found.look(Book.objects.all(), "1"), None, None, 0.0)  # type: ignore[arg-type]
        other = Statement("SELECT 1", ())
        for sent, status in (
            (look, None), (look, "COMMAND_OK"), (look, "PIPELINE_SYNC"), (look, "COPY_OUT"),
            (b"name", "TUPLES_OK"),
            (_Prepared(other, b"name"), "TUPLES_OK"), (_SYNC, "TUPLES_OK"), (_SYNC, None),
        ):  # fmt: skip
            result: Any = status and SimpleNamespace(status=psycopg.pq.ExecStatus[status])
            connection._dealt_with = False
            with pytest.raises(LostError):
                connection._deal_with(sent, result, [])

    run(test)


def test_statements_are_forgotten_by_postgresql_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipelined, "MOST_PREPARED", 5)
    make_books()

    async def test(found: Asking) -> None:
        for n in range(30):
            await found.ask(found.look(Author.objects.exclude(email=str(n)), "1"))
        few = "(SELECT count(*) FROM pg_prepared_statements) < 8"
        await found.ask(look := found.look(Book.objects.extra(where=[few]), "1"))
        assert len(flat(found.answered[look].found)) == 1

    run(test)


def test_what_takes_long_to_read_is_left_to_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    make_books()

    async def test(found: Asking) -> None:
        query = compiled(Book.objects.all())
        read = query.shape.read_look

        def slowly(*args: Any) -> Any:
            time.sleep(0.2)
            return read(*args)

        object.__setattr__(query.shape, "read_look", slowly)
        try:
            await found.ask(look := found.look(query, "1"))
            assert look in found.answered
            assert not found.pipeline.take(found.look(query, "1"))
        finally:
            object.__setattr__(query.shape, "read_look", read)

    run(test)


def test_those_that_may_wait_do_not_wait_for_ever(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pipeline, "busy", property(lambda self: True))  # as it is where much is written
    make_books()
    call_command("ddp_install_triggers", verbosity=0)

    async def main() -> None:
        async with Workers(1) as workers, trio.open_nursery() as nursery:
            service = Service(Listener(db.dsn, decode), workers, workers, Settings())
            await nursery.start(service.run)
            query = await service.hold(await workers.run(compiled, Author.objects.all()))
            with trio.fail_after(20):
                await service.loaded(query)  # somebody waits for it, who is not told yet
                db.psql("UPDATE bookstore_author SET name = 'another'")
                await service.catching_up([query]).wait()
            assert all(b"another" in document.fields["name"] for document in query.documents.values())
            nursery.cancel_scope.cancel()

    trio.run(main)


def test_what_can_not_be_prepared_harms_no_other(db: Database) -> None:
    make_books()

    async def test(found: Asking) -> None:
        broken = found.look(Book.objects.all(), "1")
        authors = [found.look(Author.objects.exclude(email=str(n)), "1") for n in range(5)]
        db.psql("ALTER TABLE bookstore_book RENAME COLUMN title TO caption")
        await found.ask(authors[0], broken, *authors[1:])
        assert broken in found.given_back
        assert not found.pipeline.take(broken), "it would fail once more"
        found.given_back.clear()
        found.answered.clear()
        await found.ask(*authors)
        assert all(same(found, look) for look in authors)

    run(test)


def test_what_is_under_way_when_a_prepared_statement_is_not_there(db: Database) -> None:
    """What is prepared behind an error is not; others have been asked with it already."""
    make_books()

    async def test(found: Asking) -> None:
        with db.connect() as holder:
            holder.execute("BEGIN; LOCK TABLE bookstore_book")
            queries = [compiled(Author.objects.exclude(email=str(n))) for n in range(pipeline.TOGETHER - 1)]
            looks = [found.look(Book.objects.all(), "1")]
            looks += [found.look(query, "1") for _ in range(3) for query in queries]
            await found.ask(*looks)
        found.given_back.clear()
        found.answered.clear()
        again = [found.look(query, "1") for query in queries]
        await found.ask(*again)  # which are taken: they are not to blame
        assert all(same(found, look) for look in again)

    run(test)


@pytest.mark.parametrize("cut", [False, True])
def test_what_the_socket_does_not_take_at_once(cut: bool, proxy: Proxy, default: dict[str, Any]) -> None:
    make_books()
    query = compiled(Author.objects.all())
    long = [f"{n:0100000}" for n in range(1, 20)]
    default.update(HOST=proxy.host, PORT=str(proxy.port))
    forget()

    async def test(found: Asking) -> None:
        proxy.stall()
        looks = [found.look(query, *long) for _ in range(9)]
        for look in looks:
            assert found.pipeline.take(look)
        found.pipeline.send()
        connection = found.pipeline._connection
        assert connection is not None
        assert connection._unsent
        await trio.sleep(0.1)  # meanwhile it waits to go on sending
        if cut:
            proxy.cut()
        proxy.resume()
        await eventually(lambda: len(found.answered) + len(found.given_back) == len(looks))
        if not cut:
            assert found.given_back == []
            assert all(len(flat(answers.found)) == 2 for answers in found.answered.values())

    run(test)


def test_whatever_happens_to_the_connection_all_live_queries_end_up_right(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "ELSEWHERE_SECONDS", 0.05)
    monkeypatch.setattr(pipelined, "SILENCE_SECONDS", 0.4)
    monkeypatch.setattr(pipelined, "MOST_PREPARED", 9)
    monkeypatch.setattr(pipeline, "Backoff", lambda **kwargs: Backoff(least=0.02, most=0.05))
    make_books(40)
    call_command("ddp_install_triggers", verbosity=0)
    db.psql(
        "CREATE FUNCTION slow(id bigint) RETURNS bool VOLATILE LANGUAGE sql AS"
        " 'SELECT pg_sleep(CASE id % 20 WHEN 7 THEN 0.55 ELSE 0 END) IS NOT NULL'"
    )
    querysets = [
        *(Book.objects.filter(price__gt=n) for n in range(12)),
        *(Book.objects.filter(author__name__contains=str(n)) for n in range(2)),
        *(Book.objects.filter(tags__name__contains=str(n)).distinct() for n in range(4)),
        Book.objects.order_by("-price", "pk")[:5],
        Book.objects.extra(where=["slow(bookstore_book.id)"]),
        Author.objects.all(),
    ]
    chance = random.Random(20261125)

    async def main() -> None:
        async with Workers(2) as workers, Workers(3) as evaluators, trio.open_nursery() as nursery:
            service = Service(Listener(db.dsn, decode), workers, evaluators, Settings())
            await nursery.start(service.run)
            nursery.start_soon(service.pipeline.run)
            await eventually(lambda: service.pipeline.connected)
            compiled_ones = [await workers.run(compiled, queryset) for queryset in querysets]
            live = [await service.hold(one) for one in compiled_ones]
            for query in live:
                await service.loaded(query)
            looked = 0
            answered = service.pipeline._answered

            def counting(*args: Any) -> None:
                nonlocal looked
                looked += 1
                answered(*args)

            service.pipeline._answered = counting

            def pid() -> int | None:
                connection = service.pipeline._connection
                with contextlib.suppress(psycopg.OperationalError):
                    return connection._pgconn.backend_pid if connection is not None else None
                return None

            async with trio.open_nursery() as troubles:
                troubles.start_soon(trio.to_thread.run_sync, write, db, chance.random())
                troubles.start_soon(trio.to_thread.run_sync, lock, db, chance.random())
                troubles.start_soon(trio.to_thread.run_sync, kill, db, pid, chance.random())
            await service.catching_up(live).wait()
            await eventually(lambda: not any(query.shape.running for query in live))
            assert looked > 100, "the threads have done it all"
            for query in live:
                load = await workers.run(answer, Evaluation(query.shape, queries=(query,)), "default")
                assert {key: document for _, key, document in flat(load.found)} == query.documents
            nursery.cancel_scope.cancel()

    trio.run(main)


def write(db: Database, seed: float) -> None:
    chance, ends = random.Random(seed), time.monotonic() + WRITING_SECONDS
    with db.connect() as writer:
        while time.monotonic() < ends:
            with contextlib.suppress(psycopg.errors.UniqueViolation, psycopg.errors.ForeignKeyViolation):
                number, other = chance.randrange(1, 60), chance.randrange(60)
                match chance.randrange(8):
                    case 0:
                        writer.execute(
                            "INSERT INTO bookstore_book (id, title, author_id, price, in_stock)"
                            " SELECT %s, 'new', min(id), %s, true FROM bookstore_author",
                            [number, other],
                        )
                    case 1:
                        writer.execute("DELETE FROM bookstore_book_tags WHERE book_id = %s", [number])
                        writer.execute("DELETE FROM bookstore_book WHERE id = %s", [number])
                    case 2:
                        writer.execute(
                            "UPDATE bookstore_author SET name = %s"
                            " WHERE id = (SELECT min(id) FROM bookstore_author)",
                            [f"Author {other % 3}"],
                        )
                    case 3:
                        writer.execute(
                            "UPDATE bookstore_book SET author_id = (SELECT max(id) FROM bookstore_author)"
                            " WHERE id = %s",
                            [number],
                        )
                    case 4:
                        writer.execute(
                            "UPDATE bookstore_tag SET name = %s WHERE id = %s",
                            [f"tag {number} {other}", number],
                        )
                    case _:
                        writer.execute(
                            "UPDATE bookstore_book SET price = %s WHERE id = %s", [other % 14, number]
                        )


def lock(db: Database, seed: float) -> None:
    chance, ends = random.Random(seed), time.monotonic() + WRITING_SECONDS
    with db.connect() as holder:
        while time.monotonic() < ends:
            table = chance.choice(["bookstore_book", "bookstore_author", "bookstore_tag"])
            kind = "text" if chance.random() < 0.5 else "varchar(200)"
            with holder.transaction():
                holder.execute(f"LOCK TABLE {table}")
                if table == "bookstore_book":
                    holder.execute(f"ALTER TABLE bookstore_book ALTER COLUMN title TYPE {kind}")
                holder.execute("SELECT pg_sleep(%s)", [chance.choice([0.01, 0.3])])
            time.sleep(chance.random() * 0.3)


def kill(db: Database, pid: Callable[[], int | None], seed: float) -> None:
    """End the pipeline's connection now and then: while it waits, reads, or has just been opened."""
    chance, ends = random.Random(seed), time.monotonic() + WRITING_SECONDS
    with db.connect() as killer:
        while time.monotonic() < ends:
            killer.execute("SELECT pg_terminate_backend(%s)", [pid()])
            time.sleep(chance.random() * 0.2)
