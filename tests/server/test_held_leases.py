"""Leases without a server: what is listened to, which events have a row looked up, and that all is let go."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import pytest
import trio
import trio.testing

from tests.server.test_identity import Source, Triggers
from tests.zoo.models import Keeper
from trigger_ddp.changes.change import Change, Gap
from trigger_ddp.errors import TriggersMissing
from trigger_ddp.server.leases import Lease, Leases

TABLE = Keeper._meta.db_table


class Evaluators:
    """Finds those rows gone that it is told to."""

    def __init__(self) -> None:
        self.triggers = Triggers([TABLE])
        self.gone: list[Lease] = []
        self.asked: list[list[Lease]] = []
        self.answer = trio.Event()
        self.answer.set()

    async def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        await trio.lowlevel.checkpoint()
        self.asked.append(arguments[0])
        await self.answer.wait()
        return [lease for lease in arguments[0] if lease in self.gone]


async def at_once(attempt: Callable[[], Awaitable[Any]]) -> Any:
    return await attempt()


def run(test: Callable[[Leases, Evaluators, trio.Nursery], Awaitable[None]]) -> None:
    async def main() -> None:
        source, evaluators = Source(), Evaluators()
        held = Leases(source, evaluators, at_once, evaluators.triggers)  # type: ignore[arg-type]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(held.run)
            await test(held, evaluators, nursery)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert source.listening == evaluators.triggers.used == []
        assert held._leases == {}

    trio.run(main)


def change(*, rows: Iterable[int] = (), old: Iterable[int] = ()) -> Change:
    return Change(
        table=TABLE, op="UPDATE", rows=tuple((str(pk),) for pk in rows), old=tuple((str(pk),) for pk in old)
    )


def test_what_has_a_row_looked_up() -> None:
    async def test(held: Leases, evaluators: Evaluators, nursery: trio.Nursery) -> None:
        gone: list[int] = []
        first, second = (Lease(Keeper(pk=pk), lambda pk=pk: gone.append(pk)) for pk in (1, 2))
        for lease in (first, second):
            await held.hold(lease)

        async def asked(event: Change | Gap) -> list[int]:
            evaluators.asked.clear()
            held.receive(event)
            await trio.testing.wait_all_tasks_blocked()
            return [lease.pk for some in evaluators.asked for lease in some]

        assert await asked(change(rows=[1, 2])) == [], "whose transactions may still run"
        for lease in (first, second):
            held.arm(lease)
        await trio.testing.wait_all_tasks_blocked()
        assert await asked(change(rows=[2, 3])) == [2]
        assert await asked(change(rows=[7], old=[1])) == [1], "a key that has changed"
        assert await asked(Gap(TABLE, "bulk")) == [1, 2]
        assert await asked(Gap(None, "reconnected")) == [1, 2]
        assert await asked(Gap("another", "bulk")) == []
        assert gone == []
        evaluators.gone = [first]
        assert await asked(change(rows=[1])) == [1]
        assert gone == [1]
        for lease in (first, second):
            held.let_go(lease, nursery)
        assert await asked(Gap(None, "reconnected")) == []

    run(test)


def test_one_let_go_while_it_is_looked_up_hears_nothing() -> None:
    async def test(held: Leases, evaluators: Evaluators, nursery: trio.Nursery) -> None:
        lease = Lease(Keeper(pk=1), lambda: pytest.fail("it was let go"))
        await held.hold(lease)
        evaluators.gone = [lease]
        evaluators.answer = trio.Event()
        held.arm(lease)
        await trio.testing.wait_all_tasks_blocked()
        held.let_go(lease, nursery)
        evaluators.answer.set()

    run(test)


def test_a_table_without_trigger_is_not_listened_to() -> None:
    async def test(held: Leases, evaluators: Evaluators, nursery: trio.Nursery) -> None:
        evaluators.triggers.current.clear()
        with pytest.raises(TriggersMissing):
            await held.hold(Lease(Keeper(pk=1), lambda: None))

    run(test)


@pytest.mark.parametrize("pk", [None, 1.5, b"x", (1, 2)])
def test_keys_that_may_look_otherwise_in_postgresql(pk: Any) -> None:
    with pytest.raises(TypeError, match="the lease of set_user_id"):
        Lease(Keeper(pk=pk), lambda: None)


def test_keys_are_those_of_the_database() -> None:
    lease = Lease(Keeper(pk="7"), lambda: None)
    assert (lease.pk, lease.key) == (7, "7")
