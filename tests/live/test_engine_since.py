"""When a change came is known to the evaluation that answers it, whichever way it takes."""

from __future__ import annotations

import math

import pytest

from tests.live.strict import Query
from tests.live.test_engine import ALL, BY_KEYS, EVERYTHING, ROWS, answer, change, compiled, loaded
from trigger_ddp.changes.change import Gap
from trigger_ddp.live.engine import Engine
from trigger_ddp.live.evaluation import Answers
from trigger_ddp.live.query import State


@pytest.fixture
def engine() -> Engine:
    return Engine(requery_interval=0)


def test_a_first_load_answers_no_change(engine):
    engine.acquire(compiled())
    engine.receive(Gap(None, "reconnected"), 5)
    [first] = engine.due(0)
    assert first.since == math.inf
    assert engine.oldest_change() is None


def test_the_earliest_of_a_batch_counts(engine):
    loaded(engine, compiled())
    engine.receive(change("a"), 7)
    engine.receive(change("b"), 5)
    engine.receive(change("c"), 6)
    assert engine.oldest_change() == 5
    [look] = engine.due(10)
    assert look.since == 5
    assert engine.oldest_change() == 5, "until it is answered"
    engine.receive(change("a"), 8)
    answer(engine, look)
    assert engine.oldest_change() == 8
    [next_look] = engine.due(10)
    assert next_look.since == 8
    answer(engine, next_look)
    assert engine.oldest_change() is None


def test_a_look_made_again_keeps_its_time(engine):
    loaded(engine, compiled())
    engine.receive(change("a"), 5)
    [look] = engine.due(10)
    engine.receive(change("b"), 6)
    engine.restart(look, 11)
    [again] = engine.due(11)
    assert again.since == 5


def test_a_load_made_again_keeps_its_time(engine):
    loaded(engine, compiled(EVERYTHING))
    engine.receive(change("a"), 5)
    [load] = engine.due(10)
    assert (load.queries != (), load.since) == (True, 5)
    engine.receive(change("b"), 6)
    engine.restart(load, 11)
    [again] = engine.due(11)
    assert again.since == 5
    answer(engine, again)
    engine.receive(change("b"), 12)
    [later] = engine.due(13)
    assert later.since == 12


def test_a_look_that_becomes_a_load_keeps_its_time(engine):
    loaded(engine, compiled())
    engine.receive(change("a"), 5)
    [look] = engine.due(10)
    engine.widen(look)
    [load] = engine.due(10)
    assert (load.queries != (), load.since) == (True, 5)
    answer(engine, load)
    engine.receive(change("a"), 15)
    [look] = engine.due(20)
    assert list(engine.complete(look, Answers(too_many=True))) == []
    [load] = engine.due(20)
    assert (load.queries != (), load.since) == (True, 15)


def test_waiting_keys_that_a_gap_overtakes_keep_their_time(engine):
    loaded(engine, compiled())
    engine.receive(change("a"), 5)
    engine.receive(Gap("t", "bulk"), 6)
    [load] = engine.due(10)
    assert load.since == 5


def test_loads_of_several_live_queries_have_the_earliest_time(engine):
    one = engine.acquire(Query("all", lambda row: True).compiled({"t": BY_KEYS}))
    [first] = engine.due(0)
    assert list(engine.complete(first, ALL.answers(first, ROWS))) == []
    assert one.state is State.LIVE
    engine.receive(Gap("t", "bulk"), 3)
    engine.receive(Gap("t", "bulk"), 4)
    [load] = engine.due(10)
    assert load.since == 3
