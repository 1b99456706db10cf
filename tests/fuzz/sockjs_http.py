"""SockJS's transports over HTTP: a script of requests that many clients send, one line each."""

from __future__ import annotations

import json

import trio

from tests.fuzz import wire
from trigger_ddp.server import http, sockjs
from trigger_ddp.server.connection import Limits
from trigger_ddp.server.sockjs_registry import Sessions

#: A line is TRANSPORT SESSION REST, the rest the query of a GET, else the body. "wait" lets seconds pass,
#: "header" gives a header to the requests that follow, and METHOD:TRANSPORT asks by another method.
SEEDS = (
    b'xhr a\nxhr_send a ["x","y"]\nxhr a\nxhr a\nxhr_send a ["close"]\nxhr a\nxhr a',
    b'xhr_streaming a\nxhr_send a ["\\u00e9"]\nwait 3\nxhr_send a ["z"]',
    b'eventsource a\nxhr_send a ["1%"]\nxhr a\nwait 61\nxhr a',
    b'htmlfile a c=f\njsonp b callback=f.g\njsonp_send b ["</script>"]\njsonp b c=f',
    b"header content-type: application/x-www-form-urlencoded\njsonp b c=f\njsonp_send b d=%5B%22x%22%5D",
    b"header origin: http://o\nheader cookie: JSESSIONID=abc\nOPTIONS:xhr a\nOPTIONS:xhr_send a\nGET:xhr a",
    b"xhr a\nxhr b\nxhr c\nxhr d\nxhr_send e []\nwait 99\nxhr d",
    b'xhr a\nxhr_send a [1]\nxhr_send a ["x\nxhr_send a\nxhr_send a "x"\nwebsocket a\nHEAD:eventsource a',
    b"header access-control-request-headers: x-y\nxhr a\nhtmlfile a\nhtmlfile a c=<>\njsonp a c=",
)
WORDS = (
    "xhr ", "xhr_streaming ", "eventsource ", "htmlfile ", "jsonp ", "xhr_send ", "jsonp_send ", "wait 70\n",
    "header ", "origin: ", "cookie: JSESSIONID=", "content-type: application/x-www-form-urlencoded\n", "c=f",
    "callback=", "OPTIONS:", "HEAD:", "GET:", "POST:", '["x"]', '["close"]', "d=", "&", "%5B%22x%22%5D",
    "\\\\ud83d\\\\ude00", "\\\\ud800", "\xff",
)  # fmt: skip

_LIMITS = Limits(
    max_message_bytes=512, outbox_bytes=8192, sockjs_response_bytes=1024, sockjs_sessions=4,
    sockjs_sessions_per_address=3,
)  # fmt: skip
_GET = (b"eventsource", b"htmlfile", b"jsonp", b"info", b"websocket")
_MOST_LINES = 25
#: Seconds after which a client that receives goes away.
_STAYS = 50.0


class _Asked:
    """A request, and the connection that it comes over."""

    def __init__(self, line: bytes, headers: list[bytes]) -> None:
        method, colon, rest = line.partition(b":")
        if not colon or not method.isalpha():
            method, rest = b"", line
        transport, _, rest = rest.partition(b" ")
        session, _, rest = rest.partition(b" ")
        method = method or (b"GET" if transport in _GET else b"POST")
        target = b"/sockjs/0/%s/%s" % (session, transport)
        body = b"" if method == b"GET" else rest
        if method == b"GET" and rest:
            target += b"?" + rest
        lines = [b"%s %s HTTP/1.1" % (method, target), b"Host: x", *headers]
        self.sent = b"\r\n".join([*lines, b"Content-Length: %d" % len(body), b"", body])
        self.transport = transport
        self.client = wire.Client([self.sent], _STAYS)


def feed(data: bytes) -> None:
    asked: list[_Asked] = []

    async def main() -> None:
        sessions = Sessions(wire.echo, _LIMITS)
        app = http.Application(
            wire.echo, limits=_LIMITS, sockjs=sockjs.Options(cookie=True), sessions=sessions
        )
        async with trio.open_nursery() as background:
            await background.start(sessions.run)
            async with trio.open_nursery() as requests:
                await _play(data, asked, app, requests)
            await trio.sleep(1000)
            assert not sessions._open, "a session that nobody asks for is still there"
            sessions._forget()
            assert not sessions._closed
            assert not sessions._of_address
            background.cancel_scope.cancel()

    wire.run(main)
    for one in asked:
        _check(one)


async def _play(data: bytes, asked: list[_Asked], app: http.Application, requests: trio.Nursery) -> None:
    headers: list[bytes] = []
    for line in data.split(b"\n")[:_MOST_LINES]:
        word, _, rest = line.partition(b" ")
        if word == b"wait":
            await trio.sleep(min(int(rest), 200) if rest[:9].isdigit() and len(rest) < 9 else 1)
        elif word == b"header":
            headers.append(rest)
        else:
            one = _Asked(line, headers)
            asked.append(one)
            peer = f"10.0.0.{len(asked) % 2}", 1
            requests.start_soon(
                lambda stream=one.client, peer=peer: http.serve_stream(stream, app, peer=peer)
            )
            await trio.testing.wait_all_tasks_blocked()


def _check(one: _Asked) -> None:
    client = one.client
    assert client.closed
    answers, rest = wire.answers(bytes(client.received), wire.methods(one.sent))
    assert not rest
    assert all(answer.complete for answer in answers) or client.left, "half an answer to a client that waits"
    if not answers:
        return
    answer = answers[0]
    assert answer.status in (200, 204, 304, 400, 404, 405, 408, 413, 426, 431, 500, 501, 503), answer.status
    if answer.status == 500:
        assert answer.headers["content-type"].startswith("text/plain"), "not in SockJS's own words"
        assert b"callback" in answer.body or answer.body in (
            b"Payload expected.\n",
            b"Broken JSON encoding.\n",
        )
    if answer.status == 200 and answer.complete and answer.body:
        if one.transport == b"xhr" and answer.headers["content-type"].startswith("application/javascript"):
            assert answer.body.endswith(b"\n")
            _check_frame(answer.body[:-1])
        elif answer.headers["content-type"] == "text/event-stream":
            for event in answer.body.removeprefix(b"\r\n").split(b"\r\n\r\n")[:-1]:
                assert event.startswith(b"data: ")
                _check_frame(event[6:].replace(b"%25", b"%"))


def _check_frame(frame: bytes) -> None:
    kind, rest = frame[:1], frame[1:]
    if kind in (b"o", b"h"):
        assert not rest
    elif kind == b"a":
        messages = json.loads(rest)
        assert messages
        assert all(isinstance(message, str) for message in messages)
    else:
        code, reason = json.loads(rest)
        assert kind == b"c"
        assert isinstance(code, int)
        assert isinstance(reason, str)
