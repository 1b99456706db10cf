"""Answers that are lost on the way, by a proxy that goes on acknowledging everything."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import trio
from django.db import OperationalError, connections
from trio.testing import wait_all_tasks_blocked

from tests.conftest import Database
from tests.proxy import Proxy
from tests.server import DEADLINE, eventually
from trigger_ddp.server import stalled
from trigger_ddp.server.database import is_passing
from trigger_ddp.server.stalled import NETWORK_DEFAULTS, StalledWatch, set_network_defaults
from trigger_ddp.server.workers import Workers


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stalled, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(stalled, "PATIENCE", 0.3)
    monkeypatch.setattr(stalled, "SETTLE_SECONDS", 0.1)
    monkeypatch.setattr(stalled, "ANSWER_SECONDS", 1.0)


@pytest.fixture
def far(proxy: Proxy) -> Iterator[Proxy]:
    """Django's connections go through it."""
    here = dict(connections.settings["default"])
    connections.close_all()
    connections.settings["default"].update(HOST=proxy.host, PORT=str(proxy.port))
    yield proxy
    connections.close_all()
    connections.settings["default"].update(here)


def ask(query: str) -> Any:
    """On a worker thread."""
    with connections["default"].cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchall()


async def watched(test: Any, size: int = 1) -> None:
    async with Workers(size) as workers, trio.open_nursery() as nursery:
        nursery.start_soon(StalledWatch("default").run)
        await wait_all_tasks_blocked()
        with trio.fail_after(DEADLINE):
            await test(workers)
        nursery.cancel_scope.cancel()


def test_a_lost_answer_ends_the_query_as_if_postgresql_had_hung_up(
    far: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(workers: Workers) -> None:
        await workers.run(ask, "SELECT 1")
        far.forget()
        with pytest.raises(OperationalError) as caught:
            await workers.run(ask, "SELECT 2")
        assert is_passing(caught.value)
        assert await workers.run(ask, "SELECT 3") == [(3,)]

    trio.run(watched, test)
    assert "answers were lost on the way" in caplog.text


def test_nobody_is_asked_while_all_is_well(far: Proxy) -> None:
    async def test(workers: Workers) -> None:
        for _ in range(20):
            await workers.run(ask, "SELECT pg_sleep(0.04)")

    trio.run(watched, test)
    assert far.accepted == 1


def test_a_query_may_take_as_long_as_it_takes(far: Proxy, caplog: pytest.LogCaptureFixture) -> None:
    async def test(workers: Workers) -> None:
        assert await workers.run(ask, "SELECT 1 FROM pg_sleep(2.5)") == [(1,)]

    trio.run(watched, test)
    assert far.accepted > 1  # PostgreSQL was asked
    assert caplog.text == ""


def test_an_answer_that_is_cut_in_the_middle(db: Database, far: Proxy) -> None:
    async def test(workers: Workers) -> None:
        await workers.run(ask, "SELECT 1")

        async def forget_when_asked() -> None:
            await eventually(
                lambda: (
                    "pg_sleep" in db.psql("SELECT query FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
                )
            )
            far.forget()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(forget_when_asked)
            with pytest.raises(OperationalError):
                await workers.run(
                    ask, "SELECT repeat('x', 1000) FROM pg_sleep(0.5), generate_series(1, 50000)"
                )
        assert await workers.run(ask, "SELECT 3") == [(3,)]

    trio.run(watched, test)


def test_an_answer_that_comes_slowly(
    far: Proxy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(stalled, "PATIENCE", 1.0)

    async def test(workers: Workers) -> None:
        await workers.run(ask, "SELECT 1")
        far.slow(6_000_000)
        rows = await workers.run(ask, "SELECT repeat('x', 1000) FROM generate_series(1, 15000)")
        assert len(rows) == 15000

    trio.run(watched, test)
    assert caplog.text == ""


def test_a_thread_that_takes_its_time_with_an_answer(far: Proxy, caplog: pytest.LogCaptureFixture) -> None:
    def read_slowly() -> int:
        connections["default"].ensure_connection()
        rows = (
            connections["default"]
            .connection.cursor()
            .stream("SELECT repeat('x', 1000) FROM generate_series(1, 50000)")
        )
        next(rows)
        time.sleep(2)  # nothing else shows it
        return 1 + sum(1 for _ in rows)

    async def test(workers: Workers) -> None:
        assert await workers.run(read_slowly) == 50_000

    trio.run(watched, test)
    assert caplog.text == ""


def test_idle_connections_are_as_dead_and_are_not_found_out_one_by_one(far: Proxy) -> None:
    async def test(workers: Workers) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(workers.run, ask, "SELECT pg_sleep(0.2)")
        assert far.connections == 4
        far.forget()
        with pytest.raises(OperationalError):
            await workers.run(ask, "SELECT 1")
        for _ in range(8):
            assert await workers.run(ask, "SELECT 2") == [(2,)]

    trio.run(watched, test, 4)


def test_while_postgresql_can_not_be_asked_nothing_is_done(far: Proxy) -> None:
    async def test(workers: Workers) -> None:
        await workers.run(ask, "SELECT 1")
        far.stall()
        async with trio.open_nursery() as nursery:

            async def resume() -> None:
                await eventually(lambda: far.accepted > 1)
                await trio.sleep(stalled.ANSWER_SECONDS * 1.5)
                far.resume()

            nursery.start_soon(resume)
            assert await workers.run(ask, "SELECT 2") == [(2,)]

    trio.run(watched, test)


def test_processes_of_a_pooler_are_not_known(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psycopg.ConnectionInfo, "backend_pid", 7)
    watch = StalledWatch("default")
    with watch._noting_connections():
        ask("SELECT 1")
    assert not watch._known


def test_a_role_that_may_not_ask_is_served_nevertheless(
    db: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    db.psql("CREATE ROLE incurious LOGIN; REVOKE EXECUTE ON FUNCTION pg_postmaster_start_time FROM PUBLIC")
    connections.close_all()
    monkeypatch.setitem(connections.settings["default"], "USER", "incurious")
    watch = StalledWatch("default")
    try:
        with watch._noting_connections():
            assert ask("SELECT 1") == [(1,)]
    finally:
        connections.close_all()
        db.psql("DROP ROLE incurious")
    assert not watch._known
    assert "permission denied for function pg_postmaster_start_time" in caplog.text


def test_what_databases_says_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connections.settings["default"], "OPTIONS", {"keepalives_idle": 7})
    set_network_defaults()
    options = connections.settings["default"]["OPTIONS"]
    assert options == {**NETWORK_DEFAULTS, "keepalives_idle": 7}
    parameters = connections["default"].get_connection_params()
    assert parameters["tcp_user_timeout"] == "30000"
    monkeypatch.setitem(connections.settings["default"], "OPTIONS", {})
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "4")
    set_network_defaults()
    assert "connect_timeout" not in connections.settings["default"]["OPTIONS"]
