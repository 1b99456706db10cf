"""A DDP client for the tests that forgives nothing.

It keeps the documents that the server tells it and notes every message that a client should not get:
`added` of a document it has, `changed` or `removed` of one it has not, `changed` that changes nothing.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Self

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

WAIT_SECONDS = 30


class DDPClient:
    """One connection, already past `connect`.

    Args:
        url: the server's, ``http://…`` or ``ws://…`` without a path.
        path: where the WebSocket is.
        version: the DDP version to ask for.

    Attributes:
        documents: collection name to document id to fields, as told so far.
        messages: every message received, in order.
        violations: what a strict client would have thrown on.
    """

    def __init__(
        self, url: str, *, path: str = "/websocket", version: str = "1", handshake: bool = True
    ) -> None:
        self.documents: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
        self.messages: list[dict[str, Any]] = []
        self.violations: list[str] = []
        self.closed = False
        self._ids = (f"c{number}" for number in itertools.count(1))
        self._news = threading.Condition()
        self._opened = contextlib.ExitStack()
        address = url.replace("http", "ws", 1).rstrip("/") + path
        self.socket = self._opened.enter_context(connect(address, max_size=None))
        self._reader = threading.Thread(target=self._read, daemon=True, name="DDP client")
        self._reader.start()
        if handshake:
            self.send(msg="connect", version=version, support=[version])
            self.wait_for(lambda m: m["msg"] == "connected")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        self._opened.close()
        self._reader.join(WAIT_SECONDS)

    def _read(self) -> None:
        try:
            for text in self.socket:
                message = json.loads(text)
                with self._news:
                    self._note(message)
                    self.messages.append(message)
                    self._news.notify_all()
        except ConnectionClosed:
            pass  # `closed` and `socket.close_code` tell
        with self._news:
            self.closed = True
            self._news.notify_all()

    def _note(self, message: dict[str, Any]) -> None:
        kind = message["msg"]
        if kind == "ping":
            self.socket.send(
                json.dumps({"msg": "pong", **({"id": message["id"]} if "id" in message else {})})
            )
        if kind not in ("added", "changed", "removed"):
            return
        documents, document_id = self.documents[message["collection"]], message["id"]
        known = document_id in documents
        if known == (kind == "added"):
            self.violations.append(f"{kind} of {'a known' if known else 'an unknown'} document: {message}")
        if kind == "removed":
            documents.pop(document_id, None)
            return
        fields = documents.setdefault(document_id, {})
        before = dict(fields)
        fields.update(message.get("fields", {}))
        for name in message.get("cleared", ()):
            fields.pop(name, None)
        if kind == "changed" and fields == before:
            self.violations.append(f"changed that changes nothing: {message}")

    # -- talking --------------------------------------------------------------------------------

    def send(self, **message: Any) -> None:
        self.send_text(json.dumps(message))

    def send_text(self, text: str) -> None:
        self.socket.send(text)

    def wait_for(self, wanted: Callable[[dict[str, Any]], bool], *, since: int = 0) -> dict[str, Any]:
        """The first message from number `since` on that is wanted, waited for."""

        def found() -> dict[str, Any] | None:
            return next((message for message in self.messages[since:] if wanted(message)), None)

        with self._news:
            self._news.wait_for(lambda: found() is not None or self.closed, WAIT_SECONDS)
            message = found()
        assert message is not None, f"no such message among {self.messages[since:]}, closed: {self.closed}"
        return message

    def wait_until(self, state: Callable[[], Any]) -> None:
        """Wait until the documents, messages or `closed` are as `state` wants them."""
        with self._news:
            assert self._news.wait_for(state, WAIT_SECONDS), f"{dict(self.documents)}\n{self.messages[-20:]}"

    def subscribe(self, name: str, *params: Any) -> str:
        """Subscribe and wait for `ready`. Returns the subscription's id."""
        subscription = self.start_subscription(name, *params)
        answer = self.wait_for(
            lambda m: (
                (m["msg"] == "ready" and subscription in m["subs"])
                or (m["msg"] == "nosub" and m["id"] == subscription)
            )
        )
        assert answer["msg"] == "ready", answer
        return subscription

    def start_subscription(self, name: str, *params: Any) -> str:
        subscription = next(self._ids)
        self.send(msg="sub", id=subscription, name=name, params=list(params))
        return subscription

    def unsubscribe(self, subscription: str) -> None:
        since = len(self.messages)
        self.send(msg="unsub", id=subscription)
        self.wait_for(lambda m: m["msg"] == "nosub" and m["id"] == subscription, since=since)

    def call(self, method: str, *params: Any) -> dict[str, Any]:
        """Call a method and wait for both `result` and `updated`. Returns the result message."""
        return self.finish_call(self.start_call(method, *params))

    def start_call(self, method: str, *params: Any) -> str:
        call = next(self._ids)
        self.send(msg="method", id=call, method=method, params=list(params))
        return call

    def finish_call(self, call: str) -> dict[str, Any]:
        result = self.wait_for(lambda m: m["msg"] == "result" and m["id"] == call)
        self.wait_for(lambda m: m["msg"] == "updated" and call in m["methods"])
        return result

    def settle(self) -> None:
        """Return once everything committed before this call has been told: what `updated` promises."""
        self.call("echo", "settled?")
