"""SockJS's transports without a WebSocket: how each asks, is answered, and lays frames into a response.

Bytes and texts are those that the SockJS protocol's own tests look for (sockjs/sockjs-protocol 0.3).
"""

from __future__ import annotations

import binascii
import dataclasses
import re
from collections.abc import Callable
from functools import partial
from urllib.parse import parse_qs

import msgspec

from trigger_ddp.server import siblings, sockjs
from trigger_ddp.server.exchange import Request, Response, StreamingResponse, not_allowed
from trigger_ddp.server.sockjs_registry import Sessions, TooManySessions
from trigger_ddp.server.sockjs_session import Framing, SockJSSession

_PATH = re.compile(
    r"/sockjs/[^/.]+/(?P<session>[^/.]{1,256})/"
    r"(?P<transport>xhr|xhr_streaming|eventsource|htmlfile|jsonp|xhr_send|jsonp_send)/?",
    re.ASCII,
)
#: A longer name, or another character, would let a link to us be a script of the link's author.
_CALLBACK = re.compile(r"[a-zA-Z0-9_.-]{1,32}", re.ASCII)
_SCRIPT = "application/javascript; charset=UTF-8"
_FORM = "application/x-www-form-urlencoded"

_decode_list = msgspec.json.Decoder(list[str]).decode
_quote = msgspec.json.Encoder().encode

# Browsers begin to look at a page or a stream only when they have some of it.
_XHR_PRELUDE = b"h" * 2048 + b"\n"
_HTML = """<!doctype html>
<html><head>
  <meta http-equiv="X-UA-Compatible" content="IE=edge" />
  <meta http-equiv="Content-Type" content="text/html; charset=UTF-8" />
</head><body><h2>Don't panic!</h2>
  <script>
    document.domain = document.domain;
    var c = parent.%s;
    c.start();
    function p(d) {c.message(d);};
    window.onload = function() {c.stop();};
  </script>"""
_HTML_BYTES = 1024


class _Wrong(Exception):
    """The request can't be answered as it wants; SockJS has 500 for that."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Receiving:
    """A transport's way to receive.

    Args:
        method: its HTTP method.
        content_type: of its responses.
        framing: makes a framing of the callback, which is empty where none is needed.
        streams: whether a response holds more than one frame.
        calls_back: whether the request has to name a callback.
        cross_origin: whether scripts of other origins may ask.
    """

    method: str
    content_type: str
    framing: Callable[[str], Framing]
    streams: bool = False
    calls_back: bool = False
    cross_origin: bool = False


def _line(frame: bytes) -> bytes:
    return frame + b"\n"


def _event(frame: bytes) -> bytes:
    # sockjs-client has every event through decodeURI()
    return b"data: " + frame.replace(b"%", b"%25") + b"\r\n\r\n"


def _script_element(frame: bytes) -> bytes:
    # a "</script>" in a document would end the script
    return b"<script>\np(" + _quote(frame.decode()).replace(b"<", b"\\u003c") + b");\n</script>\r\n"


def _call(callback: str) -> Framing:
    # the comment keeps the callback's name from being the beginning of something else, such as a Flash file
    head = f"/**/{callback}(".encode()
    return Framing(lambda frame: head + _quote(frame.decode()) + b");\r\n")


def _page(callback: str) -> Framing:
    head = (_HTML % callback).encode()
    return Framing(_script_element, head.ljust(_HTML_BYTES) + b"\r\n\r\n")


_RECEIVING = {
    "xhr": _Receiving("POST", _SCRIPT, lambda _: Framing(_line), cross_origin=True),
    "xhr_streaming": _Receiving(
        "POST", _SCRIPT, lambda _: Framing(_line, _XHR_PRELUDE), streams=True, cross_origin=True
    ),
    "eventsource": _Receiving(
        "GET", "text/event-stream", lambda _: Framing(_event, b"\r\n"), streams=True, cross_origin=True
    ),
    "htmlfile": _Receiving("GET", "text/html; charset=UTF-8", _page, streams=True, calls_back=True),
    "jsonp": _Receiving("GET", _SCRIPT, _call, calls_back=True),
}


class Transports:
    """Answers the requests of SockJS sessions.

    Args:
        sessions: the sessions.
        options: what SockJS leaves to the server.
        others: the other workers, which have sessions as well.
    """

    def __init__(
        self, sessions: Sessions, options: sockjs.Options, others: siblings.Siblings | None = None
    ) -> None:
        self._sessions = sessions
        self._options = options
        self._others = others

    def most_body_bytes(self, raw_path: str) -> int:
        """How large a request to this path may be; 0 if it does not send messages to a session."""
        match = _PATH.fullmatch(raw_path)
        if match is None or match["transport"] in _RECEIVING:
            return 0
        elsewhere = self._elsewhere(match["session"]) is not None
        if not elsewhere and not isinstance(self._sessions.find(match["session"]), SockJSSession):
            return 0
        # at worst two bytes, "é", come as six, "\u00e9"
        return 3 * self._sessions.limits.max_message_bytes + 1024

    async def respond(self, request: Request) -> Response | StreamingResponse | None:
        """The answer to a request, or None if its path is not that of a transport."""
        match = _PATH.fullmatch(request.raw_path)
        if match is None:
            return None
        key, transport = match["session"], match["transport"]
        if self._others is not None and (path := self._others.path_of(key)) is not None:
            # The head of what receives comes at once; what sends may have to wait for room.
            slack = 0.0 if transport in _RECEIVING else self._sessions.limits.outbox_seconds
            return await self._others.ask(path, request, siblings.ASK_SECONDS + slack)
        headers = (*sockjs.NOT_CACHED, *sockjs.session_cookie(request, self._options))
        try:
            if transport == "jsonp_send":
                return await self._take_form(request, key, headers)
            headers += sockjs.cross_origin(request) if transport not in ("htmlfile", "jsonp") else ()
            if transport == "xhr_send":
                return await self._take(request, key, headers)
            return self._receive(request, key, _RECEIVING[transport], headers)
        except _Wrong as wrong:
            return Response.text(500, f"{wrong}\n", *headers)

    def _elsewhere(self, key: str) -> str | None:
        return None if self._others is None else self._others.path_of(key)

    # -- receiving ------------------------------------------------------------------------------

    def _receive(
        self, request: Request, key: str, receiving: _Receiving, headers: tuple[tuple[str, str], ...]
    ) -> Response | StreamingResponse:
        if request.method == "OPTIONS" and receiving.method == "POST":
            return sockjs.preflight(request, "OPTIONS, POST", *sockjs.session_cookie(request, self._options))
        if request.method != receiving.method:
            allowed = ("OPTIONS", "POST") if receiving.method == "POST" else (receiving.method,)
            return not_allowed(*allowed)
        callback = _callback(request) if receiving.calls_back else ""
        framing = receiving.framing(callback)
        if receiving.streams:
            framing = dataclasses.replace(framing, most_bytes=self._sessions.limits.sockjs_response_bytes)
        session = self._sessions.find(key)
        if session is None:
            try:
                session = self._sessions.open(key, request)
            except TooManySessions:
                return Response.text(503, "503 Service Unavailable\n", *headers)
        if isinstance(session, SockJSSession):
            run = partial(session.answer, framing)
        else:
            run = partial(framing.send_only, session)
        if receiving.streams:
            headers += (("X-Accel-Buffering", "no"),)  # nginx would wait until it has some of it
        if receiving.calls_back:
            headers += (("X-Content-Type-Options", "nosniff"),)
        return StreamingResponse(200, (("Content-Type", receiving.content_type), *headers), run)

    # -- sending --------------------------------------------------------------------------------

    async def _take(self, request: Request, key: str, headers: tuple[tuple[str, str], ...]) -> Response:
        if request.method == "OPTIONS":
            return sockjs.preflight(request, "OPTIONS, POST", *sockjs.session_cookie(request, self._options))
        if request.method != "POST":
            return not_allowed("OPTIONS", "POST")
        refusal = await self._hand_over(request.body, key, headers)
        # a browser that is not told the type of nothing takes it for XML, and complains
        return refusal or Response(204, (("Content-Type", "text/plain; charset=UTF-8"), *headers))

    async def _take_form(self, request: Request, key: str, headers: tuple[tuple[str, str], ...]) -> Response:
        if request.method != "POST":
            return not_allowed("POST")
        body = request.body
        if request.http_headers.get("content-type", "").partition(";")[0].strip().lower() == _FORM:
            body = _form_field(body, b"d")
        refusal = await self._hand_over(body, key, headers)
        return refusal or Response.text(200, "ok", *headers)

    async def _hand_over(
        self, body: bytes, key: str, headers: tuple[tuple[str, str], ...]
    ) -> Response | None:
        if not body:
            raise _Wrong("Payload expected.")
        try:
            messages = _decode_list(body)
        except msgspec.ValidationError:
            raise _Wrong("Payload expected.") from None
        except (msgspec.DecodeError, UnicodeError):
            raise _Wrong("Broken JSON encoding.") from None
        if len(messages) > sockjs.MOST_MESSAGES:
            raise _Wrong("Too many messages.")
        session = self._sessions.find(key)
        if session is None:
            return Response.text(404, "404 Error: Page not found\n", *headers)
        if isinstance(session, SockJSSession) and not await session.take_in(messages):
            return Response.text(503, "503 Service Unavailable\n", *headers)
        return None


def _callback(request: Request) -> str:
    try:
        query = parse_qs(request.query, keep_blank_values=True, max_num_fields=100)
    except ValueError:
        raise _Wrong('too many parameters beside "callback"') from None
    names = query.get("c") or query.get("callback")
    if not names or not names[0]:
        raise _Wrong('"callback" parameter required')
    if _CALLBACK.fullmatch(names[0]) is None:
        raise _Wrong('invalid "callback" parameter')
    return names[0]


def _form_field(body: bytes, wanted: bytes) -> bytes:
    """The first value of a form's field; empty if it is missing."""
    # Not by splitting: there is room for millions of fields.
    _, _, rest = (b"&" + body).partition(b"&" + wanted + b"=")
    return _percent_decoded(rest.partition(b"&")[0].replace(b"+", b" "))


def _percent_decoded(text: bytes) -> bytes:
    """As `urllib.parse.unquote_to_bytes`, which takes seconds and a gigabyte for what a message has room for.

    So it is turned into quoted-printable, whose escapes are the same but for the character before them; that
    is decoded in C. What becomes of an escape that is none is undefined.
    """
    return binascii.a2b_qp(text.replace(b"=", b"=3D").replace(b"%", b"="))
