"""The Django project's pages: any bytes, in pieces of any size, before a WSGI application on a thread."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any
from wsgiref.validate import WSGIWarning, validator

import trio.testing

from tests.fuzz import wire
from tests.fuzz.http import LIMITS, request
from trigger_ddp.server import http
from trigger_ddp.server.workers import Workers
from trigger_ddp.server.wsgi import Gateway

#: The first byte chooses the size of the largest body, the second how large the pieces are.
SEEDS = (
    b"\0\0" + request(b"GET /"),
    b"\0\7" + request(b"GET /a%20b?c=d", b"Cookie: a=b", b"Cookie: c") + request(b"HEAD /stream"),
    b"\0\0" + request(b"POST /read", b"Content-Length: 5", body=b"hello") + request(b"DELETE /"),
    b"\0\0" + request(b"POST /lines", b"Content-Length: 5", body=b"he\nlo"),
    b"\0\3" + request(b"POST /read", b"Transfer-Encoding: chunked", body=b"5\r\nhello\r\n0\r\n\r\n"),
    b"\0\0" + request(b"POST /read", b"Expect: 100-continue", b"Content-Length: 2", body=b"ab"),
    b"\0\0" + request(b"POST /unread", b"Expect: 100-continue", b"Content-Length: 2", body=b"ab"),
    b"\0\0" + request(b"POST /unread", b"Content-Length: 5", body=b"hello") + request(b"GET /empty"),
    b"\x04\0" + request(b"POST /read", b"Content-Length: 50", body=b"h" * 50),
    b"\x04\0" + request(b"POST /read", b"Transfer-Encoding: chunked", body=b"9\r\nhellohell\r\n0\r\n\r\n"),
    b"\0\0GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET / HTTP/1.0\r\n\r\n",
    b"\0\0" + request(b"OPTIONS *") + request(b"GET http://x/y") + request(b"CONNECT /"),
    b"\0\0" + request(b"GET /x", b"X-Forwarded-Proto: https", b"Proxy: x", b"X_Y: z", b"Content-Type: a"),
    b"\0\0" + request(b"GET /sockjs/info") + request(b"GET /empty") + request(b"GET /stream"),
)


def _application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Reads or does not, and answers in one piece or in several."""
    for name, value in environ.items():
        if not name.startswith("wsgi."):
            assert isinstance(value, str), name
            value.encode("latin-1")
    assert "HTTP_PROXY" not in environ
    body, path = environ["wsgi.input"], environ["PATH_INFO"]
    length = int(environ.get("CONTENT_LENGTH") or 0)
    parts = [b"page"]
    if path == "/read":
        parts = [body.read(length)]
        assert len(parts[0]) == length
    elif path == "/lines":
        parts = list(body)
    elif path == "/stream":
        parts = [b"a", b"", b"b"]
    elif path == "/empty":
        parts = []
    headers = [("Content-Type", "text/plain")]
    if path == "/stream":
        start_response("200 OK", headers)
        return iter(parts)
    start_response("200 OK", [*headers, ("Content-Length", str(sum(map(len, parts))))])
    return parts


def feed(data: bytes) -> None:
    most, size, sent = data[:1], data[1:2], data[2:]
    client = wire.Client(wire.pieces(sent, size[0] if size else 0))

    async def main() -> None:
        async with Workers(1) as workers:
            gateway = Gateway(
                validator(_application), workers, max_body_bytes=4 * most[0] if most else 0, forwarded_count=1
            )
            app = http.Application(wire.echo, limits=LIMITS, web=gateway, forwarded_count=1)
            await http.serve_stream(client, app, peer=("127.0.0.1", 1))
            assert not app.answering.active

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", WSGIWarning)  # such as for a method that it does not know
        # The clock stands still: there is a thread, for which a jumping one would not wait.
        wire.run(main, trio.testing.MockClock())
    assert client.closed
    _, switched = wire.answers(bytes(client.received), wire.methods(sent))
    wire.websocket_frames(switched)
