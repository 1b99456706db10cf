"""The listener against real PostgreSQL: what it delivers, in which order, and its fences."""

from __future__ import annotations

import itertools
import random
import threading

import psycopg
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.conftest import Database
from tests.proxy import Proxy
from tests.server import eventually
from tests.server.listening import (
    AUTHORS,
    BOOKS,
    RECONNECTED,
    Table,
    activity,
    change,
    decode,
    listening,
    notify,
    pass_fence,
    quick,
    tcp,
)
from trigger_ddp.changes.change import Change, Gap
from trigger_ddp.server import link
from trigger_ddp.server.listener import Listener
from trigger_ddp.server.source import Event, Fence

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
