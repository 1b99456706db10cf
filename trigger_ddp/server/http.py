"""The first bytes of a connection decide what it becomes: a WebSocket, or plain HTTP requests.

HTTP is read by h11 under limits: a client that is slow with its request, or sends too much of it, is
answered and let go. One connection's trouble never leaves `serve_stream()`.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import logging
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from http import HTTPStatus

import h11
import trio

from trigger_ddp.protocol.frames import Wire
from trigger_ddp.server import forwarded, sockets, sockjs, websocket
from trigger_ddp.server.connection import Connection, Limits
from trigger_ddp.server.exchange import Handler, Request, Response, StreamingResponse, not_allowed, not_found
from trigger_ddp.server.siblings import Siblings
from trigger_ddp.server.sockjs_http import Transports
from trigger_ddp.server.sockjs_registry import Sessions

__all__ = ["Application", "Connection", "Handler", "Limits", "Request", "Response", "serve_stream"]

logger = logging.getLogger(__name__)

#: Largest request head: request line and headers.
MAX_HEAD_BYTES = 32 * 1024
#: Largest request body.
MAX_BODY_BYTES = 1024 * 1024
#: Seconds a client has for its whole request head, from its first byte (or from connecting) on.
HEAD_SECONDS = 10.0
#: Seconds a client has for its whole request body.
BODY_SECONDS = 30.0
#: Seconds a connection may stay open between two requests.
KEEP_ALIVE_SECONDS = 75.0
#: Seconds a client may take for each `_SLICE` of a response.
SEND_SECONDS = 30.0

_FAILED = "answering %s %s of %s failed"
_SLICE = 65536
_READ_SIZE = 16384
_RAW_PATHS = frozenset({"/websocket", "/websocket/", "/sockjs/websocket", "/sockjs/websocket/"})


@dataclasses.dataclass(frozen=True, slots=True)
class Application:
    """What the server serves.

    Args:
        on_connection: runs the whole DDP session of one WebSocket; the connection is closed when it returns.
        handler: answers plain requests for paths that are not the server's own; None: they are not found.
        limits: what one WebSocket client may take up.
        sockjs: what SockJS leaves to the server.
        sessions: the SockJS sessions of its other transports, running; None: there are only WebSockets.
        forwarded_count: how many proxies stand before the server, see `forwarded`.
        siblings: the other workers, which have a share of the SockJS sessions; None: there are none.
        head_at_once: send the head of a streaming response before there is a body.
    """

    on_connection: Callable[[Connection], Awaitable[None]]
    handler: Handler | None = None
    limits: Limits = dataclasses.field(default_factory=Limits)
    sockjs: sockjs.Options = dataclasses.field(default_factory=sockjs.Options)
    sessions: Sessions | None = None
    forwarded_count: int = 0
    siblings: Siblings | None = None
    head_at_once: bool = False


async def serve_stream(
    stream: trio.abc.Stream, app: Application, *, peer: tuple[str, int | None] | None = None
) -> None:
    """Serve one connection until it is closed, which it is when this returns.

    Args:
        stream: the connection.
        app: what is served.
        peer: whose it is, address and port, where the stream does not tell.

    Raises:
        Nothing but `trio.Cancelled`: what goes wrong is logged.
    """
    conversation = _Conversation(stream, app, peer or sockets.peer_of(stream))
    try:
        await conversation.run()
    except* (trio.BrokenResourceError, trio.ClosedResourceError) as errors:
        logger.debug("%s went away: %r", conversation.client, errors.exceptions)
    except* Exception:
        logger.exception("serving %s failed", conversation.client)
    finally:
        await sockets.close_at_once(stream)


@dataclasses.dataclass(frozen=True, slots=True)
class _Upgrade:
    """A WebSocket handshake found to be in order."""

    request: Request
    wire: Wire
    key: bytes
    early: bytes


class _Refused(Exception):
    """The request ends here, with this answer; the connection is closed after it."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status)
        self.response = response


class _Conversation:
    """The HTTP requests of one connection, one after the other, until one becomes a WebSocket."""

    def __init__(self, stream: trio.abc.Stream, app: Application, peer: tuple[str, int | None]) -> None:
        self._stream = stream
        self._app = app
        self._transports = (
            Transports(app.sessions, app.sockjs, app.siblings) if app.sessions is not None else None
        )
        self._gone = False  # whether the client went away while it was sent a response
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._address, self._port = peer
        self.client = Request("", "", client_address=self._address, client_port=self._port).client

    async def run(self) -> None:
        patience = HEAD_SECONDS
        while True:
            try:
                request = await self._read(patience)
                if request is None:
                    return
                outcome = await self._answer(request)
            except _Refused as refused:
                await self._send(refused.response, close=True)
                outcome = refused.response
            if isinstance(outcome, _Upgrade):
                await websocket.serve(
                    self._stream,
                    outcome.request,
                    key=outcome.key,
                    early=outcome.early,
                    wire=outcome.wire,
                    on_connection=self._app.on_connection,
                    limits=self._app.limits,
                )
                return
            if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
                await sockets.close_gently(self._stream)
                return
            self._http.start_next_cycle()
            patience = KEEP_ALIVE_SECONDS

    # Reading

    async def _read(self, patience: float) -> Request | None:
        """The next request with its body, or None if the client has no more."""
        begun = bool(self._http.trailing_data[0])
        with trio.move_on_after(HEAD_SECONDS if begun else patience) as waiting:
            while (head := self._next_event()) is h11.NEED_DATA:
                data = await self._stream.receive_some(_READ_SIZE)
                if data and not begun:
                    begun = True
                    waiting.deadline = min(waiting.deadline, trio.current_time() + HEAD_SECONDS)
                self._http.receive_data(bytes(data))
        if waiting.cancelled_caught:
            if begun:
                raise _Refused(Response.text(408, "408 Request Timeout\n"))
            return None
        if not isinstance(head, h11.Request):  # ConnectionClosed
            return None
        request = Request(
            method=head.method.decode("ascii"),
            target=_origin_form(head.target.decode("ascii")),
            headers=tuple(head.headers),
            client_address=self._address,
            client_port=self._port,
        )
        if self._app.forwarded_count:
            request = self._forwarded(request)
        with trio.move_on_after(BODY_SECONDS) as waiting:
            body = await self._read_body(self._most_body_bytes(request))
        if waiting.cancelled_caught:
            raise _Refused(Response.text(408, "408 Request Timeout\n"))
        return dataclasses.replace(request, body=body) if body else request

    def _most_body_bytes(self, request: Request) -> int:
        for_sockjs = self._transports.most_body_bytes(request.raw_path) if self._transports else 0
        return max(MAX_BODY_BYTES, for_sockjs)

    def _forwarded(self, request: Request) -> Request:
        address = forwarded.client_address(request.http_headers, self._address, self._app.forwarded_count)
        port = self._port if address == self._address else None
        return dataclasses.replace(request, client_address=address, client_port=port)

    async def _read_body(self, most: int) -> bytes:
        body = bytearray()
        while True:
            event = self._next_event()
            if event is h11.NEED_DATA:
                if self._http.they_are_waiting_for_100_continue:
                    await self._send_event(h11.InformationalResponse(status_code=100, headers=[]))
                self._http.receive_data(bytes(await self._stream.receive_some(_READ_SIZE)))
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > most:
                    raise _Refused(Response.text(413, "413 Content Too Large\n"))
            else:  # EndOfMessage
                return bytes(body)

    def _next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        try:
            return self._http.next_event()
        except h11.RemoteProtocolError as error:
            if self._http.trailing_data[0][:1] == b"\x16":
                logger.debug("%s speaks TLS, which this port does not", self.client)
            else:
                logger.debug("%s sent no HTTP: %s", self.client, error)
            status = HTTPStatus(error.error_status_hint)
            raise _Refused(Response.text(status, f"{status} {status.phrase}\n")) from error

    # Answering

    async def _answer(self, request: Request) -> Response | StreamingResponse | _Upgrade:
        """Send the answer to a request, unless it is to become a WebSocket."""
        wire = _wire_of(request.raw_path)
        outcome: Response | StreamingResponse | _Upgrade
        if wire is not None:
            outcome = self._upgrade(request, wire)
        elif request.raw_path == sockjs.PREFIX or request.raw_path.startswith(f"{sockjs.PREFIX}/"):
            outcome = await self._ask_sockjs(request)
        elif request.method == "OPTIONS" and request.target == "*":
            outcome = Response(204, (("Allow", "GET, HEAD, OPTIONS"),))
        else:
            outcome = await self._ask_handler(request)
        if isinstance(outcome, _Upgrade):
            return outcome
        logger.debug("%s %s %s: %d", request.client, request.method, request.target, outcome.status)
        if isinstance(outcome, Response):
            await self._send(outcome, without_body=request.method == "HEAD")
        else:
            await self._stream_response(request, outcome)
        return outcome

    async def _ask_sockjs(self, request: Request) -> Response | StreamingResponse:
        answer = await self._transports.respond(request) if self._transports else None
        return answer or sockjs.respond(request, self._app.sockjs)

    async def _ask_handler(self, request: Request) -> Response | StreamingResponse:
        if self._app.handler is None:
            return not_found()
        try:
            return await self._app.handler(request) or not_found()
        except Exception:
            logger.exception(_FAILED, request.method, request.target, request.client)
            return Response.text(500, "500 Internal Server Error\n")

    def _upgrade(self, request: Request, wire: Wire) -> Response | _Upgrade:
        """Judge a WebSocket handshake as RFC 6455, section 4.2.1, wants it judged."""
        if request.method != "GET":
            return not_allowed("GET")
        headers = request.http_headers
        if "websocket" not in request.header_tokens("upgrade"):
            if wire is Wire.SOCKJS:  # what SockJS's own tests want
                return Response.text(400, 'Can "Upgrade" only to "WebSocket".\n')
            return Response.text(
                426, "This is a WebSocket.\n", ("Upgrade", "websocket"), ("Connection", "Upgrade")
            )
        if "upgrade" not in request.header_tokens("connection"):
            return Response.text(400, '"Connection" must be "Upgrade".\n')
        if headers.get("sec-websocket-version") != "13":
            return Response.text(426, "Only version 13 is spoken here.\n", ("Sec-WebSocket-Version", "13"))
        key = headers.get("sec-websocket-key", "")
        if not _is_key(key):
            return Response.text(400, '"Sec-WebSocket-Key" must be 16 bytes in base64.\n')
        if request.body or self._http.their_http_version != b"1.1" or self._next_event() is not h11.PAUSED:
            return Response.text(400, "A WebSocket is opened by an HTTP/1.1 request without a body.\n")
        return _Upgrade(request, wire, key.encode(), self._http.trailing_data[0])

    # Sending

    async def _send(self, response: Response, *, without_body: bool = False, close: bool = False) -> None:
        headers = [*response.headers, ("Date", formatdate(usegmt=True))]
        if response.status >= 200 and response.status not in (204, 304):
            headers.append(("Content-Length", str(len(response.body))))
        else:
            without_body = True
        if close:
            headers.append(("Connection", "close"))
        await self._send_event(
            h11.Response(status_code=response.status, headers=headers),
            *([] if without_body or not response.body else [h11.Data(data=response.body)]),
            h11.EndOfMessage(),
        )

    async def _stream_response(self, request: Request, response: StreamingResponse) -> None:
        head = h11.Response(
            status_code=response.status, headers=[*response.headers, ("Date", formatdate(usegmt=True))]
        )
        if request.method == "HEAD":
            await self._send_event(head, h11.EndOfMessage())
            return
        waiting: list[h11.Event] = [head]

        async def send(data: bytes) -> None:
            if data:
                events = [*waiting, h11.Data(data=data)]
                waiting.clear()
                await self._send_event(*events)

        if self._app.head_at_once:
            await self._send_event(waiting.pop())
        failed = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, nursery.cancel_scope)
            try:
                await response.run(send)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                raise
            except Exception:
                logger.exception(
                    "answering %s %s of %s failed", request.method, request.target, request.client
                )
                failed = True
            nursery.cancel_scope.cancel()
        if failed and waiting:
            await self._send(Response.text(500, "500 Internal Server Error\n"))
        elif not failed and not self._gone:
            await self._send_event(*waiting, h11.EndOfMessage())

    async def _watch(self, response: trio.CancelScope) -> None:
        """Cancel a response when its client goes away; what it sends meanwhile is for later."""
        while len(self._http.trailing_data[0]) < _READ_SIZE:
            try:
                data = await self._stream.receive_some(_READ_SIZE)
            except trio.BrokenResourceError:
                data = b""
            self._http.receive_data(bytes(data))
            if not data:
                self._gone = True
                response.cancel()
                return

    async def _send_event(self, *events: h11.Event) -> None:
        data = b"".join(self._http.send(event) or b"" for event in events)
        for start in range(0, len(data), _SLICE):
            with trio.move_on_after(SEND_SECONDS) as waiting:
                await self._stream.send_all(data[start : start + _SLICE])
            if waiting.cancelled_caught:
                raise trio.BrokenResourceError("the client does not take in its response")


def _wire_of(raw_path: str) -> Wire | None:
    """The framing of the WebSocket at a path, or None if there is no WebSocket."""
    if raw_path in _RAW_PATHS:
        return Wire.RAW
    return Wire.SOCKJS if sockjs.is_session(raw_path) else None


def _origin_form(target: str) -> str:
    """A request target without scheme and host, which proxies may send (RFC 9112, section 3.2.2)."""
    for scheme in ("http://", "https://"):
        if target[: len(scheme)].lower() == scheme:
            _, slash, rest = target[len(scheme) :].partition("/")
            return slash + rest or "/"
    return target


def _is_key(text: str) -> bool:
    try:
        return len(base64.b64decode(text, validate=True)) == 16
    except (binascii.Error, ValueError):
        return False
