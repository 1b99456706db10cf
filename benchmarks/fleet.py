"""Many DDP sessions in one process, cheap enough to leave the processor to the server that is measured.

It knows what every write is to bring: whatever else a session is told raises `Wrong` at once.
"""

from __future__ import annotations

import collections
import json
import selectors
import socket
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, NamedTuple

#: Subscriptions that a session asks for before the first of them is answered.
PIPELINED = 100
#: Sessions that connect at once: fewer than the server lets wait to be accepted.
CONNECTED_AT_ONCE = 50
#: Reads after which what was read is parsed, though there may be more to read.
READS = 2000

TEXT, CLOSE, PING, PONG = 1, 8, 9, 10


class Wrong(Exception):
    """The server said what it must not say, or is silent. Its text is a sentence for the user."""


class Message(NamedTuple):
    """What a session is told of one document; fields only where it is ``changed``."""

    msg: str
    collection: str
    id: str
    fields: tuple[tuple[str, Any], ...] = ()


class Session:
    """One connection.

    Attributes:
        documents: how many documents it was told of while it subscribed.
        unanswered: subscriptions that are not ready.
        asked: subscriptions that it has asked for in its life.
    """

    def __init__(self, number: int, host: str, port: int) -> None:
        self.number = number
        self.documents = self.unanswered = self.asked = 0
        self.socket = socket.create_connection((host, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = bytearray()
        self.socket.sendall(
            b"GET /websocket HTTP/1.1\r\nHost: benchmark\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )

    def shake_hands(self) -> None:
        while b"\r\n\r\n" not in self._received:
            data = self.socket.recv(4096)
            if not data:
                raise Wrong(f"the server refused session {self.number}: {self._received!r}")
            self._received += data
        head, _, rest = self._received.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 101"):
            raise Wrong(f"the server refused session {self.number}: {bytes(head)!r}")
        self._received = rest
        self.send([{"msg": "connect", "version": "1", "support": ["1"]}])

    def send(self, messages: Iterable[dict[str, Any]]) -> None:
        self.socket.sendall(b"".join(frame(TEXT, json.dumps(message).encode()) for message in messages))

    def frames(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Opcode and payload of each frame that is complete with ``data``; the server never fragments."""
        received = self._received
        received += data
        start = 0
        while len(received) >= start + 2:
            length, body = received[start + 1], start + 2
            if length > 125:
                body += 2 if length == 126 else 8
                length = int.from_bytes(received[start + 2 : body])
            if len(received) < body + length:
                break
            yield received[start] & 15, bytes(received[body : body + length])
            start = body + length
        del received[:start]


def frame(opcode: int, payload: bytes) -> bytes:
    """A client's frame, with a mask of zeros, which leaves the payload as it is."""
    size = len(payload)
    length = bytes((0x80 | size,)) if size < 126 else b"\xfe" + size.to_bytes(2)
    return bytes((0x80 | opcode,)) + length + bytes(4) + payload


class Fleet:
    """Sessions on one server.

    Attributes:
        latencies: seconds from `expect` to each message that was due.
    """

    def __init__(self, host: str, port: int) -> None:
        self.sessions: list[Session] = []
        self.latencies: list[float] = []
        self._address = host, port
        self._selector = selectors.DefaultSelector()
        self._due: collections.Counter[tuple[int, Message]] = collections.Counter()
        self._committed = 0.0
        self._subscribing = False
        self._fenced: set[int] = set()

    def close(self) -> None:
        self._selector.close()
        for session in self.sessions:
            session.socket.close()

    # -- before the writes ----------------------------------------------------------------------

    def grow(self, size: int) -> None:
        """Connect until there are that many sessions."""
        while len(self.sessions) < size:
            first = len(self.sessions)
            numbers = range(first, min(size, first + CONNECTED_AT_ONCE))
            self.sessions += [Session(number, *self._address) for number in numbers]
            for session in self.sessions[first:]:
                session.shake_hands()
                self._selector.register(session.socket, selectors.EVENT_READ, session)

    def subscribe(
        self, publication: str, wanted: Iterable[tuple[int, list[Any]]], in_time: Callable[[], None]
    ) -> None:
        """Subscribe and wait until all is ready.

        Args:
            publication: its name.
            wanted: the number of a session and the parameters, for each subscription.
            in_time: called again and again meanwhile; may raise.
        """
        waiting: dict[int, collections.deque[list[Any]]] = collections.defaultdict(collections.deque)
        for number, params in wanted:
            waiting[number].append(params)
        asking = [self.sessions[number] for number in waiting]
        self._subscribing = True
        while asking:
            for session in asking:
                queue = waiting[session.number]
                subscriptions = []
                while queue and session.unanswered < PIPELINED:
                    session.asked, session.unanswered = session.asked + 1, session.unanswered + 1
                    subscription = {"msg": "sub", "id": f"s{session.asked}", "name": publication}
                    subscriptions.append({**subscription, "params": queue.popleft()})
                if subscriptions:
                    session.send(subscriptions)
            self.pump(0.1)
            in_time()
            asking = [session for session in asking if session.unanswered or waiting[session.number]]
        self._subscribing = False

    # -- writes ---------------------------------------------------------------------------------

    def expect(self, holders: Collection[int], messages: Iterable[Message]) -> None:
        """Each of the sessions ``holders`` is to get each message, once, and nobody anything else.

        Latencies count from now: commit next.
        """
        assert not self._due
        self._due.update((number, message) for message in messages for number in holders)
        self._committed = time.perf_counter()

    @property
    def missing(self) -> int:
        """How many messages are still to come."""
        return self._due.total()

    def describe_missing(self) -> str:
        number, message = next(iter(self._due))
        return f"session {number} was not told {_text(message)}"

    def fence(self, in_time: Callable[[], None]) -> None:
        """Call a method on every session and wait for its `updated`, which follows all that was due."""
        self._fenced = {session.number for session in self.sessions}
        for session in self.sessions:
            session.send([{"msg": "method", "id": "fence", "method": "echo", "params": [1]}])
        while self._fenced:
            self.pump(0.1)
            in_time()

    # -- what arrives ---------------------------------------------------------------------------

    def pump(self, seconds: float) -> None:
        """Take in what arrives, for at most that long if nothing does.

        Everything is read, and its time taken, before the first of it is parsed.
        """
        chunks: list[tuple[float, Session, bytes]] = []
        ready = self._selector.select(seconds)
        while ready and len(chunks) < READS:
            for key, _ in ready:
                data = key.fileobj.recv(65536)  # type: ignore[union-attr]
                chunks.append((time.perf_counter(), key.data, data))
            ready = self._selector.select(0)
        for at, session, data in chunks:
            if not data:
                raise Wrong(f"the server dropped session {session.number}")
            for opcode, payload in session.frames(data):
                if opcode == TEXT:
                    self._receive(at, session, json.loads(payload))
                elif opcode == PING:
                    session.socket.sendall(frame(PONG, payload))
                elif opcode == CLOSE:
                    reason = payload[2:].decode()
                    raise Wrong(f"the server closed session {session.number}: {reason}")

    def _receive(self, at: float, session: Session, message: dict[str, Any]) -> None:
        match message["msg"]:
            case "added" | "changed" | "removed" as msg:
                fields = message.get("fields", {}) if msg == "changed" else {}
                told = Message(msg, message["collection"], message["id"], tuple(sorted(fields.items())))
                self._told(at, session, told)
            case "ready":
                session.unanswered -= len(message["subs"])
            case "updated":
                self._fenced.discard(session.number)
            case "ping":
                session.send([{"msg": "pong"}])
            case "nosub" | "failed" | "error":
                raise Wrong(f"the server refuses session {session.number}: {message}")

    def _told(self, at: float, session: Session, message: Message) -> None:
        if self._subscribing and message.msg == "added":
            session.documents += 1
            return
        due = session.number, message
        if due not in self._due:
            raise Wrong(f"session {session.number} was told {_text(message)}, which was not due")
        self._due[due] -= 1
        if not self._due[due]:
            del self._due[due]
        self.latencies.append(at - self._committed)


def _text(message: Message) -> str:
    return f"{message.msg!r} of {message.collection} {message.id} {dict(message.fields) or ''}".rstrip()
