"""Random writes, late and repeated notifications, slow looks, sessions that come and go; no socket.

The invariant: when writers stop, every client has exactly what its queries match; and on the way no
client is told anything that a strict one would throw on.
"""

from __future__ import annotations

import dataclasses
import unittest.mock
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.live.strict import Query, Row, StrictSession
from trigger_ddp.changes.change import Change, Gap
from trigger_ddp.live.depends import Dependency
from trigger_ddp.live.engine import Barrier, Engine
from trigger_ddp.live.evaluation import Evaluation, Route, Statement
from trigger_ddp.live.links import Link
from trigger_ddp.live.query import LiveQuery, State
from trigger_ddp.protocol.fanout import Fanout
from trigger_ddp.protocol.session import Subscription

NAMED = Query("named", lambda row: row["n"] >= 2, lifted=("name",))
#: Each with the routes of one live query.
QUERIES: list[tuple[Query, tuple[Route, ...]]] = [
    (Query("all", lambda row: True), ((),)),
    (Query("big", lambda row: row["n"] >= 5), ((),)),
    (Query("even", lambda row: row["n"] % 2 == 0), ((),)),
    (Query("names only", lambda row: True, ("name",)), ((),)),
    (Query("big numbers", lambda row: row["n"] >= 5, ("n",)), ((),)),
    (NAMED, (("x",),)),
    (NAMED, (("y",),)),
    (NAMED, (("x",), ("z",))),
]
BY_KEYS: dict[str, Any] = {"t": Dependency(None, (Link((0,)),))}  # type: ignore[arg-type]  # the table is not asked
FOLLOWED: dict[str, Any] = {"t": Dependency(None, (Link((0,)), Link((1,), Statement("", ()))))}  # type: ignore[arg-type]
EVERYTHING: dict[str, Any] = {"t": Dependency(None, None)}  # type: ignore[arg-type]
#: Dependencies, and whether rows are kept by keys, for all queries of a world.
KINDS = [(BY_KEYS, True), (BY_KEYS, False), (FOLLOWED, True), (EVERYTHING, True), (EVERYTHING, False)]


def matches(query: Query, routes: tuple[Route, ...], row: Row) -> bool:
    return query.matches(row) and tuple(row[name] for name in query.lifted) in routes


@dataclasses.dataclass
class Looking:
    evaluation: Evaluation
    query: Query
    rows: dict[str, Row] | None = None


class World:
    """A table, its queue of notifications, the engine, and some sessions."""

    def __init__(self, sessions: int, kind: int) -> None:
        self.rows: dict[str, Row] = {}
        self.queue: list[Change | Gap] = []
        self.engine = Engine(requery_interval=0)
        self.fanout = Fanout()
        self.sessions = [StrictSession() for _ in range(sessions)]
        self.looking: list[Looking] = []
        self.waiting: list[tuple[StrictSession, Subscription]] = []
        tables, by_keys = KINDS[kind]
        self.compiled = [query.compiled(tables, routes, by_keys=by_keys) for query, routes in QUERIES]
        self.telling: list[tuple[StrictSession, LiveQuery]] = []
        self.numbers = 0

    def write(self, key: str, row: Row | None) -> None:
        if row is None:
            if self.rows.pop(key, None) is None:
                return
        else:
            self.rows[key] = row
        self.queue.append(Change("t", "U", ((key, row and row["name"]),)))

    def rename(self, old: str, new: str) -> None:
        """An UPDATE of the primary key."""
        if old in self.rows and new not in self.rows:
            self.rows[new] = self.rows.pop(old)
            self.queue.append(Change("t", "U", ((new, None),), ((old, None),)))

    def round(self, lost: str) -> None:
        """What one notification does on a good day, or on one when the database goes away over it."""
        self.deliver(1, repeat=False)
        self.look()
        self.answer(-1, lost)

    def subscribe(self, session: int, query: int) -> None:
        self.numbers += 1
        subscription = Subscription(str(self.numbers), str(query))
        owner = self.sessions[session % len(self.sessions)]
        owner.subscriptions[subscription.id] = subscription
        subscription.held = [self.engine.acquire(self.compiled[query])]
        self.waiting.append((owner, subscription))
        self.show_loaded()

    def unsubscribe(self, session: int) -> None:
        owner = self.sessions[session % len(self.sessions)]
        for subscription in owner.subscriptions.values():
            self.waiting = [pair for pair in self.waiting if pair[1] is not subscription]
            for query in owner.stop(subscription):
                self.fanout.unwatch(query, owner)
            for query in subscription.held:
                self.engine.release(query)
            return

    def show_loaded(self) -> None:
        for pair in list(self.waiting):
            owner, subscription = pair
            [query] = subscription.held
            if query.state is State.LIVE:
                self.waiting.remove(pair)
                pieces = self.fanout.pieces(query, 0.0) if int(subscription.id) % 2 else None
                if owner.show(subscription, query, pieces):
                    self.fanout.watch(query, owner)
                self.telling.append((owner, query))
                self.tell()

    def tell(self) -> None:
        """One more document of each query that is being told."""
        self.telling = [(owner, query) for owner, query in self.telling if owner.tell_some(query, 1)]

    def deliver(self, count: int, repeat: bool) -> None:
        batch, self.queue = self.queue[:count], self.queue[count:]
        for event in batch * (2 if repeat else 1):
            self.engine.receive(event)

    def look(self) -> None:
        shapes = {compiled.shape: query for compiled, (query, _) in zip(self.compiled, QUERIES, strict=True)}
        for evaluation in self.engine.due(0):
            self.looking.append(Looking(evaluation, shapes[evaluation.shape.compiled]))

    def snapshot(self) -> None:
        for looking in self.looking:
            looking.rows = looking.rows or {key: dict(row) for key, row in self.rows.items()}

    def answer(self, which: int, lost: str) -> None:
        if not self.looking:
            return
        looking = self.looking.pop(which % len(self.looking))
        if lost == "restart":
            self.engine.restart(looking.evaluation, 0)
            return
        if lost == "fail" and not looking.evaluation.queries:
            self.engine.widen(looking.evaluation)
            return
        if lost == "fail" and len(looking.evaluation.queries) > 1:
            assert self.engine.fail(looking.evaluation, RuntimeError()) == []
            return
        rows = self.rows if looking.rows is None else looking.rows
        answers = looking.query.answers(looking.evaluation, rows)
        self.fanout.tell(self.engine.complete(looking.evaluation, answers))
        self.show_loaded()

    def settle(self) -> None:
        while self.queue or self.looking or self.engine.next_due() is not None:
            self.deliver(len(self.queue), repeat=False)
            self.look()
            while self.looking:
                self.answer(0, lost="")
        while self.telling:
            self.tell()

    def expected(self, session: StrictSession) -> dict[tuple[str, str], Row]:
        told: dict[tuple[str, str], Row] = {}
        for subscription in session.subscriptions.values():
            query, routes = QUERIES[int(subscription.name)]
            for key, row in self.rows.items():
                if matches(query, routes, row):
                    fields = {name: row[name] for name in query.fields or ("n", "name")}
                    told.setdefault(("things", row.get("id", key)), {}).update(fields)
        return told


keys = st.sampled_from("abcdef")
losses = st.sampled_from(["", "", "restart", "fail"])
rows = st.fixed_dictionaries({"n": st.integers(0, 9), "name": st.sampled_from(["x", "y", "z"])})
operations = st.lists(
    st.one_of(
        # What is named twice comes twice as often: a gap mends whatever was done wrong before it.
        st.tuples(st.just("write"), keys, rows),
        st.tuples(st.just("write"), keys, rows),
        st.tuples(st.just("round"), losses),
        st.tuples(st.just("write"), keys, st.none()),
        st.tuples(st.just("rename"), keys, keys),
        st.tuples(st.just("round"), losses),
        st.tuples(st.just("subscribe"), st.integers(0, 2), st.integers(0, len(QUERIES) - 1)),
        st.tuples(st.just("unsubscribe"), st.integers(0, 2)),
        st.tuples(st.just("deliver"), st.integers(1, 5), st.booleans()),
        st.tuples(st.just("look")),
        st.tuples(st.just("snapshot")),
        st.tuples(st.just("answer"), st.integers(0, 5), losses),
        st.tuples(st.just("tell")),
        st.tuples(st.just("gap")),
    ),
    min_size=8,
    max_size=60,
)


@settings(max_examples=1500, deadline=None)
@given(operations, st.integers(0, len(KINDS) - 1))
def test_clients_converge_and_are_never_told_nonsense(script, kind):
    world = World(3, kind)
    for session, query in enumerate([0, 1, 3]):
        world.subscribe(session, query)
    world.subscribe(0, 2)  # overlaps with the first
    world.settle()
    for name, *arguments in script:
        if name == "gap":
            # What was on the way is lost; the gap says so.
            world.queue = [Gap(None, "reconnected")]
        else:
            getattr(world, name)(*arguments)
    world.settle()
    for session in world.sessions:
        assert session.documents == world.expected(session)
    for session in world.sessions:
        while session.subscriptions:
            world.unsubscribe(world.sessions.index(session))
        assert session.documents == {}
        assert session.views == {}
    assert world.engine.statistics().live_queries == 0


@settings(max_examples=500, deadline=None)
@given(operations, st.integers(0, len(KINDS) - 1), st.integers(0, 2))
def test_clients_converge_though_inboxes_overflow(script, kind, most):
    with unittest.mock.patch("trigger_ddp.live.shape.MOST_KEYS", most):
        test_clients_converge_and_are_never_told_nonsense.hypothesis.inner_test(script, kind)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(keys, rows | st.none()), max_size=20), st.lists(st.tuples(keys, rows), max_size=5))
def test_a_barrier_is_passed_just_when_what_came_before_it_is_evaluated(before, after):
    world = World(1, kind=0)
    world.subscribe(0, 0)
    world.settle()
    for key, row in before:
        world.write(key, row)
    world.deliver(len(world.queue), repeat=False)
    world.look()
    expected = {("things", key): dict(row) for key, row in world.rows.items()}
    world.snapshot()
    barrier = Barrier(world.sessions[0].queries)
    for key, row in after:
        world.write(key + "'", row)
    world.deliver(len(world.queue), repeat=False)
    while not barrier.passed:
        world.look()
        world.answer(0, lost="")
    documents = world.sessions[0].documents
    assert {name: row for name, row in documents.items() if not name[1].endswith("'")} == expected
