"""A SockJS client that uses no WebSocket, over each of the other transports; to the tests, one all the same.

It forgives nothing: a response that is not byte for byte as its transport has it is an AssertionError.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import secrets
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from typing import Self
from urllib.parse import quote, urlsplit

from websockets.exceptions import ConnectionClosedError

#: The transports; all have xhr_send to send, but jsonp.
POLLING = ("xhr", "jsonp")
STREAMING = ("xhr_streaming", "eventsource", "htmlfile")
TRANSPORTS = (*POLLING, *STREAMING)

_SECONDS = 60


class SockJSSocket:
    """One session, which is open. Iterating gives its frames from ``o`` to ``c[…]``, or until it is cut.

    Args:
        url: the server's, ``http://…`` or ``ws://…`` without a path.
        transport: one of `TRANSPORTS`.
        headers: of every request.
        context: speaks TLS, if given.

    Attributes:
        session: its path on the server.
        close_code, close_reason: what the server closed it with; None and nothing while it is open, and 1006
            if it was cut.
        responses: number of responses by which it received.
    """

    def __init__(
        self,
        url: str,
        transport: str,
        headers: dict[str, str] | None = None,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.transport = transport
        self.session = f"/sockjs/{secrets.randbelow(1000):03}/{secrets.token_hex(4)}"
        self.close_code: int | None = None
        self.close_reason = ""
        self.responses = 0
        self._closed = False
        self._headers = headers or {}
        self._context = context
        parts = urlsplit(url)
        assert parts.hostname is not None
        self._address = parts.hostname, parts.port
        self._receiver, self._sender = self._connection(), self._connection()
        self._response: http.client.HTTPResponse | None = None
        self._sending = threading.Lock()
        self._asked = threading.Event()  # a request that receives is on its way
        self._frames = self._receive()
        self._first = next(self._frames)  # before it nothing can be sent

    def _connection(self) -> http.client.HTTPConnection:
        if self._context is not None:
            return http.client.HTTPSConnection(*self._address, timeout=_SECONDS, context=self._context)
        return http.client.HTTPConnection(*self._address, timeout=_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Go away without a word, which is all that a client without a WebSocket can.

        Where somebody iterates, that is while a request waits: between two, the server would not notice.
        """
        if self.close_code is None and self._asked.wait(0.5):
            time.sleep(0.05)
        self._closed = True
        # A server that has closed the session still answers the request that made it do so.
        leaving = (self._receiver, self._sender) if self.close_code is None else (self._receiver,)
        for connection in leaving:
            if connection.sock is not None:
                with contextlib.suppress(OSError):
                    connection.sock.shutdown(socket.SHUT_RDWR)
        with self._sending:
            self._sender.close()

    def __iter__(self) -> Iterator[str]:
        if self._first:
            first, self._first = self._first, ""
            yield first
        # not "yield from", which would end them with whoever stops half way
        for frame in self._frames:  # noqa: UP028
            yield frame

    # -- sending --------------------------------------------------------------------------------

    def send(self, body: str) -> None:
        """Send a JSON array of messages.

        Raises:
            ConnectionClosedError: the session is over.
        """
        try:
            status, answer = self.post(body)
        except (OSError, http.client.HTTPException) as error:
            raise ConnectionClosedError(None, None) from error
        if status == 404:
            raise ConnectionClosedError(None, None)
        assert (status, answer) == ((200, b"ok") if self.transport == "jsonp" else (204, b"")), answer

    def post(self, body: str) -> tuple[int, bytes]:
        """Send what is perhaps no message; the status of the answer, and its body."""
        headers, path, data = dict(self._headers), "xhr_send", body.encode()
        if self.transport == "jsonp":
            headers["Content-Type"], path = "application/x-www-form-urlencoded", "jsonp_send"
            data = b"d=" + quote(body).encode()
        with self._sending:
            self._sender.request("POST", f"{self.session}/{path}", data, headers)
            response = self._sender.getresponse()
            return response.status, response.read()

    # -- receiving ------------------------------------------------------------------------------

    def _receive(self) -> Iterator[str]:
        """The frames, until there are no more."""
        method = "POST" if self.transport.startswith("xhr") else "GET"
        query = "?c=_jp.a1" if self.transport in ("jsonp", "htmlfile") else ""
        path = f"{self.session}/{self.transport}{query}"
        try:
            while not self._closed:
                self._receiver.request(method, path, headers=self._headers)
                self._asked.set()
                with self._receiver.getresponse() as response:
                    assert response.status == 200, (response.status, response.read())
                    self.responses += 1
                    for frame in self._frames_of(response):
                        if frame.startswith("c"):
                            self.close_code, self.close_reason = json.loads(frame[1:])
                            assert response.read() == b""
                            yield frame
                            return
                        yield frame
                self._asked.clear()
        except (OSError, http.client.HTTPException):  # cut, by either side
            self.close_code = 1006
        finally:
            self._receiver.close()

    def _frames_of(self, response: http.client.HTTPResponse) -> Iterator[str]:
        match self.transport:
            case "xhr":
                body = response.read()
                self._asked.clear()
                yield _between("", body, "\n")
            case "jsonp":
                body = response.read()
                self._asked.clear()
                yield _quoted("/**/_jp.a1(", body, ");\r\n")
            case "xhr_streaming":
                assert _line(response) == b"h" * 2048 + b"\n"
                while line := _line(response):
                    yield _between("", line, "\n")
            case "eventsource":
                assert _line(response) == b"\r\n"
                while line := _line(response):
                    frame = _between("data: ", line, "\r\n")
                    assert frame.count("%") == frame.count("%25")
                    assert _line(response) == b"\r\n"
                    yield frame.replace("%25", "%")
            case "htmlfile":
                while (line := _line(response).strip()) != b"</script>":
                    assert line
                assert _line(response) == b"\r\n"
                while line := _line(response):
                    assert line == b"<script>\n"
                    frame = _quoted("p(", _line(response), ");\n")
                    assert _line(response) == b"</script>\r\n"
                    yield frame


def _line(response: http.client.HTTPResponse) -> bytes:
    """The next line; empty behind the last one."""
    line = response.readline()
    if line and not line.endswith(b"\n"):
        raise http.client.IncompleteRead(line)
    return line


def _between(before: str, data: bytes, after: str) -> str:
    text = data.decode()
    assert text.startswith(before), text
    assert text.endswith(after), text
    return text[len(before) : -len(after)]


def _quoted(before: str, data: bytes, after: str) -> str:
    frame = json.loads(_between(before, data, after))
    assert isinstance(frame, str)
    return frame
