"""The order in which the service does things, with a source of changes that the test holds by the hand."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import pytest
import trio
import trio.testing
from django.core.management import call_command
from django.db.utils import OperationalError

from trigger_ddp.api import API
from trigger_ddp.capture.install import apply, install_steps, status
from trigger_ddp.capture.tables import Table
from trigger_ddp.changes.change import Gap
from trigger_ddp.conf import Settings
from trigger_ddp.demo.bookstore.models import Author
from trigger_ddp.errors import TriggersMissing
from trigger_ddp.live.compile import compile_queryset
from trigger_ddp.live.compiled import CompiledQuery
from trigger_ddp.live.evaluation import Evaluation
from trigger_ddp.live.query import LiveQuery
from trigger_ddp.protocol.frames import Wire
from trigger_ddp.protocol.session import Session, Subscription
from trigger_ddp.server.service import Service
from trigger_ddp.server.source import Deliver, Event, Fence
from trigger_ddp.server.workers import Workers


class HeldSource:
    """A source that listens when the test lets it, and delivers what the test gives it."""

    connected = True

    def __init__(self) -> None:
        self.may_listen = trio.Event()
        self.listening: list[str] = []
        self.fences = 0

    async def run(self, deliver: Deliver, *, task_status: trio.TaskStatus[None]) -> None:
        self.deliver: Callable[[list[Event]], None] = deliver
        task_status.started()
        await trio.sleep_forever()

    async def subscribe(self, tables: Iterable[Any]) -> None:
        await self.may_listen.wait()
        self.listening += [table.name for table in tables]

    async def unsubscribe(self, tables: Iterable[Any]) -> None:
        for table in tables:
            self.listening.remove(table.name)

    def fence(self) -> Fence:
        self.fences += 1
        return Fence(str(self.fences))


def authors() -> CompiledQuery:
    return compile_queryset(API.collection_for_model(Author), Author.objects.all())


async def hold(service: Service) -> LiveQuery:
    return await service.hold(await service.workers.run(authors))


def session_of(query: LiveQuery) -> Session:
    session = Session(Wire.RAW, lambda session: None)
    session.subscriptions["s"] = Subscription("s", "Any", held=[query])
    return session


async def idle(service: Service) -> None:
    """Wait until nothing happens any more, on worker threads neither."""
    await trio.testing.wait_all_tasks_blocked(0.01)
    while (busy := service.workers.statistics()).running or busy.waiting:
        await trio.testing.wait_all_tasks_blocked(0.01)
    await trio.testing.wait_all_tasks_blocked(0.01)


def run(
    test: Callable[[Service, HeldSource], Awaitable[None]],
    *,
    linger: float = 0.0,
    clock: trio.abc.Clock | None = None,
) -> None:
    async def main() -> None:
        async with Workers(2) as workers, trio.open_nursery() as nursery:
            source = HeldSource()
            service = Service(source, workers, workers, Settings(linger=linger))  # type: ignore[arg-type]
            await nursery.start(service.run)
            await test(service, source)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=clock)


@pytest.fixture
def triggers(db: Any) -> None:
    from django.db import connections

    connection = connections["default"]
    for step in install_steps(
        status(connection, [Table.from_model(model) for model in API.watched_models()])
    ):
        apply(connection, step, lock_timeout=5)
    Author.objects.create(name="Ada", email="ada@x")


def test_nothing_is_looked_at_before_its_tables_are_listened_to(triggers):
    async def test(service: Service, source: HeldSource) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hold, service)
            await idle(service)
            assert service.engine.statistics().live_queries == 0
            source.may_listen.set()
        assert service.engine.statistics().live_queries == 1
        assert source.listening == ["bookstore_author"]

    run(test)


def test_the_last_to_let_go_ends_the_listening(triggers):
    async def test(service: Service, source: HeldSource) -> None:
        source.may_listen.set()
        first, second = await hold(service), await hold(service)
        assert first is second
        service.let_go(first)
        await idle(service)
        assert service.engine.statistics().live_queries == 1
        service.let_go(second)
        await idle(service)
        assert service.engine.statistics().live_queries == 0
        assert source.listening == []

    run(test)


def test_a_live_query_lingers_after_its_last_subscription(triggers):
    clock = trio.testing.MockClock()

    async def test(service: Service, source: HeldSource) -> None:
        source.may_listen.set()
        first = await hold(service)
        await service.loaded(first)
        service.let_go(first)
        clock.jump(9)
        await idle(service)
        again = await hold(service)  # somebody comes back in time
        assert again is first
        clock.jump(9)
        await idle(service)
        assert service.engine.statistics().live_queries == 1
        service.let_go(again)
        clock.jump(9)
        await idle(service)
        assert source.listening != []
        clock.jump(2)
        await idle(service)
        assert service.engine.statistics().live_queries == 0
        assert source.listening == []

    run(test, linger=10, clock=clock)


def test_a_method_does_not_wait_for_a_query_that_nobody_wants_any_more(triggers):
    clock = trio.testing.MockClock()

    async def test(service: Service, source: HeldSource) -> None:
        source.may_listen.set()
        first = await hold(service)
        await service.loaded(first)
        first.load_at = 1000.0  # as if the database had been away
        told = trio.Event()

        async def wait_for_the_fence() -> None:
            await service.everything_told(session_of(first))
            told.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait_for_the_fence)
            await trio.testing.wait_all_tasks_blocked(0.01)
            source.deliver([Gap("bookstore_author", "bulk"), Fence("1")])
            await idle(service)
            assert not told.is_set()
            service.let_go(first)
            clock.jump(2)
            await idle(service)
            assert told.is_set()

    run(test, linger=1, clock=clock)


def test_those_who_come_and_go_in_a_loop_leave_a_bounded_number_behind(triggers, monkeypatch):
    monkeypatch.setattr("trigger_ddp.server.lingering.MOST_LINGERING", 3)

    async def test(service: Service, source: HeldSource) -> None:
        source.may_listen.set()
        for number in range(10):
            one = await service.workers.run(named, str(number))
            service.let_go(await service.hold(one))
        await idle(service)
        assert service.engine.statistics().live_queries == 3

    run(test, linger=1000, clock=trio.testing.MockClock())


def test_few_linger_that_share_no_statement(triggers, monkeypatch):
    monkeypatch.setattr("trigger_ddp.server.lingering.MOST_LINGERING_ALONE", 2)

    async def test(service: Service, source: HeldSource) -> None:
        source.may_listen.set()
        for number in range(5):
            for make in (named, containing):
                one = await service.workers.run(make, str(number))
                service.let_go(await service.hold(one))
        await idle(service)
        names = [query.shape.compiled.lifted for query in live_queries(service)]
        assert (names.count(()), len(names)) == (2, 7)

    run(test, linger=1000, clock=trio.testing.MockClock())


def test_those_wait_that_nobody_has_or_one_of_very_many(triggers, monkeypatch):
    """A change is looked at for them when nothing else is under way."""
    monkeypatch.setattr("trigger_ddp.server.service.MANY_SUBSCRIPTIONS", 1)

    async def test(service: Service, source: HeldSource) -> None:
        source.may_listen.set()
        lingering, crowded, shared, own, lifted = [
            await service.hold(await service.workers.run(make, name))
            for name, make in zip("abcde", [containing] * 4 + [named], strict=True)
        ]
        few, many = session_of(own), session_of(crowded)
        many.subscriptions["more"] = Subscription("more", "Any")
        watched = [(crowded, many), (own, few)]
        watched += [(query, session) for query in (shared, lifted) for session in (few, many)]
        for query, session in watched:
            session.show(Subscription("s", "Any"), query)
            service.fanout.watch(query, session)
        await idle(service)
        waiting = {query for query in live_queries(service) if service._may_wait(Evaluation(query.shape))}
        assert waiting == {lingering, crowded}

    run(test)


def containing(name: str) -> CompiledQuery:
    return compile_queryset(API.collection_for_model(Author), Author.objects.filter(name__contains=name))


def live_queries(service: Service) -> list[LiveQuery]:
    return [query for shape in service.engine.shapes for query in shape.queries]


def named(name: str) -> CompiledQuery:
    return compile_queryset(API.collection_for_model(Author), Author.objects.filter(name=name))


def test_a_table_without_triggers_is_refused_and_not_listened_to_in_vain(db):
    async def test(service: Service, source: HeldSource) -> None:
        source.may_listen.set()
        with pytest.raises(TriggersMissing, match="ddp_install_triggers"):
            await hold(service)
        await idle(service)
        assert source.listening == []
        assert service.engine.statistics().live_queries == 0

    run(test)


def test_a_fence_is_passed_only_after_what_was_delivered_before_it_is_evaluated(triggers):
    async def test(service: Service, source: HeldSource) -> None:
        source.may_listen.set()
        query = await hold(service)
        await service.loaded(query)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(service.everything_told, session_of(query))
            await trio.testing.wait_all_tasks_blocked(0.01)
            await service.workers.run(lambda: Author.objects.update(name="Bob"))
            source.deliver([Gap("bookstore_author", "bulk"), Fence("1")])
        assert [document.fields["name"] for document in query.documents.values()] == [b'"Bob"']

    run(test)


def test_a_gap_of_everything_looks_at_everything_again(triggers):
    async def test(service: Service, source: HeldSource) -> None:
        source.may_listen.set()
        query = await hold(service)
        await service.loaded(query)
        await service.workers.run(lambda: Author.objects.create(name="Cyd", email="cyd@x"))
        source.deliver([Gap(None, "reconnected")])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(service.everything_told, session_of(query))
            await trio.testing.wait_all_tasks_blocked(0.01)
            source.deliver([Fence("1")])
        assert len(query.documents) == 2

    run(test)


def test_after_a_gap_of_everything_nobody_is_let_in_before_triggers_were_looked_for(triggers):
    """The database may be another one: restored, or failed over to."""

    async def test(service: Service, source: HeldSource) -> None:
        source.may_listen.set()
        await service.loaded(await hold(service))
        await service.workers.run(lambda: call_command("ddp_install_triggers", uninstall=True, verbosity=0))
        await hold(service)  # what was seen ten seconds ago is good enough, else
        assert service.stale_tables == {}
        source.deliver([Gap(None, "reconnected")])
        with pytest.raises(TriggersMissing):
            await hold(service)
        assert service.stale_tables == {"bookstore_author": "bookstore_author has no triggers"}

    run(test)


def test_a_session_does_not_wait_for_what_others_look_at(triggers):
    """A table that is locked for hours, for instance."""

    async def test(service: Service, source: HeldSource) -> None:
        source.may_listen.set()
        query = await hold(service)
        await service.loaded(query)
        other = session_of(query)
        other.subscriptions.clear()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(service.everything_told, other)
            await trio.testing.wait_all_tasks_blocked(0.01)
            source.deliver([Gap("bookstore_author", "bulk"), Fence("1")])
            assert query.shape.running is not None or query.shape.waiting
            await trio.testing.wait_all_tasks_blocked(0)

    run(test)


def test_all_who_lose_the_database_at_once_ask_again_at_once(db):
    """Each of them is not one more failure: the delay would be at its longest after the first."""

    async def test(service: Service, source: HeldSource) -> None:
        away = OperationalError("the connection is lost")
        times = {service._ask_again_at(away) for _ in range(50)}
        assert len(times) == 1
        assert times.pop() - trio.current_time() < 0.5

    run(test)
