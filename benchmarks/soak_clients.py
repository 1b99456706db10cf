"""The clients of `benchmarks.soak`, each of which lives many lives, one after the other."""

from __future__ import annotations

import contextlib
import hashlib
import random
import threading
from collections import Counter
from typing import Any

from websockets.exceptions import WebSocketException

from tests.ddp import DDPClient, RawWire, SockJSHTTPWire, SockJSWire
from tests.test_property import SUBSCRIPTIONS

#: Wires, of which half are raw WebSockets, as with Meteor's own clients.
WIRES = (
    RawWire,
    RawWire,
    RawWire,
    SockJSWire,
    lambda: SockJSHTTPWire("xhr_streaming"),
    lambda: SockJSHTTPWire("xhr"),
)
LIFE_SECONDS = (2.0, 40.0)
#: What ends a life early while the server or its database is away.
LOST = (OSError, AssertionError, WebSocketException, StopIteration)


def digest(password: str) -> dict[str, str]:
    """A password as Meteor's clients send it."""
    return {"digest": hashlib.sha256(password.encode()).hexdigest(), "algorithm": "sha-256"}


class Wanderer:
    """A client that connects, logs in, subscribes, calls, leaves in one of several ways, and comes back.

    Args:
        url: the server's.
        number: its user is ``user{number}``.
        seed: decides what it does.
        counts: what all clients did, by name; shared.
    """

    def __init__(self, url: str, number: int, seed: int, counts: Counter[str]) -> None:
        self.violations: list[str] = []
        self._url = url
        self._user = f"user{number}"
        self._chance = random.Random(seed)
        self._counts = counts
        self._stop = threading.Event()
        self._token: str | None = None
        self._left: DDPClient | None = None  # whose session may be resumed
        self._thread = threading.Thread(target=self._run, name=f"client {number}")
        self._thread.start()

    def stop(self) -> None:
        """Have it end its life; `join` waits for that."""
        self._stop.set()

    def join(self) -> None:
        """Wait until it has ended."""
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                client = self._connect()
            except LOST:
                self._counts["refused"] += 1
                self._stop.wait(1)
                continue
            try:
                self._live(client)
            except LOST:
                self._counts["lives cut short"] += 1
            finally:
                self._leave(client)
        if self._left is not None:
            self._left.close()

    def _connect(self) -> DDPClient:
        self._counts["connections"] += 1
        left, self._left = self._left, None
        if left is None:
            return DDPClient(self._url, wire=self._chance.choice(WIRES)())
        session = next(m["session"] for m in left.messages if m["msg"] == "connected")
        received = sum(m["msg"] not in ("ping", "pong") for m in left.messages)
        client = DDPClient(self._url, wire=type(left.wire)(), handshake=False, documents=left.documents)
        client.send(msg="connect", version="1", support=["1"], session=session, receivedCount=received)
        connected = client.wait_for(lambda m: m["msg"] == "connected")
        if connected["session"] == session:
            self._counts["resumed"] += 1
        else:
            client.documents.clear()
        return client

    def _live(self, client: DDPClient) -> None:
        chance = self._chance
        subscriptions: list[str] = []
        steps = chance.randint(3, 25)
        if chance.random() < 0.6:
            self._log_in(client)
        for _ in range(steps):
            if self._stop.is_set() or client.closed:
                return
            match chance.randrange(8):
                case 0 | 1 | 2:
                    name, params, _, _ = chance.choice(SUBSCRIPTIONS)
                    subscriptions.append(client.subscribe(name, *params))
                    self._counts["subscriptions"] += 1
                case 3 if subscriptions:
                    client.unsubscribe(subscriptions.pop(chance.randrange(len(subscriptions))))
                case 4:
                    client.call("echo", "x" * chance.choice((1, 100, 50_000)))
                    self._counts["methods"] += 1
                case 5:
                    client.call("login", {"user": {"username": self._user}, "password": digest("wrong")})
                    self._counts["failed logins"] += 1
                case 6 if self._token and chance.random() < 0.3:
                    client.call("logout")
                    self._token = None
                case _:
                    self._stop.wait(chance.uniform(0.1, LIFE_SECONDS[1] / steps))

    def _log_in(self, client: DDPClient) -> None:
        request: dict[str, Any] = {"user": {"username": self._user}, "password": digest("password")}
        if self._token and self._chance.random() < 0.7:
            request = {"resume": self._token}
        answer = client.call("login", request)
        if "result" in answer:
            self._token = answer["result"]["token"]
            self._counts["logins"] += 1
        else:
            self._token = None
            client.call("createUser", {"username": self._user, "password": digest("password")})

    def _leave(self, client: DDPClient) -> None:
        self.violations += client.violations
        self._counts["messages"] += len(client.messages)
        in_order = self._stop.is_set() or client.closed or self._chance.random() < 0.6
        if in_order or isinstance(client.wire, SockJSHTTPWire):
            client.close()
        else:
            self._counts["vanished"] += 1
            with contextlib.suppress(OSError):
                client.socket.socket.close()  # type: ignore[attr-defined]
            client.close()
            if self._chance.random() < 0.7:
                self._left = client
