"""What the engine asks for, and when: sharing, coalescing, throttling, turns, bounds."""

from __future__ import annotations

from typing import Any

import pytest

from tests.live.strict import Query
from trigger_ddp.changes.change import Change, Gap
from trigger_ddp.live.compiled import CompiledQuery
from trigger_ddp.live.depends import Dependency
from trigger_ddp.live.document import Key
from trigger_ddp.live.engine import Barrier, Engine
from trigger_ddp.live.evaluation import MOST_KEYS, Answers, Evaluation, Part, Statement
from trigger_ddp.live.links import Link
from trigger_ddp.live.query import LiveQuery, State
from trigger_ddp.live.shape import MOST_LOADED

ROWS = {key: {"n": 1, "name": key} for key in "abc"}
ALL = Query("all", lambda row: True)


BY_KEYS = Dependency(None, (Link((0,)),))  # type: ignore[arg-type]  # the table itself is not asked
EVERYTHING = Dependency(None, None)  # type: ignore[arg-type]


def compiled(dependency: Dependency = BY_KEYS, name: str = "all") -> CompiledQuery:
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


def test_whether_a_live_query_may_hold_what_was_before(engine):
    query = engine.acquire(compiled())
    assert not query.is_begun
    [load] = engine.due(0)
    assert query.is_begun
    answer(engine, load)
    assert query.is_begun


def test_keys_are_looked_at_at_once_and_whole_runs_are_throttled(engine):
    loaded(engine, compiled(EVERYTHING))
    engine.receive(change("a"))
    assert engine.due(9.9) == []
    assert engine.next_due() == 10
    [evaluation] = engine.due(10)
    assert evaluation.queries
    answer(engine, evaluation)
    engine.receive(change("a"))
    assert engine.next_due() == 20

    loaded(engine, compiled(name="by keys"))
    engine.receive(change("a"))
    [by_keys] = engine.due(10)
    assert by_keys.keys == (("a",),)


def test_the_inbox_is_bounded_by_looking_at_everything(engine):
    loaded(engine, compiled())
    engine.receive(change(*map(str, range(MOST_KEYS))))
    engine.receive(change("one more"))
    [evaluation] = engine.due(100)
    assert evaluation.queries


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
    assert evaluation.queries


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
    statement = Statement("…", (1, Part(0), "x", Part(1)))
    keys: list[Key] = [("1", "a\x1f"), ("2", "b")]
    assert statement.about(keys) == ("…", (1, ["1", "2"], "x", ["a\x1f", "b"]))


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


def test_what_is_put_back_does_not_outgrow_the_inbox(engine):
    """The database goes away over and over, while writers go on."""
    live = engine.acquire(compiled())
    [first] = engine.due(0)
    answer(engine, first)
    engine.receive(change(*(f"a{number}" for number in range(MOST_KEYS))))
    [lost] = engine.due(1)
    engine.receive(change(*(f"b{number}" for number in range(MOST_KEYS))))
    engine.restart(lost, at=2)
    [again] = engine.due(1000)
    assert (again.keys, again.queries) == ((), (live,))
    answer(engine, again)
    assert engine.due(2000) == []


def test_an_inbox_holds_no_more_than_its_bound_while_a_look_takes_its_time(engine):
    live = engine.acquire(compiled())
    [first] = engine.due(0)
    answer(engine, first)
    engine.receive(change("a"))
    [slow] = engine.due(1)
    for batch in range(100):
        engine.receive(change(*(f"{batch} {number}" for number in range(1000))))
        assert len(live.shape._keys) <= MOST_KEYS
    answer(engine, slow)
    asked: list[Any] = []
    while evaluations := engine.due(1000):
        asked += [evaluation.queries for evaluation in evaluations]
        answer(engine, evaluations[0])
    assert (live,) in asked


def test_what_differs_only_in_its_dependencies_is_not_shared(engine):
    assert engine.acquire(compiled()) is not engine.acquire(compiled(EVERYTHING))


NAMED = Query("named", lambda row: True, lifted=("name",))


def named(name: str, *, by_keys: bool = True, dependency: Dependency = BY_KEYS) -> CompiledQuery:
    return NAMED.compiled({"t": dependency}, ((name,),), by_keys=by_keys)


def answer_named(engine: Engine, evaluation: Evaluation, rows: dict[str, Any] = ROWS) -> list[Any]:
    return [
        (delta.query.routes, [step.id for step in delta.transitions])
        for delta in engine.complete(evaluation, NAMED.answers(evaluation, rows))
    ]


def loaded_by_name(engine: Engine, *names: str, by_keys: bool = True) -> list[LiveQuery]:
    queries = [engine.acquire(named(name, by_keys=by_keys)) for name in names]
    [evaluation] = engine.due(0)
    answer_named(engine, evaluation)
    return queries


def test_live_queries_of_one_shape_are_loaded_and_looked_at_together(engine):
    queries = loaded_by_name(engine, "a", "b", "z")
    assert engine.statistics().shapes == 1
    assert [list(query.documents) for query in queries] == [["a"], ["b"], []]
    engine.receive(change("a", "c"))
    [evaluation] = engine.due(0)
    moved = {**ROWS, "a": {"n": 1, "name": "z"}}
    assert answer_named(engine, evaluation, moved) == [((("a",),), ["a"]), ((("z",),), ["a"])]


def test_a_new_live_query_does_not_load_the_others_again(engine):
    loaded_by_name(engine, "a", "b")
    new = engine.acquire(named("c"))
    [evaluation] = engine.due(0)
    assert evaluation.queries == (new,)


def test_only_whom_a_row_concerns_is_run_again(engine):
    first, second, _ = loaded_by_name(engine, "a", "b", "z", by_keys=False)
    engine.receive(change("a"))
    [look] = engine.due(100)
    assert (look.keys, look.queries) == ((("a",),), ())
    barrier = Barrier([first])
    # The row has moved from one to the other: the first holds it, the second's conditions match.
    moved = {**ROWS, "a": {"n": 1, "name": "b"}}
    assert answer_named(engine, look, moved) == []
    assert not barrier.passed
    [load] = engine.due(100)
    assert set(load.queries) == {first, second}
    answer_named(engine, load, moved)
    assert barrier.passed
    assert (list(first.documents), list(second.documents)) == ([], ["b", "a"])


def test_looks_and_loads_take_turns(engine):
    loaded_by_name(engine, "a")
    engine.receive(change("a"))
    [look] = engine.due(0)
    for name in "bc":
        engine.acquire(named(name))
    engine.receive(change("a"))
    answer_named(engine, look)
    [load] = engine.due(0)
    assert len(load.queries) == 2
    answer_named(engine, load)
    [look] = engine.due(0)
    assert look.keys == (("a",),)


def test_many_live_queries_are_loaded_in_portions(engine):
    for number in range(MOST_LOADED + 1):
        engine.acquire(named(str(number)))
    [first] = engine.due(0)
    assert len(first.queries) == MOST_LOADED
    answer_named(engine, first)
    [second] = engine.due(0)
    assert len(second.queries) == 1


def test_a_constant_that_cannot_be_loaded_ends_nobody_else(engine):
    good, bad = engine.acquire(named("a")), engine.acquire(named("b"))
    [together] = engine.due(0)
    assert engine.fail(together, RuntimeError()) == []
    [alone] = engine.due(0)
    assert alone.queries == (good,)
    answer_named(engine, alone)
    [alone] = engine.due(0)
    assert engine.fail(alone, RuntimeError()) == [bad]
    assert (good.state, bad.state) == (State.LIVE, State.FAILED)


def test_values_to_follow_are_bounded_by_looking_at_everything(engine):
    followed = Dependency(None, (Link((0,), Statement("", ())),))  # type: ignore[arg-type]
    loaded(engine, compiled(followed))
    engine.receive(change(*map(str, range(MOST_KEYS + 1))))
    [evaluation] = engine.due(100)
    assert evaluation.queries


def test_too_many_rows_behind_a_link_are_looked_at_with_all_others(engine):
    followed = Dependency(None, (Link((0,), Statement("", ())),))  # type: ignore[arg-type]
    live = loaded(engine, compiled(followed))
    engine.receive(change("a"))
    [evaluation] = engine.due(100)
    assert [values for _, values in evaluation.follow] == [(("a",),)]
    barrier = Barrier([live])
    assert list(engine.complete(evaluation, Answers(too_many=True))) == []
    [evaluation] = engine.due(100)
    assert evaluation.queries == (live,)
    assert not barrier.passed
    answer(engine, evaluation)
    assert barrier.passed


def test_what_a_look_asked_is_not_lost_by_a_gap_meanwhile(engine):
    live = loaded(engine, compiled())
    engine.receive(change("a"))
    [look] = engine.due(100)
    engine.receive(change("b"))
    engine.receive(Gap("t", "bulk"))
    barrier = Barrier([live])
    answer(engine, look)
    assert not barrier.passed
    [load] = engine.due(200)
    answer(engine, load)
    assert barrier.passed
    assert engine.next_due() is None


def test_one_row_may_concern_a_live_query_by_several_constants(engine):
    query = engine.acquire(NAMED.compiled({"t": BY_KEYS}, (("a",), ("b",))))
    single = engine.acquire(named("b"))
    [evaluation] = engine.due(0)
    answer_named(engine, evaluation)
    assert (set(query.documents), set(single.documents)) == ({"a", "b"}, {"b"})
    engine.release(single)
    engine.receive(change("b"))
    [evaluation] = engine.due(0)
    assert answer_named(engine, evaluation, {"a": ROWS["a"]}) == [((("a",), ("b",)), ["b"])]
    engine.release(query)
    assert engine.statistics().shapes == 0


def test_nothing_is_begun_for_what_was_let_go_before_its_turn(engine):
    query = NAMED.compiled({"t": EVERYTHING}, (("a",),))
    loaded_first = engine.acquire(query)
    [evaluation] = engine.due(0)
    answer_named(engine, evaluation)
    engine.receive(change("a"))
    assert engine.next_due() == 10
    engine.release(engine.acquire(NAMED.compiled({"t": EVERYTHING}, (("b",),))))
    assert engine.due(1) == []
    assert engine.next_due() == 10
    assert [evaluation.queries for evaluation in engine.due(10)] == [(loaded_first,)]
