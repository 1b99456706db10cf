"""The repository holds on any machine: it names no package registry and no path of somebody's machine."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Put together here, so that this file does not find itself.
NOT_HERE = re.compile(
    "|".join(
        [
            *("/ro" + "ot/", "/ho" + r"me/\w", "/Us" + "ers/"),
            *("--(extra-)?index" + "-url", "registry" + r"\.npmjs", "pypi" + r"\.org", "python" + "hosted"),
        ]
    )
)


def committed() -> list[Path]:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("only a git checkout knows what is committed")
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    return [ROOT / name.decode() for name in names.split(b"\0") if name]


def test_no_machine_is_named() -> None:
    found = []
    for path in committed():
        text = path.read_bytes().decode("utf-8", "replace") if path.exists() else ""
        found += [f"{path.relative_to(ROOT)}: {match[0]}" for match in NOT_HERE.finditer(text)]
    assert found == []


def test_the_npm_lockfile_names_no_host() -> None:
    lock = json.loads((ROOT / "tests/clients/package-lock.json").read_text("utf-8"))
    assert [name for name, entry in lock["packages"].items() if name and "integrity" not in entry] == []
    assert re.findall(r"\w+://\S+|resolved", json.dumps(lock)) == []
