"""A WSGI application's response, by the rules of PEP 3333; runs on the application's thread.

What the rules forbid is refused with an exception in the application, which then has no other chance to
write something between the lines of a response: what leaves here is one status, headers, and a body.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from email.utils import formatdate
from types import TracebackType
from typing import Any, Protocol
from wsgiref.util import FileWrapper as StandardFileWrapper
from wsgiref.util import is_hop_by_hop

import h11

logger = logging.getLogger(__name__)

WSGIApplication = Callable[[dict[str, Any], Any], Iterable[bytes]]
_ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]

_STATUS = re.compile(r"(?P<code>[2-5]\d\d) (?P<reason>[\t\x20-\x7e\xa0-\xff]*)")
_WITHOUT_BODY = (204, 304)


class ClientGone(ConnectionError):
    """The client is not there any more; what the application reads or sends goes nowhere."""


class Sender(Protocol):
    """Passes events on to the client, or raises `ClientGone`; a later call waits until they are sent."""

    def __call__(self, *events: h11.Event) -> None: ...


class FileWrapper(StandardFileWrapper):
    """``wsgi.file_wrapper``: a file in blocks of a size for sockets; Django asks for 4096 bytes."""

    def __init__(self, filelike: Any, blksize: int = 65536) -> None:
        super().__init__(filelike, max(blksize, 65536))


class Response:
    """The response to one request.

    Args:
        send: passes on what is to be sent.
        method: of the request.
        name: of the request, for the log.
    """

    def __init__(self, send: Sender, *, method: str, name: str) -> None:
        self._send = send
        self._method = method
        self._name = name
        self._head: h11.Response | None = None
        self._left: int | None = None  # bytes still to come by its Content-Length
        self._head_sent = False
        self._without_body = method == "HEAD"
        self._ended = False
        self._too_long = False

    def run(self, application: WSGIApplication, environ: dict[str, Any]) -> None:
        """Call the application, and send what it answers. What it raises is logged, nothing is raised."""
        result: Iterable[bytes] | None = None
        try:
            result = application(environ, self.start_response)
            if isinstance(result, list | tuple):
                self._know_length(result)
            for data in result:
                self.write(data)
                if self._too_long or (self._head_sent and self._without_body):
                    break
            self._finish()
        except Exception as error:  # noqa: BLE001  it is logged there
            self._fail(error)
        finally:
            if (close := getattr(result, "close", None)) is not None:
                try:
                    close()
                except Exception:
                    logger.exception("closing the response to %s failed", self._name)

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: _ExcInfo | None = None
    ) -> Callable[[bytes], None]:
        """As of PEP 3333.

        Raises:
            TypeError, ValueError: status or headers can't be sent, or were given before.
        """
        if exc_info:
            try:
                if self._head_sent and exc_info[1] is not None:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # the traceback holds this frame
        elif self._head is not None:
            raise ValueError("start_response() was called before, and not because of an error")
        found = _STATUS.fullmatch(_checked_str(status, "status"))
        if found is None:
            raise ValueError(f"{status!r} is not a status such as '200 OK'")
        code = int(found["code"])
        kept = [pair for name, value in headers for pair in _header(name, value, code)]
        lengths = {value for name, value in kept if name.lower() == "content-length"}
        if len(lengths) > 1 or not all(length.isascii() and length.isdigit() for length in lengths):
            raise ValueError(f"Content-Length is {', '.join(sorted(lengths))}, which is not a number")
        self._without_body = self._method == "HEAD" or code in _WITHOUT_BODY
        self._left = int(lengths.pop()) if lengths and not self._without_body else None
        if not any(name.lower() == "date" for name, _ in kept):
            kept.append(("Date", formatdate(usegmt=True)))
        # h11 refuses line breaks and whatever else would be more than a name and a value.
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in kept]
        self._head = h11.Response(status_code=code, reason=found["reason"].encode("latin-1"), headers=raw)
        return self.write

    def write(self, data: bytes) -> None:
        """Send a part of the body; the first one takes the head along.

        Raises:
            ClientGone: nobody is there to take it.
            TypeError: it is not bytes.
        """
        if not isinstance(data, bytes):
            raise TypeError(f"the body of a response is bytes, not {type(data).__qualname__}")
        if self._head is None:
            raise ValueError("the application has not called start_response()")
        if not data or self._too_long:
            return
        if self._without_body:
            if events := self._take_head():
                self._send(*events)
            return
        if self._left is not None and len(data) > self._left:
            logger.error("the response to %s is longer than its Content-Length; it is cut", self._name)
            self._too_long = True
            data = data[: self._left]
        if self._ended:
            return
        events = self._take_head()
        if data:
            events.append(h11.Data(data=data))
        if self._left is not None:
            self._left -= len(data)
            self._ended = not self._left
        if self._ended:  # what the application still does is not waited for
            events.append(h11.EndOfMessage())
        self._send(*events)

    def _know_length(self, parts: list[bytes] | tuple[bytes, ...]) -> None:
        """Where the whole body is there, its length need not be the application's care."""
        head = self._head
        if head is None or self._head_sent or head.status_code in _WITHOUT_BODY:
            return
        if any(name == b"content-length" for name, _ in head.headers):
            return
        length = sum(map(len, parts))
        self._head = _with_length(head, length)
        self._left = None if self._without_body else length

    def _finish(self) -> None:
        if self._ended:
            return
        if self._head is None:
            raise ValueError("the application has not called start_response()")
        if self._left and not self._without_body:
            logger.error("the response to %s ends %d bytes short of its length", self._name, self._left)
            if self._head_sent:
                return  # and the connection is closed: the client must not take this for the whole
            self._replace_by_500()
            return
        if not self._head_sent and self._left is None and not self._without_body:
            self._head = _with_length(self._head, 0)
        self._ended = True
        self._send(*self._take_head(), h11.EndOfMessage())

    def _fail(self, error: Exception) -> None:
        """The application raised, or can't go on because its client is gone."""
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ClientGone):
                logger.debug("%s went away during its response: %s", self._name, cause)
                return
            cause = cause.__cause__ or cause.__context__
        logger.error("answering %s failed", self._name, exc_info=error)
        if not self._head_sent:
            self._replace_by_500()

    def _replace_by_500(self) -> None:
        self._head, self._left = None, None
        body = b"500 Internal Server Error\n"
        headers = [("Content-Type", "text/plain; charset=UTF-8"), ("Content-Length", str(len(body)))]
        self.start_response("500 Internal Server Error", headers)
        try:
            self.write(body)
            if not self._ended:  # HEAD
                self._finish()
        except ClientGone as gone:
            logger.debug("%s is not told of its failure: %s", self._name, gone)

    def _take_head(self) -> list[h11.Event]:
        """The head, once."""
        if self._head_sent:
            return []
        assert self._head is not None
        self._head_sent = True
        return [self._head]


def _header(name: object, value: object, status: int) -> list[tuple[str, str]]:
    """A header as it is sent; none for one that is not the application's to say."""
    name, value = _checked_str(name, "the name of a header"), _checked_str(value, "the value of a header")
    if is_hop_by_hop(name):
        logger.debug("header %s of a response is left out: it is about the connection", name)
        return []
    if name.lower() == "content-length" and status == 204:
        return []  # RFC 9110, section 8.6
    return [(name, value.strip(" \t"))]


def _checked_str(text: object, what: str) -> str:
    if type(text) is not str:
        raise TypeError(f"{what} is a str, not {type(text).__qualname__}")
    return text


def _with_length(head: h11.Response, length: int) -> h11.Response:
    headers = [*head.headers.raw_items(), (b"Content-Length", b"%d" % length)]
    return h11.Response(status_code=head.status_code, reason=head.reason, headers=headers)
