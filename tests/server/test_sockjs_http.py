"""SockJS without a WebSocket, byte for byte as its protocol's own tests have it (sockjs-protocol 0.3)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from urllib.parse import quote_from_bytes, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.server.network import Served, WireClient, in_trio, serving
from tests.server.test_http import ask, request
from trigger_ddp.server import sockjs, sockjs_http
from trigger_ddp.server.connection import Connection

FORM = "Content-Type: application/x-www-form-urlencoded"
SCRIPT = "application/javascript; charset=UTF-8"
NOT_CACHED = "no-store, no-cache, no-transform, must-revalidate, max-age=0"
PRELUDE = b"h" * 2048 + b"\n"
ANOTHER = b'c[2010,"Another connection still open"]'
INTERRUPTED = b'c[1002,"Connection interrupted"]'
GO_AWAY = b'c[3000,"Go away!"]'


async def close(connection: Connection) -> None:
    """The session of the protocol tests' service that closes at once."""


class Stream:
    """A response that comes in chunks."""

    def __init__(self, client: WireClient) -> None:
        self.client = client
        self.headers: dict[str, str] = {}

    async def ask(self, data: bytes) -> int:
        await self.client.send(data)
        first, *lines = (await self.client.head()).strip().split("\r\n")
        self.headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        return int(first.split()[1])

    async def chunk(self) -> bytes:
        """The next chunk; empty at the end of the response."""
        size = b""
        while not size.endswith(b"\r\n"):
            size += await self.client.exactly(1)
        data = await self.client.exactly(int(size, 16))
        assert await self.client.exactly(2) == b"\r\n"
        return data

    async def rest(self) -> bytes:
        body = b""
        while data := await self.chunk():
            body += data
        return body


async def asked(served: Served, line: str, *headers: str, body: bytes = b"") -> Stream:
    stream = Stream(WireClient(await served.connect()))
    assert await stream.ask(request(line, *headers, body=body)) == 200
    return stream


async def whole(served: Served, line: str, *headers: str, body: bytes = b"") -> bytes:
    """The body of a response that comes in chunks."""
    stream = await asked(served, line, *headers, body=body)
    data = await stream.rest()
    await stream.client.stream.aclose()
    return data


async def send(served: Served, body: bytes, session: str = "s", **expected: int) -> bytes:
    client = WireClient(await served.connect())
    status, _, answer = await ask(client, request(f"POST /sockjs/000/{session}/xhr_send", body=body))
    assert status == expected.get("status", 204), answer
    await client.stream.aclose()
    return answer


async def poll(served: Served, session: str = "s") -> bytes:
    return await whole(served, f"POST /sockjs/000/{session}/xhr")


async def poll_for(served: Served, count: int) -> list[str]:
    """So many messages, in however many responses they come."""
    got: list[str] = []
    while len(got) < count:
        got += json.loads((await poll(served))[1:])
    return got


def assert_not_cached(headers: dict[str, str]) -> None:
    assert headers["cache-control"] == NOT_CACHED
    assert not {"expires", "last-modified", "set-cookie"} & set(headers)


# Resources of no session


@in_trio
async def test_the_iframe_page() -> None:
    async with serving() as served:
        client = WireClient(await served.connect())
        for name in (
            "iframe.html", "iframe-a.html", "iframe-.html", "iframe-0.1.2abc-dirty.2144.html",
            "iframe-a.html?t=1234",
        ):  # fmt: skip
            status, headers, body = await ask(client, request(f"GET /sockjs/{name}"))
            assert status == 200
            assert headers["content-type"] == "text/html; charset=UTF-8"
            assert headers["cache-control"] == "public, max-age=31536000"
            assert headers["expires"].endswith(" GMT")
            assert not {"last-modified", "set-cookie"} & set(headers)
            assert body.startswith(b"<!DOCTYPE html>\n<html>\n<head>\n  <meta http-equiv")
            assert b'<script src="https://cdn.jsdelivr.net/npm/sockjs-client@' in body
            assert body.endswith(b"used for cross domain magic.</p>\n</body>\n</html>")
        tag = headers["etag"]
        status, headers, body = await ask(client, request("GET /sockjs/iframe.html", f"If-None-Match: {tag}"))
        assert (status, body) == (304, b"")
        assert "content-type" not in headers
        for name in ("iframe.htm", "iframe", "IFRAME.HTML", "iframe.HTML", "iframe.xml", "iframe-/.html"):
            assert (await ask(client, request(f"GET /sockjs/{name}")))[0] == 404
        status, headers, _ = await ask(client, request("POST /sockjs/iframe.html", body=b"x"))
        assert (status, headers["allow"]) == (405, "GET, HEAD")


@in_trio
async def test_the_iframe_page_names_the_script_that_is_set() -> None:
    async with serving(sockjs=sockjs.Options('/a.js?"<b>')) as served:
        client = WireClient(await served.connect())
        _, _, body = await ask(client, request("GET /sockjs/iframe.html"))
        assert b'<script src="/a.js?&quot;&lt;b&gt;"></script>' in body


# Paths, methods and preflights


@in_trio
async def test_any_value_may_be_a_session_and_the_server_part_is_ignored() -> None:
    async with serving() as served:
        for path in ("/a/a", "/_/_", "/1/", "/1/1", "/abcdefgh_i-j%20/abcdefg_i-j%20"):
            if path != "/1/":
                assert await whole(served, f"POST /sockjs{path}/xhr") == b"o\n"
        await send(served, b'["a"]', "1")
        assert await whole(served, "POST /sockjs/999/1/xhr/") == b'a["a"]\n'
        client = WireClient(await served.connect())
        for path in ("//", "/a./a", "/a/a.", "/./.", "/", "///", "/a/" + "b" * 257):
            for method in ("GET", "POST"):
                assert (await ask(client, request(f"{method} /sockjs{path}/xhr")))[0] == 404


@pytest.mark.parametrize(
    ("transport", "allowed"),
    [
        ("xhr", "OPTIONS, POST"), ("xhr_streaming", "OPTIONS, POST"), ("xhr_send", "OPTIONS, POST"),
        ("eventsource", "GET"), ("htmlfile", "GET"), ("jsonp", "GET"), ("jsonp_send", "POST"),
    ],
)  # fmt: skip
def test_other_methods_are_not_allowed(transport: str, allowed: str) -> None:
    @in_trio
    async def scenario() -> None:
        async with serving() as served:
            client = WireClient(await served.connect())
            for method in {"GET", "POST", "PUT", "OPTIONS"} - set(allowed.split(", ")):
                got = await ask(client, request(f"{method} /sockjs/000/s/{transport}"))
                assert (got[0], got[1]["allow"], got[2]) == (405, allowed, b"")
                assert "content-type" not in got[1]

    scenario()


@in_trio
async def test_preflights() -> None:
    async with serving() as served:
        client = WireClient(await served.connect())
        for transport in ("xhr", "xhr_send", "xhr_streaming"):
            for origin in ("test", "null"):
                status, headers, body = await ask(
                    client,
                    request(
                        f"OPTIONS /sockjs/abc/abc/{transport}", f"Origin: {origin}",
                        "Access-Control-Request-Method: POST", "Access-Control-Request-Headers: a, b, c",
                    ),
                )  # fmt: skip
                assert (status, body) == (204, b"")
                assert headers["cache-control"] == "public, max-age=31536000"
                assert headers["expires"].endswith(" GMT")
                assert headers["access-control-max-age"] == "31536000"
                assert headers["access-control-allow-methods"] == "OPTIONS, POST"
                assert headers["access-control-allow-origin"] == origin
                assert headers["access-control-allow-credentials"] == "true"
                assert headers["access-control-allow-headers"] == "a, b, c"


# Transports


@in_trio
async def test_xhr() -> None:
    async with serving() as served:
        stream = await asked(served, "POST /sockjs/000/s/xhr", "Origin: test")
        assert stream.headers["content-type"] == SCRIPT
        assert stream.headers["access-control-allow-origin"] == "test"
        assert stream.headers["access-control-allow-credentials"] == "true"
        assert_not_cached(stream.headers)
        assert await stream.rest() == b"o\n"
        # the connection goes on
        status, headers, body = await ask(
            stream.client, request("POST /sockjs/000/s/xhr_send", "Origin: test", body=b'["x"]')
        )
        assert (status, body) == (204, b"")
        assert headers["content-type"] == "text/plain; charset=UTF-8"
        assert headers["access-control-allow-origin"] == "test"
        assert_not_cached(headers)
        assert await stream.ask(request("POST /sockjs/000/s/xhr")) == 200
        assert stream.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in stream.headers
        assert await stream.rest() == b'a["x"]\n'
        # one who waits is woken
        await stream.client.send(request("POST /sockjs/000/s/xhr"))
        await send(served, b'["y"]')
        await stream.client.head()
        assert await stream.rest() == b'a["y"]\n'


@in_trio
async def test_what_can_not_be_sent() -> None:
    async with serving() as served:
        assert await poll(served) == b"o\n"
        assert b"Broken JSON encoding." in await send(served, b'["x', status=500)
        assert b"Broken JSON encoding." in await send(served, b'["\xff"]', status=500)
        assert b"Payload expected." in await send(served, b"[" * 100_000, status=500)
        assert b"Payload expected." in await send(served, b"", status=500)
        assert b"Payload expected." in await send(served, b'{"x":1}', status=500)
        assert b"Payload expected." in await send(served, b"[1]", status=500)
        await send(served, b"[]")
        await send(served, b'["a"]')
        assert await poll(served) == b'a["a"]\n'
        await send(served, b'["a"]', "nobody", status=404)
        for kind in ("text/plain", "T", "application/json", "application/xml", "", "text/xml; charset=utf-8"):
            client = WireClient(await served.connect())
            asking = request("POST /sockjs/000/s/xhr_send", f"Content-Type: {kind}", body=b'["b"]')
            assert (await ask(client, asking))[0] == 204
        assert await poll_for(served, 6) == ["b"] * 6


@in_trio
async def test_xhr_streaming() -> None:
    async with serving() as served:
        stream = await asked(served, "POST /sockjs/000/s/xhr_streaming", "Origin: test")
        assert stream.headers["content-type"] == SCRIPT
        assert stream.headers["access-control-allow-origin"] == "test"
        assert stream.headers["transfer-encoding"] == "chunked"
        assert stream.headers["x-accel-buffering"] == "no"
        assert_not_cached(stream.headers)
        assert await stream.chunk() == PRELUDE
        assert await stream.chunk() == b"o\n"
        await send(served, b'["x"]')
        assert await stream.chunk() == b'a["x"]\n'


@in_trio
async def test_eventsource() -> None:
    async with serving() as served:
        stream = await asked(served, "GET /sockjs/000/s/eventsource")
        assert stream.headers["content-type"] == "text/event-stream"
        assert_not_cached(stream.headers)
        assert await stream.chunk() == b"\r\n"
        assert await stream.chunk() == b"data: o\r\n\r\n"
        await send(served, b'["x"]')
        assert await stream.chunk() == b'data: a["x"]\r\n\r\n'
        await send(served, rb'["  \u0000\n\r "]')
        assert await stream.chunk() == b'data: a["  \\u0000\\n\\r "]\r\n\r\n'
        await send(served, b'["100 %"]')  # sockjs-client has it through decodeURI()
        assert await stream.chunk() == b'data: a["100 %25"]\r\n\r\n'


HTMLFILE = rb"""
<!doctype html>
<html><head>
  <meta http-equiv="X-UA-Compatible" content="IE=edge" />
  <meta http-equiv="Content-Type" content="text/html; charset=UTF-8" />
</head><body><h2>Don't panic!</h2>
  <script>
    document.domain = document.domain;
    var c = parent.callback;
    c.start();
    function p(d) {c.message(d);};
    window.onload = function() {c.stop();};
  </script>
""".strip()


@in_trio
async def test_htmlfile() -> None:
    async with serving() as served:
        stream = await asked(served, "GET /sockjs/000/s/htmlfile?c=%63allback")
        assert stream.headers["content-type"] == "text/html; charset=UTF-8"
        assert_not_cached(stream.headers)
        head = await stream.chunk()
        assert head.strip() == HTMLFILE
        assert len(head) == 1024 + 4
        assert await stream.chunk() == b'<script>\np("o");\n</script>\r\n'
        await send(served, b'["x"]')
        assert await stream.chunk() == b'<script>\np("a[\\"x\\"]");\n</script>\r\n'
        await send(served, b'["</script>"]')
        assert rb'p("a[\"\u003c/script>\"]");' in await stream.chunk()


@in_trio
async def test_jsonp() -> None:
    async with serving() as served:
        stream = await asked(served, "GET /sockjs/000/s/jsonp?c=%63allback")
        assert stream.headers["content-type"] == SCRIPT
        assert stream.headers["x-content-type-options"] == "nosniff"
        assert_not_cached(stream.headers)
        assert await stream.rest() == b'/**/callback("o");\r\n'
        client = stream.client
        post = "POST /sockjs/000/s/jsonp_send"
        status, headers, body = await ask(client, request(post, FORM, body=b"d=%5B%22x%22%5D"))
        assert (status, body) == (200, b"ok")
        assert headers["content-type"] == "text/plain; charset=UTF-8"
        assert_not_cached(headers)
        assert await stream.ask(request("GET /sockjs/000/s/jsonp?callback=_jp.a1")) == 200
        assert await stream.rest() == b'/**/_jp.a1("a[\\"x\\"]");\r\n'
        status, _, body = await ask(client, request(post, FORM, body=b"d=%5B%22x"))
        assert (status, body) == (500, b"Broken JSON encoding.\n")
        for data in (b"", b"d=", b"p=p"):
            status, _, body = await ask(client, request(post, FORM, body=data))
            assert (status, body) == (500, b"Payload expected.\n")
        assert (await ask(client, request(post, FORM, body=b"d=%5B%5D")))[2] == b"ok"
        for sent, kind, got in (
            (b"p=p&d=%5B%22a+bc%22%5D", FORM, b"a bc"), (b'["%61bc"]', "Content-Type: text/plain", b"%61bc")
        ):  # fmt: skip
            assert (await ask(client, request(post, kind, body=sent)))[2] == b"ok"
            assert await stream.ask(request("GET /sockjs/000/s/jsonp?c=x")) == 200
            assert await stream.rest() == b'/**/x("a[\\"' + got + b'\\"]");\r\n'
        assert (await ask(client, request(post.replace("/s/", "/nobody/"), FORM, body=b"d=[]")))[0] == 404


@given(
    st.binary(),
    st.sampled_from([quote_from_bytes, quote_plus, lambda data: "".join(map("%{:02x}".format, data))]),
)
def test_what_a_form_holds_is_decoded(data: bytes, encode: Callable[[bytes], str]) -> None:
    encoded = encode(data).encode()
    for form in (b"d=%b", b"d=%b&d=x", b"a=b&d=%b&c", b"dd=x&c&d=%b"):
        assert sockjs_http._form_field(form % encoded, b"d") == data


def test_a_form_without_the_field() -> None:
    for form in (b"", b"d", b"dd=x", b"x=d=y", b"&", b"d&x"):
        assert sockjs_http._form_field(form, b"d") == b""


@pytest.mark.parametrize("transport", ["jsonp", "htmlfile"])
def test_callbacks_are_looked_at(transport: str) -> None:
    @in_trio
    async def scenario() -> None:
        async with serving() as served:
            client = WireClient(await served.connect())
            for query in ("", "?", "?c=", "?d=x"):
                status, _, body = await ask(client, request(f"GET /sockjs/a/a/{transport}{query}"))
                assert (status, body) == (500, b'"callback" parameter required\n')
            for name in ("%20", "*", "abc(", "abc%28", "a" * 33, "%C3%A9", "a%0A"):
                status, _, body = await ask(client, request(f"GET /sockjs/a/a/{transport}?c={name}"))
                assert (status, body) == (500, b'invalid "callback" parameter\n')
            client = WireClient(await served.connect())
            many = "&".join("a" * 101)
            status, _, body = await ask(client, request(f"GET /sockjs/000/s/{transport}?{many}&c=f"))
            assert (status, body) == (500, b'too many parameters beside "callback"\n')
            assert await poll(served, "a") == b"o\n"  # none of them has opened it

    scenario()


@in_trio
async def test_characters_that_browsers_mangle_are_escaped() -> None:
    fragile = re.compile("[\u200c-\u200f\u2028-\u202f\u2060-\u206f\ufff0-\uffff]")
    text = "".join(chr(i) for i in range(0x20, 0x10000) if not 0xD800 <= i < 0xE000) + "\U0001f30d"
    async with serving() as served:
        assert await poll(served) == b"o\n"
        await send(served, json.dumps([text]).encode())
        body = await poll(served)
    assert fragile.search(body.decode()) is None
    assert json.loads(body[1:]) == [text]
    assert b"\\u2028\\u2029" in body


@in_trio
async def test_origins_that_no_browser_has_are_not_repeated() -> None:
    """Headers of requests may hold any byte, those of responses are ASCII."""
    strange = b"Origin: http://\xe9\r\nAccess-Control-Request-Headers: x-\xe9\r\n\r\n"
    async with serving() as served:
        for method, path, expected in [
            ("GET", "/sockjs/info", 200), ("OPTIONS", "/sockjs/info", 204),
            ("OPTIONS", "/sockjs/0/s/xhr", 204), ("POST", "/sockjs/0/s/xhr_send", 500),
        ]:  # fmt: skip
            client = WireClient(await served.connect())
            status, headers, _ = await ask(client, request(f"{method} {path}")[:-2] + strange)
            assert (status, headers["access-control-allow-origin"]) == (expected, "*")
            assert "access-control-allow-headers" not in headers
            await client.stream.aclose()


@in_trio
async def test_a_cookie_beyond_ascii_is_not_repeated() -> None:
    async with serving(sockjs=sockjs.Options(cookie=True)) as served:
        for told, kept in ((b"abc", "abc"), (b"ab\xe9", "dummy")):
            client = WireClient(await served.connect())
            asked_with = b"Cookie: JSESSIONID=" + told + b"\r\n\r\n"
            _, headers, _ = await ask(client, request("OPTIONS /sockjs/0/s/xhr")[:-2] + asked_with)
            assert headers["set-cookie"] == f"JSESSIONID={kept}; path=/"
            await client.stream.aclose()
