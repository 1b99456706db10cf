"""The listener against real PostgreSQL: order, fences, and every way to lose a connection."""

from __future__ import annotations

import dataclasses
import gc
import itertools
import logging
import os
import random
import select
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests import postgres
from tests.conftest import Database
from tests.proxy import Proxy
from tests.server import DEADLINE, eventually
from trigger_ddp.changes.change import Change, Gap
from trigger_ddp.errors import ConfigurationError
from trigger_ddp.server import link, listener
from trigger_ddp.server.backoff import Backoff
from trigger_ddp.server.listener import Listener
from trigger_ddp.server.source import ChangeSource, Event, Fence

RECONNECTED = Gap(None, "reconnected")


@dataclasses.dataclass(frozen=True)
class Table:
    name: str
    channel: str
    version: str = "1"


BOOKS = Table("bookstore_book", "tddp:book")
AUTHORS = Table("bookstore_author", "tddp:author")


def decode(table: Table, payload: str) -> Change | Gap:
    if payload.startswith("?"):
        return Gap(table.name, "undecodable")
    return Change(table.name, "I", ((payload,),))


def change(payload: object, table: Table = BOOKS) -> Change:
    return Change(table.name, "I", ((str(payload),),))


def quick() -> Backoff:
    return Backoff(least=0.01, most=0.05)


@asynccontextmanager
async def listening(conninfo: Any, **options: Any) -> AsyncIterator[tuple[Listener, list[Event]]]:
    """A running listener and, growing, the events it has delivered."""
    source = Listener(conninfo, decode, backoff=quick(), **options)
    events: list[Event] = []
    async with trio.open_nursery() as nursery:
        await nursery.start(source.run, events.extend)
        yield source, events
        nursery.cancel_scope.cancel()


async def pass_fence(source: ChangeSource, events: list[Event]) -> int:
    """Wait for a fence asked for now; return its position among the events."""
    fence = source.fence()
    await eventually(lambda: fence in events, "the fence")
    return events.index(fence)


def notify(db: Database, *payloads: object, table: Table = BOOKS) -> None:
    with db.connect() as conn:
        conn.cursor().executemany(
            "SELECT pg_notify(%s, %s)", [(table.channel, str(each)) for each in payloads]
        )


def activity(db: Database, column: str = "pid") -> str:
    """A column of pg_stat_activity for the listener's session, empty if there is none."""
    return db.psql(
        f"SELECT {column} FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name = 'trigger_ddp listener'"
    ).strip()


def tcp(db: Database, *proxies: Proxy) -> str:
    hosts, ports = (",".join(str(getattr(proxy, name)) for proxy in proxies) for name in ("host", "port"))
    return f"host={hosts} port={ports} user=postgres dbname={db.name}"


@pytest.fixture
def proxy(db: Database) -> Iterator[Proxy]:
    with Proxy(db.cluster.host, db.cluster.port) as new:
        yield new


# -- the sunny side ------------------------------------------------------------------------------------------


@pytest.mark.every_major
def test_what_is_committed_arrives(db: Database) -> None:
    async def main() -> None:
        async with listening(db.dsn) as (source, events):
            assert source.connected
            await source.subscribe([BOOKS, AUTHORS])
            notify(db, 1, 2)
            notify(db, 3, table=AUTHORS)
            with db.connect() as conn, conn.transaction(force_rollback=True):
                conn.execute("SELECT pg_notify(%s, 'rolled back')", [BOOKS.channel])
            await pass_fence(source, events)
            assert events[:-1] == [change(1), change(2), change(3, AUTHORS)]
        assert not source.connected

    trio.run(main)


@pytest.mark.parametrize("batch", [link.BATCH, 7])
def test_ten_thousand_arrive_in_order_and_others_get_their_turn(
    db: Database, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(link, "BATCH", batch)
    batches: list[int] = []
    turns: list[int] = []
    got: list[Event] = []

    def deliver(events: list[Event]) -> None:
        batches.append(len(events))
        got.extend(events)

    async def count_turns() -> None:
        while True:
            await trio.lowlevel.checkpoint()
            turns.append(len(got))

    async def main() -> None:
        source = Listener(db.dsn, decode, heartbeat_interval=3600)
        async with trio.open_nursery() as nursery:
            await nursery.start(source.run, deliver)
            await source.subscribe([BOOKS])
            await pass_fence(source, got)
            got.clear()
            with db.connect() as conn:
                conn.execute(
                    "SELECT count(pg_notify(%s, n::text)) FROM generate_series(1, 10000) n", [BOOKS.channel]
                )
            # All of it waits in the socket now, and the listener has not had a turn yet.
            nursery.start_soon(count_turns)
            await eventually(lambda: len(got) == 10_000)  # no fence: nothing else may wake the listener
            nursery.cancel_scope.cancel()

    trio.run(main)
    assert got == [change(number) for number in range(1, 10_001)]
    assert max(batches) <= batch
    assert max(later - earlier for earlier, later in itertools.pairwise(turns)) <= 2 * batch


def test_listen_is_in_force_when_subscribe_returns(db: Database) -> None:
    async def main() -> None:
        async with listening(db.dsn) as (source, events):
            with db.connect() as conn:
                for number in range(100):
                    table = Table(f"t{number}", f"channel {number} \" ' ; é")
                    await source.subscribe([table])
                    conn.execute("SELECT pg_notify(%s, %s)", [table.channel, str(number)])
            await pass_fence(source, events)
            assert events[:-1] == [change(number, Table(f"t{number}", "")) for number in range(100)]

    trio.run(main)


def test_notifications_during_statements_keep_their_order(db: Database) -> None:
    """A writer notifies without a pause while the connection is busy with LISTEN, UNLISTEN and fences."""
    stop = threading.Event()
    sent: list[int] = []

    def write() -> None:
        with db.connect() as conn:
            for number in itertools.count():
                if stop.is_set():
                    return
                conn.execute("SELECT pg_notify(%s, %s)", [BOOKS.channel, str(number)])
                sent.append(number)

    async def main() -> None:
        async with listening(db.dsn) as (source, events):
            await source.subscribe([BOOKS])
            writer = threading.Thread(target=write)
            writer.start()
            try:
                for number in itertools.count():
                    table = Table(f"t{number}", f"t{number}")
                    await source.subscribe([table])
                    source.fence()
                    await source.unsubscribe([table])
                    if number >= 200 and len(sent) >= 500:
                        break
            finally:
                stop.set()
                await trio.to_thread.run_sync(writer.join)
            await pass_fence(source, events)
            assert [event for event in events if isinstance(event, Change)] == [change(n) for n in sent]
            tokens = [event.token for event in events if isinstance(event, Fence)]
            assert len(tokens) == len(set(tokens)) > 100

    trio.run(main)


def test_subscriptions_are_counted(db: Database) -> None:
    async def main() -> None:
        async with listening(db.dsn) as (source, events):
            await source.subscribe([BOOKS])
            await source.subscribe([BOOKS, AUTHORS])
            await source.unsubscribe([BOOKS])
            notify(db, "one subscriber is left")
            at = await pass_fence(source, events)
            assert events[:at] == [change("one subscriber is left")]

            await source.unsubscribe([BOOKS])
            await source.subscribe([BOOKS, BOOKS])
            await source.unsubscribe([BOOKS, BOOKS])
            await source.subscribe([Table("other", "other")])  # takes the UNLISTEN along
            before = source.statistics().notifications
            notify(db, "nobody is left")
            at = await pass_fence(source, events)
            assert events[at - 1 : at + 1] != [change("nobody is left"), events[at]]
            assert source.statistics().notifications <= before + 2  # the fence, and a heartbeat at most
            with pytest.raises(KeyError):
                await source.unsubscribe([BOOKS])

    trio.run(main)


def test_a_notification_nobody_wants_any_more_is_ignored(db: Database) -> None:
    async def main() -> None:
        async with listening(db.dsn) as (source, events):
            await source.subscribe([BOOKS])
            notify(db, "too late")  # waits in the socket: this task has not yielded
            source._forget([BOOKS])  # what unsubscribe does before it yields
            at = await pass_fence(source, events)
            assert at == 0
            assert source.statistics().ignored == 1

    trio.run(main)


def test_nothing_to_subscribe_to_is_in_force_at_once(db: Database) -> None:
    async def main() -> None:
        async with listening(db.dsn) as (source, _):
            await source.subscribe([])
            with pytest.raises(ValueError, match="longer than 63 bytes"):
                await source.subscribe([BOOKS, Table("t", "é" * 32)])
            with pytest.raises(KeyError):
                await source.unsubscribe([BOOKS])

    trio.run(main)


def test_what_strangers_notify_does_no_harm(db: Database) -> None:
    async def main() -> None:
        async with listening(db.dsn) as (source, events):
            await source.subscribe([BOOKS])
            await pass_fence(source, events)
            notify(db, "?", "")
            notify(db, "1", "forged", "", table=Table("", source._channel))
            await pass_fence(source, events)
            assert events[1:-1] == [Gap(BOOKS.name, "undecodable"), change("")]
            assert source.statistics().undecodable == 1
            assert source.statistics().ignored == 3

    trio.run(main)


def test_bytes_that_are_no_text_are_a_gap(db: Database) -> None:
    """PostgreSQL itself hangs up on a listener to whom it can't say a notification in UTF-8."""
    with db.cluster.connect() as admin:
        admin.execute("CREATE DATABASE raw_bytes ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")

    async def main() -> None:
        async with listening(db.cluster.dsn("raw_bytes")) as (source, events):
            await source.subscribe([BOOKS])
            with psycopg.connect(db.cluster.dsn("raw_bytes"), autocommit=True) as conn:
                conn.execute(rb"SELECT pg_notify('tddp:book', E'\377\376')")
                await eventually(lambda: RECONNECTED in events)
                conn.execute("NOTIFY \"tddp:book\", 'fine'")
            await pass_fence(source, events)
            assert events[:-1] == [RECONNECTED, change("fine")]

    try:
        trio.run(main)
    finally:
        with db.cluster.connect() as admin:
            admin.execute("DROP DATABASE raw_bytes WITH (FORCE)")


# -- fences --------------------------------------------------------------------------------------------------


def test_fences_of_one_turn_are_one(db: Database) -> None:
    async def main() -> None:
        async with listening(db.dsn) as (source, events):
            await source.subscribe([BOOKS])
            await pass_fence(source, events)
            before = source.statistics().notifications
            fences = {source.fence() for _ in range(100)}
            assert len(fences) == 1
            later = await pass_fence(source, events)
            assert events[1:] == [*fences]
            assert source.statistics().notifications == before + 1
            await pass_fence(source, events)
            assert len(events) == later + 2

    trio.run(main)


@pytest.mark.parametrize("fault", ["none", "terminate", "cut"])
def test_a_fence_comes_after_everything_committed_before_it(db: Database, proxy: Proxy, fault: str) -> None:
    """Of all values committed when a fence is asked for, each was delivered before it, or a Gap instead."""
    stop = threading.Event()
    events: list[Event] = []
    committed: list[tuple[str, int]] = []  # the value, and how many events there were before it was written

    def write(writer: int) -> None:
        pauses = random.Random(writer)
        with db.connect() as conn:
            for number in itertools.count():
                value, events_before = f"{writer}.{number}", len(events)
                with conn.transaction():
                    conn.execute("SELECT pg_notify(%s, %s)", [BOOKS.channel, value])
                committed.append((value, events_before))
                if stop.wait(pauses.random() / 200):
                    return

    def disturb() -> None:
        if fault == "terminate":
            db.psql(f"SELECT pg_terminate_backend({activity(db) or 0})")
        elif fault == "cut":
            proxy.cut()

    def check(known: list[tuple[str, int]], fence: Fence) -> None:
        end = events.index(fence)
        delivered = {event.rows[0][0] for event in events[:end] if isinstance(event, Change)}
        last_gap = max((at for at in range(end) if events[at] == RECONNECTED), default=-1)
        assert [value for value, since in known if value not in delivered and since > last_gap] == []

    async def main() -> None:
        source = Listener(tcp(db, proxy), decode, backoff=quick())
        async with trio.open_nursery() as nursery:
            await nursery.start(source.run, events.extend)
            await source.subscribe([BOOKS])
            writers = [threading.Thread(target=write, args=[number]) for number in range(4)]
            for writer in writers:
                writer.start()
            try:
                for turn in range(60):
                    if turn % 10 == 5:
                        await trio.to_thread.run_sync(disturb)
                    known = list(committed)
                    fence = source.fence()
                    await eventually(lambda fence=fence: fence in events, "the fence")
                    check(known, fence)
            finally:
                stop.set()
                for writer in writers:
                    await trio.to_thread.run_sync(writer.join)
            known = list(committed)
            fence = source.fence()
            await eventually(lambda: fence in events, "the last fence")
            check(known, fence)
            nursery.cancel_scope.cancel()
        assert source.statistics().reconnects == (0 if fault == "none" else events.count(RECONNECTED) or -1)

    trio.run(main)


def test_a_fence_asked_for_in_an_outage_comes_after_the_gap(db: Database, proxy: Proxy) -> None:
    async def main() -> None:
        async with listening(tcp(db, proxy)) as (source, events):
            await source.subscribe([BOOKS])
            proxy.refuse()
            proxy.cut()
            first = source.fence()  # perhaps sent into the closing connection, perhaps not
            await eventually(lambda: not source.connected)
            fences = {first, source.fence(), source.fence()}
            notify(db, "lost")
            proxy.accept()
            await eventually(lambda: fences <= set(events))
            assert events[0] == RECONNECTED
            assert sorted(events[1:], key=str) == sorted(fences, key=str)

    trio.run(main)


def test_a_token_of_before_an_outage_releases_nothing(db: Database, proxy: Proxy) -> None:
    async def main() -> None:
        async with listening(tcp(db, proxy)) as (source, events):
            await source.subscribe([BOOKS])
            await pass_fence(source, events)
            proxy.stall()
            owed = source.fence()
            await wait_all_tasks_blocked()
            (old_token,) = source._sent
            proxy.refuse()
            proxy.cut()
            await eventually(lambda: not source.connected)
            proxy.resume()
            with db.connect() as conn:

                def forge(_: list[Event]) -> None:
                    conn.execute("SELECT pg_notify(%s, %s)", [source._channel, old_token])

                events_at_gap = len(events)
                proxy.accept()
                await eventually(lambda: len(events) > events_at_gap)
                forge(events)
            await eventually(lambda: owed in events)
            await eventually(lambda: source.statistics().ignored == 1)
            assert events[events_at_gap] == RECONNECTED
            assert events.count(owed) == 1

    trio.run(main)


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


@pytest.fixture
def own_cluster(cluster: postgres.Cluster) -> Iterator[postgres.Cluster]:
    """A server that a test may stop."""
    own = postgres.Cluster(cluster.major, cluster.bindir)
    yield own
    own.remove()


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
            assert events[0] == RECONNECTED
            assert events[-2] == change("back")
            assert events.count(owed) == 1

    trio.run(main)


# -- refusals and limits -------------------------------------------------------------------------------------


def test_a_full_queue_is_warned_of_and_outlived(
    own_cluster: postgres.Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    if own_cluster.major < 17:
        pytest.skip("before PostgreSQL 17 the queue's size is fixed at 8 GB")
    own_cluster.stop()
    with (own_cluster.data / "postgresql.conf").open("a") as conf:
        conf.write("max_notify_queue_pages = 64\n")
    own_cluster.start()

    def fill(conn: psycopg.Connection, pages: int) -> None:
        for number in range(pages):
            conn.execute("SELECT pg_notify('other', %s)", [f"{number:07900}"])

    async def main() -> None:
        options = {"heartbeat_interval": 0.02}
        with own_cluster.connect() as idle, own_cluster.connect() as writer:
            async with listening(own_cluster.dsn("postgres"), **options) as (source, events):
                await source.subscribe([BOOKS])
                idle.execute("LISTEN other")
                idle.execute("BEGIN; SELECT 1")  # keeps the queue's tail
                fill(writer, 40)
                await eventually(lambda: source.statistics().queue_usage > 0.5)
                assert "notification queue is 6" in caplog.text
                with pytest.raises(psycopg.OperationalError, match="too many notifications"):
                    fill(writer, 100)
                await eventually(lambda: "refuses our own notification" in caplog.text)
                owed = source.fence()
                assert source.connected
                idle.execute("COMMIT; UNLISTEN *")
                await eventually(lambda: owed in events)
                await eventually(lambda: source.statistics().queue_usage < 0.5)
                assert source.statistics().reconnects == 0
                own_cluster.psql("postgres", "NOTIFY \"tddp:book\", 'fine'")
                await pass_fence(source, events)
                assert change("fine") in events

    trio.run(main)
    assert len([record for record in caplog.records if "queue is" in record.message]) == 1


def test_fences_outlive_a_refusal(
    db: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listener, "REFUSED_PAUSE", 0.01)
    db.psql("CREATE ROLE nobody LOGIN; REVOKE EXECUTE ON FUNCTION pg_notify FROM PUBLIC")

    async def main() -> None:
        async with listening(db.dsn + " user=nobody") as (source, events):
            owed = source.fence()
            await eventually(lambda: "permission denied for function pg_notify" in caplog.text)
            await source.subscribe([BOOKS])
            await eventually(lambda: [owed] in source._sent.values())  # about to be refused
            db.psql("GRANT EXECUTE ON FUNCTION pg_notify TO PUBLIC")
            await eventually(lambda: owed in events)
            await pass_fence(source, events)
            assert source.statistics().reconnects == 0

    try:
        trio.run(main)
    finally:
        db.psql("DROP ROLE nobody")
    assert len(caplog.records) == 1


def test_limits_meant_for_queries_do_not_end_the_connection(db: Database) -> None:
    db.psql(
        f"ALTER DATABASE {db.name} SET idle_session_timeout = '100ms';"
        f"ALTER DATABASE {db.name} SET statement_timeout = '5s';"
        f"ALTER DATABASE {db.name} SET application_name = 'renamed'"
    )

    async def main() -> None:
        async with listening(db.dsn) as (source, events):
            await source.subscribe([BOOKS])
            await pass_fence(source, events)
            with db.cluster.connect() as conn:
                conn.execute("SET idle_session_timeout = 0")
                idle = (
                    "SELECT now() - state_change > '300 ms' FROM pg_stat_activity"
                    " WHERE datname = %s AND query LIKE '%%pg_notify%%' AND pid <> pg_backend_pid()"
                )
                await eventually(lambda: conn.execute(idle, [db.name]).fetchall() == [(True,)])
            await pass_fence(source, events)
            assert source.statistics().reconnects == 0

    trio.run(main)


def test_the_users_conninfo_wins(db: Database) -> None:
    async def main() -> None:
        params = {
            **psycopg.conninfo.conninfo_to_dict(db.dsn),
            "application_name": "mine",
            "cursor_factory": psycopg.ClientCursor,
            "prepare_threshold": None,
            "context": None,
            "client_encoding": "LATIN1",
            "password": None,
        }
        async with listening(params) as (source, events):
            await source.subscribe([BOOKS])
            notify(db, "żółw")
            await pass_fence(source, events)
            assert events[0] == change("żółw")
            names = db.psql(
                "SELECT application_name FROM pg_stat_activity WHERE datname = current_database()"
            )
            assert "mine" in names.splitlines()

    trio.run(main)
    source = Listener("keepalives_idle=7 connect_timeout=3", decode)
    assert "keepalives_idle=7" in source._conninfo
    assert "connect_timeout=3" in source._conninfo
    assert "tcp_user_timeout=30000" in source._conninfo


def test_libpqs_environment_wins_over_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "PGCONNECT_TIMEOUT", "4")
    assert "connect_timeout" not in Listener("", decode)._conninfo


@pytest.mark.parametrize("conninfo", ["no such=thing", {"colour": "red"}, "host"])
def test_a_conninfo_that_libpq_does_not_understand(conninfo: Any) -> None:
    with pytest.raises(ConfigurationError, match="the listening connection can't be made: ") as caught:
        Listener(conninfo, decode)
    assert "\n" not in str(caught.value)


def test_a_first_connection_that_fails_is_one_sentence(db: Database) -> None:
    async def main() -> None:
        for conninfo, reason in [
            (f"host=127.0.0.1 port={postgres.free_port()}", "refused"),
            (f"{db.dsn} dbname=nowhere", 'database "nowhere" does not exist'),
            (f"host={db.cluster.directory} port=1", "No such file"),
        ]:
            source = Listener(conninfo, decode)
            with pytest.raises(
                ConfigurationError, match=f"^can't listen to PostgreSQL: .*{reason}"
            ) as caught:
                await source.run([].extend)
            assert "\n" not in str(caught.value)

    trio.run(main)


def test_a_first_connection_may_be_waited_for(
    db: Database, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    proxy.refuse()

    async def main() -> None:
        async with trio.open_nursery() as nursery:

            async def let_in() -> None:
                await eventually(lambda: "can't be made yet" in caplog.text)
                proxy.accept()

            nursery.start_soon(let_in)
            async with listening(tcp(db, proxy), retry_first=True) as (source, events):
                await pass_fence(source, events)
                assert len(events) == 1  # no Gap: nobody can have missed anything
                assert source.statistics().reconnects == 0

    trio.run(main)
    assert "is up after" in caplog.text


# -- the end -------------------------------------------------------------------------------------------------


def test_the_end_of_the_listener_closes_its_connection(db: Database) -> None:
    async def main() -> None:
        async with listening(db.dsn) as (source, _):
            await source.subscribe([BOOKS])
            assert activity(db) != ""
        await eventually(lambda: activity(db) == "")

    trio.run(main)
    gc.collect()  # a connection left open would warn here


def test_what_deliver_raises_ends_the_run(db: Database) -> None:
    def deliver(events: list[Event]) -> None:
        raise ZeroDivisionError

    async def main() -> None:
        source = Listener(db.dsn, decode)
        source.fence()
        with pytest.raises(ZeroDivisionError):
            await source.run(deliver)
        await eventually(lambda: activity(db) == "")

    trio.run(main)


def test_cancelled_while_connecting(db: Database, proxy: Proxy) -> None:
    async def main() -> None:
        proxy.stall()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Listener(tcp(db, proxy), decode).run, [].extend)
            await wait_all_tasks_blocked(0.05)
            nursery.cancel_scope.cancel()
        # The thread was left to itself; it closes the connection that it gets in the end.
        proxy.resume()
        await eventually(lambda: proxy.accepted == 1)
        await eventually(lambda: proxy.connections == 0)
        await eventually(lambda: activity(db) == "")

    trio.run(main)
    gc.collect()


# -- TLS -----------------------------------------------------------------------------------------------------


RECORD = 16384  # bytes that one TLS record carries at most


@contextmanager
def tls_in_front_of(cluster: postgres.Cluster, directory: Path) -> Iterator[int]:
    """A TLS end as load balancers have it, whose records are as large as TLS allows; its port."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-subj", "/CN=localhost", "-keyout", directory / "key.pem", "-out", directory / "cert.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "cert.pem", directory / "key.pem")

    def upstream(client: ssl.SSLSocket, server: socket.socket) -> None:
        while data := client.recv(65536):
            server.sendall(data)
        server.shutdown(socket.SHUT_WR)

    def serve(listening: socket.socket) -> None:
        raw, _ = listening.accept()
        assert len(raw.recv(8)) == 8  # SSLRequest
        raw.sendall(b"S")
        with (
            context.wrap_socket(raw, server_side=True) as client,
            socket.create_connection((cluster.host, cluster.port)) as server,
        ):
            threading.Thread(target=upstream, args=[client, server], daemon=True).start()
            held = b""
            while chunk := server.recv(65536):
                held += chunk
                if b"first" in held and b"last" not in held:
                    continue
                for part in [held[:100], held[100:]] if b"last" in held else [held]:
                    client.sendall(part)  # one record, if it is not longer than RECORD
                held = b""

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        thread = threading.Thread(target=serve, args=[listening])
        thread.start()
        yield listening.getsockname()[1]
        thread.join()


def test_what_tls_has_decrypted_is_not_left_lying(db: Database, tmp_path: Path) -> None:
    """A whole record does not fit behind the beginning of a message: its end stays in OpenSSL.

    Everything must arrive nevertheless, without another byte that would make the socket readable. A recent
    libpq sees to it by itself: PSYCOPG_IMPL=python takes the system's, which may be older.
    """
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    around = len(BOOKS.channel) + 11  # bytes of a NotificationResponse besides its payload
    payloads = ["first", *(f"{number:0{1000 - around}}" for number in range(16)), ""]
    payloads[-1] = "last".rjust(100 + RECORD - sum(len(payload) + around for payload in payloads))

    async def main(port: int) -> None:
        conninfo = (
            f"host=127.0.0.1 port={port} user=postgres dbname={db.name} sslmode=require gssencmode=disable"
        )
        async with listening(conninfo, heartbeat_interval=3600) as (source, events):
            await source.subscribe([BOOKS])
            await pass_fence(source, events)
            with db.connect() as conn, conn.transaction():
                for payload in payloads:
                    conn.execute("SELECT pg_notify(%s, %s)", [BOOKS.channel, payload])
            await eventually(lambda: len(events) == 1 + len(payloads))
            assert events[1:] == [change(payload) for payload in payloads]

    with tls_in_front_of(db.cluster, tmp_path) as port:
        trio.run(main, port)
