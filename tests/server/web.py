"""A WSGI application behind the server, and a client that reads whole responses."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

import h11
import trio
import trio.testing

from tests.server import network
from tests.server.network import Served, serving
from tests.server.test_http import request
from trigger_ddp.server import http
from trigger_ddp.server.answering import Answering
from trigger_ddp.server.workers import Workers
from trigger_ddp.server.wsgi import Gateway

Environ = dict[str, Any]
TEXT = [("Content-Type", "text/plain")]
PATIENCE = 10


def echo(environ: Environ, start_response: Any) -> Iterable[bytes]:
    """Answers with the path and what was sent."""
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    start_response("200 OK", TEXT)
    return [environ["REQUEST_METHOD"].encode(), b" ", environ["PATH_INFO"].encode("latin-1"), b" ", body]


def saying(*parts: Any, status: str = "200 OK", headers: Any = TEXT) -> Callable[..., Any]:
    """An application that answers so, whatever it is asked."""

    def application(environ: Environ, start_response: Any) -> Iterable[bytes]:
        start_response(status, list(headers))
        return iter(parts)

    return application


def chunked(line: str, *chunks: bytes) -> bytes:
    framed = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))
    return request(line, "Transfer-Encoding: chunked") + framed


class Body:
    """An iterable that counts how often it was closed."""

    def __init__(self, parts: Iterable[bytes]) -> None:
        self.parts = iter(parts)
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        return self.parts

    def close(self) -> None:
        self.closed += 1


@dataclasses.dataclass(frozen=True)
class Answer:
    """One response: headers by lower-case name (the last one), and whether its body came to its end."""

    status: int
    headers: dict[str, str]
    body: bytes
    complete: bool = True


class Client:
    """One connection of a client that leaves nothing to a library when it asks."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._h11 = h11.Connection(h11.CLIENT)

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def ask(self, data: bytes) -> Answer:
        """Send a request and read the response to it."""
        await self.send(data)
        return await self.answer("HEAD" if data.startswith(b"HEAD") else "GET")

    async def answer(self, method: str = "GET") -> Answer:
        """Read the next response, which is to a request of this method."""
        head = await self.head(method)
        body = bytearray()
        complete = True
        try:
            while part := await self.part():
                body += part
        except h11.RemoteProtocolError:
            complete = False
        headers = {name.decode(): value.decode("latin-1") for name, value in head.headers}
        return Answer(head.status_code, headers, bytes(body), complete)

    async def head(self, method: str = "GET") -> h11.Response | h11.InformationalResponse:
        """The next response's head; of a request's only answer, or of its 100."""
        if self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE:
            self._h11.start_next_cycle()
        if self._h11.our_state is h11.IDLE:
            self._h11.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
            self._h11.send(h11.EndOfMessage())
        event = await self._next()
        assert isinstance(event, h11.Response | h11.InformationalResponse), event
        return event

    async def part(self) -> bytes:
        """What comes next of a body; empty at its end."""
        event = await self._next()
        return bytes(event.data) if isinstance(event, h11.Data) else b""

    async def is_closed(self) -> bool:
        """Wait for the server to close the connection, without another word."""
        rest = self._h11.trailing_data[0]
        while data := await self.stream.receive_some(65536):
            rest += data
        return not rest

    async def _next(self) -> Any:
        while (event := self._h11.next_event()) is h11.NEED_DATA:
            self._h11.receive_data(bytes(await self.stream.receive_some(65536)))
        return event


class Site:
    """A served application."""

    def __init__(self, served: Served, answering: Answering, workers: Workers) -> None:
        self.served = served
        self.answering = answering
        self.workers = workers

    async def connect(self) -> Client:
        return Client(await self.served.connect())


@contextlib.asynccontextmanager
async def site(
    application: Any, *, threads: int = 4, served: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[Site]:
    """Serve an application; options are `Gateway`'s, and ``served`` has those of `http.Application`."""
    async with Workers(threads, drain_seconds=5) as workers:
        answering = Answering()
        gateway = Gateway(application, workers, answering=answering, **options)
        async with serving(web=gateway, answering=answering, **(served or {})) as running:
            yield Site(running, answering, workers)


@contextlib.asynccontextmanager
async def in_memory(application: Any) -> AsyncIterator[Client]:
    """A client of an application, with nothing between them that could be late."""
    async with Workers(1) as workers:
        app = http.Application(network.echo, web=Gateway(application, workers))
        ours, theirs = trio.testing.memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(http.serve_stream, ours, app)
            yield Client(theirs)
            await theirs.aclose()
