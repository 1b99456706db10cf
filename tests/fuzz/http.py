"""HTTP: any bytes, in pieces of any size, from clients that stay, leave, or do not read."""

from __future__ import annotations

import trio

from tests.fuzz import wire
from trigger_ddp.server import http, sockjs
from trigger_ddp.server.connection import Limits
from trigger_ddp.server.exchange import Request, Response, Send, StreamingResponse

_ROOM = 64

LIMITS = Limits(max_message_bytes=2048, outbox_bytes=1 << 20, close_seconds=5.0)


def request(line: bytes, *headers: bytes, body: bytes = b"") -> bytes:
    return b"\r\n".join([line + b" HTTP/1.1", b"Host: x", *headers, b"", body])


_UPGRADE = (
    b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==",
)  # fmt: skip

#: The first byte says how the client behaves, the second how large its pieces are.
SEEDS = (
    b"\0\0" + request(b"GET /"),
    b"\1\7" + request(b"GET /a%20b?c=d", b"Accept: */*") + request(b"HEAD /stream") + request(b"GET /stream"),
    b"\1\0" + request(b"POST /echo", b"Content-Length: 5", body=b"hello") + request(b"DELETE /none"),
    b"\1\3" + request(b"POST /echo", b"Transfer-Encoding: chunked", body=b"5\r\nhello\r\n0\r\n\r\n"),
    b"\1\0" + request(b"POST /echo", b"Expect: 100-continue", b"Content-Length: 2", body=b"ab"),
    b"\1\0GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /stream HTTP/1.0\r\n\r\n",
    b"\1\0" + request(b"OPTIONS *") + request(b"CONNECT x:1"),
    b"\1\0" + request(b"OPTIONS /sockjs/info", b"Origin: http://a", b"Access-Control-Request-Headers: x"),
    b"\1\0" + request(b"GET /sockjs/iframe.html", b"If-None-Match: x") + request(b"GET http://x/sockjs"),
    b"\1\0" + request(b"GET /websocket", *_UPGRADE) + b"\x81\x82\0\0\0\0hi\x88\x80\0\0\0\0",
    b"\1\0" + request(b"GET /sockjs/0/a/websocket", *_UPGRADE) + b'\x81\x86\0\0\0\0["hi"]',
    b"\1\0" + request(b"GET /x", b"X-Forwarded-For: 1.2.3.4, [::1]:5", b"X-Forwarded-Proto: https"),
    b"\2\0" + request(b"GET /stream") * 2,
    b"\0\0\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
)
WORDS = (
    "GET ", "HEAD ", "POST ", "OPTIONS ", "CONNECT ", "PUT ", " HTTP/1.1\r\n", " HTTP/1.0\r\n", "\r\n\r\n",
    "\r\n", "Host: x\r\n", "Connection: close\r\n", "Connection: keep-alive\r\n", "Connection: Upgrade\r\n",
    "Upgrade: websocket\r\n", "Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n", "0\r\n\r\n",
    "Expect: 100-continue\r\n", "Sec-WebSocket-Version: 13\r\n", "Origin: ", "If-None-Match: ", "Cookie: ",
    "X-Forwarded-For: ", "/sockjs/", "/sockjs/info", "/sockjs/iframe", ".html", "/websocket", "/stream",
    "/echo", "http://", "%2e", "%00", "?", "#", "*", "\xff",
)  # fmt: skip


async def _stream(send: Send) -> None:
    for number in range(3):
        await send(b"%d" * 3 % (number, number, number))
        await trio.sleep(1)


async def _answer(request: Request) -> Response | StreamingResponse | None:
    """A site with a page of each kind; it may read all of a request."""
    assert request.path is not None
    assert request.query is not None
    assert request.client
    match request.raw_path:
        case "/stream":
            return StreamingResponse(200, (("Content-Type", "text/plain"),), _stream)
        case "/echo":
            return Response(200, (("Content-Type", "application/octet-stream"),), request.body)
        case "/none":
            return None
    return Response.text(200, request.http_headers.get("host", ""))


def application() -> http.Application:
    """What is served; a further kind of page is one more case in `_answer`."""
    return http.Application(
        wire.echo, handler=_answer, limits=LIMITS, sockjs=sockjs.Options(cookie=True), forwarded_count=1
    )


def feed(data: bytes) -> None:
    """The first byte's bits: the client stays, does not read, wants heads at once."""
    how, size, sent = data[:1], data[1:2], data[2:]
    flags = how[0] if how else 0
    reads = not flags & 2
    client: list[wire.Client] = []

    async def main() -> None:
        stream = wire.Client(
            wire.pieces(sent, size[0] if size else 0), 1000.0 if flags & 1 else 0.0, reads=reads
        )
        client.append(stream)
        app = application()
        await http.serve_stream(stream, app, peer=("127.0.0.1", 1))

    wire.run(main)
    (stream,) = client
    assert stream.closed
    if reads:
        found, switched = wire.answers(bytes(stream.received), wire.methods(sent))
        wire.websocket_frames(switched)
        assert all(answer.complete for answer in found) or stream.left
