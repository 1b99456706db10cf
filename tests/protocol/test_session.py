"""The session's side of the conversation, without a socket: what is sent, and what must come back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trigger_ddp.alea import UNMISTAKABLE, meteor_random_id
from trigger_ddp.errors import MeteorError
from trigger_ddp.protocol.frames import Wire
from trigger_ddp.protocol.requests import Call, Subscribe, Unsubscribe
from trigger_ddp.protocol.session import Session


class Talk(Session):
    """A session that keeps what it sends as parsed messages."""

    def __init__(self, version: str | None = "1") -> None:
        super().__init__(Wire.RAW, lambda session: None)
        self.said: list[dict[str, Any]] = []
        if version is not None:
            self.hear(msg="connect", version=version, support=[version])
            self.said.clear()

    def push(self, frames: bytes, count: int = 1) -> None:
        super().push(frames, count)
        head = {126: 4, 127: 10}.get(frames[1], 2)
        self.said.append(json.loads(frames[head:]))

    def hear(self, **message: Any) -> None:
        self.receive(json.dumps(message))
        if self.connecting is not None:
            self.open(meteor_random_id())


def test_nothing_is_said_before_connect():
    assert Talk(version=None).said == []


def test_connect_gives_a_session_id_in_meteors_alphabet():
    session = Talk(version=None)
    session.hear(msg="connect", version="1", support=["1", "pre2", "pre1"])
    [message] = session.said
    assert list(message) == ["msg", "session"]
    assert len(message["session"]) == 17
    assert set(message["session"]) <= set(UNMISTAKABLE)
    assert session.id == message["session"]


@pytest.mark.parametrize("version", ["1", "pre2", "pre1"])
def test_every_version_is_spoken(version):
    session = Talk(version=None)
    session.hear(msg="connect", version=version, support=[version])
    assert session.said[0]["msg"] == "connected"


@pytest.mark.parametrize(
    ("connect", "version"),
    [
        ({"version": "pre1", "support": ["1", "pre1"]}, "1"),  # its own first choice is another
        ({"version": "2", "support": ["2", "pre2"]}, "pre2"),
        ({"version": "2", "support": ["2"]}, "1"),  # nothing in common: ours
        ({"version": "pre2", "support": ["1"]}, "1"),  # does not support what it proposes
        ({"version": "1"}, "1"),
        ({"version": 1, "support": [1]}, "1"),
        ({"version": "1", "support": "1"}, "1"),
        ({"version": "1", "support": ["1", 7]}, "1"),
        ({}, "1"),
    ],
)
def test_a_connect_that_does_not_fit_fails_with_the_version_to_use_and_closes(connect, version):
    session = Talk(version=None)
    session.hear(msg="connect", **connect)
    assert session.said == [{"msg": "failed", "version": version}]
    assert session.closing is not None


def test_errors_of_the_protocol_name_the_message_and_do_not_close():
    session = Talk(version=None)
    session.hear(msg="sub", id="1", name="x")
    assert session.said.pop() == {
        "msg": "error", "reason": "Must connect first",
        "offendingMessage": {"msg": "sub", "id": "1", "name": "x"},
    }  # fmt: skip
    session.hear(msg="connect", version="1", support=["1"])
    session.said.clear()
    session.hear(msg="connect", version="1", support=["1"])
    assert session.said.pop()["reason"] == "Already connected"
    assert session.closing is None


@pytest.mark.parametrize(
    "text", ["", "{", "null", "3", '"text"', "nan", "[1", "{'msg':'ping'}", "\x00", "[" * 200_000]
)
def test_what_is_no_object_is_a_bad_request_without_offending_message(text):
    session = Talk()
    session.receive(text)
    assert session.said == [{"msg": "error", "reason": "Bad request"}]
    assert session.closing is None


@pytest.mark.parametrize(
    "text", ["{}", "[]", '[{"msg":"ping"}]', '{"msg":""}', '{"msg":null}', '{"message":"ping"}']
)
def test_an_object_without_msg_is_a_bad_request_with_offending_message(text):
    session = Talk()
    session.receive(text)
    assert session.said == [{"msg": "error", "reason": "Bad request", "offendingMessage": json.loads(text)}]


@pytest.mark.parametrize("inner", ["[%s]", '{"a":%s}'])
@pytest.mark.parametrize(
    "text", ["%s", '{"msg":"x","a":%s}', '{"msg":"ping","id":%s}', '{"msg":"sub","id":%s}']
)
def test_what_can_be_parsed_can_be_told(text, inner):
    """The interpreter goes only so deep, and it is not always where it was when a message was parsed."""
    before, after = inner.split("%s")
    for depth in (1, 510, 511, 512, 513, *range(800, 1010)):
        session = Talk()
        session.receive(text % (before * depth + "1" + after * depth))
        assert session.next_request() is None
        [message] = session.said
        assert message["msg"] in ("error", "pong")
        assert len(message) == (3 if message["msg"] == "error" else 2) or depth > 510


def test_a_long_list_is_not_deep():
    session = Talk()
    session.hear(msg="method", id="1", method="m", params=[[], {}] * 1000)
    assert session.next_request() == Call("1", "m", [[], {}] * 1000, None)


@pytest.mark.parametrize(
    "message",
    [
        {"msg": "method", "id": "1", "method": "m", "params": [{"$type": "nobody knows", "$value": 1}]},
        {"msg": "changed", "cleared": "not an array"},
    ],
)
def test_values_that_cannot_be_decoded_are_a_parse_error(message):
    session = Talk()
    session.hear(**message)
    assert session.next_request() is None
    assert session.said == [{"msg": "error", "reason": "Parse error"}]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({"msg": "sub", "name": "x"}, "Malformed subscription"),
        ({"msg": "sub", "id": 1, "name": "x"}, "Malformed subscription"),
        ({"msg": "sub", "id": "1"}, "Malformed subscription"),
        ({"msg": "sub", "id": "1", "name": "x", "params": {}}, "Malformed subscription"),
        ({"msg": "sub", "id": "1", "name": "x", "params": None}, "Malformed subscription"),
        ({"msg": "method", "id": "1"}, "Malformed method invocation"),
        ({"msg": "method", "id": None, "method": "m"}, "Malformed method invocation"),
        ({"msg": "method", "id": "1", "method": "m", "params": "x"}, "Malformed method invocation"),
        ({"msg": "method", "id": "1", "method": "m", "randomSeed": 7}, "Malformed method invocation"),
        ({"msg": "method", "id": "1", "method": "m", "randomSeed": None}, "Malformed method invocation"),
        (
            {"msg": "method", "id": "1", "method": "m", "randomSeed": "x" * 1001},
            "Malformed method invocation",
        ),
        ({"msg": "dance"}, "Bad request"),
        ({"msg": 7}, "Bad request"),
        ({"msg": ["sub"]}, "Bad request"),
    ],
)
def test_malformed_requests_are_answered_at_their_turn(message, reason):
    session = Talk()
    session.hear(**message)
    assert session.said == []
    assert session.next_request() is None
    assert session.said == [{"msg": "error", "reason": reason, "offendingMessage": message}]


def test_requests_come_in_the_order_asked_and_unknown_keys_are_ignored():
    session = Talk()
    session.hear(msg="sub", id="a", name="books", params=[{"$date": 0}, 1], more="ignored")
    session.hear(msg="dance")
    session.hear(msg="method", id="b", method="m", randomSeed="seed")
    session.hear(msg="unsub", id="a")
    subscribe = session.next_request()
    assert isinstance(subscribe, Subscribe)
    assert (subscribe.id, subscribe.name) == ("a", "books")
    assert subscribe.params[0].year == 1970
    assert session.said == []
    assert session.next_request() == Call("b", "m", [], "seed")
    assert session.said[0]["reason"] == "Bad request"
    assert session.next_request() == Unsubscribe("a")
    assert session.next_request() is None


def test_ping_is_answered_at_once_with_its_id_if_it_has_one():
    session = Talk()
    session.hear(msg="sub", id="a", name="waits for its turn")
    session.hear(msg="ping")
    session.hear(msg="ping", id="7")
    session.hear(msg="pong", id="7")
    assert session.said == [{"msg": "pong"}, {"msg": "pong", "id": "7"}]


def test_pre1_knows_no_ping():
    session = Talk("pre1")
    session.hear(msg="ping")
    assert session.said == []
    session.next_request()
    assert session.said[0]["reason"] == "Bad request"


def test_disconnect_closes_and_drops_what_waits():
    session = Talk()
    session.hear(msg="sub", id="a", name="x")
    session.hear(msg="disconnect")
    assert session.closing is not None
    assert session.closing.code == 1000
    assert session.next_request() is None


def test_an_error_on_the_wire_has_meteors_keys_in_meteors_order():
    session = Session(Wire.RAW, lambda session: None)
    session.nosub("a", MeteorError(404, "Subscription 'foo' not found"))
    assert session.take().endswith(
        b'{"msg":"nosub","id":"a","error":{"isClientSafe":true,"error":404,'
        b'"reason":"Subscription \'foo\' not found","message":"Subscription \'foo\' not found [404]",'
        b'"errorType":"Meteor.Error"}}'
    )


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
ddp_like = st.fixed_dictionaries(
    {
        "msg": st.sampled_from(["connect", "sub", "unsub", "method", "ping", "pong", "disconnect", "x"])
        | json_values
    },
    optional={
        name: json_values | st.text(max_size=3)
        for name in (
            "id",
            "name",
            "method",
            "params",
            "version",
            "support",
            "randomSeed",
            "cleared",
            "fields",
        )
    },
)


@given(st.lists(ddp_like.map(json.dumps) | json_values.map(json.dumps) | st.text(), max_size=12))
def test_whatever_arrives_is_answered_or_closes(texts):
    session = Talk()
    for text in texts:
        session.receive(text)
    while session.next_request() is not None:
        pass
    assert session.pending == 0
    assert all(message["msg"] in ("error", "pong") for message in session.said)


# -- lost and regained ----------------------------------------------------------------------------


def asks(session: Session, **connect: Any) -> bool:
    """Whether a client that connects anew may go on with ``session``."""
    new = Session(Wire.RAW, lambda session: None)
    message = {"msg": "connect", "version": "1", "support": ["1"], "session": session.id, **connect}
    new.receive(json.dumps(message))
    assert new.connecting is not None
    assert new.connecting.session == session.id
    return session.can_resume(new.wire, new.connecting)


def test_what_was_taken_is_what_must_have_been_received():
    session = Talk()
    session.hear(msg="ping")
    session.ping()
    session.nosub("a")
    Session.push(session, b"two messages in one", 2)
    session.take()
    assert session.sent == 4, "connected, nosub and two; neither ping nor pong"
    session.nosub("not taken")
    assert not asks(session, receivedCount=4), "it is not lost"
    session.keep(1000, lambda: pytest.fail("too much"))
    assert asks(session, receivedCount=4)
    for count in (3, 5, None, "4", 4.0, True, [4]):
        assert not asks(session, receivedCount=count)
    assert not asks(session)
    assert not asks(session, receivedCount=4, version="pre1", support=["pre1"])


def test_what_was_kept_comes_behind_the_greeting_and_counts():
    session = Talk()
    session.take()
    session.keep(1000, lambda: pytest.fail("too much"))
    session.nosub("a")
    session.nosub("b")
    session.said.clear()
    session.resume()
    outgoing = session.take()
    assert [outgoing.index(part) for part in (session.id.encode(), b'"a"', b'"b"')] == sorted(
        outgoing.index(part) for part in (session.id.encode(), b'"a"', b'"b"')
    )
    assert session.sent == 4
    session.keep(1000, lambda: pytest.fail("too much"))
    assert asks(session, receivedCount=4)


def test_too_much_is_told_at_once():
    heard: list[bool] = []
    session = Talk()
    session.take()
    session.nosub("a" * 100)
    session.keep(200, lambda: heard.append(True))
    assert not heard
    session.nosub("a" * 100)
    assert heard
    session.resume()
    heard.clear()
    session.nosub("a" * 1000)
    assert not heard
    session.keep(200, lambda: heard.append(True))
    assert heard, "it was too much already"


def test_results_that_were_kept_are_no_news_to_ask_for():
    session = Talk()
    for call in ("taken", "kept", "running", "waiting"):
        session.hear(msg="method", id=call, method="m", params=[])
    for _ in range(3):
        session.next_request()
    session.answer("taken", b"{}")
    session.take()
    session.keep(1000, lambda: None)
    session.answer("kept", b"{}")
    session.resume()
    session.take()
    for call in ("taken", "kept", "running", "waiting", "new"):
        session.hear(msg="method", id=call, method="m", params=[])
    waiting = []
    while (request := session.next_request()) is not None:
        waiting.append(request.id)
    assert waiting == ["waiting", "taken", "new"]


def test_a_closed_session_is_not_resumed():
    session = Talk()
    session.take()
    session.keep(1000, lambda: None)
    session.close(1000, "over")
    assert not asks(session, receivedCount=1)
