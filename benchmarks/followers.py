"""Sessions that remember what they are told, so that it can be compared with the database at the end."""

from __future__ import annotations

import collections
import dataclasses
import json
import selectors
import time
from collections.abc import Callable
from typing import Any

from benchmarks.fleet import CLOSE, CONNECTED_AT_ONCE, PING, PONG, TEXT, Session, Wrong, frame

Documents = dict[str, dict[str, dict[str, Any]]]


@dataclasses.dataclass
class Follower:
    """One session.

    Attributes:
        documents: by collection and id, what it was told.
        ready: names of what has happened: ids of subscriptions that are ready and of methods that are done.
    """

    session: Session
    documents: Documents = dataclasses.field(default_factory=lambda: collections.defaultdict(dict))
    ready: set[str] = dataclasses.field(default_factory=set)

    def take(self, message: dict[str, Any]) -> None:
        match message["msg"]:
            case "added":
                self.documents[message["collection"]][message["id"]] = message.get("fields", {})
            case "changed":
                document = self.documents[message["collection"]][message["id"]]
                document.update(message.get("fields", {}))
                for name in message.get("cleared", ()):
                    del document[name]
            case "removed":
                del self.documents[message["collection"]][message["id"]]
            case "ready":
                self.ready.update(message["subs"])
            case "updated":
                self.ready.update(message["methods"])
            case "ping":
                self.session.send([{"msg": "pong"}])
            case "nosub" | "failed" | "error":
                raise Wrong(f"the server refuses session {self.session.number}: {message}")


class Followers:
    """Sessions on one server.

    Attributes:
        messages: how many messages they were sent.
        on_changed: called with each ``changed`` and the time at which it was received.
    """

    def __init__(self, host: str, port: int) -> None:
        self.all: list[Follower] = []
        self.messages = 0
        self.on_changed: Callable[[dict[str, Any], float], object] = lambda message, at: None
        self._address = host, port
        self._selector = selectors.DefaultSelector()

    def close(self) -> None:
        self._selector.close()
        for follower in self.all:
            follower.session.socket.close()

    def subscribe(self, wanted: list[tuple[str, list[Any]]], seconds: float) -> None:
        """A new session for each publication and its parameters; returns when all are ready."""
        for first in range(0, len(wanted), CONNECTED_AT_ONCE):
            batch = wanted[first : first + CONNECTED_AT_ONCE]
            new = [Follower(Session(len(self.all) + n, *self._address)) for n in range(len(batch))]
            for follower, (name, params) in zip(new, batch, strict=True):
                follower.session.shake_hands()
                follower.session.send([{"msg": "sub", "id": "s", "name": name, "params": params}])
                self._selector.register(follower.session.socket, selectors.EVENT_READ, follower)
            self.all += new
            self.wait(lambda: all("s" in one.ready for one in new), seconds, "subscribing")  # noqa: B023

    def fence(self, seconds: float) -> None:
        """Return when every session has been told of all that was committed before this call."""
        name = f"fence {time.perf_counter()}"
        for follower in self.all:
            follower.session.send([{"msg": "method", "id": name, "method": "echo", "params": [1]}])
        self.wait(lambda: all(name in one.ready for one in self.all), seconds, "a method on every session")

    def wait(self, done: Callable[[], bool], seconds: float, what: str) -> None:
        """Take in what arrives until ``done``."""
        until = time.perf_counter() + seconds
        while not done():
            if time.perf_counter() > until:
                raise Wrong(f"{what} takes more than {seconds:g} s")
            self.pump(0.05)

    def pump(self, seconds: float) -> None:
        """Take in what arrives, for at most that long if nothing does."""
        for key, _ in self._selector.select(seconds):
            follower: Follower = key.data
            data = follower.session.socket.recv(1 << 18)
            at = time.perf_counter()
            if not data:
                raise Wrong(f"the server dropped session {follower.session.number}")
            for opcode, payload in follower.session.frames(data):
                if opcode == TEXT:
                    message = json.loads(payload)
                    self.messages += 1
                    follower.take(message)
                    if message["msg"] == "changed":
                        self.on_changed(message, at)
                elif opcode == PING:
                    follower.session.socket.sendall(frame(PONG, payload))
                elif opcode == CLOSE:
                    raise Wrong(f"the server closed session {follower.session.number}: {payload[2:]!r}")
