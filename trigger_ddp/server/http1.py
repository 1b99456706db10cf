"""One connection's HTTP/1.1: bytes to h11's events and back, under limits.

h11 knows the grammar; this knows how long a client may take, and what is refused although h11 would let
it pass because somebody before us may have understood it differently.
"""

from __future__ import annotations

import logging
from email.utils import formatdate
from http import HTTPStatus

import h11
import trio

from trigger_ddp.server.exchange import Response

logger = logging.getLogger(__name__)

#: Largest request head: request line and headers.
MAX_HEAD_BYTES = 32 * 1024
#: Seconds a client has for its whole request head, from its first byte (or from connecting) on.
HEAD_SECONDS = 10.0
#: Seconds a client may take for each `_SLICE` of a response.
SEND_SECONDS = 30.0
#: What is read of what a client sends while it is answered.
READ_AHEAD_BYTES = 16384

_SLICE = 65536
_HEAD_READ = 16384
_BODY_READ = 65536


class Refused(Exception):
    """The request ends here, with this answer; the connection is closed after it."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status)
        self.response = response


def refusal(status: int) -> Refused:
    """A `Refused` that says no more than its status."""
    # Python before 3.13 has the name of an older RFC.
    phrase = "Content Too Large" if status == 413 else HTTPStatus(status).phrase
    return Refused(Response.text(status, f"{status} {phrase}\n"))


class HTTPStream:
    """The messages of one connection. Its methods are for one task at a time, `watch` excepted.

    Where they send or receive they raise `trio.BrokenResourceError` if the client is gone.

    Args:
        stream: the connection.
        client: who it is, for the log.

    Attributes:
        request_complete: whether the last byte of the present request has been read.
        status: of the response to the present request, 0 before there is one.
        body_bytes: how many bytes of its body were sent.
        half_closed: whether the client has said that it sends no more.
    """

    def __init__(self, stream: trio.abc.Stream, client: str) -> None:
        self.stream = stream
        self._client = client
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._is_head = False  # whether the present request is a HEAD, which is answered without a body
        self.request_complete = False
        self.status = 0
        self.body_bytes = 0
        self.half_closed = False

    @property
    def version(self) -> bytes:
        """The HTTP version of the present request: ``b"1.1"``."""
        return self._h11.their_http_version or b"1.1"

    @property
    def client_waits(self) -> bool:
        """Whether the client wants to be told to go on before it sends its body; reading does that."""
        return self._h11.they_are_waiting_for_100_continue

    @property
    def response_complete(self) -> bool:
        """Whether the answer to the present request has been sent to its end."""
        return self._h11.our_state in (h11.DONE, h11.MUST_CLOSE)

    @property
    def unread(self) -> bytes:
        """What has been received and belongs to no message yet."""
        return self._h11.trailing_data[0]

    def is_handshake(self) -> bool:
        """Whether the present request, complete and without a body, may become another protocol."""
        return self._next_event() is h11.PAUSED

    def next_cycle(self) -> bool:
        """Get ready for the next request; whether there can be one. Otherwise the connection has to end."""
        if self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
            return False
        self._h11.start_next_cycle()
        self.request_complete = False
        self.status = self.body_bytes = 0
        self._is_head = False
        return True

    # Reading

    async def head(self, patience: float) -> h11.Request | None:
        """The next request's head, or None if the client has no more.

        Args:
            patience: seconds the client may take to begin.

        Raises:
            Refused: it is too slow, too large, or not HTTP as everybody understands it.
        """
        begun = bool(self.unread)
        with trio.move_on_after(HEAD_SECONDS if begun else patience) as waiting:
            while (head := self._next_event()) is h11.NEED_DATA:
                data = await self.stream.receive_some(_HEAD_READ)
                if data and not begun:
                    begun = True
                    waiting.deadline = min(waiting.deadline, trio.current_time() + HEAD_SECONDS)
                self._h11.receive_data(bytes(data))
        if waiting.cancelled_caught:
            if begun:
                raise refusal(408)
            return None
        if not isinstance(head, h11.Request):  # ConnectionClosed
            return None
        if head.method == b"CONNECT":  # a page in answer would be the beginning of a tunnel
            raise refusal(501)
        self._is_head = head.method == b"HEAD"
        names = [name for name, _ in head.headers]
        if b"transfer-encoding" in names and (b"content-length" in names or head.http_version < b"1.1"):
            # Where the body ends depends on whom one asks: what one server takes for it is the next request
            # for another (RFC 9112, section 6.1).
            raise refusal(400)
        return head

    async def body_part(self) -> bytes:
        """What comes next of the request's body; empty at its end, also when asked again.

        Raises:
            Refused: this is no body.
        """
        await trio.lowlevel.checkpoint()  # one read may hold thousands of tiny chunks: others have their turn
        while not self.request_complete:
            event = self._next_event()
            if event is h11.NEED_DATA:
                if self._h11.they_are_waiting_for_100_continue:
                    await self.send(h11.InformationalResponse(status_code=100, headers=[]))
                data = await self.stream.receive_some(_BODY_READ)
                if not data:
                    raise trio.BrokenResourceError("the client went away in the middle of its request")
                self._h11.receive_data(bytes(data))
            elif isinstance(event, h11.Data):
                return bytes(event.data)
            else:  # EndOfMessage
                self.request_complete = True
        return b""

    async def body(self, most: int) -> bytes:
        """The whole body.

        Raises:
            Refused: it has more than ``most`` bytes, or is none.
        """
        body = bytearray()
        while part := await self.body_part():
            body += part
            if len(body) > most:
                raise refusal(413)
        return bytes(body)

    def _next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        try:
            return self._h11.next_event()
        except h11.RemoteProtocolError as error:
            if self.unread[:1] == b"\x16":
                logger.debug("%s speaks TLS, which this port does not", self._client)
            else:
                logger.debug("%s sent no HTTP: %s", self._client, error)
            raise refusal(error.error_status_hint) from error

    async def watch(self) -> None:
        """Return when the client has closed its side; what it sends meanwhile is for later.

        Returns, too, when there is so much of that that it can't be looked for any more: then
        `half_closed` is false. To be used while a response is sent to a request that is complete.

        Raises:
            trio.BrokenResourceError: the connection is lost.
        """
        while len(self.unread) < READ_AHEAD_BYTES:
            data = await self.stream.receive_some(READ_AHEAD_BYTES)
            self._h11.receive_data(bytes(data))
            if not data:
                self.half_closed = True
                return

    # Sending

    async def respond(self, response: Response, *, close: bool = False) -> None:
        """Send a whole response, to a HEAD request without its body."""
        without_body = self._is_head
        headers = [*response.headers, ("Date", formatdate(usegmt=True))]
        if response.status >= 200 and response.status not in (204, 304):
            headers.append(("Content-Length", str(len(response.body))))
        else:
            without_body = True
        if close:
            headers.append(("Connection", "close"))
        await self.send(
            h11.Response(status_code=response.status, headers=headers),
            *([] if without_body or not response.body else [h11.Data(data=response.body)]),
            h11.EndOfMessage(),
        )

    async def send(self, *events: h11.Event) -> None:
        """Send events, and return once the socket has them."""
        data = b"".join(self._h11.send(event) or b"" for event in events)
        for event in events:
            if isinstance(event, h11.Response):
                self.status = event.status_code
            elif isinstance(event, h11.Data):
                self.body_bytes += len(event.data)
        for start in range(0, len(data), _SLICE):
            with trio.move_on_after(SEND_SECONDS) as waiting:
                await self.stream.send_all(data[start : start + _SLICE])
            if waiting.cancelled_caught:
                raise trio.BrokenResourceError("the client does not take in its response")
