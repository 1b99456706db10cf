"""What a benchmark prints, and writes for `benchmarks.plots` and `benchmarks.compare` to read."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import json
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from tests import postgres

ROOT = Path(__file__).resolve().parent.parent
#: Distributions whose versions stand in every report, as far as they are installed.
DISTRIBUTIONS = ("django", "psycopg", "trio", "trio-websocket", "msgspec", "websockets")


def parser(description: str | None) -> argparse.ArgumentParser:
    """With what all benchmarks understand: ``--quick``, ``--json FILE``, ``--major NUMBER``.

    Args:
        description: printed by ``--help`` as it is.
    """
    new = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    new.add_argument("--quick", action="store_true", help="only look whether it runs and is right")
    new.add_argument("--json", type=Path, metavar="FILE", help="write the results there, too")
    new.add_argument("--major", type=int, default=max(postgres.binaries()), help="PostgreSQL's version")
    return new


@dataclasses.dataclass(frozen=True)
class Number:
    """One result.

    Args:
        name: says what it is, the same in every run.
        value: of that unit.
        unit: ``ms``, ``us CPU``, ``KiB``, ``messages/s``, …
        better: which of two such numbers is the better one.
    """

    name: str
    value: float
    unit: str
    better: Literal["less", "more"]


@dataclasses.dataclass(frozen=True)
class Target:
    """A ratio of two numbers of the same run, and what it is to be."""

    name: str
    ratio: float
    limit: float
    at: Literal["most", "least"]

    @property
    def holds(self) -> bool:
        return self.ratio <= self.limit if self.at == "most" else self.ratio >= self.limit


class Report:
    """The results of one run: printed as they come.

    Args:
        name: the benchmark's, as in ``python -m benchmarks.NAME``.
        postgres: version of PostgreSQL, if there is one.
    """

    def __init__(self, name: str, postgres: str | None = None) -> None:
        self.name = name
        self.about = {
            "command": f"python -m benchmarks.{name} {' '.join(_options(sys.argv[1:]))}".strip(),
            "commit": _commit(),
            "python": platform.python_version(),
            **{each: version for each in DISTRIBUTIONS if (version := _version(each))},
            **({"postgresql": postgres} if postgres else {}),
        }
        self.tables: list[dict[str, Any]] = []
        self.numbers: list[Number] = []
        self.targets: list[Target] = []
        print(", ".join(f"{key} {value}" for key, value in self.about.items() if key != "command"))

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str | float]]) -> None:
        """Print rows, each with a value for every column: first texts, then numbers, right-aligned."""
        self.tables.append({"title": title, "columns": list(columns), "rows": [list(row) for row in rows]})
        cells = [list(columns), *([_cell(value) for value in row] for row in rows)]
        widths = [max(len(row[n]) for row in cells) for n in range(len(columns))]
        texts = [n for n in range(len(columns)) if all(isinstance(row[n], str) for row in rows)]
        print(f"\n{title}")
        for row in cells:
            padded = (
                cell.ljust(widths[n]) if n in texts else cell.rjust(widths[n]) for n, cell in enumerate(row)
            )
            print("  ".join(padded).rstrip(), flush=True)

    def number(self, name: str, value: float, unit: str, better: Literal["less", "more"] = "less") -> float:
        """Keep what `benchmarks.compare` compares between two checkouts; returns ``value``."""
        self.numbers.append(Number(name, value, unit, better))
        return value

    def target(self, name: str, ratio: float, limit: float, at: Literal["most", "least"] = "most") -> None:
        """Print whether a ratio is what it is to be."""
        found = Target(name, ratio, limit, at)
        self.targets.append(found)
        verdict = "holds" if found.holds else "MISSED"
        print(f"{verdict:6}  {name}: {ratio:.2f} (at {at} {limit:g})", flush=True)

    def write(self, file: Path | None) -> None:
        """Write all of it as JSON, if a file is named."""
        if file is not None:
            content = {
                "name": self.name,
                "about": self.about,
                "tables": self.tables,
                "numbers": [dataclasses.asdict(number) for number in self.numbers],
                "targets": [{**dataclasses.asdict(each), "holds": each.holds} for each in self.targets],
            }
            file.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _options(arguments: list[str]) -> list[str]:
    """Without where the results go."""
    at = arguments.index("--json") if "--json" in arguments else len(arguments)
    return arguments[:at] + arguments[at + 2 :]


def _cell(value: str | float) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,}".replace(",", " ") if isinstance(value, int) else f"{value:,.2f}".replace(",", " ")


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
