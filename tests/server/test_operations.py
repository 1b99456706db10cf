"""Readiness without PostgreSQL: what is asked of the database, how often, and what strangers are told."""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import trio
import trio.testing

from trigger_ddp.server.exchange import Request
from trigger_ddp.server.operations import Operations
from trigger_ddp.server.readiness import (
    ANSWER_SECONDS,
    EVALUATION_SECONDS,
    PROBE_SECONDS,
    DatabaseCheck,
    checks_of,
)


class Evaluators:
    """Threads whose database a test can stop."""

    def __init__(self) -> None:
        self.asked = 0
        self.behaviour: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint

    async def run(self, function: Any, alias: str) -> None:
        self.asked += 1
        await self.behaviour()


class Service:
    """What readiness looks at."""

    def __init__(self) -> None:
        self.evaluators = Evaluators()
        self.evaluated_at = -math.inf
        self.settings = SimpleNamespace(database="default", allow_stale=False)
        self.stale_tables: dict[str, str] = {}
        self.source = SimpleNamespace(connected=True)
        self.draining = False
        self.waiting = 0.0

    def lag(self) -> float:
        return self.waiting


def run(test: Callable[[Service], Awaitable[None]]) -> None:
    async def main() -> None:
        await test(Service())

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def ask(service: Service) -> Callable[[], Awaitable[dict[str, Any]]]:
    operations = Operations(checks_of(cast(Any, service)), cast(Any, None))

    async def ready() -> dict[str, Any]:
        answer = await operations.respond(Request("GET", "/_ddp/ready?x=y"))
        body = json.loads(answer.body)
        assert (answer.status == 200) == (body["status"] == "ready")
        return {name: said for name, said in body["checks"].items() if said != "ok"}

    return ready


def test_many_ask_the_database_once() -> None:
    async def test(service: Service) -> None:
        check = DatabaseCheck(cast(Any, service))
        for _ in range(3):
            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(check)
        assert service.evaluators.asked == 1
        await trio.sleep(ANSWER_SECONDS + 0.1)
        assert await check() is None
        assert service.evaluators.asked == 2

    run(test)


def test_a_database_that_has_just_answered_is_not_asked() -> None:
    async def test(service: Service) -> None:
        check = DatabaseCheck(cast(Any, service))
        service.evaluated_at = trio.current_time()
        assert await check() is None
        assert service.evaluators.asked == 0

    run(test)


def test_a_database_that_fails_or_is_silent() -> None:
    async def test(service: Service) -> None:
        async def fail() -> None:
            raise RuntimeError("connection to 10.0.0.7 as user admin failed")

        ready = ask(service)
        service.evaluators.behaviour = fail
        assert await ready() == {"database": "the database can't be asked"}
        service.evaluators.behaviour = trio.sleep_forever
        await trio.sleep(ANSWER_SECONDS + 0.1)
        begun = trio.current_time()
        assert await ready() == {"database": "the database does not answer"}
        assert trio.current_time() - begun <= PROBE_SECONDS + 0.1
        assert await ready() == {"database": "the database does not answer"}
        assert service.evaluators.asked == 2
        service.evaluators.behaviour = trio.lowlevel.checkpoint
        await trio.sleep(ANSWER_SECONDS + 0.1)
        assert await ready() == {}

    run(test)


def test_triggers_that_are_gone() -> None:
    async def test(service: Service) -> None:
        ready = ask(service)
        service.stale_tables = {"a_secret_name": "a_secret_name has no triggers"}
        assert await ready() == {"triggers": "1 tables in use have no current trigger, as the log says"}
        service.settings.allow_stale = True
        assert await ready() == {}

    run(test)


def test_changes_that_nobody_evaluates() -> None:
    async def test(service: Service) -> None:
        ready = ask(service)
        service.waiting = EVALUATION_SECONDS - 1
        assert await ready() == {}
        service.waiting = EVALUATION_SECONDS + 1
        assert await ready() == {"evaluations": f"nothing was evaluated for {service.waiting:.0f} s"}
        service.evaluated_at = trio.current_time()
        assert await ready() == {}, "one that takes long among others that don't"
        service.waiting = 0.0
        service.evaluated_at = -math.inf
        assert await ready() == {}, "nothing has changed"

    run(test)


def test_the_listening_connection_and_the_end() -> None:
    async def test(service: Service) -> None:
        ready = ask(service)
        service.source.connected = False
        assert await ready() == {"listener": "the listening connection is down"}
        service.draining = True
        assert (await ready()).keys() == {"listener", "accepting"}

    run(test)
