"""The merge rule: what one client is told when several live queries publish one collection to it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.live.strict import Query, StrictSession
from trigger_ddp.live.compiled import CompiledQuery
from trigger_ddp.live.document import Document
from trigger_ddp.live.query import Delta
from trigger_ddp.live.shape import Shape
from trigger_ddp.protocol.fanout import Fanout
from trigger_ddp.protocol.session import Subscription

ID = ("things", "k")


class Told:
    """One session that watches live queries whose documents the test sets by hand."""

    def __init__(self, queries: int) -> None:
        self.session = StrictSession()
        self.fanout = Fanout()
        shape = Shape(Query("any", lambda row: True, lifted=("n",)).compiled({}).shape)
        self.queries = [shape.query(CompiledQuery(shape.compiled, ((number,),))) for number in range(queries)]

    def set(
        self, number: int, key: str, fields: dict[str, bytes] | None, document_id: str | None = None
    ) -> None:
        query = self.queries[number]
        found = {} if fields is None else {key: Document.of(document_id or key, fields)}
        self.fanout.tell([Delta(query, query.replace(found, [key]))])

    def show(self, number: int, *, whole: bool = True) -> Subscription:
        subscription = Subscription(f"s{number}", "any")
        if self.session.show(subscription, self.queries[number]):
            self.fanout.watch(self.queries[number], self.session)
        while whole and self.session.tell_some(self.queries[number], 1):
            pass
        return subscription

    def stop(self, subscription: Subscription) -> None:
        for query in self.session.stop(subscription):
            self.fanout.unwatch(query, self.session)

    @property
    def documents(self) -> dict[tuple[str, str], dict[str, Any]]:
        return self.session.documents


@pytest.fixture
def told() -> Told:
    return Told(3)


def test_the_first_value_told_stands_while_its_query_holds_the_document(told):
    told.set(0, "k", {"a": b"1"})
    told.set(1, "k", {"a": b"2", "b": b"2"})
    first = told.show(0)
    told.show(1)
    assert told.documents[ID] == {"a": 1, "b": 2}
    told.set(1, "k", {"a": b"3", "b": b"3"})
    assert told.documents[ID] == {"a": 1, "b": 3}
    told.set(0, "k", {"a": b"4"})
    assert told.documents[ID] == {"a": 4, "b": 3}
    told.stop(first)
    assert told.documents[ID] == {"a": 3, "b": 3}


def test_fields_that_only_one_gave_are_cleared_with_it(told):
    told.set(0, "k", {"a": b"1"})
    told.set(1, "k", {"b": b"2"})
    told.show(0)
    second = told.show(1)
    told.set(1, "k", None)
    assert told.documents[ID] == {"a": 1}
    told.set(1, "k", {"b": b"2"})
    told.stop(second)
    assert told.documents[ID] == {"a": 1}


def test_a_document_is_gone_when_nobody_holds_it(told):
    for number in range(3):
        told.set(number, "k", {"a": b"1"})
        told.show(number)
    told.set(0, "k", None)
    told.set(2, "k", None)
    assert ID in told.documents
    told.set(1, "k", None)
    assert ID not in told.documents


def test_a_row_whose_document_id_changes_is_removed_and_added(told):
    told.set(0, "k", {"a": b"1"}, "old")
    told.show(0)
    told.set(0, "k", {"a": b"1"}, "new")
    assert told.documents == {("things", "new"): {"a": 1}}
    told.set(1, "k", {"a": b"1"}, "old")  # another query, looked at earlier
    told.show(1)
    assert set(told.documents) == {("things", "new"), ("things", "old")}
    told.set(1, "k", {"a": b"1"}, "new")
    assert told.documents == {("things", "new"): {"a": 1}}


def test_ids_swapped_between_rows_in_one_look(told):
    told.set(0, "k", {"a": b"1"}, "x")
    told.set(0, "l", {"a": b"2"}, "y")
    told.show(0)
    query = told.queries[0]
    swapped = {"k": Document.of("y", {"a": b"1"}), "l": Document.of("x", {"a": b"2"})}
    told.fanout.tell([Delta(query, query.replace(swapped, list(swapped)))])
    assert told.documents == {("things", "y"): {"a": 1}, ("things", "x"): {"a": 2}}


def test_one_query_shown_twice_ends_with_the_second(told):
    told.set(0, "k", {"a": b"1"})
    first, second = told.show(0), told.show(0)
    told.stop(first)
    told.set(0, "k", {"a": b"2"})
    assert told.documents[ID] == {"a": 2}
    told.stop(second)
    assert told.documents == {}


def test_an_id_that_moves_to_another_row_is_one_document_throughout(told):
    """The old row's own look comes later, or in another query first."""
    for number in (0, 1):
        told.set(number, "k", {"a": b"1"}, "x")
    told.show(0)
    told.show(1)
    told.set(0, "l", {"a": b"2"}, "x")
    told.set(0, "k", None)
    told.set(1, "k", None)
    told.set(1, "l", {"a": b"2"}, "x")
    assert told.documents == {("things", "x"): {"a": 2}}


def test_documents_that_change_while_a_query_is_being_told(told):
    for key in "abcd":
        told.set(0, key, {"n": b"1"})
    told.show(0, whole=False)
    query = told.queries[0]
    assert told.session.tell_some(query, 1)
    assert told.documents == {("things", "a"): {"n": 1}}
    told.set(0, "a", {"n": b"2"})  # told already
    told.set(0, "b", {"n": b"2"})  # not yet told
    told.set(0, "c", None)  # never told
    told.set(0, "e", {"n": b"2"})  # came while telling
    assert told.documents == {("things", "a"): {"n": 2}, ("things", "e"): {"n": 2}}
    while told.session.tell_some(query, 1):
        pass
    expected = {"a": 2, "b": 2, "d": 1, "e": 2}
    assert told.documents == {("things", key): {"n": number} for key, number in expected.items()}


def test_a_query_that_is_stopped_while_it_is_told(told):
    for key in "ab":
        told.set(0, key, {"n": b"1"})
    subscription = told.show(0, whole=False)
    told.session.tell_some(told.queries[0], 1)
    told.stop(subscription)
    assert told.documents == {}
    assert not told.session.tell_some(told.queries[0], 1)
