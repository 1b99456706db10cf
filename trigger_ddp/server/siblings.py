"""SockJS over HTTP where several processes serve one port: each request goes to the worker of its session.

The requests of one session come over many connections, each accepted by any of the workers. The session's
id, which the client has chosen and names in every request, says which worker has it; the others ask that one
over its Unix socket and pass its answer on.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import h11
import msgspec
import trio

from trigger_ddp.server.exchange import Request, Response, Send, StreamingResponse

logger = logging.getLogger(__name__)

_READ_SIZE = 65536
#: Bytes that say how long what follows is: who the client is. Then comes the request, as HTTP.
_LENGTH_BYTES = 4

#: Headers about one connection, which say nothing about another.
_HOP_BY_HOP = frozenset({b"connection", b"content-length", b"date", b"keep-alive", b"transfer-encoding"})


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


async def ask(path: str, request: Request) -> Response | StreamingResponse:
    """The answer of another worker.

    Args:
        path: where it is reached.
        request: with its whole body.
    """
    try:
        stream = await trio.open_unix_socket(path)
    except OSError as error:
        return _unavailable(request, error)
    answer = _Answer(stream)
    try:
        return await answer.begin(request)
    except (trio.BrokenResourceError, h11.RemoteProtocolError) as error:
        return _unavailable(request, error)
    finally:
        if not answer.goes_on:
            await trio.aclose_forcefully(stream)


def _unavailable(request: Request, error: Exception) -> Response:
    logger.warning("the worker of %s can't be asked: %r", request.raw_path, error)
    return Response.text(503, "503 Service Unavailable\n")


class _Answer:
    """The response to one request, read from another worker."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.goes_on = False  # whether the body is still to come
        self._stream = stream
        self._http = h11.Connection(h11.CLIENT)

    async def begin(self, request: Request) -> Response | StreamingResponse:
        client = msgspec.json.encode((request.client_address, request.client_port))
        headers = [(name, value) for name, value in request.headers if name not in _HOP_BY_HOP]
        headers += [(b"content-length", b"%d" % len(request.body)), (b"connection", b"close")]
        events = (
            h11.Request(method=request.method, target=request.target, headers=headers),
            h11.Data(data=request.body),
            h11.EndOfMessage(),
        )
        sent = [self._http.send(event) or b"" for event in events]
        await self._stream.send_all(b"".join([len(client).to_bytes(_LENGTH_BYTES), client, *sent]))
        response = await self._next()
        if not isinstance(response, h11.Response):
            raise trio.BrokenResourceError("it has hung up")
        headers = [(name, value) for name, value in response.headers if name not in _HOP_BY_HOP]
        told = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in headers)
        if (b"transfer-encoding", b"chunked") in response.headers:
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
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(bytes(await self._stream.receive_some(_READ_SIZE)))
        return event


async def serve(stream: trio.abc.Stream, answer: Callable[..., Awaitable[None]]) -> None:
    """Take in what another worker says of its client, and answer the client's request.

    Args:
        stream: from the other worker.
        answer: called with the stream and ``peer=``, the client's address and port.
    """
    try:
        length = int.from_bytes(await _receive_exactly(stream, _LENGTH_BYTES))
        peer = msgspec.json.decode(await _receive_exactly(stream, length), type=tuple[str, int | None])
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return  # its client has gone
    await answer(stream, peer=peer)


async def _receive_exactly(stream: trio.abc.Stream, count: int) -> bytes:
    received = bytearray()
    while len(received) < count:
        data = await stream.receive_some(count - len(received))
        if not data:
            raise trio.BrokenResourceError("it has hung up")
        received += data
    return bytes(received)
