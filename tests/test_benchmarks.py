"""The benchmarks run, and leave nothing behind. What they measure is not looked at."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A directory for temporary files, whose path is short, as a socket needs it, and open to every user."""
    with tempfile.TemporaryDirectory(prefix="tddp-bench-") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


def test_latency(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(temporary))
    command = [sys.executable, "-m", "benchmarks.latency", "--seconds", "0.5", "--subscriptions", "3"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    first, *rows = done.stdout.splitlines()
    assert "50 on each path, subscriptions: 3" in first
    number = r" +\d+\.\d\d"
    assert [re.sub(number, " N", row) for row in rows] == [
        "floor       p50 N ms  p99 N ms", "whole path  p50 N ms  p99 N ms", "ratio       p50 N     p99 N",
    ]  # fmt: skip
    assert list(temporary.iterdir()) == []
