"""The npm clients: installed once, each run as a Node process that takes commands and reports."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import queue
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serving import Server

HERE = Path(__file__).resolve().parent
INSTALL_SECONDS = 300
ANSWER_SECONDS = 30


@pytest.fixture(scope="session")
def node() -> str:
    """Path of Node, with the clients of package-lock.json installed beside this file."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        missing = "node and npm are needed to run the npm clients, and not on the PATH"
        if os.environ.get("TDDP_REQUIRE_NODE") == "1":
            pytest.fail(missing)
        pytest.skip(missing)
    lockfile, installed = HERE / "package-lock.json", HERE / "node_modules" / ".package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < lockfile.stat().st_mtime:
        done = subprocess.run([npm, "ci"], cwd=HERE, capture_output=True, text=True, timeout=INSTALL_SECONDS)
        if done.returncode:
            pytest.fail(f"npm ci failed:\n{done.stdout}\n{done.stderr}")
    return node


class Refused(Exception):
    """The server answered a command with ``.error``, as it is on the wire."""

    def __init__(self, error: Any) -> None:
        super().__init__(error)
        self.error = error


class Client:
    """One client program; see driver.mjs for what goes over its pipes.

    Attributes:
        messages: the DDP messages it has been told so far, in order.
    """

    def __init__(self, node: str, program: str, server: Server, **environ: str) -> None:
        self.messages: list[dict[str, Any]] = []
        self._numbers = itertools.count(1)
        self._reports: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.process = subprocess.Popen(
            [node, str(HERE / program)],
            env={**os.environ, "SERVER_URL": server.url, **environ}, cwd=HERE,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8",
        )  # fmt: skip
        self._complaints: list[str] = []
        self._threads = [
            threading.Thread(target=self._read_reports, daemon=True),
            threading.Thread(target=self._read_complaints, daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def _read_reports(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._reports.put(line)
        self._reports.put(None)

    def _read_complaints(self) -> None:
        assert self.process.stderr is not None
        self._complaints.extend(self.process.stderr)

    def _next(self) -> dict[str, Any]:
        try:
            line = self._reports.get(timeout=ANSWER_SECONDS)
        except queue.Empty:
            raise AssertionError(
                f"the client says nothing; its last messages: {self.messages[-10:]}"
            ) from None
        if line is None:
            self._threads[1].join(ANSWER_SECONDS)
            raise AssertionError(f"the client ended:\n{''.join(self._complaints)}")
        report = json.loads(line)
        if "message" in report:
            self.messages.append(report["message"])
        return report

    def command(self, command: str, *params: Any) -> Any:
        """What the program answers to one of its commands. Raises Refused."""
        number = next(self._numbers)
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"number": number, "command": command, "params": params}) + "\n")
        self.process.stdin.flush()
        while True:
            report = self._next()
            if report.get("reply") == number:
                if "error" in report:
                    raise Refused(report["error"])
                return report["value"]

    def connect(self) -> None:
        self.command("connect")

    def subscribe(self, name: str, *params: Any) -> str:
        """The subscription's id, once it is ready. Raises Refused if it is refused."""
        return self.command("subscribe", name, *params)

    def unsubscribe(self, subscription: str) -> None:
        """Returns when the server has confirmed the end of the subscription."""
        self.command("unsubscribe", subscription)

    def call(self, name: str, *params: Any) -> Any:
        """What the method returned. Raises Refused if it failed."""
        return self.command("call", name, *params)

    def documents(self, collection: str) -> dict[str, dict[str, Any]]:
        """The client's own copy of a collection now, by document id."""
        return self.command("documents").get(collection, {})

    def wait_for(self, **wanted: Any) -> dict[str, Any]:
        """The next message, not asked for before, that has all of ``wanted``; waited for."""
        seen = 0
        while True:
            while seen < len(self.messages):
                message = self.messages[seen]
                seen += 1
                if wanted.items() <= message.items():
                    del self.messages[:seen]
                    return message
            self._next()

    def close(self) -> None:
        """Let the client disconnect; fails unless it then ends by itself, without an error."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        status = self.process.wait(ANSWER_SECONDS)
        self._release()
        assert status == 0, f"the client ended with status {status}:\n{''.join(self._complaints)}"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._release()

    def _release(self) -> None:
        for thread in self._threads:
            thread.join(ANSWER_SECONDS)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):  # a killed client leaves what was never flushed to it
                pipe.close()


@pytest.fixture
def run_client(node: str) -> Iterator[Callable[..., Client]]:
    """Starts programs: ``run_client("simpleddp.mjs", server) -> Client``; keywords go to the environment."""
    clients: list[Client] = []

    def start(program: str, server: Server, **environ: str) -> Client:
        client = Client(node, program, server, **environ)
        clients.append(client)
        return client

    yield start
    for client in clients:
        if client.process.returncode is None:
            client.kill()
