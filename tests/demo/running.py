"""`trigger-ddp demo` as a process of its own, and what of it is left in the system."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.browser import until

END_SECONDS = 60.0


class Demo:
    """A running demo. Its temporary files go to a directory of the test's, so that any left there is seen."""

    def __init__(self, temporary: Path, *arguments: str) -> None:
        self.temporary = temporary
        self.lines: list[str] = []
        self._ended = False
        self._queue: queue.Queue[str | None] = queue.Queue()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("DJANGO_")}
        environment.pop("XDG_RUNTIME_DIR", None)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "trigger_ddp", "demo", *arguments],
            env=environment | {"TMPDIR": str(temporary)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        threading.Thread(target=self._read, name="demo-output", daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as output:
            for line in output:
                self._queue.put(line.rstrip("\n"))
        self._queue.put(None)

    def _next_line(self) -> str | None:
        """The next line of output, now one of `lines`, or None after the last."""
        if self._ended:
            return None
        line = self._queue.get(timeout=END_SECONDS)
        if line is None:
            self._ended = True
        else:
            self.lines.append(line)
        return line

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def wait_for(self, text: str) -> str:
        """The next line of its output that has `text` in it."""
        while (line := self._next_line()) is not None:
            if text in line:
                return line
        raise AssertionError(f"ended without saying {text!r}:\n{self.output}")

    def said(self) -> str:
        """Its output so far, without waiting for more."""
        with contextlib.suppress(queue.Empty):
            while (line := self._queue.get_nowait()) is not None:
                self.lines.append(line)
            self._ended = True
        return self.output

    def url(self) -> str:
        return self.wait_for("http://").strip()

    def facts(self, url: str) -> Any:
        """What `demo.json` says."""
        with urllib.request.urlopen(f"{url}demo.json", timeout=END_SECONDS) as answer:
            return json.load(answer)

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        """Its exit code, with all it said in `output`."""
        code = self.process.wait(END_SECONDS)
        while self._next_line() is not None:
            pass
        return code

    def leftovers(self) -> list[str]:
        """Files in its temporary directory, and the processes that were told of one."""
        return [path.name for path in self.temporary.iterdir()] + processes(str(self.temporary))


def processes(text: str) -> list[str]:
    """The command lines with `text` in them of all processes."""
    found = []
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit():
            with contextlib.suppress(OSError):  # it may have ended meanwhile
                words = (directory / "cmdline").read_bytes().decode(errors="replace").split("\0")
                found.append(" ".join(words))
    return [command for command in found if text in command]


@contextlib.contextmanager
def temporary_directory() -> Iterator[Path]:
    """A short path, as a socket needs it, that every user may enter: as root, PostgreSQL runs as another."""
    with tempfile.TemporaryDirectory(prefix="tddp-demo-", dir="/tmp") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


@contextlib.contextmanager
def demo(*arguments: str) -> Iterator[Demo]:
    """Run the demo for the block, and see that it ends without a trace."""
    with temporary_directory() as temporary:
        running = Demo(temporary, *arguments)
        try:
            yield running
        finally:
            if running.process.poll() is None:
                running.send(signal.SIGINT)
            running.wait()
            until(lambda: not processes(str(temporary)), "the demo's processes to end")
