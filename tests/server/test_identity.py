"""Users looked up and watched, and `this.set_user_id` where it can't end well."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import pytest
import trio
import trio.testing
from django.contrib.auth.models import User

from tests.zoo.models import Animal, Keeper
from trigger_ddp.api import API, membership
from trigger_ddp.capture.tables import Table
from trigger_ddp.changes.change import Change, Gap
from trigger_ddp.errors import MeteorError
from trigger_ddp.server import users
from trigger_ddp.server.identity import Identity, UserSetter
from trigger_ddp.server.users import Users, Watch, find_user, reload_user, snapshot


class Source:
    """A source that only counts who listens."""

    def __init__(self) -> None:
        self.listening: list[str] = []

    async def subscribe(self, tables: Iterable[Any]) -> None:
        await trio.lowlevel.checkpoint()
        self.listening += [table.name for table in tables]

    async def unsubscribe(self, tables: Iterable[Any]) -> None:
        for table in tables:
            self.listening.remove(table.name)


class Triggers:
    """Finds triggers on what it is told to find them on."""

    def __init__(self, current: Iterable[str]) -> None:
        self.current = set(current)
        self.used: list[str] = []

    def use(self, tables: Iterable[Table]) -> None:
        self.used += [table.name for table in tables]

    def unuse(self, tables: Iterable[Table]) -> None:
        for table in tables:
            self.used.remove(table.name)

    async def check(self, tables: Iterable[Table]) -> dict[str, str]:
        return {table.name: "none" for table in tables if table.name not in self.current}


@pytest.fixture
def animals_are_users(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user model with many-to-many tables of every kind."""
    monkeypatch.setattr(users, "get_user_model", lambda: Animal)
    monkeypatch.setattr(membership, "get_user_model", lambda: Animal)


def run(test: Callable[[Users, Source, trio.Nursery], Awaitable[None]], current: Iterable[str] = ()) -> None:
    async def main() -> None:
        source, triggers = Source(), Triggers(current)
        async with trio.open_nursery() as nursery:
            await test(Users(source, triggers), source, nursery)  # type: ignore[arg-type]
        assert source.listening == triggers.used == []

    trio.run(main)


class Heard:
    """A watch that notes what it hears."""

    def __init__(self) -> None:
        self.notes: list[bool] = []

    async def start(self, users: Users, pk: Any = None) -> Watch:
        watch = await users.watch(lambda memberships: self.notes.append(memberships))
        if pk is not None:
            users.watch_only(watch, pk)
        return watch

    def take(self) -> list[bool]:
        notes, self.notes = self.notes, []
        return notes


def test_each_hears_of_its_own_user(db: Any, animals_are_users: None) -> None:
    async def test(users: Users, source: Source, nursery: trio.Nursery) -> None:
        seven, eight, anyone = Heard(), Heard(), Heard()
        watches = [await seven.start(users, 7), await eight.start(users, "8"), await anyone.start(users)]

        def heard(event: Change | Gap) -> list[list[bool]]:
            users.receive(event)
            return [one.take() for one in (seven, eight, anyone)]

        assert heard(Change("zoo_animal", "U", (("7", "8"),))) == [[False], [], [False]]
        assert heard(Change("zoo_animal", "U", (("9",),), (("8",),))) == [[], [False], [False]]
        # The rows are: their own key, then the columns animal_id, species_id, or the two animals.
        assert heard(Change("zoo_animal_eats", "I", (("8", "7", "8"),))) == [[True], [], [True]]
        assert heard(Change("zoo_animal_friends", "D", (("1", "8", "7"),))) == [[], [True], [True]]
        assert heard(Change("zoo_visit", "I", (("7", "7", "7"),))) == [[], [], []], "not made by Django"
        assert heard(Change("bookstore_book", "I", (("7", "7"),))) == [[], [], []]
        assert heard(Gap("zoo_animal_eats", "bulk")) == [[True]] * 3
        assert heard(Gap("bookstore_book", "bulk")) == [[], [], []]
        assert heard(Gap(None, "reconnected")) == [[True]] * 3
        users.forget(watches.pop(0), nursery)
        assert heard(Change("zoo_animal", "D", (("7",), ("8",)))) == [[], [False], [False]]
        assert source.listening
        for watch in watches:
            users.forget(watch, nursery)
        assert heard(Gap(None, "reconnected")) == [[], [], []]

    run(test)


def test_the_warning_names_a_command_that_helps(
    db: Any, animals_are_users: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(type(API), "watched_models", lambda self: [Animal])

    async def test(users: Users, source: Source, nursery: trio.Nursery) -> None:
        for _ in range(2):
            users.forget(await Heard().start(users), nursery)

    run(test, current={"zoo_animal_friends"})
    said = {record.args[0]: record.getMessage() for record in caplog.records}  # type: ignore[index]
    assert len(caplog.records) == 2
    assert "run `manage.py ddp_install_triggers`" in said["zoo_animal"]
    assert "run `manage.py ddp_install_triggers zoo.Animal_eats`" in said["zoo_animal_eats"]


def test_users_of_another_model(db: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Known to clients by another id than the primary key, and without is_active."""
    monkeypatch.setattr(users, "get_user_model", lambda: Keeper)
    keeper = Keeper.objects.create(name="k")
    assert find_user(keeper.pk) == find_user(keeper.aid) == keeper
    with pytest.raises(MeteorError, match="User not found"):
        find_user(str(keeper.pk))
    assert reload_user(keeper.pk) == keeper
    keeper.delete()
    assert reload_user(keeper.pk) is None


def test_a_snapshot_stays_as_it_was(db: Any) -> None:
    user = User.objects.create(username="ann")
    before = snapshot(user)
    user.last_login = user.date_joined
    assert before == snapshot(user), "a login is no news to those who are logged in"
    user.is_superuser = True
    assert before != snapshot(user)
    assert before == snapshot(User.objects.get())


# -- set_user_id ----------------------------------------------------------------------------------


class Stuck(Identity):
    """An identity whose switches never end."""

    def __init__(self) -> None:
        self.ended = False
        self._lease = None

    async def become(self, user_id: Any, run: Any, lease: Any = None) -> None:
        await trio.sleep_forever()


def test_a_thread_does_not_wait_for_a_connection_that_is_gone() -> None:
    async def main() -> None:
        async with trio.open_nursery() as methods, trio.open_nursery() as nursery:
            setter = UserSetter(Stuck(), nursery)

            def method() -> None:
                with pytest.raises(MeteorError, match="connection was closed"):
                    setter(1)

            methods.start_soon(trio.to_thread.run_sync, method)
            while not nursery.child_tasks:
                await trio.sleep(0.001)
            nursery.cancel_scope.cancel()

    trio.run(main)


@pytest.mark.parametrize("connection_ended", [True, False])
def test_it_ends_with_its_method_and_connection(connection_ended: bool) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            identity = Stuck()
            setter = UserSetter(identity, nursery)
            if connection_ended:
                identity.ended = True
            else:
                setter.end()
            refused = pytest.raises(MeteorError if connection_ended else RuntimeError)
            with refused:
                await setter(1)  # type: ignore[misc]
            with refused:
                await trio.to_thread.run_sync(setter, 1)

    trio.run(main)


def test_what_a_switch_runs_can_not_end_the_server() -> None:
    class Exiting(Stuck):
        async def become(self, user_id: Any, run: Any, lease: Any = None) -> None:
            await run(lambda: exit(3))

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            setter = UserSetter(Exiting(), nursery)
            with pytest.raises(RuntimeError, match="SystemExit"):
                await trio.to_thread.run_sync(setter, 1)

    trio.run(main)
