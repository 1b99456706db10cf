"""The Django project on the server's port: requests go to its WSGI application, on threads of their own.

Trio's thread has the connection and the application's thread the application; they speak by an `_Exchange`:
the thread asks for a part of the request's body or hands over a part of the response, the connection's task
does it. So nothing is held of a body but what is on its way, whatever its size, and a client that is slow,
or gone, is noticed where it can be waited for.
"""

from __future__ import annotations

import contextlib
import logging
import math
import queue
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

import h11
import outcome
import trio

from trigger_ddp.server import forwarded, sockets, wsgi_environ, wsgi_input
from trigger_ddp.server.answering import Answering
from trigger_ddp.server.exchange import Request
from trigger_ddp.server.exchange import Response as OwnResponse
from trigger_ddp.server.http1 import HTTPStream, Refused, refusal
from trigger_ddp.server.wsgi_response import ClientGone, FileWrapper, Response, WSGIApplication

if TYPE_CHECKING:
    from trigger_ddp.server.workers import Workers  # which needs Django to be set up

logger = logging.getLogger(__name__)

#: Seconds a client may send nothing while its body is waited for, and …
BODY_SECONDS = 30.0
#: … bytes a second that it has to send on the average. It may be as far behind as `BODY_SECONDS` are.
BODY_RATE = 500
#: What is taken of a body before the application is called: who drips a form must not hold a thread.
PREFETCH_BYTES = 65536
#: What is thrown away of a body that the application has not read, to keep the connection.
DISCARD_BYTES = 256 * 1024
#: Seconds that may take.
DISCARD_SECONDS = 5.0
#: A part of a response that is larger is waited for until it is sent; others while the next is made.
SEND_BEHIND_BYTES = 256 * 1024

_RETRY_SECONDS = 1

_Order = Callable[[], Awaitable[bytes]]


class Gateway:
    """Answers requests by a WSGI application.

    Args:
        application: the application.
        workers: its threads, running.
        max_waiting: requests that may wait for a thread; others are told to come again.
        max_body_bytes: of the largest body; 0: there is no limit.
        forwarded_count: how many proxies stand before the server, see `forwarded`.
        multiprocess: whether other processes serve the same application.
        answering: tells whether the server is about to end.

    Attributes:
        workers: as given.
    """

    def __init__(
        self,
        application: WSGIApplication,
        workers: Workers,
        *,
        max_waiting: int = 1000,
        max_body_bytes: int = 0,
        forwarded_count: int = 0,
        multiprocess: bool = False,
        answering: Answering | None = None,
    ) -> None:
        self._application = application
        self.workers = workers
        self._max_waiting = max_waiting
        self._max_body_bytes = max_body_bytes
        self._forwarded_count = forwarded_count
        self._multiprocess = multiprocess
        self._answering = answering or Answering()

    async def respond(self, http: HTTPStream, request: Request) -> None:
        """Answer a request of which the head was read.

        Raises:
            Refused: the request can't be given to the application.
            trio.BrokenResourceError: the client went away.
        """
        if not request.target.startswith("/"):
            raise refusal(400)
        if self._max_body_bytes and int(request.http_headers.get("content-length", 0)) > self._max_body_bytes:
            raise refusal(413)
        exchange = _Exchange(http, request, self._max_body_bytes, self._answering)
        await exchange.prefetch()
        if self.workers.statistics().waiting >= self._max_waiting:
            logger.warning("all threads are busy, and %d requests wait for one", self._max_waiting)
            retry = ("Retry-After", str(_RETRY_SECONDS))
            raise Refused(OwnResponse.text(503, "503 Service Unavailable\n", retry))
        environ = self._environ(http, request)
        await exchange.run(self.workers, self._application, environ)
        await exchange.discard()

    def _environ(self, http: HTTPStream, request: Request) -> dict[str, Any]:
        own = "https" if isinstance(http.stream, trio.SSLStream) else "http"
        return wsgi_environ.build(
            request,
            scheme=forwarded.scheme(request.http_headers, own, self._forwarded_count),
            version=http.version,
            server=sockets.own_address_of(http.stream),
            multiprocess=self._multiprocess,
        )


class _Exchange:
    """One request and its response, between the connection's task and the application's thread.

    The thread gives orders, each of which is answered, whatever happens to the task: the thread can't be left
    waiting. After a part of a response it goes on without the answer, and looks at it before the next part;
    so one part is sent while the next is made, and after the last the thread is free.
    """

    def __init__(self, http: HTTPStream, request: Request, max_body_bytes: int, answering: Answering) -> None:
        self._http = http
        self._request = request
        self._max_body_bytes = max_body_bytes
        self._answering = answering
        self._token = trio.lowlevel.current_trio_token()
        self._orders, self._todo = trio.open_memory_channel[_Order](math.inf)
        self._answers: queue.SimpleQueue[outcome.Value[bytes] | outcome.Error] = queue.SimpleQueue()
        self._owed = 0  # the thread's: how many answers it has not looked at yet
        self._over = False  # whether orders are not carried out any more
        self._name = f"{request.method} {request.target} of {request.client}"
        self._first = b""  # what was taken of the body beforehand
        self._body_bytes = 0
        self._slack = BODY_SECONDS
        self._request_read = trio.Event()
        self._lost = False
        self._closes = False  # whether the client was told that the connection ends with this response

    # On trio's thread

    async def prefetch(self) -> None:
        """Take the body before the application is called, if it is small, or else its beginning.

        Raises:
            Refused: it is none, or comes too slowly.
            trio.BrokenResourceError: the client went away.
        """
        if self._http.client_waits:
            return  # the application decides whether it wants the body
        first = bytearray()
        while len(first) < PREFETCH_BYTES and (part := await self._receive()):
            first += part
        self._first = bytes(first)

    async def run(self, workers: Workers, application: WSGIApplication, environ: dict[str, Any]) -> None:
        """Have the application called, and do what it wants of the connection.

        Raises:
            Refused: the rest of the request is not acceptable, or the application ended without a response.
            trio.BrokenResourceError: the client went away.
        """
        failure: Refused | trio.BrokenResourceError | None = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._call, workers, application, environ)
                nursery.start_soon(self._watch, nursery.cancel_scope)
                async for order in self._todo:
                    try:
                        answer = outcome.Value(await order())
                    except (Refused, trio.BrokenResourceError) as error:
                        failure = error
                        self._answers.put(_gone(error))
                        break
                    except BaseException as error:  # such as trio.Cancelled
                        self._answers.put(_gone(error))
                        raise
                    self._answers.put(answer)
                nursery.cancel_scope.cancel()
        finally:
            self._hang_up()
        if failure is not None:
            raise failure
        if not self._http.status and not self._lost:
            raise refusal(500)

    async def discard(self) -> None:
        """Read what the application did not want of the body, unless the connection is not to be kept."""
        if not self._http.response_complete or self._closes:
            return
        left = DISCARD_BYTES
        try:
            with trio.move_on_after(DISCARD_SECONDS):
                while left > 0 and (part := await self._http.body_part()):
                    left -= len(part)
        except Refused as refused:
            logger.debug("what %s sent after its response is no body: %s", self._request.client, refused)

    async def _call(self, workers: Workers, application: WSGIApplication, environ: dict[str, Any]) -> None:
        try:
            await workers.run(self._serve, application, environ)
        except RuntimeError as error:  # it raised what is no Exception, as sys.exit() does
            logger.error("answering %s failed", self._name, exc_info=error)
        finally:
            self._orders.close()

    async def _watch(self, everything: trio.CancelScope) -> None:
        """Notice that the client goes away while its response is made.

        One that only says that it sends no more may still be waiting for its response: it is sent the
        first part, and taken for gone after that.
        """
        await self._request_read.wait()
        try:
            await self._http.watch()
        except trio.BrokenResourceError:
            self._lost = True
            everything.cancel()

    async def _receive(self) -> bytes:
        begun = trio.current_time()
        with trio.move_on_after(max(self._slack, 0)) as waiting:
            part = await self._http.body_part()
        if waiting.cancelled_caught:
            raise refusal(408)
        gained = len(part) / BODY_RATE - (trio.current_time() - begun)
        self._slack = min(BODY_SECONDS, self._slack + gained)
        self._body_bytes += len(part)
        if self._max_body_bytes and self._body_bytes > self._max_body_bytes:
            raise refusal(413)
        if self._http.request_complete:
            self._request_read.set()
        return part

    async def _transmit(self, events: tuple[h11.Event, ...]) -> bytes:
        first = events[0]
        if isinstance(first, h11.Response) and self._is_last_of_connection():
            headers = [*first.headers.raw_items(), (b"Connection", b"close")]
            closing = h11.Response(status_code=first.status_code, reason=first.reason, headers=headers)
            events = closing, *events[1:]
            self._closes = True
        await self._http.send(*events)
        return b""

    def _is_last_of_connection(self) -> bool:
        """Whether more is to come of the request than would be discarded, or the server ends."""
        if self._answering.closing or self._http.client_waits:
            return True
        if self._http.request_complete:
            return False
        return int(self._request.http_headers.get("content-length", 0)) - self._body_bytes > DISCARD_BYTES

    def _accept(self, order: _Order) -> None:
        try:
            self._orders.send_nowait(order)
        except (trio.ClosedResourceError, trio.BrokenResourceError) as error:
            self._answers.put(_gone(error))

    def _hang_up(self) -> None:
        """Carry out no more orders; who waits for an answer gets one."""
        self._over = True
        self._orders.close()
        while True:
            try:
                self._todo.receive_nowait()
            except trio.EndOfChannel:
                break
            self._answers.put(_gone(None))
        self._todo.close()

    # On the application's thread

    def _serve(self, application: WSGIApplication, environ: dict[str, Any]) -> None:
        """Call the application, and send what it answers."""
        incoming = wsgi_input.Incoming(self._first, partial(self._order, self._receive))
        with contextlib.ExitStack() as stack:

            def prepared(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
                environ["wsgi.file_wrapper"] = FileWrapper
                if environ.pop("HTTP_TRANSFER_ENCODING", None) is None:
                    environ["wsgi.input"] = wsgi_input.buffered(incoming)
                else:
                    file, length = wsgi_input.spooled(incoming)
                    environ["wsgi.input"], environ["CONTENT_LENGTH"] = stack.enter_context(file), str(length)
                return application(environ, start_response)

            Response(self._send, method=self._request.method, name=self._name).run(prepared, environ)

    def _send(self, *events: h11.Event) -> None:
        if self._http.half_closed and self._http.status:
            raise ClientGone("it has closed its side of the connection")
        size = sum(len(event.data) for event in events if isinstance(event, h11.Data))
        self._order(partial(self._transmit, events), look=size > 0, wait=size > SEND_BEHIND_BYTES)

    def _order(self, order: _Order, *, look: bool = True, wait: bool = True) -> bytes:
        if look:
            self._look()
        if self._over:
            raise ClientGone("the connection has ended")
        try:
            self._token.run_sync_soon(self._accept, order)
        except trio.RunFinishedError:
            raise ClientGone("the server has ended") from None
        self._owed += 1
        return self._look() if wait else b""

    def _look(self) -> bytes:
        """Wait for the answers that are owed. Returns the last one."""
        answer = b""
        while self._owed:
            self._owed -= 1
            answer = self._answers.get().unwrap()
        return answer


def _gone(error: BaseException | None) -> outcome.Error:
    return outcome.Error(ClientGone("the connection has ended" if error is None else repr(error)))
