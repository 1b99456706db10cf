"""HTTP requests and responses as values, and what answers the ones with the others."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Mapping
from functools import cached_property
from types import MappingProxyType
from urllib.parse import unquote


@dataclasses.dataclass(frozen=True)
class Request:
    """One HTTP request.

    Args:
        method: ``GET``, ``HEAD``, …
        target: as the client wrote it, without scheme and host: ``/a%20b?c=d``.
        headers: names in lower case, values without surrounding blanks, in the client's order.
        body: all of it.
        client_address: the address at the other end of the socket: an IP address, ``unix`` or ``unknown``.
        client_port: its port, if it has one.
    """

    method: str
    target: str
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""
    client_address: str = "unknown"
    client_port: int | None = None

    @property
    def raw_path(self) -> str:
        """The path before percent-decoding, which is how routes are told apart."""
        return self.target.partition("?")[0]

    @property
    def path(self) -> str:
        """The path with percent-escapes decoded. A file name made from it has to be checked first."""
        return unquote(self.raw_path)

    @property
    def query(self) -> str:
        """What follows the question mark, undecoded."""
        return self.target.partition("?")[2]

    @cached_property
    def http_headers(self) -> Mapping[str, str]:
        """Headers by lower-case name; the values of a repeated one are joined by a comma."""
        headers: dict[str, str] = {}
        for name, value in self.headers:
            key, text = name.decode("latin-1"), value.decode("latin-1")
            headers[key] = f"{headers[key]}, {text}" if key in headers else text
        return MappingProxyType(headers)

    @property
    def client(self) -> str:
        """The client's address and port for the log."""
        return (
            self.client_address if self.client_port is None else f"{self.client_address}:{self.client_port}"
        )

    def header_tokens(self, name: str) -> frozenset[str]:
        """The comma-separated parts of a header, in lower case; empty if it is missing."""
        parts = self.http_headers.get(name, "").lower().split(",")
        return frozenset(part.strip() for part in parts) - {""}


@dataclasses.dataclass(frozen=True, slots=True)
class Response:
    """One HTTP response. ``Content-Length`` and ``Date`` are added when it is sent."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    @classmethod
    def text(cls, status: int, text: str, *headers: tuple[str, str]) -> Response:
        """A response of plain text."""
        return cls(status, (("Content-Type", "text/plain; charset=UTF-8"), *headers), text.encode())


#: Takes some bytes of a response's body; returns once the client's socket has them.
Send = Callable[[bytes], Awaitable[None]]


@dataclasses.dataclass(frozen=True, slots=True)
class StreamingResponse:
    """An HTTP response whose body comes while it is sent. ``Date`` is added.

    The head leaves with the first bytes of the body. Without a ``Content-Length`` among the headers the
    body is chunked, or for HTTP/1.0 ends with the connection.

    Args:
        status: its status, 200 or more.
        headers: its headers.
        run: is given `Send` and returns when the body is complete. It is cancelled when the client goes
            away, which a client does that closes only its sending side, too. What `send()` raises
            (`trio.BrokenResourceError`, `trio.ClosedResourceError`) should pass through it. What it raises
            besides is logged; the client gets a 500 if nothing was sent yet, else a body without an end.
            It is not called for a ``HEAD`` request.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    run: Callable[[Send], Awaitable[None]]


#: Answers a request, or returns None to say that it is not one of its own.
Handler = Callable[[Request], Awaitable[Response | StreamingResponse | None]]


def not_found() -> Response:
    """404."""
    return Response.text(404, "404 Error: Page not found\n")


def not_allowed(*methods: str) -> Response:
    """405, naming the methods that are."""
    return Response(405, (("Allow", ", ".join(methods)),))
