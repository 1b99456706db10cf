"""The first bytes of a connection decide what it becomes: a WebSocket, or plain HTTP requests.

HTTP is read under limits: a client that is slow with its request, or sends too much of it, is answered and
let go. One connection's trouble never leaves `serve_stream()`.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from email.utils import formatdate
from typing import Any

import h11
import trio

from trigger_ddp.protocol.frames import Wire
from trigger_ddp.server import access, forwarded, operations, sockets, sockjs, websocket
from trigger_ddp.server.admission import Admission
from trigger_ddp.server.answering import Answering
from trigger_ddp.server.connection import Connection, Limits
from trigger_ddp.server.exchange import Handler, Request, Response, StreamingResponse, not_allowed, not_found
from trigger_ddp.server.http1 import HEAD_SECONDS, HTTPStream, Refused, refusal
from trigger_ddp.server.metrics import Metrics
from trigger_ddp.server.origins import Origins
from trigger_ddp.server.siblings import Siblings
from trigger_ddp.server.sockjs_http import Transports
from trigger_ddp.server.sockjs_registry import Sessions
from trigger_ddp.server.wsgi import Gateway

__all__ = ["Application", "Connection", "Handler", "Limits", "Request", "Response", "serve_stream"]

logger = logging.getLogger(__name__)

#: Largest body of a request that is not the Django project's.
MAX_BODY_BYTES = 1024 * 1024
#: Seconds a client has for the whole body of such a request.
BODY_SECONDS = 30.0
#: Seconds a connection may stay open between two requests.
KEEP_ALIVE_SECONDS = 75.0
_FAILED = "answering %s %s of %s failed"
_RAW_PATHS = frozenset({"/websocket", "/websocket/", "/sockjs/websocket", "/sockjs/websocket/"})


@dataclasses.dataclass(frozen=True, slots=True)
class Application:
    """What the server serves.

    Args:
        on_connection: runs the whole DDP session of one WebSocket; the connection is closed when it returns.
            None: there is no DDP here.
        handler: answers plain requests for paths that are not the server's own; None: they are not found.
        limits: what one WebSocket client may take up.
        sockjs: what SockJS leaves to the server.
        sessions: the SockJS sessions of its other transports, running; None: there are only WebSockets.
        forwarded_count: how many proxies stand before the server, see `forwarded`.
        operations: answers requests below `operations.PREFIX`; None: they are not found.
        metrics: where connections and refusals are counted.
        siblings: the other workers, which have a share of the SockJS sessions; None: there are none.
        admission: how many connections there may be with one address, where only the request tells which
            that is; None: any number.
        head_at_once: send the head of a streaming response before there is a body.
        web: the Django project, which is asked what is not the server's own, instead of ``handler``.
        answering: counts the requests that are being answered.
        log_access: count each request and write a line to the access log; else another worker does.
        origins: whose pages may connect.
    """

    on_connection: Callable[[Connection], Awaitable[None]] | None
    handler: Handler | None = None
    limits: Limits = dataclasses.field(default_factory=Limits)
    sockjs: sockjs.Options = dataclasses.field(default_factory=sockjs.Options)
    sessions: Sessions | None = None
    forwarded_count: int = 0
    operations: Handler | None = None
    metrics: Metrics = dataclasses.field(default_factory=Metrics)
    siblings: Siblings | None = None
    admission: Admission | None = None
    head_at_once: bool = False
    web: Gateway | None = None
    answering: Answering = dataclasses.field(default_factory=Answering)
    log_access: bool = True
    origins: Origins = dataclasses.field(default_factory=Origins)


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
    client = conversation.client
    try:
        upgrade = await conversation.run()
        del conversation  # and its parser: the WebSocket may last for days
        if upgrade is not None:
            with _held(app, upgrade.request.client_address):
                await websocket.serve(
                    stream,
                    upgrade.request,
                    key=upgrade.key,
                    early=upgrade.early,
                    wire=upgrade.wire,
                    on_connection=upgrade.on_connection,
                    limits=app.limits,
                    metrics=app.metrics,
                )
    except* (trio.BrokenResourceError, trio.ClosedResourceError) as errors:
        logger.debug("%s went away: %r", client, errors.exceptions)
    except* Exception:
        logger.exception("serving %s failed", client)
    finally:
        await sockets.close_at_once(stream)


async def serve_admitted(
    stream: trio.abc.Stream,
    handler: Callable[[Any], Awaitable[object]],
    app: Application,
    *,
    tls: bool = False,
) -> None:
    """Have ``handler`` serve a connection if there may be one more; else answer that there are too many.

    Args:
        stream: the connection, without TLS yet.
        handler: serves it until it is closed.
        app: what is served, with an `Admission`.
        tls: whether the client expects TLS; it is then cut instead, as a handshake is what costs most.
    """
    admission = app.admission
    assert admission is not None
    address, port = sockets.peer_of(stream)
    with admission.connection(None if app.forwarded_count else address) as refusal:
        if refusal is None:
            await handler(stream)
            return
    with admission.telling() as may_tell:
        if may_tell and not tls:
            http = HTTPStream(stream, Request("", "", client_address=address, client_port=port).client)
            try:
                await http.respond(refusal, close=True)
                await sockets.close_gently(stream)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass  # gone already, which is as good


def _held(app: Application, address: str) -> AbstractContextManager[None]:
    """A ``with`` block of a WebSocket, which counts where the connection did not yet."""
    if app.forwarded_count and app.admission is not None:
        return app.admission.of_address(address)
    return nullcontext()


@dataclasses.dataclass(frozen=True, slots=True)
class _Upgrade:
    """A WebSocket handshake found to be in order."""

    request: Request
    wire: Wire
    on_connection: Callable[[Connection], Awaitable[None]]
    key: bytes
    early: bytes


class _Conversation:
    """The HTTP requests of one connection, one after the other, until one becomes a WebSocket."""

    def __init__(self, stream: trio.abc.Stream, app: Application, peer: tuple[str, int | None]) -> None:
        self._stream = stream
        self._app = app
        self._transports = (
            Transports(app.sessions, app.sockjs, app.siblings) if app.sessions is not None else None
        )
        self._address, self._port = peer
        self.client = Request("", "", client_address=self._address, client_port=self._port).client
        self._http = HTTPStream(stream, self.client)

    async def run(self) -> _Upgrade | None:
        """Answer until the connection has ended, or is to become a WebSocket."""
        patience = HEAD_SECONDS
        while True:
            log = access.Entry(self.client)
            try:
                upgrade = await self._one(patience, log)
            finally:
                if self._app.log_access:
                    self._count_response(log.upgraded)
                    log.write(self._http.status, self._http.body_bytes)
            if upgrade is not None:
                return upgrade
            if not self._http.next_cycle():
                await sockets.close_gently(self._stream)
                return None
            patience = KEEP_ALIVE_SECONDS

    async def _one(self, patience: float, log: access.Entry) -> _Upgrade | None:
        """Answer the next request, unless it is to become a WebSocket."""
        try:
            head = await self._http.head(patience)
            if head is None:
                return None
            request = self._request(head)
            log.begin(request)
            with self._app.answering.one():
                if self._app.web is not None and not self._is_own(request):
                    await self._app.web.respond(self._http, request)
                    return None
                outcome = await self._answer(await self._with_body(request))
            if isinstance(outcome, _Upgrade):
                log.upgraded = True
                return outcome
        except Refused as refused:
            self._count(refused.response.status)
            if not self._http.status:
                await self._http.respond(refused.response, close=True)
        return None

    def _count_response(self, upgraded: bool) -> None:
        status = 101 if upgraded else self._http.status
        if status:
            self._app.metrics.responses[f"{status // 100}xx"] += 1

    def _count(self, status: int) -> None:
        if status >= 500:
            return  # that is not the client's fault
        reason = {408: "request_timeout", 413: "request_too_large", 431: "request_too_large"}
        self._app.metrics.refusals[reason.get(status, "bad_request")] += 1

    # Reading

    def _request(self, head: h11.Request) -> Request:
        request = Request(
            method=head.method.decode("ascii"),
            target=_origin_form(head.target.decode("ascii")),
            headers=tuple(head.headers),
            client_address=self._address,
            client_port=self._port,
        )
        return self._forwarded(request) if self._app.forwarded_count else request

    async def _with_body(self, request: Request) -> Request:
        with trio.move_on_after(BODY_SECONDS) as waiting:
            body = await self._http.body(self._most_body_bytes(request))
        if waiting.cancelled_caught:
            raise refusal(408)
        return dataclasses.replace(request, body=body) if body else request

    def _is_own(self, request: Request) -> bool:
        """Whether a request is for the server itself, not for the Django project."""
        return (
            _is_sockjs(request.raw_path)
            or request.raw_path in _RAW_PATHS
            or _is_reserved(request.path)
            or _is_about_server(request)
        )

    def _most_body_bytes(self, request: Request) -> int:
        for_sockjs = self._transports.most_body_bytes(request.raw_path) if self._transports else 0
        return max(MAX_BODY_BYTES, for_sockjs)

    def _forwarded(self, request: Request) -> Request:
        address = forwarded.client_address(request.http_headers, self._address, self._app.forwarded_count)
        port = self._port if address == self._address else None
        return dataclasses.replace(request, client_address=address, client_port=port)

    # Answering

    async def _answer(self, request: Request) -> Response | StreamingResponse | _Upgrade:
        """Send the answer to a request, unless it is to become a WebSocket."""
        ddp = self._app.on_connection
        wire = _wire_of(request.raw_path, self._app.sockjs)
        outcome: Response | StreamingResponse | _Upgrade
        if _is_reserved(request.path):
            outcome = await self._ask(self._app.operations, request)
        elif ddp is None:
            outcome = not_found()
        elif (wire is not None or _is_sockjs(request.raw_path)) and not self._app.origins.admit(request):
            self._app.metrics.refusals["origin"] += 1
            outcome = Response.text(403, "Pages of this origin may not connect.\n", ("Vary", "Origin"))
        elif wire is not None:
            outcome = self._upgrade(request, wire, ddp)
        elif _is_sockjs(request.raw_path):
            outcome = await self._ask_sockjs(request)
        elif _is_about_server(request):
            outcome = Response(204, (("Allow", "GET, HEAD, OPTIONS"),))
        else:
            outcome = await self._ask(self._app.handler, request)
        if isinstance(outcome, Response):
            await self._http.respond(outcome)
        elif isinstance(outcome, StreamingResponse):
            await self._stream_response(request, outcome)
        return outcome

    async def _ask_sockjs(self, request: Request) -> Response | StreamingResponse:
        answer = await self._transports.respond(request) if self._transports else None
        return answer or sockjs.respond(request, self._app.sockjs)

    async def _ask(self, handler: Handler | None, request: Request) -> Response | StreamingResponse:
        if handler is None:
            return not_found()
        try:
            return await handler(request) or not_found()
        except Exception:
            logger.exception(_FAILED, request.method, request.target, request.client)
            return Response.text(500, "500 Internal Server Error\n")

    def _upgrade(
        self, request: Request, wire: Wire, on_connection: Callable[[Connection], Awaitable[None]]
    ) -> Response | _Upgrade:
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
        if request.body or self._http.version != b"1.1" or not self._http.is_handshake():
            return Response.text(400, "A WebSocket is opened by an HTTP/1.1 request without a body.\n")
        if self._app.forwarded_count and self._app.admission is not None:
            refusal = self._app.admission.refusal(request.client_address)
            if refusal is not None:
                return refusal
        # A copy, without the decoded headers, which few applications ask for: it is kept for days.
        return _Upgrade(dataclasses.replace(request), wire, on_connection, key.encode(), self._http.unread)

    # Sending

    async def _stream_response(self, request: Request, response: StreamingResponse) -> None:
        head = h11.Response(
            status_code=response.status, headers=[*response.headers, ("Date", formatdate(usegmt=True))]
        )
        if request.method == "HEAD":
            await self._http.send(head, h11.EndOfMessage())
            return
        waiting: list[h11.Event] = [head]

        async def send(data: bytes) -> None:
            if data:
                events = [*waiting, h11.Data(data=data)]
                waiting.clear()
                await self._http.send(*events)

        if self._app.head_at_once:
            await self._http.send(waiting.pop())
        failed = gone = False

        async def end_with_client() -> None:
            nonlocal gone
            try:
                await self._http.watch()
            except trio.BrokenResourceError:
                gone = True
            if gone or self._http.half_closed:
                gone = True
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(end_with_client)
            try:
                await response.run(send)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                raise
            except Exception:
                logger.exception(_FAILED, request.method, request.target, request.client)
                failed = True
            nursery.cancel_scope.cancel()
        if failed and waiting:
            await self._http.respond(Response.text(500, "500 Internal Server Error\n"))
        elif not failed and not gone:
            await self._http.send(*waiting, h11.EndOfMessage())


def _wire_of(raw_path: str, options: sockjs.Options) -> Wire | None:
    """The framing of the WebSocket at a path, or None if there is no WebSocket."""
    if raw_path in _RAW_PATHS:
        return Wire.RAW
    return Wire.SOCKJS if options.websocket and sockjs.is_session(raw_path) else None


def _is_sockjs(raw_path: str) -> bool:
    return raw_path == sockjs.PREFIX or raw_path.startswith(f"{sockjs.PREFIX}/")


def _is_reserved(path: str) -> bool:
    """Of a decoded path: what a proxy would decode must not mean something else behind it."""
    return f"{path}/".startswith(operations.PREFIX)


def _is_about_server(request: Request) -> bool:
    return request.method == "OPTIONS" and request.target == "*"


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
