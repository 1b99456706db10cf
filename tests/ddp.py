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
from websockets.sync.client import ClientConnection, connect

from tests.sockjs import SockJSSocket

WAIT_SECONDS = 30

Socket = ClientConnection | SockJSSocket
Documents = dict[str, dict[str, dict[str, Any]]]


class RawWire:
    """One DDP message is one WebSocket message."""

    path = "/websocket"

    def connect(self, url: str, path: str | None) -> Socket:
        """A socket to a server, ``http://…`` or ``ws://…``, at a path or where the wire has it."""
        address = url.replace("http", "ws", 1).rstrip("/") + (path or self.path)
        return connect(address, max_size=None)

    def unpack(self, text: str) -> list[str]:
        """The DDP messages in what the WebSocket brought."""
        return [text]

    def pack(self, message: str) -> str:
        return message


class SockJSWire(RawWire):
    """SockJS's frames, as its own client takes them: anything but ``o`` first, or after ``c``, is an error.

    Attributes:
        frames: every frame received, in order.
    """

    path = "/sockjs/000/conforms/websocket"

    def __init__(self) -> None:
        self.frames: list[str] = []

    def unpack(self, text: str) -> list[str]:
        assert (text == "o") == (not self.frames), f"{text!r} after {self.frames[-3:]}"
        assert not any(frame.startswith("c") for frame in self.frames[-1:]), f"{text!r} after the end"
        self.frames.append(text)
        if text[0] == "a":
            messages = json.loads(text[1:])
            assert isinstance(messages, list), text
            return messages
        if text[0] == "c":
            code, reason = json.loads(text[1:])
            assert isinstance(code, int), text
            assert isinstance(reason, str), text
        else:
            assert text in ("o", "h"), text
        return []

    def pack(self, message: str) -> str:
        return json.dumps([message])


class SockJSHTTPWire(SockJSWire):
    """SockJS's frames without a WebSocket.

    Args:
        transport: one of `tests.sockjs.TRANSPORTS`.
    """

    def __init__(self, transport: str) -> None:
        super().__init__()
        self.transport = transport

    def connect(self, url: str, path: str | None) -> Socket:
        return SockJSSocket(url, self.transport)


class DDPClient:
    """One connection, already past `connect`.

    Args:
        url: the server's, ``http://…`` or ``ws://…`` without a path.
        path: where the WebSocket is; by default where the wire has it.
        version: the DDP version to ask for.
        handshake: False leaves `connect` to the caller.
        wire: how DDP messages are laid into WebSocket messages.
        documents: those of the connection that this one resumes.
        answer_pings: False for a client that is there but says nothing.

    Attributes:
        documents: collection name to document id to fields, as told so far.
        messages: every message received, in order.
        violations: what a strict client would have thrown on.
    """

    def __init__(
        self,
        url: str,
        *,
        path: str | None = None,
        version: str = "1",
        handshake: bool = True,
        wire: RawWire | None = None,
        documents: Documents | None = None,
        answer_pings: bool = True,
    ) -> None:
        self.documents: Documents = defaultdict(dict) if documents is None else documents
        self.messages: list[dict[str, Any]] = []
        self.violations: list[str] = []
        self.closed = False
        self.wire = wire or RawWire()
        self._answer_pings = answer_pings
        self._ids = (f"c{number}" for number in itertools.count(1))
        self._news = threading.Condition()
        self._opened = contextlib.ExitStack()
        self.socket: Socket = self._opened.enter_context(self.wire.connect(url, path))
        self._reader = threading.Thread(target=self._read, daemon=True, name="DDP client")
        self._reader.start()
        if handshake:
            self.send(msg="connect", version=version, support=[version])
            self.wait_for(lambda m: m.get("msg") == "connected")

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
                for message in map(json.loads, self.wire.unpack(str(text))):
                    with self._news:
                        self._note(message)
                        self.messages.append(message)
                        self._news.notify_all()
        except ConnectionClosed:
            pass  # `closed` and `socket.close_code` tell
        except (AssertionError, ValueError) as broken:
            self.violations.append(f"broken framing: {broken!r}")
        finally:
            self.socket.close()  # the last message may come before the end of the closing, and its code
            with self._news:
                self.closed = True
                self._news.notify_all()

    def _note(self, message: dict[str, Any]) -> None:
        kind = message.get("msg")  # some servers greet with an object that has none
        if kind == "ping" and self._answer_pings:
            with contextlib.suppress(ConnectionClosed):
                self.send(msg="pong", **({"id": message["id"]} if "id" in message else {}))
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
        """Send what need not be a message at all."""
        self.socket.send(self.wire.pack(text))

    def wait_for(self, wanted: Callable[[dict[str, Any]], bool], *, since: int = 0) -> dict[str, Any]:
        """The first message from number `since` on that is wanted, waited for."""

        def found() -> dict[str, Any] | None:
            return next((message for message in self.messages[since:] if wanted(message)), None)

        with self._news:
            self._news.wait_for(lambda: found() is not None or self.closed, WAIT_SECONDS)
            message = found()
        assert message is not None, f"no such message among {self.messages[since:]}, closed: {self.closed}"
        return message

    def wait_until(self, state: Callable[[], Any], seconds: float = WAIT_SECONDS) -> None:
        """Wait until the documents, messages or `closed` are as `state` wants them."""
        with self._news:
            assert self._news.wait_for(state, seconds), f"{dict(self.documents)}\n{self.messages[-20:]}"

    def message(self, number: int, seconds: float = WAIT_SECONDS) -> dict[str, Any] | None:
        """The message with this number, from 0 on; None if the connection or the patience ended before."""
        with self._news:
            self._news.wait_for(lambda: len(self.messages) > number or self.closed, seconds)
            return self.messages[number] if len(self.messages) > number else None

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
