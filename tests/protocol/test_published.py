"""Documents published by hand: by themselves, and merged with live queries as Meteor's server merges."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.live.strict import Query, StrictSession
from trigger_ddp.ejson import EJSONError
from trigger_ddp.errors import MeteorError
from trigger_ddp.live.compiled import CompiledQuery
from trigger_ddp.live.document import Document
from trigger_ddp.live.query import Delta, LiveQuery
from trigger_ddp.live.shape import Shape
from trigger_ddp.protocol.fanout import Fanout
from trigger_ddp.protocol.frames import Wire
from trigger_ddp.protocol.handle import RunningHandle
from trigger_ddp.protocol.session import Session, Subscription

NOBODY = {"user": None, "user_id": None, "connection": None}


class Recording(StrictSession):
    """A strict session that also keeps what it is told beside documents."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[dict[str, Any]] = []

    def _hear(self, message: dict[str, Any]) -> None:
        self.heard.append(message)
        super()._hear(message)


def start(session: Session, name: str = "s", *, running: bool = True) -> RunningHandle:
    subscription = Subscription(name, name)

    def end(error: MeteorError | None) -> None:
        session.stop(subscription, error)
        subscription.release()

    handle = RunningHandle(session, subscription, NOBODY, end)
    subscription.handle = handle
    if running:
        session.begin(subscription)
    return handle


def live_query(number: int = 0) -> LiveQuery:
    shape = Shape(Query("any", lambda row: True, lifted=("n",)).compiled({}).shape)
    return shape.query(CompiledQuery(shape.compiled, ((number,),)))


@pytest.fixture
def session() -> Recording:
    return Recording()


# -- one handle -----------------------------------------------------------------------------------


def test_documents_come_change_and_go(session):
    handle = start(session)
    handle.added("things", "a", {"n": 1, "_id": "b", "when": None})
    handle.changed("things", "a", {"n": 2}, ["when"])
    assert session.documents == {("things", "a"): {"n": 2}}
    handle.changed("things", "a", {"n": 2}, ["unknown"])  # says nothing: `changed` would be a violation
    handle.changed("things", "a")
    handle.removed("things", "a")
    assert session.documents == {}
    assert [m["msg"] for m in session.heard] == ["added", "changed", "removed"]


def test_a_document_added_again_gets_the_fields_it_lacks(session):
    handle = start(session)
    handle.added("things", "a", {"n": 1})
    handle.added("things", "a", {"n": 2, "m": 3})
    assert session.documents == {("things", "a"): {"n": 1, "m": 3}}
    assert session.heard[-1] == {"msg": "changed", "collection": "things", "id": "a", "fields": {"m": 3}}


def test_ids_go_through_the_wires_form(session):
    handle = start(session)
    for document_id in ("a" * 24, "-x", 7, uuid.UUID(int=1), ""):
        handle.added("things", document_id, {})
    assert [m["id"] for m in session.heard] == [
        "-" + "a" * 24, "--x", "7", "00000000-0000-0000-0000-000000000001", "",
    ]  # fmt: skip
    handle.removed("things", "7")


@pytest.mark.parametrize("other_first", [True, False])
def test_what_is_not_shown_can_not_be_changed(session, other_first):
    if other_first:
        start(session, "other").added("things", "a", {"n": 1})
    handle = start(session)
    for call in (handle.changed, handle.removed):
        with pytest.raises(LookupError, match="shows no document 'a' of collection 'things'"):
            call("things", "a", *([{}] if call == handle.changed else []))
    handle.added("things", "a", {})
    handle.removed("things", "a")
    with pytest.raises(LookupError):
        handle.removed("things", "a")


def test_wrong_arguments_publish_nothing(session):
    handle = start(session)
    for error, arguments in [
        (EJSONError, ("things", "a", {"n": object()})),
        (TypeError, ("things", None, {})),
        (TypeError, ("things", True, {})),
        (TypeError, ("things", 1.5, {})),
        (TypeError, (7, "a", {})),
        (TypeError, ("things", "a", {1: 2})),
        (ValueError, ("things", "a", {"\ud800": 2})),
        (ValueError, ("things", "\ud800", {})),
    ]:
        with pytest.raises(error):
            handle.added(*arguments)
    with pytest.raises(TypeError, match="list of names"):
        handle.changed("things", "a", {}, "name")
    assert session.heard == []


def test_ready_is_told_once(session):
    handle = start(session)
    settled = []
    handle.when_settled(lambda: settled.append(1))
    handle.ready()
    handle.ready()
    handle.when_settled(lambda: settled.append(2))
    assert session.heard == [{"msg": "ready", "subs": ["s"]}]
    assert settled == [1, 2]


def test_after_the_end_nothing_is_heard(session, caplog):
    handle = start(session)
    ended = []
    handle.on_stop(lambda: ended.append("first"))
    handle.on_stop(lambda: 1 / 0)
    handle.on_stop(lambda: ended.append("last"))
    handle.added("things", "a", {})
    handle.stop()
    assert [m["msg"] for m in session.heard] == ["added", "removed", "nosub"]
    assert ended == ["first", "last"]
    assert "ZeroDivisionError" in caplog.text
    handle.added("things", "a", {})
    handle.changed("things", "b", {"n": 1})
    handle.removed("things", "b")
    handle.ready()
    handle.stop()
    handle.error(MeteorError("late"))
    assert len(session.heard) == 3
    handle.on_stop(lambda: ended.append("late"))
    assert ended == ["first", "last", "late"]


def test_on_stop_can_not_wait(session):
    async def callback() -> None: ...

    with pytest.raises(TypeError, match="finally"):
        start(session).on_stop(callback)


def test_errors(session, caplog):
    start(session, "known").error(MeteorError("enough", "Enough"))
    start(session, "unknown").error(ValueError("the secret"))
    known, unknown = session.heard
    assert (known["id"], known["error"]["error"]) == ("known", "enough")
    assert (unknown["id"], unknown["error"]["error"]) == ("unknown", 500)
    assert "the secret" not in json.dumps(unknown)
    assert "the secret" in caplog.text


# -- merged ---------------------------------------------------------------------------------------

DOCUMENTS, FIELDS = "xy", "abc"


class Mergebox:
    """Meteor's rule, with the memory that Meteor's server has: per field who told it, in order of arrival."""

    def __init__(self) -> None:
        self._holders: dict[str, set[int]] = {}
        self._values: dict[tuple[str, str], dict[int, int]] = {}

    def set(self, layer: int, document: str, fields: dict[str, int] | None) -> None:
        holders = self._holders.setdefault(document, set())
        holders.add(layer) if fields is not None else holders.discard(layer)
        for field in FIELDS:
            values = self._values.setdefault((document, field), {})
            if fields is None or field not in fields:
                values.pop(layer, None)
            else:
                values[layer] = fields[field]  # in its place, if it has one

    @property
    def documents(self) -> dict[tuple[str, str], dict[str, int]]:
        return {
            ("things", document): {
                field: next(iter(values.values()))
                for (of, field), values in self._values.items()
                if of == document and values
            }
            for document, holders in self._holders.items()
            if holders
        }


class World:
    """One client of two live queries, which agree, and of two handles, which do not."""

    def __init__(self) -> None:
        self.session = Recording()
        self.fanout = Fanout()
        self.queries = [live_query(0), live_query(1)]
        self.handles = [start(self.session, "h0"), start(self.session, "h1")]
        self.box = Mergebox()

    def show(self, number: int) -> Subscription:
        query, subscription = self.queries[number], Subscription(f"q{number}", "any")
        self.session.begin(subscription)
        if self.session.show(subscription, query):
            self.fanout.watch(query, self.session)
        while self.session.tell_some(query, 1):
            pass
        for document in query.documents.values():
            self.box.set(number, document.id, {name: int(v) for name, v in document.fields.items()})
        return subscription

    def hide(self, subscription: Subscription, number: int) -> None:
        for query in self.session.stop(subscription):
            self.fanout.unwatch(query, self.session)
        for document in DOCUMENTS:
            self.box.set(number, document, None)

    def row(self, number: int, document: str, fields: frozenset[str] | None, shown: bool) -> None:
        """Give a live query a row; a field has one value, whoever publishes it."""
        query = self.queries[number]
        values = None if fields is None else {name: 10 + FIELDS.index(name) for name in sorted(fields)}
        found = {}
        if values is not None:
            found = {document: Document.of(document, {n: str(v).encode() for n, v in values.items()})}
        steps = query.replace(found, [document])
        self.fanout.tell([Delta(query, steps)] if steps else [])
        if shown:
            self.box.set(number, document, values)

    def tell(self, number: int, document: str, fields: dict[str, int] | None) -> None:
        handle, layer = self.handles[number], 2 + number
        published = handle._published.get("things")
        known = published.find(document) if published else None
        if fields is None:
            if known is not None:
                handle.removed("things", document)
                self.box.set(layer, document, None)
        elif known is None:
            handle.added("things", document, fields)
            self.box.set(layer, document, fields)
        else:
            handle.changed("things", document, fields, [name for name in FIELDS if name not in fields])
            self.box.set(layer, document, fields)


document = st.sampled_from(DOCUMENTS)
number = st.integers(0, 1)
some_fields = st.frozensets(st.sampled_from(FIELDS))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("show"), number),
        st.tuples(st.just("hide"), number),
        st.tuples(st.just("row"), number, document, st.none() | some_fields),
        st.tuples(st.just("tell"), number, document,
                  st.none() | st.dictionaries(st.sampled_from(FIELDS), st.integers(1, 3))),
    ),
    max_size=30,
)  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(steps)
def test_handles_and_live_queries_merge_as_in_meteor(script: list[tuple[Any, ...]]) -> None:
    world = World()
    shown: dict[int, Subscription] = {}
    for what, which, *arguments in script:
        if what == "show" and which not in shown:
            shown[which] = world.show(which)
        elif what == "hide" and which in shown:
            world.hide(shown.pop(which), which)
        elif what == "row":
            world.row(which, *arguments, which in shown)
        elif what == "tell":
            world.tell(which, *arguments)
        assert world.session.documents == world.box.documents
    for handle in world.handles:
        handle.stop()
    for which, subscription in shown.items():
        world.hide(subscription, which)
    assert world.session.documents == {}
    assert world.session.views == {}


def test_the_first_to_tell_a_field_decides_it(session):
    first, second = start(session, "first"), start(session, "second")
    second.added("things", "other", {})  # attached first, which decides nothing
    first.added("things", "a", {"n": 1})
    second.added("things", "a", {"n": 2, "m": 2})
    assert session.documents[("things", "a")] == {"n": 1, "m": 2}
    first.changed("things", "a", {"m": 1})
    assert session.documents[("things", "a")] == {"n": 1, "m": 2}
    first.changed("things", "a", {}, ["n"])
    assert session.documents[("things", "a")] == {"n": 2, "m": 2}
    second.stop()
    assert session.documents == {("things", "a"): {"m": 1}}


# -- switching ------------------------------------------------------------------------------------

contents = st.dictionaries(
    document, st.dictionaries(st.sampled_from(FIELDS), st.integers(1, 3), max_size=2), max_size=2
)


@settings(max_examples=500, deadline=None)
@given(st.lists(contents, max_size=3), st.lists(contents, max_size=3), st.integers(0, 3), st.booleans())
def test_a_switch_leads_to_what_the_new_ones_publish(before, after, most, overlapping) -> None:
    session = Recording()
    for name, documents in enumerate(before):
        handle = start(session, str(name))
        for document_id, fields in documents.items():
            handle.added("things", document_id, fields)
    told, coming = len(session.heard), []
    for name, documents in enumerate(after):
        handle = start(session, str(name), running=False)
        coming.append(handle._subscription)
        for document_id, fields in documents.items():
            handle.added("things" if overlapping else "others", document_id, fields)
    session.switch(coming, most)
    new = [message["msg"] for message in session.heard[told:]]
    assert new == sorted(new, key=lambda msg: msg == "added")
    assert new.count("added") <= most
    for view in session.views.values():
        for layer in view.layers:
            while session.tell_some(layer, 1):
                pass
    expected: dict[str, dict[str, int]] = {}
    for documents in after:
        for document_id, fields in documents.items():
            known = expected.setdefault(document_id, {})
            known.update({name: value for name, value in fields.items() if name not in known})
    assert {document_id: fields for (_, document_id), fields in session.documents.items()} == expected
    for subscription in coming:
        session.stop(subscription)
    assert session.documents == {}


class Untouchable(LiveQuery):
    """A live query whose documents must not be gone through."""

    untouched = False

    @property
    def documents(self) -> Any:
        assert not self.untouched
        return self.__dict__.setdefault("all", {})

    @documents.setter
    def documents(self, documents: Any) -> None:
        self.__dict__["all"] = documents

    def find(self, document_id: str) -> Document | None:
        assert not self.untouched
        return super().find(document_id)


def test_the_same_live_queries_cost_nothing(session, monkeypatch):
    monkeypatch.setattr("trigger_ddp.live.shape.LiveQuery", Untouchable)
    shape = Shape(Query("any", lambda row: True, lifted=("n",)).compiled({}).shape)
    queries: list[Any] = [shape.query(CompiledQuery(shape.compiled, ((number,),))) for number in range(2)]
    for query in queries:
        query.replace({"k": Document.of("k", {"n": b"1"})}, ["k"])
    old = Subscription("s", "any")
    session.begin(old)
    for query in queries:
        session.show(old, query)
        session.tell_some(query)
    told = len(session.heard)
    for query in queries:
        query.untouched = True
    session.switch([Subscription("s", "any", queries=list(queries))])
    assert len(session.heard) == told
    for query in queries:
        query.untouched = False
    session.switch([Subscription("s", "any", queries=queries[:1])])
    assert len(session.heard) == told, "the other one has the document too"
    session.switch([])
    assert session.documents == {}


def test_a_switch_in_the_middle_of_telling(session):
    query = live_query()
    keys = list("abc")
    query.replace({key: Document.of(key, {}) for key in keys}, keys)
    old = Subscription("s", "any")
    session.begin(old)
    session.show(old, query)
    session.tell_some(query, 1)
    session.switch([Subscription("s", "any", queries=[query])], most=1)
    assert len(session.documents) == 2
    while session.tell_some(query, 1):
        pass
    assert len(session.documents) == 3


def test_a_change_of_a_document_that_a_switch_left_for_later(session):
    query, fanout = live_query(), Fanout()
    query.replace({"a": Document.of("a", {}), "b": Document.of("b", {})}, ["a", "b"])
    session.switch([Subscription("s", "any", queries=[query])], most=0)
    fanout.watch(query, session)
    fanout.tell([Delta(query, query.replace({"a": Document.of("a", {"n": b"1"})}, ["a", "b"]))])
    assert session.documents == {}
    assert not session.tell_some(query)
    assert session.documents == {("things", "a"): {"n": 1}}


def test_a_switch_in_meteors_order(session):
    def handle(name: str, **collections: dict[str, int]) -> RunningHandle:
        made = start(session, name, running=name == "old")
        for collection, documents in collections.items():
            for document_id, n in documents.items():
                made.added(collection, document_id, {"n": n})
        return made

    handle("old", first={"a": 1, "b": 1, "c": 1}, second={"a": 1}, third={"a": 1})
    told = len(session.heard)
    new = handle("new", newest={"a": 1}, third={"b": 1}, first={"d": 1, "c": 2, "b": 1})
    session.switch([new._subscription])
    assert [(m["msg"], m["collection"], m["id"]) for m in session.heard[told:]] == [
        ("removed", "first", "a"), ("changed", "first", "c"), ("added", "first", "d"),
        ("removed", "second", "a"), ("removed", "third", "a"), ("added", "third", "b"),
        ("added", "newest", "a"),
    ]  # fmt: skip
    new.added("first", "e", {})
    assert ("first", "e") in session.documents


def test_large_documents_are_told_a_few_at_a_time():
    session = Session(Wire.RAW, lambda session: None)
    query = live_query()
    keys = [f"k{number}" for number in range(60)]
    query.replace({key: Document.of(key, {"text": b'"' + b"x" * 30_000 + b'"'}) for key in keys}, keys)
    subscription = Subscription("s", "any")
    session.begin(subscription)
    session.show(subscription, query)
    told, more = [], True
    while more:
        more = session.tell_some(query)
        told.append(len(session.take()))
    assert sum(told) > 60 * 30_000
    assert max(told) < 300_000
