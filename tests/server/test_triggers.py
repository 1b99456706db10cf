"""What the server knows of triggers, without a database: looks are what the test says they are."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing
from django.db.utils import OperationalError, ProgrammingError

from trigger_ddp.capture.installed import Look
from trigger_ddp.capture.tables import Table
from trigger_ddp.changes.change import Gap
from trigger_ddp.demo.bookstore.models import Author, Book
from trigger_ddp.server import triggers
from trigger_ddp.server.triggers import Triggers

CURRENT = Look("t1", "c1", "")
STALE = Look("t2", "c1", "none left")
GAP = Gap("bookstore_book", "triggers")


class Evaluators:
    """Looks at tables as the test says they look; an exception is raised."""

    def __init__(self) -> None:
        self.looks: dict[str, Look | Exception] = {}
        self.asked: list[list[str]] = []
        self.running = frozenset[str]()
        self.may_answer = trio.Event()
        self.may_answer.set()

    async def run(
        self, function: Callable[..., Any], tables: list[Table], before: Any, anyway: bool, alias: str
    ) -> tuple[dict[str, Look], frozenset[str]]:
        assert function is triggers._look
        self.asked.append([table.name for table in tables])
        found = {table.name: self.looks[table.name] for table in tables}
        await self.may_answer.wait()
        for look in found.values():
            if isinstance(look, Exception):
                raise look
        return found, self.running  # type: ignore[return-value]


@dataclasses.dataclass
class Held:
    """What a test has at hand; ten seconds are the time between two looks."""

    triggers: Triggers
    evaluators: Evaluators
    gaps: list[Gap]
    book: Table
    author: Table

    async def see(self, look: Look | Exception) -> list[Gap]:
        """The gaps that the next look brings if the books look like this."""
        self.evaluators.looks["bookstore_book"] = look
        asked = len(self.evaluators.asked)
        await trio.sleep(10.5)
        await trio.testing.wait_all_tasks_blocked()
        assert len(self.evaluators.asked) > asked
        told = self.gaps[:]
        self.gaps.clear()
        return told


def run(test: Callable[[Held], Awaitable[None]], *, seconds: float = 10) -> None:
    async def main() -> None:
        evaluators = Evaluators()
        gaps: list[Gap] = []
        watched = Triggers(evaluators, "default", gaps.append)  # type: ignore[arg-type]
        book, author = Table.from_model(Book), Table.from_model(Author)
        evaluators.looks = {book.name: CURRENT, author.name: CURRENT}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watched.run, seconds)
            await test(Held(watched, evaluators, gaps, book, author))
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@pytest.fixture(autouse=True)
def pointed(db: Any) -> None:
    """Django knows a PostgreSQL database, as column types need."""


def test_a_table_is_asked_about_once_while_it_is_in_use() -> None:
    async def test(held: Held) -> None:
        held.triggers.use([held.book, held.author])
        assert await held.triggers.check([held.book]) == {}
        assert await held.triggers.check([held.book, held.author]) == {}
        assert await held.triggers.check([held.author]) == {}
        assert held.evaluators.asked == [["bookstore_book"], ["bookstore_author"]]
        held.triggers.use([held.book])
        held.triggers.unuse([held.book])
        await held.triggers.check([held.book])
        assert len(held.evaluators.asked) == 2
        held.triggers.unuse([held.book])
        held.triggers.use([held.book])
        await held.triggers.check([held.book])
        assert held.evaluators.asked[2:] == [["bookstore_book"]]

    run(test)


def test_nothing_is_asked_while_nothing_is_in_use() -> None:
    async def test(held: Held) -> None:
        held.triggers.use([held.book])
        held.triggers.unuse([held.book])
        await trio.sleep(100)
        held.triggers.doubt()
        await trio.sleep(100)
        assert held.evaluators.asked == []

    run(test)


def test_those_who_come_while_it_is_stale_ask_anew() -> None:
    async def test(held: Held) -> None:
        held.evaluators.looks["bookstore_book"] = STALE
        held.triggers.use([held.book, held.author])
        for _ in range(2):
            assert await held.triggers.check([held.book, held.author]) == {"bookstore_book": "none left"}
        assert held.triggers.stale() == {"bookstore_book": "none left"}
        held.evaluators.looks["bookstore_book"] = CURRENT
        assert await held.triggers.check([held.book]) == {}
        assert held.gaps == [GAP], "for those who are there already"
        assert held.triggers.stale() == {}

    run(test)


def test_what_is_told_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trigger_ddp.triggers")

    async def test(held: Held) -> None:
        def logged() -> list[tuple[str, str]]:
            records = [(record.levelname, record.getMessage()) for record in caplog.records]
            caplog.clear()
            return records

        held.triggers.use([held.book, held.author])
        await held.triggers.check([held.book, held.author])
        assert await held.see(CURRENT) == []
        assert logged() == []
        assert await held.see(STALE) == [GAP], "a partition may have come with rows in it"
        assert logged() == [
            (
                "ERROR",
                "changes of bookstore_book may go unnoticed: none left; "
                "`manage.py ddp_install_triggers` mends it",
            )
        ]
        assert await held.see(STALE) == [GAP], "no transaction that wrote before is left"
        assert await held.see(STALE) == []
        assert logged() == []
        assert await held.see(dataclasses.replace(STALE, stale="one is left")) == []
        assert len(logged()) == 1
        assert await held.see(CURRENT) == [GAP]
        assert logged() == [
            ("INFO", "bookstore_book has its triggers again; what depends on it is read again")
        ]
        assert await held.see(CURRENT) == [GAP]
        assert await held.see(dataclasses.replace(CURRENT, triggers="t3")) == [GAP]
        assert logged() == [
            ("INFO", "the triggers of bookstore_book were made anew; what depends on it is read again")
        ]

    run(test)


def test_a_table_that_is_as_it_was_after_its_key_was_renamed_and_back() -> None:
    async def test(held: Held) -> None:
        held.triggers.use([held.book])
        await held.triggers.check([held.book])
        assert await held.see(dataclasses.replace(CURRENT, columns="c2", stale="no key")) == []
        assert await held.see(CURRENT) == [GAP]

    run(test)


def test_what_commits_late_is_read_once_nothing_runs_that_ran_before() -> None:
    async def test(held: Held) -> None:
        held.triggers.use([held.book])
        await held.triggers.check([held.book])
        again = Look("t3", "c1", "")
        for running, gaps in [("12", [GAP]), ("123", []), ("23", []), ("3", [GAP]), ("", [])]:
            held.evaluators.running = frozenset(running)
            assert await held.see(again) == gaps

    run(test)


def test_other_columns_have_types_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    forgotten: list[None] = []
    monkeypatch.setattr(triggers, "forget_columns", lambda: forgotten.append(None))

    async def test(held: Held) -> None:
        held.triggers.use([held.book])
        await held.triggers.check([held.book])
        assert await held.see(CURRENT) == []
        assert forgotten == []
        assert await held.see(dataclasses.replace(CURRENT, columns="c2")) == []
        assert forgotten == [None]

    run(test)


@pytest.mark.parametrize("seconds", [0, 1000])
def test_after_an_outage_it_looks_at_once_and_lets_nobody_in_before(seconds: float) -> None:
    async def test(held: Held) -> None:
        held.triggers.use([held.book])
        await held.triggers.check([held.book])
        held.evaluators.looks["bookstore_book"] = STALE
        held.evaluators.may_answer = trio.Event()
        held.triggers.doubt()
        answers: list[dict[str, str]] = []

        async def check() -> None:
            answers.append(await held.triggers.check([held.book]))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(check)
            await trio.testing.wait_all_tasks_blocked()
            assert answers == []
            held.evaluators.may_answer.set()
        assert answers == [{"bookstore_book": "none left"}]
        assert held.triggers.stale() == answers[0]

    run(test, seconds=seconds)


def test_an_answer_about_what_nobody_uses_any_more_is_dropped() -> None:
    async def test(held: Held) -> None:
        held.triggers.use([held.book])
        await held.triggers.check([held.book])
        held.evaluators.looks["bookstore_book"] = STALE
        held.evaluators.may_answer = trio.Event()
        held.triggers.doubt()
        await trio.testing.wait_all_tasks_blocked()
        held.triggers.unuse([held.book])
        held.evaluators.may_answer.set()
        await trio.testing.wait_all_tasks_blocked()
        assert held.triggers.stale() == {}
        assert held.gaps == []

    run(test)


def test_a_look_that_fails_is_not_the_last(caplog: pytest.LogCaptureFixture) -> None:
    async def test(held: Held) -> None:
        held.triggers.use([held.book])
        await held.triggers.check([held.book])
        assert await held.see(OperationalError("the connection is lost")) == []
        assert caplog.records == []
        assert await held.see(ProgrammingError("permission denied for function")) == []
        assert [record.levelname for record in caplog.records] == ["ERROR"]
        assert await held.see(STALE) == [GAP]

    run(test)
