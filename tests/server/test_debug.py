"""The debug console: where it may be, what it answers, and whom it does not talk to."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
import trio.testing

from tests.conftest import Database
from tests.ddp import DDPClient
from tests.serving import Server
from tests.test_cli import refused
from trigger_ddp.errors import ConfigurationError
from trigger_ddp.live.engine import Engine
from trigger_ddp.server import debug, debug_port
from trigger_ddp.server.debug_commands import Commands, _word
from trigger_ddp.server.metrics import Metrics

# -- where ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "bind"),
    [
        ("9000", "127.0.0.1:9000"),
        ("127.0.0.1:9000", "127.0.0.1:9000"),
        ("127.3.2.1:0", "127.3.2.1:0"),
        ("localhost:9000", "127.0.0.1:9000"),
        ("[::1]:9000", "[::1]:9000"),
    ],
)
def test_where_it_may_be(text, bind):
    assert str(debug_port.parse(text)) == bind


@pytest.mark.parametrize(
    "text",
    [
        "0.0.0.0:9000", ":9000", "[::]:9000", "10.0.0.1:9000", "example.org:9000", "localhost.evil.org:9000",
        "unix:/tmp/x", "/tmp/x", "", "99999", "port", "127.0.0.1", "127.1:9000", "::1:9000",
    ],
)  # fmt: skip
def test_where_it_may_not(text):
    with pytest.raises(ConfigurationError, match="--debug-port"):
        debug_port.parse(text)


def test_the_command_refuses_other_addresses():
    sentence = refused("--debug-port", "0.0.0.0:0", "--settings", "tests.project.settings", environ={})
    assert "'0.0.0.0:0' is refused: the console asks for no password" in sentence


# -- what it answers -----------------------------------------------------------------------------------------


class Console:
    """Somebody who types."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 20)
        self.greeting = self.answer()

    def answer(self) -> str:
        """All up to the next prompt, or to the end."""
        data = b""
        while not data.endswith(debug.PROMPT):
            more = self.socket.recv(65536)
            if not more:
                break
            data += more
        return data.decode().removesuffix(debug.PROMPT.decode())

    def __call__(self, line: str) -> str:
        self.socket.sendall(line.encode() + b"\n")
        return self.answer()


@pytest.fixture
def watched(serve: Callable[..., Server]) -> Server:
    return serve("--debug-port", "0")


@pytest.fixture
def port(watched: Server) -> int:
    return int(watched.wait_for_log(r"debug console on 127\.0\.0\.1:(\d+)")[1])


@pytest.fixture
def console(port: int) -> Iterator[Console]:
    console = Console(port)
    with console.socket:
        yield console


def test_a_talk(db: Database, watched: Server, console: Console) -> None:
    db.psql("INSERT INTO bookstore_author (name, email) VALUES ('the secret of Ada', 'a@x')")
    assert "'help' lists" in console.greeting
    for command in ("help", "tasks", "where", "sessions", "session", "queries", "threads", "metrics", "quit"):
        assert re.search(rf"^  {command} ", console("help"), re.MULTILINE), command
    assert console("sessions") == "0 sessions\n"
    with DDPClient(watched.url) as client:
        session = client.wait_for(lambda message: message["msg"] == "connected")["session"]
        client.subscribe("Authors")
        client.subscribe("BooksOfAuthor", 424242)
        count, line = console("sessions").splitlines()
        assert count == "1 sessions"
        assert line == (
            f"{session} connected  user - of 127.0.0.1, 2 subscriptions, 0 bytes waiting"
        )  # fmt: skip
        whole = console(f"session {session}")
        assert "subscription c1 Authors: 1 live queries" in whole
        assert "bookstore.author: live, 1 documents, 1 holders" in whole
        queries = console("queries")
        assert queries.startswith("2 live queries of 2 shapes\n")
        assert "bookstore.author: live, 1 documents" in queries
        assert "SELECT" in queries
        assert console("queries 1").count("SELECT") == 1
        assert "… and 1 more" in console("queries 1")
        said = "".join(map(console, ("tasks", "threads", "metrics", "sessions", "queries"))) + whole
        assert "secret" not in said, "documents are not shown"
        assert "424242" not in said, "nor what clients ask with"
    assert 'trigger_ddp_sessions{state="connected"}' in console("metrics")


def test_tasks_and_their_stacks(watched: Server, console: Console) -> None:
    with DDPClient(watched.url):
        tree = console("tasks")
    assert tree.splitlines()[0].endswith("<init>")
    assert "trigger_ddp.server.service.Service.run" in tree
    task = re.search(r"(\w+) trigger_ddp\.server\.service\.Service\._flush_whenever_dirty", tree)
    assert task is not None
    stack = console(f"where {task[1]}")
    assert re.search(r"service\.py:\d+ in Service\._flush_whenever_dirty", stack)
    assert "there is no such task" in console("where ffff")
    assert len(console("tasks 3").splitlines()) == 4


def test_threads(console: Console) -> None:
    said = console("threads")
    assert "application: 8 threads, 0 at work, 0 jobs waiting" in said
    assert "evaluation: 4 threads, 0 at work, 0 jobs waiting" in said
    assert len(re.findall(r"^trigger_ddp worker \d:$", said, re.MULTILINE)) == 8
    assert len(re.findall(r"^trigger_ddp evaluator \d:$", said, re.MULTILINE)) == 4
    assert re.search(r"workers\.py:\d+ in _work", said)


def test_wrong_lines_are_answered(console: Console) -> None:
    assert console("") == ""
    assert "no such command: import" in console("import os")
    assert "no such command: __class__" in console("__class__")
    assert "ROWS is a number" in console("sessions many")
    assert "ROWS is a number" in console("sessions -1")
    assert "too many words" in console("sessions 1 2")
    assert "there is no such session" in console("session nobody")
    assert "there is no such session" in console("session")
    assert "no such command: '\\x07" in console("\x07\x1b[2J")
    assert "help" in console("help\r")
    console.socket.sendall(b"quit\n")
    assert console.answer() == ""
    assert console.socket.recv(1) == b""


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /x?y HTTP/1.1\r\nHost: localhost\r\n\r\nsessions\n",
        b"OPTIONS * HTTP/1.0\r\n\r\n",
        b"Content-Type: text/plain\r\nsessions\r\n",
        b"\x16\x03\x01\x02\x00\n",
    ],
)
def test_browsers_are_let_go_without_a_word(watched: Server, port: int, said: bytes) -> None:
    console = Console(port)
    with console.socket:
        console.socket.sendall(said)
        with contextlib.suppress(ConnectionResetError):  # which would be as well
            assert console.answer() == ""
    watched.wait_for_log("speaks HTTP or TLS")


def test_a_long_line_ends_it(port: int) -> None:
    console = Console(port)
    with console.socket:
        console.socket.sendall(b"x" * 1001)
        assert "too long" in console.answer()


def test_a_few_at_a_time(port: int) -> None:
    consoles = [Console(port) for _ in range(debug.MOST_CONSOLES)]
    refused = Console(port)
    assert refused.greeting == "too many consoles are open\n"
    refused.socket.close()
    consoles.pop().socket.close()
    while (console := Console(port)).greeting == "too many consoles are open\n":
        console.socket.close()
    for one in (console, *consoles):
        one.socket.close()


def test_nobody_listens_without_the_option(server: Server) -> None:
    assert "debug console" not in server.log()


# -- inside --------------------------------------------------------------------------------------------------


def talk(commands: Any, *lines: bytes, clock: trio.abc.Clock | None = None) -> bytes:
    """What a console says to some lines, until it closes."""

    async def main() -> bytes:
        ours, theirs = trio.testing.memory_stream_pair()
        consoles = debug._Consoles(commands)
        said = b""
        async with trio.open_nursery() as nursery:

            async def serve() -> None:
                await consoles.converse(theirs)
                await theirs.aclose()

            nursery.start_soon(serve)
            for line in lines:
                await ours.send_all(line)
            while data := await ours.receive_some(65536):
                said += data
        return said

    return trio.run(main, clock=clock)


def test_an_error_in_a_command_is_told_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    def run(words: list[str]) -> str:
        raise ValueError("the secret of the command")

    said = talk(SimpleNamespace(run=run), b"any thing\nquit\n")
    assert b"failed: ValueError; the log has the whole of it\n" in said
    assert b"secret" not in said
    assert "the debug console's 'any' failed" in caplog.text
    assert "the secret of the command" in caplog.text


def test_nobody_who_types_is_let_go() -> None:
    said = talk(SimpleNamespace(run=str), b"hal", clock=trio.testing.MockClock(autojump_threshold=0))
    assert said == debug.GREETING + debug.PROMPT


def test_lines_in_pieces() -> None:
    said = talk(SimpleNamespace(run=lambda words: "-".join(words)), b"a b", b" c\nd\nqu", b"it\n")
    assert said.removeprefix(debug.GREETING) == b"ddp> a-b-c\nddp> d\nddp> "


def test_deep_trees_are_drawn() -> None:
    service = SimpleNamespace(engine=Engine(), connections={}, conversations={})
    commands = Commands(cast(Any, service), Metrics())

    async def nest(depth: int) -> None:
        async with trio.open_nursery() as nursery:
            if depth:
                nursery.start_soon(nest, depth - 1)
            else:
                lines.append(commands.run(["tasks", "1000"]))
                nursery.cancel_scope.cancel()

    lines: list[str] = []
    trio.run(nest, 300)
    assert lines[0].count("nest") == 301


@pytest.mark.parametrize("value", ["a\nb", "\x1b[2J", "x" * 10_000, "\u202eevil"])
def test_what_clients_choose_stays_on_its_line(value: str) -> None:
    assert _word(value).isprintable()
    assert len(_word(value)) <= 100


def test_threads_are_those_of_the_pools() -> None:
    assert threading.main_thread().name not in Commands(cast(Any, pools()), Metrics()).run(["threads"])


def pools() -> Any:
    idle = SimpleNamespace(statistics=lambda: SimpleNamespace(size=1, running=0, waiting=0))
    return SimpleNamespace(pools={"application": idle})
