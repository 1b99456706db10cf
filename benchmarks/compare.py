"""Whether a change made it faster: ``python -m benchmarks.compare OLD NEW [BENCHMARK …]``.

OLD and NEW are checkouts, or revisions of this repository, of which it makes checkouts that it removes again.
The benchmarks of each run in turn, first of one, then of the other, and the other way round in the next
round, each with its own code and this Python's packages. Printed is, for each number that both report, how
many times OLD's NEW's is, in the median of the rounds, with the least and the greatest; below 1 is better, or
above 1 where more is better, and "?" stands where the rounds do not agree on the side.

    python -m benchmarks.compare HEAD~5 . fanout latency --rounds 3
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.report import ROOT

#: Those that report numbers.
BENCHMARKS = ("fanout", "latency", "scaling", "snapshot", "writes", "bulk", "memory", "connects", "start")


@contextlib.contextmanager
def checkout(name: str) -> Iterator[Path]:
    """The directory of a checkout, or of one made of a revision."""
    if Path(name).is_dir():
        yield Path(name).resolve()
        return
    with tempfile.TemporaryDirectory(prefix="tddp-compare-") as directory:
        git = ["git", "-C", str(ROOT), "worktree"]
        place = Path(directory) / "checkout"
        done = subprocess.run(
            [*git, "add", "-q", "--detach", str(place), name], capture_output=True, text=True
        )
        if done.returncode:
            sys.exit(f"benchmarks.compare: {name} is no directory and no revision: {done.stderr.strip()}")
        try:
            yield place
        finally:
            subprocess.run([*git, "remove", "--force", str(place)], check=True)


def run(place: Path, benchmark: str, options: list[str]) -> dict[str, dict[str, Any]]:
    """The numbers of one run, by name."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        done = subprocess.run(
            [sys.executable, "-m", f"benchmarks.{benchmark}", "--json", file.name, *options],
            # An installed trigger_ddp may be the other checkout.
            cwd=place, env={**os.environ, "PYTHONPATH": str(place)}, capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            sys.exit(f"benchmarks.compare: {benchmark} in {place}: {done.stderr.strip()[-2000:]}")
        return {number["name"]: number for number in json.load(file)["numbers"]}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old", metavar="OLD")
    parser.add_argument("new", metavar="NEW")
    parser.add_argument("benchmarks", metavar="BENCHMARK", nargs="*", help=f"of {', '.join(BENCHMARKS)}")
    parser.add_argument("--rounds", type=int, default=2, help="(default: 2)")
    parser.add_argument("--quick", action="store_true", help="only look whether it runs")
    arguments = parser.parse_args()
    wanted = arguments.benchmarks or BENCHMARKS
    if unknown := set(wanted) - set(BENCHMARKS):
        parser.error(f"there is no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    options = ["--quick"] if arguments.quick else []
    with checkout(arguments.old) as old, checkout(arguments.new) as new:
        for benchmark in wanted:
            ratios: dict[str, list[float]] = defaultdict(list)
            about: dict[str, dict[str, Any]] = {}
            for number in range(arguments.rounds):
                places = (old, new) if number % 2 == 0 else (new, old)
                found = {place: run(place, benchmark, options) for place in places}
                for name, one in found[new].items():
                    if name in found[old]:
                        about[name] = one
                        ratios[name].append(one["value"] / found[old][name]["value"])
            print(f"\n{benchmark}: new in times of old, {arguments.rounds} rounds")
            for name, values in ratios.items():
                print(_line(name, about[name], values), flush=True)


def _line(name: str, about: dict[str, Any], ratios: list[float]) -> str:
    agreed = min(ratios) > 1 or max(ratios) < 1
    better = (statistics.median(ratios) < 1) == (about["better"] == "less")
    verdict = "?" if not agreed else "better" if better else "WORSE"
    return (
        f"{name:50}  {statistics.median(ratios):6.2f}  ({min(ratios):.2f} to {max(ratios):.2f})  {verdict:6}"
        f"  {about['unit']}, {about['better']} is better"
    )


if __name__ == "__main__":
    main()
