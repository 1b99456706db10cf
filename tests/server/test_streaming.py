"""Responses that come while they are sent."""

from __future__ import annotations

from unittest.mock import ANY

import pytest
import trio
import trio.testing

from tests.server.network import (
    WireClient,
    errors,
    in_trio,
    serving,
    until,
)
from tests.server.test_http import ask, request
from trigger_ddp.server.exchange import Request, Send, StreamingResponse


class Streaming:
    """A handler whose responses the test runs."""

    def __init__(self) -> None:
        self.outcome = ""
        self.go_on = trio.Event()

    async def __call__(self, asked: Request) -> StreamingResponse:
        headers: tuple[tuple[str, str], ...] = (("Content-Type", "text/plain"),)
        if asked.path == "/sized":
            headers += (("Content-Length", "6"),)
        run = {"/late": self.late, "/fails": self.fails, "/fails-late": self.fails_late}
        return StreamingResponse(200, headers, run.get(asked.path, self.parts))

    async def parts(self, send: Send) -> None:
        await send(b"one")
        await send(b"")  # no end of the body
        await send(b"two")
        self.outcome = "complete"

    async def late(self, send: Send) -> None:
        try:
            await self.go_on.wait()
            await send(b"late")
            self.outcome = "complete"
        except trio.Cancelled:
            self.outcome = "cancelled"
            raise

    async def fails(self, send: Send) -> None:
        raise ValueError("before anything is sent")

    async def fails_late(self, send: Send) -> None:
        await send(b"one")
        raise ValueError("in the middle")


@in_trio
async def test_a_response_may_be_streamed() -> None:
    async with serving(handler=Streaming()) as served:
        client = WireClient(await served.connect())
        for _ in range(2):
            await client.send(request("GET /"))
            head = (await client.head()).lower()
            assert "transfer-encoding: chunked\r\n" in head
            assert "content-type: text/plain\r\n" in head
            assert "date: " in head
            assert await client.exactly(21) == b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"
        assert await ask(client, request("GET /sized")) == (200, ANY, b"onetwo")
        assert (await ask(client, request("HEAD /sized"), body=False))[1]["content-length"] == "6"
        assert (await ask(client, request("HEAD /fails"), body=False))[0] == 200  # it is not run
        await client.send(b"GET / HTTP/1.0\r\n\r\n")
        assert "connection: close\r\n" in (await client.head()).lower()
        assert await client.rest() == b"onetwo"


@in_trio
async def test_a_streamed_response_ends_with_its_client() -> None:
    handler = Streaming()
    async with serving(handler=handler) as served:
        client = WireClient(await served.connect())
        await client.send(request("GET /late"))
        await trio.sleep(0.05)
        await client.stream.aclose()
        await until(lambda: handler.outcome, "the end of the response")
        assert handler.outcome == "cancelled"
        await served.until_idle()


@in_trio
async def test_requests_may_be_sent_ahead_of_a_streamed_response() -> None:
    handler = Streaming()
    async with serving(handler=handler) as served:
        client = WireClient(await served.connect())
        ahead = request("GET /") * 1000  # more than is read ahead
        await client.send(request("GET /late"))
        await trio.sleep(0.05)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send, ahead)
            await trio.sleep(0.05)
            handler.go_on.set()
            await client.head()
            assert await client.exactly(14) == b"4\r\nlate\r\n0\r\n\r\n"
            for _ in range(1000):
                await client.head()
                assert await client.exactly(21) == b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"


@in_trio
async def test_a_streamed_response_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(handler=Streaming()) as served:
        client = WireClient(await served.connect())
        assert (await ask(client, request("GET /fails")))[::2] == (500, b"500 Internal Server Error\n")
        await client.send(request("GET /fails-late"))
        await client.head()
        assert await client.rest() == b"3\r\none\r\n"  # and no last chunk
        await client.stream.aclose()
        await served.until_idle()
    assert len(errors(caplog)) == 2
    assert "in the middle" in caplog.text


@in_trio
async def test_what_is_sent_during_a_streamed_response_is_not_read_without_end() -> None:
    async with serving(handler=Streaming()) as served:
        client = WireClient(await served.connect())
        await client.send(request("GET /late"))
        with trio.move_on_after(1) as waiting:
            await client.send(b"x" * 50_000_000)
        assert waiting.cancelled_caught
