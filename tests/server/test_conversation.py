"""A conversation whose connection ends at the worst moment."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
import trio
import trio.testing

from trigger_ddp.conf import Settings
from trigger_ddp.protocol.ending import Ending
from trigger_ddp.protocol.frames import Wire
from trigger_ddp.protocol.session import Session
from trigger_ddp.server.connection import ConnectionClosed
from trigger_ddp.server.conversation import Conversation
from trigger_ddp.server.service import Service
from trigger_ddp.server.workers import Workers


class Connection:
    """A connection that is lost when a test says so."""

    wire = Wire.RAW
    client_address = "nowhere"
    closed_here = False

    def __init__(self) -> None:
        self.ended = trio.Event()
        self.failing = self.waited_for_room = False

    @property
    def closed(self) -> bool:
        return self.ended.is_set()

    async def receive(self) -> str:
        await self.ended.wait()
        if self.failing:
            raise RuntimeError("reading failed")
        raise ConnectionClosed("lost")

    async def wait_at_most(self, count: int) -> None:
        self.waited_for_room = True

    async def wait_closed(self) -> None:
        await self.ended.wait()

    async def close(self, code: int, reason: str, ending: Ending | None = None) -> None:
        await self.ended.wait()

    def abort(self, reason: str, ending: Ending = Ending.SERVER) -> None:
        self.ended.set()

    def push(self, frames: bytes) -> None:
        pass

    def send(self, frames: bytes) -> None:
        pass

    def flush(self) -> None:
        pass


Opened = Callable[[], tuple[Conversation, Connection]]


def run(test: Callable[[Service, trio.Nursery, Opened], Awaitable[None]], **settings: Any) -> None:
    """Run a test with a service that does not run, and what opens conversations that it has."""

    async def main() -> None:
        no_workers = cast(Workers, None)
        service = Service(cast(Any, None), no_workers, no_workers, Settings(**settings))
        async with trio.open_nursery() as nursery:
            service._nursery = nursery

            def opened() -> tuple[Conversation, Connection]:
                connection: Any = Connection()
                session = service.open_session(connection)
                session.receive('{"msg": "connect", "version": "1", "support": ["1"]}')
                session.open(service.new_session_id())
                conversation = Conversation(service, session, connection)
                nursery.start_soon(conversation.run)
                return conversation, connection

            await test(service, nursery, opened)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def comes_back(conversation: Conversation) -> bool:
    """Whether a client that has received all may go on with it."""
    session = conversation.session
    new = Session(Wire.RAW, lambda session: None)
    new.receive(
        json.dumps(
            {
                "msg": "connect", "version": "1", "support": ["1"], "session": session.id,
                "receivedCount": session.sent,
            }
        )
    )  # fmt: skip
    return conversation.can_resume(new)


@pytest.mark.parametrize("closed", [False, True])
def test_closed_when_it_is_lost_and_nobody_has_noticed(closed: bool) -> None:
    async def test(service: Service, nursery: trio.Nursery, opened: Opened) -> None:
        conversation, connection = opened()
        nursery.start_soon(conversation.serve, connection)
        await trio.testing.wait_all_tasks_blocked()
        connection.ended.set()
        if closed:
            conversation.close()
        await trio.testing.wait_all_tasks_blocked()
        assert comes_back(conversation) is not closed
        assert list(service.conversations) == ([] if closed else [conversation.session.id])

    run(test)


def test_nobody_comes_back_to_one_that_is_ending() -> None:
    async def test(service: Service, nursery: trio.Nursery, opened: Opened) -> None:
        conversation, connection = opened()
        nursery.start_soon(conversation.serve, connection)
        await trio.testing.wait_all_tasks_blocked()
        connection.ended.set()
        await trio.testing.wait_all_tasks_blocked()
        assert comes_back(conversation)
        conversation.end("a test wants it")
        assert not comes_back(conversation), "its tasks have not ended yet, and will"

    run(test)


def test_a_failure_in_reading_ends_it() -> None:
    async def test(service: Service, nursery: trio.Nursery, opened: Opened) -> None:
        conversation, connection = opened()
        connection.failing = True
        connection.ended.set()
        with pytest.raises(RuntimeError):
            await conversation.serve(cast(Any, connection))
        await trio.testing.wait_all_tasks_blocked()
        assert service.conversations == {}
        assert service.connections == {}

    run(test)


def test_many_are_lost_at_once() -> None:
    async def test(service: Service, nursery: trio.Nursery, opened: Opened) -> None:
        several = [opened() for _ in range(5)]
        for conversation, connection in several:
            nursery.start_soon(conversation.serve, connection)
        await trio.testing.wait_all_tasks_blocked()
        for _, connection in several:
            connection.ended.set()
        await trio.testing.wait_all_tasks_blocked()
        assert len(service.conversations) == 2

    run(test, max_resumable=2)


async def lose(connection: Connection) -> None:
    connection.ended.set()
    await trio.testing.wait_all_tasks_blocked()


def test_the_time_of_grace_ends_with_it() -> None:
    """Whoever is back in time may stay, and has the whole of it the next time."""

    async def test(service: Service, nursery: trio.Nursery, opened: Opened) -> None:
        conversation, connection = opened()
        nursery.start_soon(conversation.serve, connection)
        for _ in range(2):
            await trio.testing.wait_all_tasks_blocked()
            await lose(connection)
            await trio.sleep(9)
            assert comes_back(conversation)
            connection = Connection()
            conversation.resume(cast(Any, connection), b"")
            nursery.start_soon(conversation.serve, connection)
        await trio.sleep(100)
        assert list(service.conversations.values()) == [conversation]
        assert list(service.connections.values()) == [connection]
        await lose(connection)
        await trio.sleep(11)
        assert service.conversations == {}

    run(test, disconnect_grace_period=10.0, heartbeat_interval=0.0)


def test_only_those_who_are_away_count() -> None:
    async def test(service: Service, nursery: trio.Nursery, opened: Opened) -> None:
        (back, lost), (away, lost_too), (ended, lost_as_well) = [opened() for _ in range(3)]
        for conversation, connection in [(back, lost), (away, lost_too), (ended, lost_as_well)]:
            nursery.start_soon(conversation.serve, connection)
        await trio.testing.wait_all_tasks_blocked()
        await lose(lost)
        back.resume(cast(Any, Connection()), b"")
        await lose(lost_as_well)
        ended.end("for good")
        await trio.testing.wait_all_tasks_blocked()
        await lose(lost_too)
        assert set(service.conversations.values()) == {back, away}
        assert comes_back(away)

    run(test, max_resumable=1, heartbeat_interval=0.0)


def test_who_waits_for_room_waits_for_the_client_to_come_back() -> None:
    async def test(service: Service, nursery: trio.Nursery, opened: Opened) -> None:
        conversation, connection = opened()
        nursery.start_soon(conversation.serve, connection)
        await trio.testing.wait_all_tasks_blocked()
        await lose(connection)
        with trio.move_on_after(1) as waiting:
            await conversation._wait_for_room(0)
        assert waiting.cancelled_caught
        back: Any = Connection()
        nursery.start_soon(conversation._wait_for_room, 0)
        conversation.resume(back, b"")
        await trio.testing.wait_all_tasks_blocked()
        assert back.waited_for_room

    run(test)


def test_the_end_lets_go_of_the_lease_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(service: Service, nursery: trio.Nursery, opened: Opened) -> None:
        let_go: list[object] = []
        monkeypatch.setattr(service, "let_go_lease", let_go.append)
        conversation, _ = opened()
        await trio.testing.wait_all_tasks_blocked()
        lease: Any = object()
        conversation._identity._replace_lease(lease)
        told: list[str] = []
        conversation._client.on_close(lambda: told.append("before"))
        conversation.end("for good")
        await trio.testing.wait_all_tasks_blocked()
        conversation._client.on_close(lambda: told.append("after"))
        assert (let_go, told) == ([lease], ["before", "after"])

    run(test)
