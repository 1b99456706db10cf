"""The benchmarks run, and leave nothing behind. What they measure is not looked at."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.attacks import ATTACKS
from tests.clients.conftest import node  # noqa: F401  a fixture

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A directory for temporary files, whose path is short, as a socket needs it, and open to every user."""
    with tempfile.TemporaryDirectory(prefix="tddp-bench-") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


def quick(name: str, temporary: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> dict[str, Any]:
    """Run a benchmark that has a report for correctness only; returns what it has written as JSON."""
    monkeypatch.setenv("TMPDIR", str(temporary))
    with tempfile.NamedTemporaryFile(suffix=".json", dir="/tmp") as file:
        command = [sys.executable, "-m", f"benchmarks.{name}", "--quick", "--json", file.name, *options]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        found: dict[str, Any] = json.load(file)
    assert found["name"] == name
    assert all(number["value"] > 0 for number in found["numbers"]), found["numbers"]
    for target in found["targets"]:
        assert target["name"] in done.stdout
    assert list(temporary.iterdir()) == []
    return found


def fails(name: str, temporary: Path, monkeypatch: pytest.MonkeyPatch, sentence: str, broken: str) -> None:
    """A benchmark ends with a sentence and status 1, and leaves nothing behind, if something is wrong.

    Args:
        sentence: a pattern.
        broken: Python code that makes it so, in the benchmark's module, which has been imported.
    """
    monkeypatch.setenv("TMPDIR", str(temporary))
    program = f"from benchmarks import {name}\n{broken}\n{name}.main()"
    command = [sys.executable, "-c", program, "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(rf"(?m)^benchmarks.{name}: {sentence}", done.stderr), done.stdout + done.stderr
    assert list(temporary.iterdir()) == []


def columns(found: dict[str, Any], table: int, column: int = 0) -> list[Any]:
    return [row[column] for row in found["tables"][table]["rows"]]


def test_latency(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = quick("latency", temporary, monkeypatch, "--subscriptions", "3")
    assert columns(found, 0) == ["100"]
    assert [target["name"] for target in found["targets"]] == ["p50 to the floor's at 100/s"]


@pytest.mark.usefixtures("node")
def test_fanout(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = quick("fanout", temporary, monkeypatch)
    everyone = ["ours", "bare", "trio-websocket", "websockets", "ws"]
    joined = ["bare, joined", "ws, joined"]
    assert [columns(found, table) for table in range(3)] == [everyone, everyone + joined, everyone + joined]
    assert len(found["targets"]) == 8


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ("if row != 3: right(self, row, rows)", "not everything arrived"),
        (
            "right(self, row, rows); row == 3 and right(self, 103, 1)",  # no row that is due
            r"client \d+ was sent \d+ bytes more",
        ),
    ],
)
@pytest.mark.usefixtures("node")
def test_fanout_notices_what_is_wrong(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, wrong: str, sentence: str
) -> None:
    fails(
        "fanout", temporary, monkeypatch, sentence,
        f"""
from benchmarks import audience
audience.PATIENCE = 3
right = fanout.Ours._write
def wrong(self, row, rows):
    {wrong}
fanout.Ours._write = wrong
""",
    )  # fmt: skip


@pytest.mark.usefixtures("node")
def test_connects(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = quick("connects", temporary, monkeypatch)
    ours = ["ours, 1 process", "ours, 2 workers"]
    assert columns(found, 0) == [*ours, "trio-websocket", "websockets", "ws"]
    assert [target["name"] for target in found["targets"]] == ["connects/s of 2 workers, in 1 500"]


@pytest.mark.usefixtures("node")
def test_connects_notices_what_is_missing(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fails(
        "connects", temporary, monkeypatch, r"websockets sent 99 documents in \d+ bytes",
        """
import json, subprocess
right = subprocess.Popen
def wrong(command, *args, **options):
    if command[-2:-1] == ["websockets"]:
        command = [*command[:-1], json.dumps(json.loads(command[-1])[:-2] + [connects.READY.decode()])]
    return right(command, *args, **options)
subprocess.Popen = wrong
""",
    )  # fmt: skip


@pytest.mark.usefixtures("node")
def test_memory(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = quick("memory", temporary, monkeypatch)
    assert columns(found, 0) == ["ours", "bare", "trio-websocket", "websockets", "ws"]
    assert len(found["targets"]) == 4


def test_memory_notices_documents_that_are_missing(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fails(
        "memory", temporary, monkeypatch, "a client was told of 39 documents instead of 40",
        """
memory.idle_clients_of_rivals = lambda counts: {}
store = memory.Bookstore
memory.Bookstore = lambda authors, books: store(authors, authors * 39)
""",
    )  # fmt: skip


def test_deflate(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = quick("deflate", temporary, monkeypatch)
    assert len(found["tables"]) == 2


def test_deflate_notices_what_inflates_to_something_else(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = "right = deflate.deflated\ndeflate.deflated = lambda message, level: right(message[1:], level)"
    fails("deflate", temporary, monkeypatch, "what was compressed inflates", broken)


def test_start(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = quick("start", temporary, monkeypatch)
    assert columns(found, 0) == ["manage.py check", "serve, to ready"]


def test_start_notices_documents_that_are_missing(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sentence = "the first client was told of 99 documents"
    fails(
        "start",
        temporary,
        monkeypatch,
        sentence,
        "store = start.Bookstore\nstart.Bookstore = lambda authors, books: store(authors, 99)",
    )


def test_snapshot(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = quick("snapshot", temporary, monkeypatch)
    assert columns(found, 0) == ["psycopg + msgspec", "psycopg + json", "ours"]


def test_writes(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = quick("writes", temporary, monkeypatch)
    for table in range(2):
        assert columns(found, table) == [1, 2]


def test_bulk(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = quick("bulk", temporary, monkeypatch)
    assert len(found["targets"]) == 2


def test_compare(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(temporary))
    command = [sys.executable, "-m", "benchmarks.compare", ".", ".", "start", "--rounds", "1", "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"(?m)^serve, to ready +\d+\.\d\d  \(.*\)  \S+ +s, less is better$", done.stdout)
    command[3] = "no-such-revision"
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "no-such-revision is no directory and no revision" in done.stderr
    assert list(temporary.iterdir()) == []


def test_plots(tmp_path: Path) -> None:
    target = {"name": "ours to a floor", "ratio": 1.5, "limit": 2, "at": "most", "holds": True}
    other = {"name": "ours to a rival", "ratio": 1.5, "limit": 3, "at": "least", "holds": False}
    report = {"name": "anything", "about": {"commit": "abc"}, "targets": [target, other]}
    (tmp_path / "report.json").write_text(json.dumps(report))
    pictures = []
    for name in ("a", "b"):
        command = [sys.executable, "-m", "benchmarks.plots", "--into", str(tmp_path / name)]
        subprocess.run([*command, str(tmp_path / "report.json")], cwd=ROOT, check=True, capture_output=True)
        pictures.append((tmp_path / name / "anything.svg").read_bytes())
    assert pictures[0] == pictures[1]
    assert b"<svg" in pictures[0]


def test_scaling(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(temporary))
    command = [sys.executable, "-m", "benchmarks.scaling", "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    titles = [
        "filter: a row", "join: a row", "join: a joined row", "join: its key column", "window: in and out",
        "one query, shared",
    ]  # fmt: skip
    rows = [row for row in done.stdout.splitlines() if re.search(r" (5|20)( +\d+\.\d\d){4}  \|", row)]
    assert [row[:21].strip() for row in rows] == [title for name in titles for title in (name, "")]
    assert len(re.findall(r"(?m)^(?:filter|join): (?:lifted|LATERAL|one query each) ", done.stdout)) == 12
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("messages", "sentence"),
    [
        ("[]", r"session \d was told 'changed' of bookstore.book \d+ {'title': '.*'}, which was not due"),
        ("2 * write.messages", r"session \d was not told 'changed' of bookstore.book .* was committed"),
    ],
)
def test_scaling_notices_what_is_wrong(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, messages: str, sentence: str
) -> None:
    monkeypatch.setenv("TMPDIR", str(temporary))
    program = f"""
import dataclasses
from benchmarks import measuring, scaling
measuring.LOST_SECONDS = 0.5
right = measuring.Measuring._write_one
def wrong(self, case, write, author):
    right(self, case, dataclasses.replace(write, messages={messages}), author)
measuring.Measuring._write_one = wrong
scaling.main()
"""
    command = [sys.executable, "-c", program, "--quick", "--only", "one"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert re.search(rf"(?m)^benchmarks.scaling: {sentence}", done.stderr), done.stdout + done.stderr
    assert list(temporary.iterdir()) == []


def test_flood(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(temporary))
    command = [sys.executable, "-m", "benchmarks.flood", "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all 30 clients equal to the database" in done.stdout
    assert len(re.findall(r"(?m)^ +\d+ +\d+ +\d+ +\d+\.\d\d( +\d+){3}$", done.stdout)) >= 2
    assert list(temporary.iterdir()) == []


def test_flood_notices_who_is_left_behind(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(temporary))
    program = """
from benchmarks import flood, followers
right = followers.Follower.take
def wrong(self, message):
    if message["msg"] != "changed":
        right(self, message)
followers.Follower.take = wrong
flood.main()
"""
    command = [sys.executable, "-c", program, "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert re.search(r"benchmarks.flood: \w+\[.*\] has \d+ books, and ", done.stderr), (
        done.stdout + done.stderr
    )


def test_hostile(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(temporary))
    command = [sys.executable, "-m", "benchmarks.hostile", "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [row[:38].strip() for row in done.stdout.splitlines() if re.search(r"( +\d+\.\d+){6} +\d+", row)]
    assert rows == list(ATTACKS)
    assert list(temporary.iterdir()) == []


def test_soak(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(temporary))
    options = ["--seconds", "10", "--clients", "6", "--pause", "1.5"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.soak", *options], cwd=ROOT, capture_output=True, text=True
    )
    # Ten seconds say nothing of memory.
    wrong = [line for line in done.stdout.splitlines() if "WRONG" in line and "memory has grown" not in line]
    assert wrong == [], done.stderr
    assert re.search(r"did: \{.*'connections': .*\}, [1-9]\d* statements written", done.stdout), done.stderr
    assert "memory: " in done.stdout
    assert list(temporary.iterdir()) == []
