"""Worker threads: results, cancellation, shutdown, and the database connections they keep."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import threading
import traceback
import warnings
import weakref

import psycopg
import pytest
import trio
from django.db import connection, connections, transaction
from django.test import override_settings
from trio.testing import wait_all_tasks_blocked

from tests.conftest import Database
from tests.server import eventually
from trigger_ddp.server.workers import Workers, WorkersStatistics

word = contextvars.ContextVar("word", default="none")


def backend_pid() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        pid: int = cursor.fetchone()[0]
        return pid


def worker_threads() -> list[str]:
    return sorted(
        thread.name for thread in threading.enumerate() if thread.name.startswith("trigger_ddp worker")
    )


def test_results_arguments_names_and_context_variables() -> None:
    async def main() -> None:
        async with Workers(3) as workers:
            assert worker_threads() == [f"trigger_ddp worker {number}" for number in (1, 2, 3)]
            assert await workers.run(divmod, 17, 5) == (3, 2)
            name = await workers.run(lambda: threading.current_thread().name)
            assert name in worker_threads()
            word.set("mine")
            assert await workers.run(word.get) == "mine"
            await workers.run(word.set, "changed in the thread")
            assert word.get() == "mine"
        assert worker_threads() == []

    trio.run(main)


def test_an_exception_arrives_with_its_traceback() -> None:
    error = ValueError("no")

    def raise_it() -> None:
        raise error

    async def main() -> None:
        async with Workers(1) as workers:
            with pytest.raises(ValueError) as caught:
                await workers.run(raise_it)
            assert caught.value is error
            assert "raise_it" in "".join(traceback.format_exception(caught.value))
            assert await workers.run(int, "1") == 1  # the thread lives on

    trio.run(main)


@pytest.mark.parametrize(
    "error",
    [
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
        asyncio.CancelledError(),
        BaseExceptionGroup("", [SystemExit()]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_would_end_the_program_ends_only_the_function(error: BaseException) -> None:
    def raise_it() -> None:
        raise error

    async def main() -> None:
        async with Workers(1) as workers:
            words = rf"raise_it raised {type(error).__name__}$"
            with pytest.raises(RuntimeError, match=words) as caught:
                await workers.run(raise_it)
            assert caught.value.__cause__ is error
            assert await workers.run(int, "1") == 1  # the thread lives on

    trio.run(main)


def test_never_more_functions_at_once_than_threads() -> None:
    gate, entered = threading.Event(), threading.Semaphore(0)

    def work() -> str:
        entered.release()
        gate.wait()
        return threading.current_thread().name

    async def main() -> None:
        names = []
        async with Workers(2) as workers, trio.open_nursery() as nursery:

            async def call() -> None:
                names.append(await workers.run(work))

            for _ in range(5):
                nursery.start_soon(call)
            await eventually(lambda: workers.statistics() == WorkersStatistics(size=2, running=2, waiting=3))
            assert entered.acquire(timeout=10)
            assert entered.acquire(timeout=10)
            assert not entered.acquire(blocking=False)
            gate.set()
        assert len(names) == 5
        assert set(names) <= {"trigger_ddp worker 1", "trigger_ddp worker 2"}
        assert workers.statistics() == WorkersStatistics(size=2, running=0, waiting=0)

    trio.run(main)


def test_cancelled_caller_leaves_at_once_and_the_function_ends_by_itself(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gate, began, ended, never = (threading.Event() for _ in range(4))

    def slow() -> None:
        began.set()
        gate.wait()
        ended.set()
        raise ValueError("nobody hears this")

    async def main() -> None:
        async with Workers(1) as workers:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(workers.run, slow)
                await eventually(began.is_set)
                nursery.start_soon(workers.run, never.set)
                await wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
            assert not ended.is_set()
            assert workers.statistics() == WorkersStatistics(size=1, running=1, waiting=1)
            gate.set()
            assert await workers.run(int, "1") == 1
            assert ended.is_set()
            assert not never.is_set()

    with caplog.at_level(logging.ERROR):
        trio.run(main)
    (record,) = caplog.records
    assert "slow failed after its caller was cancelled" in record.message
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "nobody hears this"


def test_shutdown_waits_for_what_runs() -> None:
    gate, began = threading.Event(), threading.Event()
    results = []

    def slow() -> str:
        began.set()
        gate.wait()
        return "done"

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            async with Workers(2) as workers:

                async def call() -> None:
                    results.append(await workers.run(slow))

                async def open_gate_when_closing() -> None:
                    await eventually(lambda: len(worker_threads()) == 1)  # the idle one has ended
                    gate.set()

                nursery.start_soon(call)
                await eventually(began.is_set)
                nursery.start_soon(open_gate_when_closing)
            assert worker_threads() == []

    trio.run(main)
    assert results == ["done"]


def test_shutdown_leaves_a_hung_thread_behind(caplog: pytest.LogCaptureFixture) -> None:
    gate, began = threading.Event(), threading.Event()

    def hang() -> None:
        began.set()
        gate.wait()
        raise ValueError("too late")

    async def main() -> None:
        async with Workers(2, drain_seconds=0.05) as workers, trio.open_nursery() as nursery:
            nursery.start_soon(workers.run, hang)
            await eventually(began.is_set)
            nursery.cancel_scope.cancel()
        (left,) = (thread for thread in threading.enumerate() if thread.name in worker_threads())
        assert left.daemon

    trio.run(main)
    assert "1 worker threads still run after 0.05 s and are left behind" in caplog.text
    assert "hang" in caplog.text
    (left,) = (thread for thread in threading.enumerate() if thread.name in worker_threads())
    gate.set()
    left.join(timeout=10)
    assert worker_threads() == []
    assert "hang failed after its caller was cancelled" in caplog.text


def test_closed_workers_refuse() -> None:
    async def main() -> None:
        workers = Workers(1)
        with pytest.raises(trio.ClosedResourceError):
            await workers.run(int)
        async with workers:
            pass
        with pytest.raises(trio.ClosedResourceError):
            await workers.run(int)

    trio.run(main)
    with pytest.raises(ValueError, match="at least 1"):
        Workers(0)


def test_idle_threads_keep_no_arguments_alive() -> None:
    class Thing:
        pass

    async def main() -> None:
        async with Workers(1) as workers:
            thing = Thing()
            dead = weakref.ref(thing)
            await workers.run(id, thing)
            del thing
            await eventually(lambda: gc.collect() is not None and dead() is None)

    trio.run(main)


def test_a_thread_keeps_its_connection_even_where_conn_max_age_is_zero(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connections.settings["default"], "CONN_MAX_AGE", 0)

    async def main() -> None:
        async with Workers(1) as workers:
            assert len({await workers.run(backend_pid) for _ in range(5)}) == 1

    trio.run(main)


def test_connections_are_closed_at_shutdown(db: Database) -> None:
    count = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )

    async def main() -> None:
        barrier = threading.Barrier(3)

        def connect_all_at_once() -> None:
            backend_pid()
            barrier.wait(timeout=10)

        async with Workers(3) as workers:
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(workers.run, connect_all_at_once)
            assert db.psql(count).strip() == "3"
        await eventually(lambda: db.psql(count).strip() == "0")

    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        trio.run(main)
        gc.collect()


def test_a_connection_that_the_server_dropped_costs_no_error(db: Database) -> None:
    async def main() -> None:
        async with Workers(1) as workers:
            old = await workers.run(backend_pid)
            db.psql(f"SELECT pg_terminate_backend({old}, 10000)")
            assert await workers.run(backend_pid) != old

    trio.run(main)


def test_a_connection_that_breaks_at_work_is_replaced_for_the_next(db: Database) -> None:
    def terminate_myself() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    async def main() -> None:
        async with Workers(1) as workers:
            with pytest.raises(Exception, match="terminating connection") as caught:
                await workers.run(terminate_myself)
            assert isinstance(caught.value.__cause__, psycopg.Error)
            assert await workers.run(backend_pid)

    trio.run(main)


def test_a_failed_transaction_leaves_a_usable_connection(db: Database) -> None:
    def fail_in_transaction() -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT 1/0")

    async def main() -> None:
        async with Workers(1) as workers:
            pid = await workers.run(backend_pid)
            with pytest.raises(Exception, match="division by zero"):
                await workers.run(fail_in_transaction)
            assert await workers.run(backend_pid) == pid

    trio.run(main)


def test_queries_logged_for_debugging_do_not_pile_up(db: Database) -> None:
    def logged() -> int:
        backend_pid()
        return len(connection.queries)

    async def main() -> None:
        async with Workers(1) as workers:
            await workers.run(backend_pid)
            assert [await workers.run(logged) for _ in range(3)] == [1, 1, 1]

    with override_settings(DEBUG=True):
        trio.run(main)


def test_the_thread_that_worked_last_works_next() -> None:
    def name() -> str:
        return threading.current_thread().name

    async def main() -> None:
        async with Workers(4) as workers:
            assert {await workers.run(name) for _ in range(20)} == {"trigger_ddp worker 1"}
            barrier = threading.Barrier(4)
            async with trio.open_nursery() as nursery:
                for _ in range(4):
                    nursery.start_soon(workers.run, barrier.wait, 5)  # all of them, at a time
            assert len({await workers.run(name) for _ in range(20)}) == 1

    trio.run(main)


def test_more_jobs_than_threads_are_all_done_also_at_the_end() -> None:
    async def main() -> None:
        done: list[int] = []
        async with Workers(3) as workers, trio.open_nursery() as nursery:
            for number in range(500):
                nursery.start_soon(workers.run, done.append, number)
                if number % 50 == 0:
                    await trio.sleep(0.001)
        assert sorted(done) == list(range(500))

    for _ in range(5):
        trio.run(main)
