"""DDP: any texts, one a line, from a client that goes away and comes back."""

from __future__ import annotations

import contextlib
import datetime
import json
import uuid
from collections import Counter, deque
from typing import Any, cast

import trio

from tests.fuzz import wire
from trigger_ddp import ejson
from trigger_ddp.api import API, APIMixin, Handle, MeteorError, api_endpoint, this
from trigger_ddp.conf import Settings
from trigger_ddp.protocol.ending import Ending
from trigger_ddp.protocol.frames import Wire
from trigger_ddp.server.connection import ConnectionClosed
from trigger_ddp.server.conversation import converse
from trigger_ddp.server.exchange import Request
from trigger_ddp.server.outbox import OutboxStatistics
from trigger_ddp.server.service import Service
from trigger_ddp.server.source import Deliver, Fence


def _script(*lines: str) -> bytes:
    return "\n".join(lines).encode()


def _call(call_id: str, method: str, params: str) -> str:
    return f'{{"msg":"method","id":"{call_id}","method":"{method}","params":[{params}]}}'


def _sub(subscription: str, steps: str) -> str:
    return f'{{"msg":"sub","id":"{subscription}","name":"fuzz/script","params":[[{steps}]]}}'


_CONNECT = '{"msg":"connect","version":"1","support":["1","pre2","pre1"]}'
_RESUME = _CONNECT[:-1] + ',"session":"SESSION","receivedCount":"COUNT"}'

#: A line is a message. "!wait" lets 20 seconds pass, "!lost" is where the connection breaks. In the lines
#: behind it SESSION is the session's id, and "COUNT" the number of messages that the client has received.
SEEDS = (
    _script(_CONNECT, _call("1", "fuzz/echo", '{"$date":0},{"a":[1.5,null]}')),
    _script(
        _CONNECT,
        _sub(
            "s", '["added","c","i",{"f":1}],["ready"],["changed","c","i",{"f":2},["g"]],["removed","c","i"]'
        ),
        '{"msg":"unsub","id":"s"}',
    ),
    _script(
        _CONNECT,
        _sub("s", '["added","c","i",{}],["sleep"],["stop"]'),
        _sub("t", '["added","c","i",{"f":2}],["error"]'),
    ),
    _script(
        _CONNECT,
        '{"msg":"ping","id":"7"}',
        '{"msg":"ping"}',
        '{"msg":"pong"}',
        "!wait",
        '{"msg":"disconnect"}',
    ),
    _script(_CONNECT, _call("1", "fuzz/slow", ""), "!lost", _RESUME, _call("1", "fuzz/slow", "")),
    _script(_CONNECT, _sub("s", '["added","c","i",{"f":1}],["ready"]'), "!lost", _RESUME, "!wait"),
    _script('{"msg":"sub","id":"s","name":"x"}', '{"msg":"connect","version":"pre2","support":["pre2"]}'),
    _script(
        '{"msg":"connect","version":"pre1","support":["pre1"]}', '{"msg":"ping"}', "!wait", '{"msg":"method"}'
    ),
    _script(
        _CONNECT,
        _call("1", "fuzz/typed", '{"$date":0},1,{"a":["00000000-0000-0000-0000-000000000000"]}'),
        _call("2", "fuzz/refuse", '"no",{}'),
    ),
    _script(_CONNECT, _call("1", "fuzz/nothing", ""), '{"msg":"sub","id":"s","name":"nothing"}'),
    _script(_CONNECT, '{"msg":"changed","cleared":1}', _call("1", "fuzz/echo", '{"$type":1,"$value":2}')),
    _script(_CONNECT, _call("1", "fuzz/leave", "")),
    _script("[]", "{}", "null", '"x"', '{"msg":1}', '{"msg":["connect"]}'),
)
WORDS = (
    '{"msg":', '"connect"', '"sub"', '"unsub"', '"method"', '"ping"', '"pong"', '"disconnect"', '"id":',
    '"name":', '"method":', '"params":', '"version":', '"support":', '"session":', '"randomSeed":',
    '"receivedCount":', '"SESSION"', '"COUNT"', "\n!lost\n", "\n!wait\n", '"fuzz/echo"', '"fuzz/typed"',
    '"fuzz/slow"', '"fuzz/leave"', '"fuzz/refuse"', '"fuzz/script"', '"added"', '"changed"', '"removed"',
    '"ready"', '"stop"', '"error"', '"sleep"', '"$date":', '"$type":', '"$value":', '"$escape":',
    '"$InfNaN":', '"$binary":', "1e308", "9007199254740993", '"_id"', "null", "true", "\\\\u0000",
)  # fmt: skip

_MOST_LINES = 60
_MOST_STEPS = 20
#: The last method's id, which a fuzzer does not guess.
_LAST = "c8f1d0a7-the-last"
_SAID = frozenset(
    "connected failed error pong ping result updated added changed removed ready nosub".split()  # noqa: SIM905
)


class Fuzzed(APIMixin):
    """Methods that need no database."""

    api_path_prefix = "fuzz/"

    @api_endpoint
    async def echo(self, *params: Any) -> Any:
        return list(params)

    @api_endpoint
    async def typed(
        self, day: datetime.date, count: int, things: dict[str, list[uuid.UUID]] | None = None
    ) -> Any:
        return [str(day), count, things]

    @api_endpoint
    async def refuse(self, reason: str, details: Any = None) -> None:
        raise MeteorError("refused", reason, details)

    @api_endpoint
    async def slow(self) -> int:
        this.unblock()
        await trio.sleep(3)
        return 1

    @api_endpoint
    async def leave(self) -> None:
        this.connection.close()


async def script(handle: Handle, steps: list[Any]) -> None:
    """Tell what the client wants to be told."""
    for step in steps[:_MOST_STEPS]:
        if not isinstance(step, list) or not step:
            continue
        what, *arguments = step
        # What a handle refuses is the application's mistake, here the client's.
        with contextlib.suppress(TypeError, LookupError, AttributeError, ejson.EJSONError):
            match what:
                case "added" | "changed" | "removed":
                    getattr(handle, what)(*arguments)
                case "ready" | "stop" | "unblock":
                    getattr(handle, what)()
                case "error":
                    handle.error(MeteorError("as asked", *map(str, arguments[:1])))
                case "sleep":
                    await trio.sleep(2)


API.register(Fuzzed)
API.publish("fuzz/script")(script)


class _Source:
    """Nothing changes."""

    connected = True

    async def run(self, deliver: Deliver, *, task_status: trio.TaskStatus[None]) -> None:
        self._deliver = deliver
        task_status.started()
        await trio.sleep_forever()

    def fence(self) -> Fence:
        fence = Fence("fence")
        trio.lowlevel.current_trio_token().run_sync_soon(self._deliver, [fence])
        return fence


class _Workers:
    """There is no database."""

    async def run(self, function: Any, *args: Any) -> Any:
        await trio.lowlevel.checkpoint()
        raise MeteorError(503, "There is no database")


class _Browser:
    """What one client has been told, over all its connections; it insists that it makes sense."""

    def __init__(self) -> None:
        self.session = "none"
        self.count = 0
        self.documents: set[tuple[str, str]] = set()
        self.calls: Counter[str] = Counter()
        self.answered = False

    def hear(self, link: _Link, text: str) -> None:
        message = json.loads(text)
        kind = message["msg"]
        assert kind in _SAID, kind
        if kind not in ("ping", "pong"):
            self.count += 1
        if kind == "connected" and message["session"] != self.session:
            self.session, self.count = message["session"], 1
            self.documents.clear()
        elif kind == "ping":
            link.say('{"msg":"pong"}')
        elif kind in ("added", "changed", "removed"):
            key = message["collection"], message["id"]
            assert (key in self.documents) == (kind != "added"), message
            if kind == "added":
                self.documents.add(key)
            elif kind == "removed":
                self.documents.discard(key)
        elif kind == "result":
            self.calls[message["id"]] -= 1
            assert self.calls[message["id"]] >= 0, "a result that nobody asked for"
        if _LAST in text:
            self.answered = True

    def filled_in(self, text: str) -> str:
        text = text.replace("SESSION", self.session).replace('"COUNT"', str(self.count))
        with contextlib.suppress(ValueError, RecursionError):
            message = json.loads(text)
            if isinstance(message, dict) and isinstance(call := message.get("id"), str):
                self.calls[call] += 1
        return text


class _Link:
    """A connection whose client sends some lines."""

    wire = Wire.RAW
    request = Request("GET", "/websocket", client_address="10.0.0.1", client_port=1)
    client_address = "10.0.0.1"

    def __init__(self, browser: _Browser, lines: list[str]) -> None:
        self.closed_here = False
        self.close_reason = ""
        self.ending = Ending.SERVER
        self.used_up = trio.Event()
        self._browser = browser
        self._lines = deque(lines)
        self._more = trio.Event()
        self._ended = trio.Event()

    @property
    def closed(self) -> bool:
        return self._ended.is_set()

    def say(self, line: str) -> None:
        self._lines.append(line)
        self._more.set()

    async def receive(self) -> str:
        await trio.lowlevel.checkpoint()
        while not self.closed:
            if not self._lines:
                self.used_up.set()
                self._more = trio.Event()
                await self._more.wait()
            elif (line := self._lines.popleft()) == "!wait":
                with trio.move_on_after(20):
                    await self._ended.wait()
            else:
                return self._browser.filled_in(line)
        raise ConnectionClosed(self.close_reason)

    def push(self, frame: bytes) -> None:
        if not self.closed:
            for opcode, payload in wire.websocket_frames(frame):
                assert opcode == 1
                self._browser.hear(self, payload.decode())

    send = push

    def flush(self) -> None:
        pass

    def statistics(self) -> OutboxStatistics:
        return OutboxStatistics(0, 0, 0.0)

    async def wait_at_most(self, count: int) -> None:
        await trio.lowlevel.checkpoint()

    async def wait_closed(self) -> None:
        await self._ended.wait()

    async def close(self, code: int = 1000, reason: str = "", ending: Ending | None = None) -> None:
        assert 1000 <= code < 5000
        self.closed_here = not self.closed
        self.abort(reason, ending or Ending.SERVER)
        await trio.lowlevel.checkpoint()

    def abort(self, reason: str, ending: Ending = Ending.CLIENT) -> None:
        self.close_reason = self.close_reason or reason
        self.ending = ending
        self._ended.set()
        self._more.set()
        self.used_up.set()


async def _serve(service: Service, link: _Link) -> None:
    with contextlib.suppress(ConnectionClosed):
        await converse(service, cast(Any, link))
    await link.close()


def feed(data: bytes) -> None:
    lines = data.decode("utf-8", "replace").split("\n")[:_MOST_LINES]

    async def main() -> None:
        workers = cast(Any, _Workers())
        settings = Settings(
            max_pending_messages=20, max_message_bytes=1024, resume_bytes=1024, max_subscriptions=4
        )
        service = Service(cast(Any, _Source()), workers, workers, settings)
        async with trio.open_nursery() as nursery:
            await nursery.start(service.run)
            await _play(service, lines)
            await trio.sleep(100)
            assert not service.conversations, "a session that nobody comes back to"
            assert not service.connections
            nursery.cancel_scope.cancel()

    wire.run(main)


async def _play(service: Service, lines: list[str]) -> None:
    browser = _Browser()
    async with trio.open_nursery() as nursery:
        while True:
            part, rest = lines, None
            if "!lost" in lines:
                at = lines.index("!lost")
                part, rest = lines[:at], lines[at + 1 :]
            link = _Link(browser, part)
            nursery.start_soon(_serve, service, link)
            await link.used_up.wait()
            await trio.testing.wait_all_tasks_blocked()
            if rest is None:
                break
            link.abort("lost")
            await trio.testing.wait_all_tasks_blocked()
            lines = rest
        link.say(json.dumps({"msg": "method", "id": _LAST, "method": "fuzz/echo", "params": []}))
        with trio.move_on_after(300):
            while not link.closed and not browser.answered:
                await trio.sleep(1)
        assert link.closed or browser.answered, "the session neither answers nor closes"
        link.abort("lost")
