"""Documents made ready for whoever subscribes next: told as they are at that moment, whatever happens."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from tests.live.strict import Query, StrictSession
from trigger_ddp.live.compiled import CompiledQuery
from trigger_ddp.live.document import Document
from trigger_ddp.live.query import Delta, LiveQuery
from trigger_ddp.live.shape import Shape
from trigger_ddp.protocol import messages, pieces
from trigger_ddp.protocol.fanout import Fanout
from trigger_ddp.protocol.frames import Wire, frame
from trigger_ddp.protocol.pieces import Pieces
from trigger_ddp.protocol.session import Session, Subscription


class Telling:
    """Live queries of one collection, and sessions that subscribe to them, piece by piece."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
        monkeypatch.setattr(pieces, "MOST_DOCUMENTS", 2)
        self.fanout = Fanout()
        shape = Shape(Query("any", lambda row: True, lifted=("n",)).compiled({}).shape)
        self.query, self.other = (
            shape.query(CompiledQuery(shape.compiled, ((number,),))) for number in range(2)
        )
        self.set({f"k{number}": number for number in range(count)})
        self.told(StrictSession())  # the first, for whom nothing is made ready

    def set(self, values: dict[str, int | None], query: LiveQuery | None = None) -> None:
        query = query or self.query
        found = {
            key: Document.of(key, {"a": b"%d" % value}) for key, value in values.items() if value is not None
        }
        keys = list(values)
        self.fanout.tell([Delta(query, query.replace(found, keys))])

    def begin(self, session: Session, query: LiveQuery | None = None) -> Subscription:
        query = query or self.query
        subscription = Subscription("s", "any")
        if session.show(subscription, query, self.fanout.pieces(query, 0.0)):
            self.fanout.watch(query, session)
        return subscription

    def go_on(self, session: Session, query: LiveQuery | None = None) -> None:
        while session.tell_some(query or self.query, 1):
            pass

    def told(self, session: StrictSession) -> dict[str, int]:
        self.begin(session)
        self.go_on(session)
        return documents(session)


def documents(session: StrictSession) -> dict[str, int]:
    return {key: fields["a"] for (_, key), fields in session.documents.items()}


@pytest.fixture
def telling(monkeypatch: pytest.MonkeyPatch) -> Telling:
    return Telling(monkeypatch, 5)


def test_a_further_session_costs_nothing_for_each_document(
    telling: Telling, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    added = messages.all_added

    def noting(collection: str, documents: Iterable[Document]) -> list[bytes]:
        told = list(documents)
        made.extend(one.id for one in told)
        return added(collection, told)

    monkeypatch.setattr(messages, "all_added", noting)
    assert telling.told(StrictSession()) == {"k0": 0, "k1": 1, "k2": 2, "k3": 3, "k4": 4}
    assert made == ["k0", "k1", "k2", "k3", "k4"]
    assert telling.told(StrictSession()) == {"k0": 0, "k1": 1, "k2": 2, "k3": 3, "k4": 4}
    assert len(made) == 5
    telling.set({"k3": 33})
    assert telling.told(StrictSession()) == {"k0": 0, "k1": 1, "k2": 2, "k3": 33, "k4": 4}
    assert made[5:] == ["k2", "k3"]  # those of one piece


def test_what_comes_and_goes_between_two_sessions(telling: Telling) -> None:
    telling.told(StrictSession())
    telling.set({"k1": None, "k5": 5, "k6": 6, "k7": 7})
    assert telling.told(StrictSession()) == {"k0": 0, "k2": 2, "k3": 3, "k4": 4, "k5": 5, "k6": 6, "k7": 7}
    telling.set({f"k{number}": None for number in range(8)})
    assert telling.told(StrictSession()) == {}
    telling.set({"k1": 11})
    assert telling.told(StrictSession()) == {"k1": 11}


def test_changes_while_a_session_is_being_told(telling: Telling) -> None:
    half_way = StrictSession()
    telling.begin(half_way)
    half_way.tell_some(telling.query, 1)
    assert documents(half_way) == {"k0": 0, "k1": 1}
    telling.set({"k0": None, "k1": 11, "k2": None, "k3": 33, "k5": 5})
    assert documents(half_way) == {"k1": 11, "k5": 5}  # of the others it has not heard yet
    assert telling.told(StrictSession()) == {"k1": 11, "k3": 33, "k4": 4, "k5": 5}
    telling.go_on(half_way)
    assert documents(half_way) == {"k1": 11, "k3": 33, "k4": 4, "k5": 5}


def test_another_query_while_a_session_is_being_told(telling: Telling) -> None:
    telling.set({"k0": 7, "k3": 8, "k9": 9}, telling.other)
    session = StrictSession()
    telling.begin(session)
    session.tell_some(telling.query, 1)
    telling.begin(session, telling.other)
    telling.go_on(session, telling.other)
    assert documents(session) == {"k0": 0, "k1": 1, "k3": 8, "k9": 9}
    telling.go_on(session)
    assert documents(session) == {"k0": 0, "k1": 1, "k2": 2, "k3": 3, "k4": 4, "k9": 9}  # the first decides


def test_a_subscription_that_ends_while_it_is_being_told(telling: Telling) -> None:
    session = StrictSession()
    subscription = telling.begin(session)
    session.tell_some(telling.query, 1)
    assert session.stop(subscription) == [telling.query]
    assert documents(session) == {}


def test_what_is_dropped_is_made_anew(telling: Telling) -> None:
    half_way = StrictSession()
    telling.begin(half_way)
    half_way.tell_some(telling.query, 1)
    telling.fanout.drop_pieces(1.0)
    telling.set({"k4": 44})
    assert telling.told(StrictSession()) == {"k0": 0, "k1": 1, "k2": 2, "k3": 3, "k4": 44}
    telling.go_on(half_way)
    assert documents(half_way) == {"k0": 0, "k1": 1, "k2": 2, "k3": 3, "k4": 44}


def test_large_documents_are_pieces_of_their_own(telling: Telling, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "MOST_DOCUMENTS", 100)
    monkeypatch.setattr(pieces, "MOST_BYTES", 14)
    telling.set({"k1": 10, "k4": 40})
    assert [list(piece.ids) for piece in Pieces(telling.query).all] == [["k0", "k1"], ["k2", "k3"], ["k4"]]


@pytest.mark.parametrize("wire", Wire)
def test_every_wire_has_frames_of_its_own(telling: Telling, wire: Wire) -> None:
    for _ in range(2):
        session = Session(wire, lambda _: None)
        telling.begin(session)
        telling.go_on(session)
        one_by_one = [messages.added("things", f"k{n}", b'{"a":%d}' % n) for n in range(5)]
        assert session.take() == b"".join(frame(wire, message) for message in one_by_one)
        assert session.sent == 5
