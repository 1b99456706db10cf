"""The listener against real PostgreSQL: every way to lose a connection, and to get it back."""

from __future__ import annotations

import logging
import select

import psycopg
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests import postgres
from tests.conftest import Database
from tests.proxy import Proxy
from tests.server import DEADLINE, eventually
from tests.server.listening import (
    AUTHORS,
    BOOKS,
    RECONNECTED,
    activity,
    change,
    decode,
    listening,
    notify,
    pass_fence,
    tcp,
)
from trigger_ddp.server import link
from trigger_ddp.server.listener import Listener
from trigger_ddp.server.source import Event

# -- outages -------------------------------------------------------------------------------------------------


def test_a_terminated_backend_is_a_gap_and_two_log_lines(
    db: Database, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with listening(db.dsn) as (source, events):
            await source.subscribe([BOOKS])
            await pass_fence(source, events)
            db.psql(f"SELECT pg_terminate_backend({activity(db)}, 10000)")
            await eventually(lambda: RECONNECTED in events)
            notify(db, "after")
            await pass_fence(source, events)
            assert events[1:-1] == [RECONNECTED, change("after")]
            statistics = source.statistics()
            assert statistics.connected
            assert statistics.reconnects == 1
            assert statistics.last_error == "terminating connection due to administrator command"

    with caplog.at_level(logging.INFO, "trigger_ddp"):
        trio.run(main)
    lost, regained = (record.getMessage() for record in caplog.records)
    assert lost == (
        "the listening connection is lost, trying again: terminating connection due to administrator command"
    )
    assert regained.startswith("the listening connection is up after ")


def test_a_long_outage_is_logged_once(db: Database, proxy: Proxy, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with listening(tcp(db, proxy)) as (source, events):
            proxy.refuse()
            proxy.cut()
            await eventually(lambda: sum("can't be made" in record.message for record in caplog.records) > 3)
            assert not source.connected
            assert source.statistics().last_error is not None
            proxy.accept()
            await eventually(lambda: events == [RECONNECTED])

    with caplog.at_level(logging.DEBUG, "trigger_ddp"):
        trio.run(main)
    loud = [record.message for record in caplog.records if record.levelno >= logging.INFO]
    assert len(loud) == 2
    assert "is lost" in loud[0]
    assert "\n" not in loud[0]
    assert "is up after" in loud[1]


def test_subscribe_waits_through_an_outage_and_can_be_cancelled(db: Database, proxy: Proxy) -> None:
    async def main() -> None:
        async with listening(tcp(db, proxy)) as (source, events):
            proxy.refuse()
            proxy.cut()
            await eventually(lambda: not source.connected)
            with trio.move_on_after(0.05) as scope:
                await source.subscribe([AUTHORS])
            assert scope.cancelled_caught
            in_force = []

            async def subscribe() -> None:
                await source.subscribe([BOOKS])
                in_force.append(BOOKS)
                assert source.connected

            async with trio.open_nursery() as nursery:
                nursery.start_soon(subscribe)
                await wait_all_tasks_blocked(0.01)
                assert in_force == []
                proxy.accept()
            notify(db, "for nobody", table=AUTHORS)
            notify(db, "for us")
            await pass_fence(source, events)
            assert events[:-1] == [RECONNECTED, change("for us")]
            assert source.statistics().ignored == 0

    trio.run(main)


@pytest.mark.parametrize("while_busy", [True, False])
def test_silence_is_found_by_the_heartbeat(db: Database, proxy: Proxy, while_busy: bool) -> None:
    async def main() -> None:
        async with listening(tcp(db, proxy), heartbeat_interval=0.02, heartbeat_timeout=0.5) as (
            source,
            events,
        ):
            await source.subscribe([BOOKS])
            await eventually(lambda: source.statistics().notifications > 3)
            proxy.stall()
            if while_busy:
                source.fence()
            await eventually(lambda: not source.connected)
            assert source.statistics().last_error == "PostgreSQL has been silent for 0.5 s"
            proxy.resume()
            await eventually(lambda: RECONNECTED in events)
            notify(db, "alive")
            await pass_fence(source, events)
            assert change("alive") in events

    trio.run(main)


def test_a_pause_of_this_process_is_not_taken_for_silence(db: Database, proxy: Proxy) -> None:
    clock = MockClock(rate=1)

    async def main() -> None:
        async with listening(tcp(db, proxy), heartbeat_interval=1000) as (source, events):
            await pass_fence(source, events)
            proxy.stall()
            source.fence()
            await wait_all_tasks_blocked()
            assert source._talk is not None
            assert source._talk.link.busy
            proxy.resume()
            poll = select.poll()
            poll.register(source._talk.link._pgconn.socket, select.POLLIN)
            assert poll.poll(30_000)  # trio stands still until the answer is there
            clock.jump(3600)
            await pass_fence(source, events)
            assert source.statistics().reconnects == 0

    trio.run(main, clock=clock)


def test_a_receiver_that_takes_long_is_not_taken_for_silence(db: Database, proxy: Proxy) -> None:
    clock = MockClock(rate=1)
    source = Listener(tcp(db, proxy), decode, heartbeat_interval=3600)
    events: list[Event] = []

    def deliver(batch: list[Event]) -> None:
        events.extend(batch)
        if batch == [change("long work")]:
            assert source._talk is not None
            assert source._talk.link.busy
            poll = select.poll()
            poll.register(source._talk.link._pgconn.socket, select.POLLIN)
            assert poll.poll(30_000)  # the answer that is due has come meanwhile
            clock.jump(11)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(source.run, deliver)
            await source.subscribe([BOOKS])
            await pass_fence(source, events)
            proxy.stall()
            notify(db, "long work")
            fence = source.fence()
            await wait_all_tasks_blocked()
            proxy.resume()
            await eventually(lambda: fence in events)
            assert source.statistics().reconnects == 0
            nursery.cancel_scope.cancel()

    trio.run(main, clock=clock)


def test_a_slow_network_is_not_taken_for_silence(db: Database, proxy: Proxy) -> None:
    async def main() -> None:
        async with listening(tcp(db, proxy), heartbeat_interval=0.02, heartbeat_timeout=0.4) as (
            source,
            events,
        ):
            await source.subscribe([BOOKS])
            proxy.slow(20_000)
            notify(db, *(f"{number} {'x' * 200}" for number in range(100)))  # takes longer than the timeout
            await pass_fence(source, events)
            assert len(events) == 101
            assert source.statistics().reconnects == 0

    trio.run(main)


def test_a_large_statement_goes_out_while_a_flood_comes_in(db: Database) -> None:
    """PostgreSQL does not read while it can't write: both sides' buffers are full, and we must read first."""
    size = 16 * 1024 * 1024

    async def main() -> None:
        with Proxy(db.cluster.host, db.cluster.port) as proxy:
            one = link.Link(psycopg.connect(tcp(db, proxy), autocommit=True))
            notifications = []

            async def reply() -> link.Reply:
                while True:
                    await one.wait()
                    notifications.extend(one.receive())
                    if (reply := one.take_reply()) is not None:
                        return reply

            try:
                one.send(psycopg.sql.SQL("LISTEN flood"))
                assert await reply() == link.Reply(None)
                proxy.stall()
                with db.connect() as conn:
                    conn.execute(
                        "SELECT pg_notify('flood', lpad(n::text, 7900)) FROM generate_series(1, 4000) n"
                    )
                one.send(psycopg.sql.SQL("SELECT length({}), NULL").format("x" * size))
                assert one._unsent
                proxy.resume()
                with trio.fail_after(DEADLINE):
                    assert await reply() == link.Reply(None, (str(size), None))
                    while len(notifications) < 4000:
                        await one.wait()
                        notifications += one.receive()
                assert [int(each.extra) for each in notifications] == list(range(1, 4001))
            finally:
                one.close()

    trio.run(main)


def test_several_hosts_are_a_failover(db: Database, proxy: Proxy) -> None:
    async def main() -> None:
        with Proxy(db.cluster.host, db.cluster.port) as second:
            conninfo = tcp(db, proxy, second) + " target_session_attrs=primary"
            async with listening(conninfo) as (source, events):
                await source.subscribe([BOOKS])
                assert (proxy.accepted, second.accepted) == (1, 0)
                proxy.refuse()
                proxy.cut()
                await eventually(lambda: RECONNECTED in events)
                assert (proxy.accepted, second.accepted) == (1, 1)
                notify(db, "from the second")
                await pass_fence(source, events)
                assert change("from the second") in events

    trio.run(main)


def test_a_restart_of_the_server(own_cluster: postgres.Cluster) -> None:
    async def main() -> None:
        async with listening(own_cluster.dsn("postgres")) as (source, events):
            await source.subscribe([BOOKS])
            await trio.to_thread.run_sync(own_cluster.stop)
            await eventually(lambda: not source.connected)
            owed = source.fence()
            await trio.to_thread.run_sync(own_cluster.start)
            own_cluster.psql("postgres", "NOTIFY \"tddp:book\", 'may be lost'")
            await eventually(lambda: owed in events)
            own_cluster.psql("postgres", "NOTIFY \"tddp:book\", 'back'")
            await pass_fence(source, events)
            # What commits right behind the LISTEN may come before the gap, which makes everything right then.
            events = [event for event in events if event != change("may be lost")]
            assert events[0] == RECONNECTED
            assert events[-2] == change("back")
            assert events.count(owed) == 1

    trio.run(main)
