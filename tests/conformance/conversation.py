"""Conversations as data, and what holds them with a server.

A conversation is a list of steps. Clients have names; "me" is who speaks if a step does not say. Before the
first step nobody is connected. Each step that looks at messages looks at the next ones that its client got,
none left out but:

- the server's pings, and objects without ``msg``, which DDP lets a server send at first, unless the client
  was opened to see them;
- documents of collections that the conversation ignores: those of users and of universal publications, if it
  does not say otherwise;
- an ``updated`` of several methods counts as one for each.

At the end every client must have been told nothing that a strict client refuses: `added` of a known
document, `changed` or `removed` of an unknown one, broken SockJS frames.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import secrets
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from websockets.exceptions import WebSocketException

from tests.conformance.patterns import ID, UNMISTAKABLE, Capture, Mismatch, Var, Variables, filled, match
from tests.ddp import DDPClient, RawWire, SockJSHTTPWire, SockJSWire
from tests.sockjs import TRANSPORTS

#: SockJS's WebSocket, and its other transports.
SOCKJS: Mapping[str, Callable[[], RawWire]] = {
    "sockjs": SockJSWire,
    **{transport: partial(SockJSHTTPWire, transport) for transport in TRANSPORTS},
}
WIRES: Mapping[str, Callable[[], RawWire]] = {"raw": RawWire, **SOCKJS}

Message = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Open:
    """Open a socket, and say nothing.

    Args:
        resuming: the client's documents stay, as of one that resumes its session.
        pings: the server's pings are not answered, and are messages to be expected.
        greetings: so are objects without ``msg``.
    """

    by: str = "me"
    resuming: bool = False
    pings: bool = False
    greetings: bool = False


@dataclasses.dataclass(frozen=True)
class Send:
    """Send a message, with the variables in it filled in."""

    message: Mapping[str, Any]
    by: str = "me"


@dataclasses.dataclass(frozen=True)
class SendText:
    """Send what need not be a message."""

    text: str
    by: str = "me"


@dataclasses.dataclass(frozen=True)
class Expect:
    """The next messages, in this order."""

    messages: tuple[Any, ...]
    by: str = "me"
    within: float | None = None


@dataclasses.dataclass(frozen=True)
class Interleaved:
    """The next messages: several sequences, each in its order, shuffled in any way.

    The first sequence whose next pattern takes a message has it.
    """

    sequences: tuple[tuple[Any, ...], ...]
    by: str = "me"


@dataclasses.dataclass(frozen=True)
class Nothing:
    """Nothing else has come before the answer to a ping, or with ``queued`` to a method, that is sent now."""

    by: str = "me"
    queued: bool = True


@dataclasses.dataclass(frozen=True)
class Closed:
    """The server closes the socket.

    Args:
        codes: the WebSocket close codes that will do.
        silently: whether it says nothing else before.
    """

    by: str = "me"
    codes: tuple[int, ...] = (1000,)
    within: float | None = None
    silently: bool = True


@dataclasses.dataclass(frozen=True)
class Leave:
    """Close the socket without DDP's ``disconnect``, as it happens when a network fails.

    Afterwards the variable "received" is how many messages the client got in this session, as Meteor 3.5
    counts them, and "received less" one less.
    """

    by: str = "me"


@dataclasses.dataclass(frozen=True)
class Frames:
    """All SockJS frames so far are as a test wants them; not looked at over a raw WebSocket."""

    description: str
    test: Callable[[list[str]], object]
    by: str = "me"
    within: float = 0


@dataclasses.dataclass(frozen=True)
class Met:
    """A `Capture` of this name has met something by now, for what need not happen at a certain message."""

    name: str


@dataclasses.dataclass(frozen=True)
class Get:
    """A plain HTTP request. Args: test: gets the headers, lower-cased, and the text."""

    path: str
    description: str
    test: Callable[[Mapping[str, str], str], object]


Step = Open | Send | SendText | Expect | Interleaved | Nothing | Closed | Leave | Frames | Met | Get


@dataclasses.dataclass(frozen=True)
class Conversation:
    """One conversation.

    Args:
        name: begins with ``fact_`` and the fact's number.
        steps: what is done, in order.
        needs: what a server may be without, see suite.FEATURES.
        wires: over what it is held.
        ignoring: collections whose documents are passed over.
        slow: seconds that it takes against a server with Meteor's own intervals, if that is long.
    """

    name: str
    steps: tuple[Step, ...]
    needs: frozenset[str] = frozenset()
    wires: tuple[str, ...] = tuple(WIRES)
    ignoring: frozenset[str] = frozenset({"users", "conformance.universal"})
    slow: float = 0

    def __repr__(self) -> str:
        return self.name


def conversation(name: str, *steps: Step | list[Any], needs: str = "", **options: Any) -> Conversation:
    """A conversation of steps and lists of steps. Args: needs: words."""
    return Conversation(name, tuple(_flat(steps)), needs=frozenset(needs.split()), **options)


def _flat(steps: Iterable[Any]) -> Iterator[Step]:
    for step in steps:
        if isinstance(step, list):
            yield from _flat(step)
        else:
            yield step


# -- steps in common use --------------------------------------------------------------------------


def expect(*messages: Any, by: str = "me", within: float | None = None) -> Expect:
    return Expect(messages, by, within)


def interleaved(*sequences: list[Any], by: str = "me") -> Interleaved:
    return Interleaved(tuple(map(tuple, sequences)), by)


def in_any_order(*messages: Any, by: str = "me") -> Interleaved:
    return interleaved(*([message] for message in messages), by=by)


def say(msg: str, by: str = "me", **members: Any) -> Send:
    return Send({"msg": msg, **members}, by)


def connected(by: str = "me", version: str = "1", pings: bool = False) -> list[Step]:
    """Open a socket and connect. The session's id becomes the variable "session", or "session of NAME"."""
    name = "session" if by == "me" else f"session of {by}"
    return [
        Open(by, pings=pings),
        say("connect", by, version=version, support=[version]),
        expect({"msg": "connected", "session": Capture(name, ID)}, by=by),
    ]


def sub(subscription: str, name: str, *params: Any, by: str = "me") -> Send:
    return say("sub", by, id=subscription, name=f"conformance.{name}", params=list(params))


def unsub(subscription: str, by: str = "me") -> Send:
    return say("unsub", by, id=subscription)


def script(subscription: str, *steps: list[Any], by: str = "me") -> Send:
    """Subscribe to the script that can be driven by the name that is the variable "run"."""
    return sub(subscription, "script", Var("run"), list(steps), by=by)


def method(call: str, name: str, *params: Any, by: str = "me") -> Send:
    return say("method", by, id=call, method=f"conformance.{name}", params=list(params))


def result(call: str, *value: Any) -> Message:
    """The message. Args: value: one value, or none where the method has no result."""
    return {"msg": "result", "id": call, **({"result": value[0]} if value else {})}


def failure(call: str, error: Any) -> Message:
    return {"msg": "result", "id": call, "error": error}


def updated(call: str) -> Message:
    return {"msg": "updated", "methods": [call]}


def done(call: str, *value: Any, by: str = "me") -> Interleaved:
    """A method's two messages, whichever comes first."""
    return in_any_order(result(call, *value), updated(call), by=by)


def failed(call: str, error: Any, by: str = "me") -> Interleaved:
    return in_any_order(failure(call, error), updated(call), by=by)


def telling(call: str, name: str, *params: Any, told: list[Any], gives: Any = ...) -> list[Step]:
    """Call a method that makes the server tell something, which is then told before `updated`."""
    answer = result(call, *([] if gives is ... else [gives]))
    return [method(call, name, *params), interleaved([*told, updated(call)], [answer])]


def driven(call: str, step: list[Any], *told: Any) -> list[Step]:
    """Let the script that is named like the run do a step, and take what is told of it."""
    return telling(call, "drive", Var("run"), step, told=list(told))


def called(call: str, name: str, *params: Any, by: str = "me", gives: Any = ...) -> list[Step]:
    """Call a method and take its answer. Args: gives: its result; without, it has none."""
    return [method(call, name, *params, by=by), done(call, *([] if gives is ... else [gives]), by=by)]


def data(msg: str, collection: str, document_id: Any, **members: Any) -> Message:
    return {"msg": msg, "collection": collection, "id": document_id, **members}


def added(collection: str, document_id: Any, **fields: Any) -> Message:
    return data("added", collection, document_id, **({"fields": fields} if fields else {}))


def changed(collection: str, document_id: Any, **fields: Any) -> Message:
    return data("changed", collection, document_id, fields=fields)


def removed(collection: str, document_id: Any) -> Message:
    return data("removed", collection, document_id)


def ready(*subscriptions: str) -> Message:
    return {"msg": "ready", "subs": list(subscriptions)}


def nosub(subscription: str, **error: Any) -> Message:
    return {"msg": "nosub", "id": subscription, **error}


def meteor_error(code: str | int, reason: str | None = None, **details: Any) -> Message:
    """An error as it is on the wire. Args: details: ``details=…`` or nothing."""
    return {
        "isClientSafe": True,
        "error": code,
        **({} if reason is None else {"reason": reason}),
        **details,
        "message": f"[{code}]" if reason is None else f"{reason} [{code}]",
        "errorType": "Meteor.Error",
    }


# -- holding them ---------------------------------------------------------------------------------


class Failed(Exception):
    """The server is not as the conversation wants it; `str` is what is wrong and all that was said."""


class Speaker:
    """One client of a conversation: what it was told, and how far that was looked at."""

    def __init__(
        self, client: DDPClient, *, pings: bool = False, greetings: bool = False, before: int = 0
    ) -> None:
        self.client = client
        self.greetings = greetings
        self._before = before  # messages that it got in this session before it resumed it
        self.pings = pings
        self._taken = 0
        self._updated: list[str] = []

    @property
    def received(self) -> int:
        return self._before + sum(
            message.get("msg") not in (None, "ping", "pong") for message in self.client.messages
        )

    def next(self, seconds: float, ignoring: frozenset[str]) -> Message | None:
        """The next message that counts, waited for."""
        while not self._updated:
            message = self.client.message(self._taken, seconds)
            if message is None:
                return None
            self._taken += 1
            kind = message.get("msg")
            if kind == "updated" and isinstance(message.get("methods"), list):
                self._updated = list(message["methods"])
            elif not (
                (kind is None and not self.greetings)
                or (kind == "ping" and not self.pings)
                or (kind in ("added", "changed", "removed") and message.get("collection") in ignoring)
            ):
                return message
        return {"msg": "updated", "methods": [self._updated.pop(0)]}


class Run:
    """One holding of a conversation.

    Args:
        url: the server's, ``http://…`` or ``ws://…`` without a path.
        wire: a name of `WIRES`.
        conversation: what is said.
        patience: seconds to wait for a message.
    """

    def __init__(self, url: str, wire: str, conversation: Conversation, patience: float = 10) -> None:
        self._url = url.rstrip("/")
        self._wire = WIRES[wire]
        self._conversation = conversation
        self._patience = patience
        self._speakers: dict[str, Speaker] = {}
        self._all: list[Speaker] = []
        self._markers = 0
        self.transcript: list[str] = []
        run = "".join(secrets.choice(UNMISTAKABLE) for _ in range(17))
        self._variables: Variables = {
            "run": run,
            **{name: f"{name}-{run}" for name in ("ann", "ANN", "bob")},
            "ann's address": f"Ann-{run}@example.org",
            "ann's address in capitals": f"ANN-{run}@EXAMPLE.ORG",
        }

    def hold(self) -> None:
        """Say it all. Raises Failed."""
        try:
            for step in self._conversation.steps:
                self._do(step)
            self._end()
        except (Mismatch, OSError, WebSocketException) as wrong:
            text = "\n".join(self.transcript)
            raise Failed(f"{self._conversation}: {wrong}\n{text}") from wrong
        finally:
            for speaker in self._all:
                with contextlib.suppress(OSError, WebSocketException):
                    speaker.client.close()

    def _end(self) -> None:
        for speaker in self._all:
            if speaker.client.violations:
                raise Mismatch(f"what a strict client refuses: {speaker.client.violations}")

    def _do(self, step: Step) -> None:
        match step:
            case Open():
                self._open(step)
            case Send(message, by):
                self._send(by, json.dumps(filled(dict(message), self._variables)))
            case SendText(text, by):
                self._send(by, text)
            case Expect(messages, by, within):
                for pattern in messages:
                    self._take(by, [pattern], within)
            case Interleaved(sequences, by):
                left = list(sequences)
                while left:
                    taken = self._take(by, [sequence[0] for sequence in left])
                    left[taken] = left[taken][1:]
                    left = [sequence for sequence in left if sequence]
            case Nothing():
                self._nothing(step)
            case Closed():
                self._closed(step)
            case Leave(by):
                self._note(by, "leaves")
                speaker = self._speakers[by]
                speaker.client.close()
                self._variables |= {"received": speaker.received, "received less": speaker.received - 1}
            case Frames():
                self._frames(step)
            case Met(name):
                if name not in self._variables:
                    raise Mismatch(f"there was no {name}")
            case Get():
                self._get(step)

    def _note(self, by: str, text: str) -> None:
        self.transcript.append(f"    {by:6} {text}")

    def _open(self, step: Open) -> None:
        resumed = self._speakers[step.by] if step.resuming else None
        documents = None if resumed is None else resumed.client.documents
        client = DDPClient(
            self._url, handshake=False, wire=self._wire(), documents=documents, answer_pings=not step.pings
        )
        self._speakers[step.by] = speaker = Speaker(
            client,
            pings=step.pings,
            greetings=step.greetings,
            before=0 if resumed is None else resumed.received,
        )
        self._all.append(speaker)
        self._note(step.by, "opens")

    def _send(self, by: str, text: str) -> None:
        self._note(by, f"→ {text}")
        try:
            self._speakers[by].client.send_text(text)
        except WebSocketException as error:
            raise Mismatch(f"{by} can't send: {error}") from error

    def _take(self, by: str, patterns: list[Any], within: float | None = None) -> int:
        """Match the next message with one of the patterns. Returns the number of that."""
        seconds = self._patience if within is None else within
        speaker = self._speakers[by]
        message = speaker.next(seconds, self._conversation.ignoring)
        if message is None:
            state = f"the socket is closed ({speaker.client.socket.close_code})"
            state = state if speaker.client.closed else f"nothing came for {seconds} s"
            raise Mismatch(f"{by} expects {' or '.join(map(repr, patterns))}, but {state}")
        self._note(by, f"← {json.dumps(message)}")
        complaints = []
        for number, pattern in enumerate(patterns):
            tried = dict(self._variables)
            try:
                match(pattern, message, tried)
            except Mismatch as mismatch:
                complaints.append(f"{by} expects {pattern!r}: {mismatch}")
                continue
            self._variables.update(tried)
            return number
        raise Mismatch("; or ".join(complaints))

    def _nothing(self, step: Nothing) -> None:
        self._markers += 1
        marker = f"marker-{self._markers}"
        if step.queued:
            self._do(method(marker, "echo", marker, by=step.by))
            self._do(done(marker, marker, by=step.by))
        else:
            self._do(say("ping", step.by, id=marker))
            self._do(expect({"msg": "pong", "id": marker}, by=step.by))

    def _closed(self, step: Closed) -> None:
        speaker = self._speakers[step.by]
        seconds = self._patience if step.within is None else step.within
        while (message := speaker.next(seconds, self._conversation.ignoring)) is not None:
            self._note(step.by, f"← {json.dumps(message)}")
            if step.silently:
                raise Mismatch(f"{step.by} expects the end, but got {json.dumps(message)}")
        if not speaker.client.closed:
            raise Mismatch(f"the socket of {step.by} is not closed after {seconds} s")
        code = speaker.client.socket.close_code
        self._note(step.by, f"is closed: {code}")
        if code not in step.codes:
            raise Mismatch(f"the close code is {code}, not one of {step.codes}")

    def _frames(self, step: Frames) -> None:
        wire = self._speakers[step.by].client.wire
        if isinstance(wire, SockJSWire):
            with contextlib.suppress(AssertionError):
                self._speakers[step.by].client.wait_until(lambda: step.test(wire.frames), step.within)
            if not step.test(wire.frames):
                raise Mismatch(f"the frames are not {step.description}: {wire.frames}")

    def _get(self, step: Get) -> None:
        url = self._url.replace("ws", "http", 1) if self._url.startswith("ws") else self._url
        with urllib.request.urlopen(url + step.path, timeout=self._patience) as answer:
            text = answer.read().decode()
            headers = {name.lower(): value for name, value in answer.headers.items()}
        self.transcript.append(f"    GET    {step.path}: {headers} {text}")
        if not step.test(headers, text):
            raise Mismatch(f"{step.path} is not {step.description}")
