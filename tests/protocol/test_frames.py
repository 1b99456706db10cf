"""The frames we build by hand against two WebSocket implementations that parse them."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from websockets.frames import CloseCode, Opcode
from websockets.protocol import CLIENT, Protocol
from wsproto import ConnectionType
from wsproto.connection import Connection
from wsproto.events import CloseConnection, TextMessage

from trigger_ddp.protocol import frames
from trigger_ddp.protocol.frames import Wire

documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


def texts_of(data: bytes) -> list[str]:
    """What the `websockets` package, as a client, reads from these bytes."""
    client = Protocol(CLIENT, max_size=None)
    client.receive_data(data)
    received = client.events_received()
    assert client.parser_exc is None
    assert all(frame.opcode is Opcode.TEXT and frame.fin for frame in received)
    return [bytes(frame.data).decode() for frame in received]


@given(documents, st.sampled_from([None, 2]), st.booleans())
def test_a_message_comes_through_both_wires_unchanged(
    document: object, indent: int | None, ascii_only: bool
) -> None:
    message = json.dumps(document, indent=indent, ensure_ascii=ascii_only)
    try:
        encoded = message.encode()
    except UnicodeEncodeError:  # a lone surrogate: JSON can spell it in ASCII only
        encoded = json.dumps(document).encode()
        message = encoded.decode()
    assert texts_of(frames.frame(Wire.RAW, encoded)) == [message]
    (sockjs,) = texts_of(frames.frame(Wire.SOCKJS, encoded))
    assert sockjs.startswith('a["')
    assert json.loads(sockjs[1:]) == [message]


@given(st.integers(0, 70_000))
@example(125)
@example(126)
@example(0xFFFF)
@example(0x10000)
def test_lengths_take_the_fewest_bytes(length: int) -> None:
    # wsproto refuses a length that a shorter encoding could carry
    client = Connection(ConnectionType.CLIENT)
    client.receive_data(frames.text_frame(b"x" * length))
    events = list(client.events())
    assert all(isinstance(event, TextMessage) for event in events)
    assert sum(len(event.data) for event in events if isinstance(event, TextMessage)) == length


def test_exact_bytes() -> None:
    message = b'{"msg":"ping"}'
    assert frames.frame(Wire.RAW, message) == b"\x81\x0e" + message
    assert frames.frame(Wire.SOCKJS, message) == b"\x81\x17" + rb'a["{\"msg\":\"ping\"}"]'
    assert frames.SOCKJS_OPEN == b"\x81\x01o"
    assert frames.SOCKJS_HEARTBEAT == b"\x81\x01h"
    assert frames.sockjs_close_frame(3000, "Go away!") == b'\x81\x12c[3000,"Go away!"]'
    assert frames.close_frame(1000) == b"\x88\x02\x03\xe8"


@given(st.sampled_from([1000, 1001, 1008, 1009, 1011, 3000, 4999]), st.text())
@example(1000, "é" * 100)
@example(1000, "x" + "é" * 100)
def test_a_close_reason_is_cut_between_characters(code: int, reason: str) -> None:
    reason = reason.encode(errors="ignore").decode()
    frame = frames.close_frame(code, reason)
    assert len(frame) <= 127
    client = Connection(ConnectionType.CLIENT)
    client.receive_data(frame)
    (event,) = client.events()
    assert isinstance(event, CloseConnection)
    assert event.code == code
    assert reason.startswith(event.reason or "")
    assert len(frame) >= min(len(reason.encode()), 120) + 4


def test_a_sockjs_close_reason_is_json() -> None:
    (text,) = texts_of(frames.sockjs_close_frame(4000, 'a "quoted" \u2028 reason'))
    assert text[0] == "c"
    assert json.loads(text[1:]) == [4000, 'a "quoted" \u2028 reason']


def test_a_message_that_is_not_utf8_is_refused_where_it_must_be_quoted() -> None:
    with pytest.raises(UnicodeDecodeError):
        frames.frame(Wire.SOCKJS, b"\xff")


def test_frames_run_together_stay_apart() -> None:
    joined = frames.frame(Wire.RAW, b"1") + frames.SOCKJS_HEARTBEAT + frames.frame(Wire.RAW, b"22" * 100)
    assert texts_of(joined) == ["1", "h", "22" * 100]
    client = Protocol(CLIENT)
    client.receive_data(joined + frames.close_frame(1001))
    assert client.close_rcvd is not None
    assert client.close_rcvd.code == CloseCode.GOING_AWAY


@given(st.lists(documents, min_size=1, max_size=5))
def test_messages_of_sockjs_over_http_are_joined(values: list[object]) -> None:
    messages = [json.dumps(value).encode() for value in values]
    ready = b"".join(frames.frame(Wire.SOCKJS_HTTP, message) for message in messages)
    array = frames.sockjs_array(ready)
    assert array.startswith(b'a["')
    assert [text.encode() for text in json.loads(array[1:])] == messages


def test_exact_bytes_of_sockjs_over_http() -> None:
    message = '{"a":"é\u2028\u200d\uffff"}'.encode()
    assert frames.frame(Wire.SOCKJS_HTTP, b'{"msg":"ping"}') == rb'"{\"msg\":\"ping\"}",'
    assert frames.frame(Wire.SOCKJS_HTTP, message) == r'"{\"a\":\"é\u2028\u200d\uffff\"}",'.encode()
    assert frames.sockjs_close(2010, "x\u2028") == rb'c[2010,"x\u2028"]'


@given(st.lists(documents), st.sampled_from(Wire))
def test_frames_are_joined_as_they_are_one_by_one(some: list[object], wire: Wire) -> None:
    messages = [json.dumps(document).encode() for document in some]
    assert frames.joined_frames(wire, messages) == b"".join(frames.frame(wire, one) for one in messages)
