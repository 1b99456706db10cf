"""Draws what benchmarks have written: ``python -m benchmarks.plots FILE.json … --into docs/benchmarks``.

One SVG for each file: how far each ratio is from its target, as bars on a logarithmic scale on which 1 is the
target and to the left is better. The same file gives the same picture.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "trigger_ddp"

from matplotlib import pyplot  # noqa: E402

HELD, MISSED = "#2a7f62", "#c0492f"


def draw(found: dict[str, Any], into: Path) -> Path:
    """Draw the targets of one report; returns the file."""
    targets = found["targets"][::-1]
    used = [
        target["ratio"] / target["limit"] if target["at"] == "most" else target["limit"] / target["ratio"]
        for target in targets
    ]
    figure, axes = pyplot.subplots(figsize=(8, 0.9 + 0.42 * len(targets)), layout="constrained")
    colours = [HELD if target["holds"] else MISSED for target in targets]
    axes.barh([target["name"] for target in targets], [one - 1 for one in used], left=1, color=colours)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    low, high = min([*used, 0.5]), max([*used, 2.0])
    axes.set_xlim(low / 8, high * 8)  # room for the labels
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    for row, (target, one) in enumerate(zip(targets, used, strict=True)):
        label = f" {target['ratio']:.2f} (at {target['at']} {target['limit']:g}) "
        axes.text(one, row, label, va="center", ha="left" if one >= 1 else "right", fontsize=8)
    axes.set_xlabel("in times of the target; to the left of 1 it holds", fontsize=8)
    axes.set_title(f"{found['name']}, {found['about']['commit']}", fontsize=10)
    axes.tick_params(labelsize=8)
    file = into / f"{found['name']}.svg"
    figure.savefig(file, metadata={"Date": None})
    pyplot.close(figure)
    return file


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", metavar="FILE.json", type=Path, nargs="+")
    parser.add_argument("--into", type=Path, default=Path("docs/benchmarks"), help="a directory")
    options = parser.parse_args()
    options.into.mkdir(parents=True, exist_ok=True)
    for file in options.files:
        print(draw(json.loads(file.read_text()), options.into))


if __name__ == "__main__":
    main()
