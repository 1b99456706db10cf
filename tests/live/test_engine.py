"""What the engine asks for, and when: sharing, coalescing, throttling, bounds."""

from __future__ import annotations

from typing import Any

import pytest

from tests.live.strict import Query
from trigger_ddp.changes.change import Change, Gap
from trigger_ddp.live.compile import CompiledQuery, Dependency, Reach
from trigger_ddp.live.document import Key
from trigger_ddp.live.engine import Barrier, Engine
from trigger_ddp.live.evaluation import Evaluation, KeyPart, Statement
from trigger_ddp.live.shape import INBOX_KEYS, LiveQuery, State

ROWS = {key: {"n": 1, "name": key} for key in "abc"}
ALL = Query("all", lambda row: True)


def compiled(reach: Reach = Reach.KEYS, name: str = "all", columns: int = 1) -> CompiledQuery:
    dependency = Dependency(None, reach, 0, columns)  # type: ignore[arg-type]  # the table itself is not asked
    return Query(name, lambda row: True).compiled({"t": dependency})


def change(*keys: str, old: tuple[str, ...] = ()) -> Change:
    return Change("t", "U", tuple((key,) for key in keys), tuple((key,) for key in old))


def answer(engine: Engine, evaluation: Evaluation, rows: dict[str, Any] = ROWS) -> None:
    assert list(engine.complete(evaluation, ALL.answers(evaluation, rows))) is not None


@pytest.fixture
def engine() -> Engine:
    return Engine(requery_interval=10)


def loaded(engine: Engine, query: CompiledQuery) -> LiveQuery:
    live = engine.acquire(query)
    [evaluation] = engine.due(0)
    answer(engine, evaluation)
    assert live.state is State.LIVE
    return live


def test_equal_querysets_share_one_live_query_and_one_look(engine):
    first, second = engine.acquire(compiled()), engine.acquire(compiled())
    assert first is second
    assert len(engine.due(0)) == 1
    engine.release(first)
    assert engine.statistics().live_queries == 1
    engine.release(second)
    assert engine.statistics().live_queries == 0


def test_changes_during_a_look_make_one_next_look(engine):
    loaded(engine, compiled())
    engine.receive(change("a"))
    [running] = engine.due(0)
    assert running.keys == (("a",),)
    for key in ("b", "c", "b", "a"):
        engine.receive(change(key))
        assert engine.due(0) == []
    answer(engine, running)
    [following] = engine.due(0)
    assert set(following.keys or ()) == {("a",), ("b",), ("c",)}


def test_keys_are_looked_at_at_once_and_whole_runs_are_throttled(engine):
    loaded(engine, compiled(Reach.EVERYTHING))
    engine.receive(change("a"))
    assert engine.due(9.9) == []
    assert engine.next_due() == 10
    [evaluation] = engine.due(10)
    assert evaluation.keys is None
    answer(engine, evaluation)
    engine.receive(change("a"))
    assert engine.next_due() == 20

    loaded(engine, compiled(name="by keys"))
    engine.receive(change("a"))
    [by_keys] = engine.due(10)
    assert by_keys.keys == (("a",),)


def test_the_inbox_is_bounded_by_looking_at_everything(engine):
    loaded(engine, compiled())
    engine.receive(change(*map(str, range(INBOX_KEYS))))
    engine.receive(change("one more"))
    [evaluation] = engine.due(100)
    assert evaluation.keys is None


def test_a_gap_of_one_table_concerns_its_readers_only(engine):
    loaded(engine, compiled())
    engine.receive(Gap("another", "bulk"))
    assert engine.due(100) == []
    engine.receive(Gap("t", "bulk"))
    assert len(engine.due(100)) == 1


def test_rows_whose_root_key_is_null_concern_nobody(engine):
    loaded(engine, compiled())
    engine.receive(Change("t", "I", ((None,),)))
    assert engine.due(100) == []


def test_keys_that_cannot_be_asked_about_are_asked_about_with_all_others(engine):
    loaded(engine, compiled())
    engine.receive(change("forged"))
    [evaluation] = engine.due(100)
    engine.widen(evaluation)
    [evaluation] = engine.due(200)
    assert evaluation.keys is None


def test_a_failed_look_ends_the_live_query_and_the_next_one_is_new(engine):
    live = loaded(engine, compiled())
    engine.receive(Gap("t", "bulk"))
    [evaluation] = engine.due(100)
    error = RuntimeError()
    assert engine.fail(evaluation, error) == [live]
    assert (live.state, live.error) == (State.FAILED, error)
    again = engine.acquire(compiled())
    assert again is not live
    engine.release(live)
    assert engine.statistics().live_queries == 1


def test_a_look_that_comes_back_to_a_forgotten_query_changes_nothing(engine):
    live = engine.acquire(compiled())
    [evaluation] = engine.due(0)
    engine.release(live)
    other = engine.acquire(compiled())
    answer(engine, evaluation)
    assert other.state is State.LOADING
    assert len(engine.due(100)) == 1


def test_whoever_asks_late_is_called_back_at_once(engine):
    live = engine.acquire(compiled())
    called: list[str] = []
    live.when_settled(lambda: called.append("early"))
    [evaluation] = engine.due(0)
    answer(engine, evaluation)
    live.when_settled(lambda: called.append("late"))
    assert called == ["early", "late"]


def test_composite_keys_are_asked_about_column_by_column():
    statement = Statement("…", (1, KeyPart(0), "x", KeyPart(1)))
    keys: list[Key] = [("1", "a\x1f"), ("2", "b")]
    assert statement.for_keys(keys) == (1, ["1", "2"], "x", ["a\x1f", "b"])


def test_a_barrier_passes_though_the_first_look_was_lost(engine):
    live = loaded(engine, compiled())
    engine.receive(change("a"))
    [lost] = engine.due(0)
    engine.receive(change("b"))
    barrier = Barrier([live])
    engine.restart(lost, at=5)
    assert engine.due(4.9) == []
    assert engine.next_due() == 5
    [again] = engine.due(5)
    assert set(again.keys or ()) == {("a",), ("b",)}
    assert not barrier.passed
    answer(engine, again)
    assert barrier.passed


def test_what_differs_only_in_its_dependencies_is_not_shared(engine):
    first = compiled()
    identity = ("things", "all", (("u", "EVERYTHING"),))
    second = CompiledQuery("things", identity, (), first.tables, None, None, first.read)
    assert engine.acquire(first) is not engine.acquire(second)
