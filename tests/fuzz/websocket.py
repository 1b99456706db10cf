"""WebSocket: after the handshake any bytes, or frames that are well-formed but for what the bytes say."""

from __future__ import annotations

import json

from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side

from tests.fuzz import wire
from tests.fuzz.http import LIMITS
from trigger_ddp.protocol.frames import Wire
from trigger_ddp.server import websocket
from trigger_ddp.server.exchange import Request
from trigger_ddp.server.metrics import Metrics

_KEY = b"x3JJHMbDL1EzLkh9GBhXDw=="
_REQUEST = Request("GET", "/websocket", client_address="127.0.0.1", client_port=1)
_STAYS, _SOCKJS, _BUILT, _EARLY, _READS_NOT = 1, 2, 4, 8, 16


def _frames(*told: tuple[int, bytes]) -> bytes:
    """As `_built` takes them."""
    return b"".join(bytes((first, len(payload))) + payload for first, payload in told)


#: The first byte says how the client behaves, the second how large its pieces are.
SEEDS = (
    bytes((_STAYS, 0)) + b"\x81\x82\0\0\0\0hi\x89\x80\0\0\0\0\x88\x82\0\0\0\0\x03\xe8",
    bytes((_STAYS | _BUILT, 0)) + _frames((0x81, b"hi"), (0x81, "é€😀".encode()), (0x88, b"\x03\xe8bye")),
    bytes((_STAYS | _BUILT, 3)) + _frames((0x01, b"a"), (0x89, b"ping"), (0x00, b"b"), (0x80, b"c")),
    bytes((_BUILT | _EARLY, 0)) + _frames((0x81, b"early"), (0x8A, b"pong"), (0x82, b"binary")),
    bytes((_STAYS | _SOCKJS | _BUILT, 0)) + _frames((0x81, b'["a","b"]'), (0x81, b'"c"'), (0x81, b"")),
    bytes((_STAYS | _SOCKJS | _BUILT, 0)) + _frames((0x81, b"[1]")),
    bytes((_STAYS | _BUILT, 0)) + _frames((0x81, b"close"), (0x89, b"late")),
    bytes((_STAYS | _BUILT, 0)) + _frames((0x81, b"\xff"), (0xC1, b"rsv"), (0x8B, b""), (0x09, b"")),
    bytes((_STAYS | _BUILT | _READS_NOT, 0)) + _frames((0x81, b"hi"), (0x88, b"\x03\xe8")),
    bytes((_STAYS | _BUILT, 0)) + bytes((0x81, 0x81, 0x08, 0x7E)) + b"x" * 16,
)
WORDS = (
    "close",
    "\x81\x02hi",
    "\x01\x01a",
    "\x80\x00",
    "\x89\x00",
    "\x8a\x00",
    "\x88\x02\x03\xe8",
    '["a"]',
    "o",
)


def _built(data: bytes) -> bytes:
    """Masked frames: for each a byte for its head, a byte for its length, a payload.

    A length with its high bit set stands for that many times eight bytes of one letter, and is written in
    the next larger form.
    """
    parts = []
    while len(data) >= 2:
        first, length = data[:2]
        if length < 128:
            payload, data = data[2 : 2 + length], data[2 + length :]
            size = bytes((0x80 | len(payload),)) if len(payload) < 126 else b"\xfe" + len(payload).to_bytes(2)
        else:
            payload, data = b"x" * (8 * (length - 128) * (1 + first % 4)), data[2:]
            size = b"\xff" + len(payload).to_bytes(8) if first & 2 else b"\xfe" + len(payload).to_bytes(2)
        parts.append(bytes((first,)) + size + bytes(4) + payload)
    return b"".join(parts)


def _messages(sent: bytes) -> tuple[list[str], bool]:
    """The text messages that another implementation finds, and whether the client stays as it should.

    It does until it sends what no client may, a binary message, or a close frame.
    """
    parser = Protocol(Side.SERVER, max_size=LIMITS.max_message_bytes)
    parser.receive_data(sent)
    found, parts = [], b""
    for frame in parser.events_received():
        assert isinstance(frame, Frame)
        if frame.opcode is Opcode.BINARY or frame.opcode is Opcode.CLOSE:
            return found, False
        if frame.opcode in (Opcode.TEXT, Opcode.CONT):
            parts += frame.data
            if frame.fin:
                try:
                    found.append(parts.decode())
                except UnicodeDecodeError:
                    return found, False
                parts = b""
    return found, parser.parser_exc is None


def feed(data: bytes) -> None:
    how, size, sent = data[:1], data[1:2], data[2:]
    flags = how[0] if how else 0
    kind = Wire.SOCKJS if flags & _SOCKJS else Wire.RAW
    if flags & _BUILT:
        sent = _built(sent)
    cut = wire.pieces(sent, size[0] if size else 0)
    clients: list[wire.Client] = []

    async def main() -> None:
        early = cut.pop(0) if cut and flags & _EARLY else b""
        client = wire.Client(filter(None, cut), 1000.0 if flags & _STAYS else 0.0, not flags & _READS_NOT)
        clients.append(client)
        await websocket.serve(
            client,
            _REQUEST,
            key=_KEY,
            early=early,
            wire=kind,
            on_connection=wire.echo,
            limits=LIMITS,
            metrics=Metrics(),
        )

    wire.run(main)
    (client,) = clients
    assert client.closed
    if flags & _READS_NOT:
        return
    head, end, rest = bytes(client.received).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101"), head
    assert end
    frames = wire.websocket_frames(rest)
    texts = [payload.decode() for opcode, payload in frames if opcode == 1]
    closed = any(opcode == 8 for opcode, _ in frames)
    messages, well = _messages(sent)
    if kind is Wire.SOCKJS:
        _check_sockjs(texts, messages)
    else:
        assert texts == messages[: len(texts)], (texts, messages)
        if "close" in messages:
            well = False
        if well and client.left and flags & _STAYS:
            assert texts == messages
    assert closed or client.left, "the client neither left nor was told that it is over"


def _check_sockjs(texts: list[str], messages: list[str]) -> None:
    assert texts[:1] == ["o"]
    over = [number for number, text in enumerate(texts) if text[0] == "c"]
    assert over in ([], [len(texts) - 1])
    echoed = []
    for text in texts[1 : len(texts) - len(over)]:
        if text != "h":
            assert text[0] == "a"
            echoed += json.loads(text[1:])
    asked = []
    for message in messages:
        try:
            told = json.loads(message or "[]")
        except (ValueError, RecursionError):
            break
        asked += told if isinstance(told, list) else [told]
    assert echoed == asked[: len(echoed)]
