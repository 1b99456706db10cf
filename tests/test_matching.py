"""Many threads that match values with the same kind for the first time."""

from __future__ import annotations

import subprocess
import sys
from typing import Annotated

import msgspec
import pytest

from trigger_ddp.matching import convert

PROGRAM = """
import sys, threading
sys.setswitchinterval(1e-6)
from typing import Annotated
import msgspec
from trigger_ddp.matching import convert

for number in range(300):
    class Inner(msgspec.Struct):
        digest: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{%d}$" % (number + 1))]

    class Outer(msgspec.Struct):
        name: Annotated[str, msgspec.Meta(pattern="^[a-z]{0,%d}$" % (number + 1))] | None = None
        inner: Inner | None = None
        inners: list[Inner] = []

    barrier, made = threading.Barrier(6), []

    def match():
        barrier.wait()
        made.append(convert({"name": "a", "inner": {"digest": "0" * (number + 1)}}, Outer))

    threads = [threading.Thread(target=match) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 6 and all(one.inner.digest == "0" * (number + 1) for one in made)
"""


def test_the_first_of_many_threads_does_not_end_the_process() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, (done.returncode, done.stderr)


class Point(msgspec.Struct):
    x: int


def test_values_are_matched_as_msgspec_does() -> None:
    for _ in range(2):
        assert convert({"x": 1}, Point) == Point(1)
        with pytest.raises(msgspec.ValidationError, match="Expected `int`"):
            convert({"x": "1"}, Point)


def test_kinds_without_a_hash() -> None:
    kind: type[int] = Annotated[int, ["no hash"]]  # type: ignore[assignment]
    for _ in range(2):
        assert convert(1, kind) == 1
