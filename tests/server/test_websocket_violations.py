"""WebSocket clients that are wrong: what breaks the protocol, or holds more than anybody means."""

from __future__ import annotations

import contextlib
import json

import pytest
import trio
import trio.testing

from tests.server import network
from tests.server.network import (
    Recorded,
    closing,
    errors,
    in_trio,
    masked,
    serving,
    until,
)
from trigger_ddp.server.connection import Connection, Limits

SOCKJS = "/sockjs/000/abc/websocket"


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (masked(network.BINARY, b"\x00"), 1003),
        (masked(network.TEXT, b"\xff\xfe"), 1007),
        (masked(network.TEXT, "é".encode()[:1], fin=False) + masked(network.CONTINUATION, b"x"), 1007),
        (masked(network.TEXT, b"x" * 5000), 1009),
        (masked(network.TEXT, b"x" * 3000, fin=False) + masked(network.CONTINUATION, b"x" * 3000), 1009),
        (masked(network.TEXT, b"x" * 5000) * 3, 1009),
        (masked(network.TEXT, "é".encode() * 3000), 1009),
        (b"\x81\x05hello", 1002),  # not masked
        (masked(3, b""), 1002),  # no such opcode
        (b"\xf1\x80\0\0\0\0", 1002),  # reserved bits
        (masked(network.CONTINUATION, b"x"), 1002),
        (masked(network.PING, b"x", fin=False), 1002),
        (masked(network.PING, b"x" * 126), 1002),
        (masked(network.CLOSE, b"\x03"), 1002),
        (closing(1005), 1002),
    ],
)
@pytest.mark.parametrize("path", ["/websocket", SOCKJS])
def test_violations_are_answered_with_their_code(
    path: str, sent: bytes, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    session = Recorded()

    @in_trio
    async def scenario() -> None:
        async with serving(session, limits=Limits(max_message_bytes=4096, close_seconds=0.1)) as served:
            client = await served.open(path)
            await client.send(sent + masked(network.TEXT, b"never looked at"))
            opcode, payload = await client.frame()
            while opcode == network.TEXT:  # SockJS's own words
                opcode, payload = await client.frame()
            assert opcode == network.CLOSE
            assert int.from_bytes(payload[:2], "big") == code
            assert await client.rest() == b""
            assert str(code) in await session.until_ended()
            await client.stream.aclose()
            await served.until_idle()

    scenario()
    assert session.messages == []
    assert errors(caplog) == []


def test_a_first_frame_that_comes_with_the_handshake_is_answered_with_its_code(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @in_trio
    async def scenario() -> None:
        async with serving() as served:
            for _ in range(20):  # the reader and the handshake race each other
                client = await served.open(early=masked(3, b""))
                assert await client.close_code() == 1002
                assert await client.rest() == b""
                await client.stream.aclose()

    scenario()
    assert errors(caplog) == []


@pytest.mark.parametrize("text", ["{}", "[1]", '["a",null]', "nonsense", '["a"', "1", "[[]]", '["\\ud800"]'])
def test_broken_sockjs_framing_closes(text: str) -> None:
    session = Recorded()

    @in_trio
    async def scenario() -> None:
        async with serving(session) as served:
            client = await served.open(SOCKJS)
            assert await client.text() == "o"
            await client.send(masked(network.TEXT, text.encode()))
            assert await client.close_code() == 3000

    scenario()
    assert session.messages == []


@in_trio
async def test_endless_empty_fragments_are_not_collected_for_ever() -> None:
    session = Recorded()
    async with serving(session, limits=Limits(max_message_bytes=1024)) as served:
        client = await served.open()
        fragments = masked(network.CONTINUATION, b"", fin=False) * 10_000
        await client.send(masked(network.TEXT, b"x", fin=False))
        with contextlib.suppress(trio.BrokenResourceError):
            while not session.ended:
                await client.send(fragments)
        assert "without a whole message" in await session.until_ended()


@in_trio
async def test_a_large_message_within_the_limit_comes_through() -> None:
    async with serving(limits=Limits(max_message_bytes=3_000_000)) as served:
        client = await served.open()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send, masked(network.TEXT, b"x" * 3_000_000))
            assert await client.text() == "x" * 3_000_000


@in_trio
async def test_a_frame_of_many_messages_lets_others_have_their_turn() -> None:
    turns = 0
    taken: list[int] = []

    async def session(connection: Connection) -> None:
        while True:
            await connection.receive()
            taken.append(turns)

    async def count() -> None:
        nonlocal turns
        while len(taken) < 2000:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with serving(session) as served:
        client = await served.open(SOCKJS)
        served.nursery.start_soon(count)
        await client.send(masked(network.TEXT, json.dumps(["{}"] * 2000).encode()))
        await until(lambda: len(taken) == 2000, "all messages")
        assert len(set(taken)) > 500


@in_trio
async def test_more_messages_in_a_frame_than_anybody_means() -> None:
    async with serving() as served:
        client = await served.open(SOCKJS)
        assert await client.text() == "o"
        await client.send(masked(network.TEXT, json.dumps([""] * 10_001).encode()))
        assert await client.close_code() == 3000
