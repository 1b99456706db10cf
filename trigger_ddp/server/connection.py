"""A client's connection as the DDP session sees it, whatever carries it."""

from __future__ import annotations

import dataclasses
from typing import Protocol

from trigger_ddp.protocol.ending import Ending
from trigger_ddp.protocol.frames import Wire
from trigger_ddp.server.exchange import Request
from trigger_ddp.server.outbox import OutboxStatistics

#: Close code and reason for all clients of a server that ends; they come back by themselves.
SHUTTING_DOWN = 1001, "the server is shutting down"


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """What one client may take up; of SockJS over HTTP, also what all may together.

    Args:
        max_message_bytes: largest message a client may send; a larger one closes with 1009.
        outbox_bytes: most bytes waiting for a slow client before it is cut off.
        outbox_seconds: longest that a byte may wait for a slow client before it is cut off.
        close_seconds: how long a client may take to answer a close frame, or to fetch SockJS's.
        sockjs_heartbeat: seconds between SockJS heartbeats; 0 turns them off.
        sockjs_disconnect_delay: seconds for which a SockJS session without a WebSocket waits for its client
            to receive, and for which it is known that a closed one is closed.
        sockjs_response_bytes: bytes after which a streaming response ends, for the browser to forget them.
        sockjs_sessions: most SockJS sessions without a WebSocket.
        sockjs_sessions_per_address: most of them with clients of one IP address.
    """

    max_message_bytes: int = 8 * 1024 * 1024
    outbox_bytes: int = 64 * 1024 * 1024
    outbox_seconds: float = 30.0
    close_seconds: float = 5.0
    sockjs_heartbeat: float = 45.0
    sockjs_disconnect_delay: float = 60.0
    sockjs_response_bytes: int = 128 * 1024
    sockjs_sessions: int = 10_000
    sockjs_sessions_per_address: int = 1000


class ConnectionClosed(Exception):
    """There are no more messages: the connection is closed or closing.

    Args:
        reason: for the log.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Connection(Protocol):
    """What carries a client's messages: a WebSocket, or SockJS's requests.

    One task at a time may be in `receive()`, and one should nearly always be. All else may be called by
    any task on the trio thread.
    """

    @property
    def wire(self) -> Wire:
        """What frames the client wants; hand `frames.frame(wire, message)` to `push()`."""

    @property
    def request(self) -> Request:
        """The HTTP request that opened the connection."""

    @property
    def client_address(self) -> str:
        """The address at the other end of the socket, without the port."""

    @property
    def closed(self) -> bool:
        """Whether closing has begun, from either side. What is pushed from now on goes nowhere."""

    @property
    def closed_here(self) -> bool:
        """Whether it is closed in good order, by us; then the client is not to come back to its session."""

    @property
    def close_reason(self) -> str:
        """Why the connection is closed or closing, for the log; empty while it is open."""

    @property
    def ending(self) -> Ending:
        """The same in one word; means something once the connection is gone."""

    def statistics(self) -> OutboxStatistics:
        """How this client keeps up right now."""

    async def receive(self) -> str:
        """The text of the client's next DDP message.

        Raises:
            ConnectionClosed: there is none any more.
        """

    def push(self, frame: bytes) -> None:
        """Append whole frames of `wire` to what waits to be sent. Never waits, never raises.

        Nothing leaves before `flush()`. Ignored once the connection is closing. A client that can't
        keep up is cut off: see `close_reason`.
        """

    def send(self, frame: bytes) -> None:
        """`push` and `flush` in one."""

    def flush(self) -> None:
        """Send what was pushed, as far as the client takes it now; the rest follows by itself."""

    async def wait_at_most(self, count: int) -> None:
        """Wait until at most `count` bytes wait to be sent, or the connection is gone.

        For whoever has much to send at once and would otherwise fill the outbox of a client that reads.
        """

    async def wait_closed(self) -> None:
        """Wait until the connection is gone."""

    async def close(self, code: int = 1000, reason: str = "", ending: Ending | None = None) -> None:
        """Send what waits, tell the client that it is over, and close the connection.

        Takes little more than `Limits.close_seconds` at most. May be called again, and by several tasks;
        each returns once the connection is gone.

        Args:
            code: a WebSocket close code.
            reason: for the client.
            ending: see there; by default what the code stands for.
        """

    def abort(self, reason: str, ending: Ending = Ending.SERVER) -> None:
        """Cut the connection now, without a word.

        Args:
            reason: for the log; see `close_reason`.
            ending: the same in one word.
        """
