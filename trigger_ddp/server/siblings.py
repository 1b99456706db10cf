"""How a client finds its session where several processes serve one port, whichever accepts it.

A session's id says which worker has it: of SockJS's sessions without a WebSocket, whose requests come over
many connections, the id that the client has chosen; of DDP sessions, to which a client may come back, the
one that the worker has. The others ask that worker over its Unix socket: `ask` has it answer a request,
`hand_over` has it take over a client.

What goes over such a socket begins with four bytes of length and an `Asked` or `HandedOver` as JSON.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import h11
import msgspec
import trio

from trigger_ddp.alea import meteor_random_id
from trigger_ddp.protocol.frames import Wire
from trigger_ddp.server import handover
from trigger_ddp.server.connection import Connection
from trigger_ddp.server.exchange import Request, Response, Send, StreamingResponse

logger = logging.getLogger(__name__)

_READ_SIZE = 65536
_LENGTH_BYTES = 4

#: Headers about one connection, which say nothing about another.
_HOP_BY_HOP = frozenset(
    {
        b"connection", b"content-length", b"date", b"expect", b"keep-alive", b"proxy-connection", b"te",
        b"trailer", b"transfer-encoding", b"upgrade",
    }
)  # fmt: skip


#: Seconds that another worker may take to answer a request, or to begin an answer that goes on.
ASK_SECONDS = 5.0
#: Seconds that another worker may take to say whether it has a session.
HAND_OVER_SECONDS = 2.0


class Asked(msgspec.Struct, tag=True, frozen=True):
    """What follows is an HTTP request of this client; its answer is to be sent back."""

    address: str
    port: int | None


class HandedOver(msgspec.Struct, tag=True, frozen=True):
    """What follows is the rest of this client's connection, if its session can be resumed.

    Args:
        request: that opened the connection.
        wire: what frames the client wants.
        connect: its message that asks for its session.
    """

    request: Request
    wire: str
    connect: str


_decode = msgspec.json.Decoder(Asked | HandedOver).decode


class Siblings:
    """The other workers, as one of them sees them.

    Args:
        number: this worker's, 1 for the first.
        paths: where each worker is reached, the first worker's first.
    """

    def __init__(self, number: int, paths: Sequence[str]) -> None:
        self._own = number - 1
        self._paths = paths

    def path_of(self, session: str) -> str | None:
        """Where the worker is reached that has the SockJS session of this id; None: it is this one."""
        number = zlib.crc32(session.encode()) % len(self._paths)
        return None if number == self._own else self._paths[number]

    def new_id(self) -> str:
        """A random id for a DDP session of this worker."""
        while self.path_of(session := meteor_random_id()) is not None:
            pass
        return session

    async def ask(self, path: str, request: Request, patience: float) -> Response | StreamingResponse:
        """The answer of another worker; 503 if it has none.

        Args:
            path: where it is reached.
            request: with its whole body.
            patience: seconds that the head of its answer may take.
        """
        try:
            with trio.fail_after(patience):
                return await _ask(path, request)
        except (OSError, trio.BrokenResourceError, trio.TooSlowError) as error:
            logger.warning("the worker of %s can't be asked: %r", request.raw_path, error)
            return Response.text(503, "503 Service Unavailable\n")
        except h11.LocalProtocolError:  # one request that HTTP/1.1 does not know
            return Response.text(400, "400 Bad Request\n")

    async def hand_over(self, connection: Connection, session: str, connect: str) -> trio.abc.Stream | None:
        """Find the worker that can go on with a client's session.

        Args:
            connection: the client's, for `handover.pass_on`.
            session: the id of its session.
            connect: its message that asks for it.

        Returns:
            The stream to pass the connection on to; None: no other worker has the session.
        """
        path = self.path_of(session)
        if path is None:
            return None
        told = HandedOver(connection.request, connection.wire.value, connect)
        try:
            with trio.fail_after(HAND_OVER_SECONDS):
                stream = await trio.open_unix_socket(path)
                if await _takes_over(stream, told):
                    return stream
        except (OSError, trio.BrokenResourceError, trio.TooSlowError) as error:
            logger.warning("the worker of session %r can't be asked: %r", session, error)
        return None


async def _takes_over(stream: trio.abc.Stream, told: HandedOver) -> bool:
    """Whether the worker at the other end of a stream does; if not, the stream is closed."""
    accepted = False
    try:
        await _begin(stream, told)
        accepted = await stream.receive_some(1) == handover.ACCEPTED
    finally:
        if not accepted:
            await trio.aclose_forcefully(stream)
    return accepted


async def _ask(path: str, request: Request) -> Response | StreamingResponse:
    stream = await trio.open_unix_socket(path)
    answer = _Answer(stream)
    try:
        return await answer.begin(request)
    finally:
        if not answer.goes_on:
            await trio.aclose_forcefully(stream)


async def _begin(stream: trio.abc.Stream, told: Asked | HandedOver, rest: bytes = b"") -> None:
    data = msgspec.json.encode(told)
    await stream.send_all(len(data).to_bytes(_LENGTH_BYTES) + data + rest)


class _Answer:
    """The response to one request, read from another worker."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.goes_on = False  # whether the body is still to come
        self._stream = stream
        self._http = h11.Connection(h11.CLIENT)

    async def begin(self, request: Request) -> Response | StreamingResponse:
        headers = [(name, value) for name, value in request.headers if name not in _HOP_BY_HOP]
        if "host" not in request.http_headers:  # which HTTP/1.0 may lack
            headers.append((b"host", b"localhost"))
        headers += [(b"content-length", b"%d" % len(request.body)), (b"connection", b"close")]
        events = (
            h11.Request(method=request.method, target=request.target, headers=headers),
            h11.Data(data=request.body),
            h11.EndOfMessage(),
        )
        data = b"".join(self._http.send(event) or b"" for event in events)
        await _begin(self._stream, Asked(request.client_address, request.client_port), data)
        response = await self._next()
        if not isinstance(response, h11.Response):
            raise trio.BrokenResourceError("it has hung up")
        headers = [(name, value) for name, value in response.headers if name not in _HOP_BY_HOP]
        told = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in headers)
        if (b"transfer-encoding", b"chunked") in response.headers and request.method != "HEAD":
            self.goes_on = True
            return StreamingResponse(response.status_code, told, self._pass_on)
        return Response(response.status_code, told, b"".join([data async for data in self._body()]))

    async def _pass_on(self, send: Send) -> None:
        try:
            async for data in self._body():
                await send(data)
        finally:
            await trio.aclose_forcefully(self._stream)

    async def _body(self) -> AsyncIterator[bytes]:
        while isinstance(event := await self._next(), h11.Data):
            yield bytes(event.data)

    async def _next(self) -> object:
        try:
            while (event := self._http.next_event()) is h11.NEED_DATA:
                self._http.receive_data(bytes(await self._stream.receive_some(_READ_SIZE)))
        except h11.RemoteProtocolError as error:
            raise trio.BrokenResourceError("it has broken off") from error
        return event


async def serve(
    stream: trio.abc.Stream,
    answer: Callable[..., Awaitable[None]],
    take_over: Callable[[trio.abc.Stream, Wire, Request, str], Awaitable[None]],
) -> None:
    """Do what another worker asks for.

    Args:
        stream: from the other worker.
        answer: answers HTTP; called with the stream and ``peer=``, the client's address and port.
        take_over: goes on with a client's session, or sends `handover.REFUSED`; called with the stream and
            what `HandedOver` has.
    """
    try:
        length = int.from_bytes(await _receive_exactly(stream, _LENGTH_BYTES))
        told = _decode(await _receive_exactly(stream, length))
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return  # its client has gone
    match told:
        case Asked():
            await answer(stream, peer=(told.address, told.port))
        case HandedOver():
            await take_over(stream, Wire(told.wire), told.request, told.connect)


async def _receive_exactly(stream: trio.abc.Stream, count: int) -> bytes:
    received = bytearray()
    while len(received) < count:
        data = await stream.receive_some(count - len(received))
        if not data:
            raise trio.BrokenResourceError("it has hung up")
        received += data
    return bytes(received)
