"""A server of the test's own: `trigger_ddp serve` as a process, on a free port, on the test's database."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import roles

if TYPE_CHECKING:
    from tests.conftest import Database

ROOT = Path(__file__).resolve().parent.parent
READY = r"listening on (https?://(\S+):(\d+))"
TROUBLE = re.compile(r"\b(ERROR|CRITICAL)\b|^Traceback")
START_SECONDS = 60
STOP_SECONDS = 30


class Server:
    """One running server.

    Args:
        arguments: command line arguments after ``serve``.
        environ: the whole environment of the process.
        command: what Python is given to run, before the arguments.

    Attributes:
        url: ``http://HOST:PORT``, without a slash at the end.
        host, port: its parts.
        errors_expected: set it in a test that makes the server log an error; otherwise `stop` fails on one.
    """

    def __init__(
        self,
        *arguments: str,
        environ: dict[str, str],
        command: Sequence[str] = ("-m", "trigger_ddp", "serve"),
    ) -> None:
        self.errors_expected = False
        self._lines: list[str] = []
        self._grown = threading.Condition()
        self._ended = False
        self.process = subprocess.Popen(
            [sys.executable, *command, *arguments],
            env=environ, cwd=ROOT, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True, name="server log")
        self._reader.start()
        try:
            ready = self.wait_for_log(READY, START_SECONDS)
        except BaseException:
            self.kill()
            raise
        self.url, self.host, self.port = ready[1], ready[2], int(ready[3])

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._grown:
                self._lines.append(line)
                self._grown.notify_all()
        with self._grown:
            self._ended = True
            self._grown.notify_all()

    def log(self) -> str:
        """Everything the server has written so far."""
        with self._grown:
            return "".join(self._lines)

    def wait_for_log(self, pattern: str, seconds: float = 20) -> re.Match[str]:
        """The first match in the log, waited for; fails with the whole log where none comes."""

        def found() -> re.Match[str] | None:
            return re.search(pattern, "".join(self._lines), re.MULTILINE)

        with self._grown:
            self._grown.wait_for(lambda: found() or self._ended, seconds)
            match = found()
        if match is None:
            raise AssertionError(f"the server's log has nothing like {pattern!r}:\n{self.log()}")
        return match

    def stop(self) -> None:
        """End it as an init system does. Fails unless it ends in time, with status 0 and no error logged."""
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the server did not end on SIGTERM:\n{self.log()}") from None
        self.close_log()
        assert status == 0, f"the server ended with status {status}:\n{self.log()}"
        trouble = [line for line in self.log().splitlines() if TROUBLE.search(line)]
        assert self.errors_expected or not trouble, f"the server logged errors:\n{self.log()}"

    def kill(self) -> None:
        """End it as a crash does."""
        self.process.kill()
        self.process.wait()
        self.close_log()

    def close_log(self) -> None:
        assert self.process.stdout is not None
        self._reader.join(STOP_SECONDS)
        self.process.stdout.close()


def start_server(db: Database, *arguments: str, **environ: str) -> Server:
    """A server on this database, with triggers; arguments and environment are added. Stop it."""
    variables = {**os.environ, "PYTHONUNBUFFERED": "1", **db.environ, **environ}
    if db.server_role == "postgres":
        arguments = ("--install-triggers", *arguments)
    elif "DDP_BULK_THRESHOLD" in environ:
        roles.install(variables)  # other triggers than those that are there
    return Server("--bind", "127.0.0.1:0", *arguments, environ=variables)


@pytest.fixture
def serve(db: Database) -> Iterator[Callable[..., Server]]:
    """Starts servers on the test's database: ``serve("--workers", "2", DDP_X="…") -> Server``.

    Arguments are added to the command line, keywords to the environment. What still runs when the
    test ends is stopped.
    """
    servers: list[Server] = []

    def start(*arguments: str, **environ: str) -> Server:
        server = start_server(db, *arguments, **environ)
        servers.append(server)
        return server

    yield start
    running = []
    for server in servers:
        if server.process.returncode is None:
            running.append(server)
        else:
            server.close_log()  # the test ended it itself
    try:
        while running:
            running.pop().stop()
    finally:
        for server in running:
            server.kill()


@pytest.fixture
def server(serve: Callable[..., Server]) -> Server:
    """One server on the test's database."""
    return serve()
