"""docs/guarantees.md and docs/threat-model.md: what is promised names tests, and these exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docs" / "guarantees.md").read_text("utf-8")
ROWS = [
    line.strip("|").split(" | ")
    for line in TEXT.splitlines()
    if line.startswith("| ") and not line.startswith("| promise")
]
THREATS = (ROOT / "docs" / "threat-model.md").read_text("utf-8")
NAMED = sorted(
    {name for _, tests in ROWS for name in re.findall(r"`([^`]+)`", tests)}
    | set(re.findall(r"`(tests/[^`]+)`", THREATS))
)


def functions(path: Path) -> set[str]:
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }


def test_each_promise_names_a_test() -> None:
    assert len(ROWS) > 30
    assert [promise for promise, tests in ROWS if "`tests/" not in tests] == []


def test_each_named_test_exists() -> None:
    missing = []
    for name in NAMED:
        file, _, function = name.partition("::")
        path = ROOT / file
        if not path.is_file() or (function and function not in functions(path)):
            missing.append(name)
    assert missing == []


def test_each_section_promises_something() -> None:
    sections = re.split(r"^## ", TEXT, flags=re.MULTILINE)[1:]
    assert [section.partition("\n")[0] for section in sections if "`tests/" not in section] == []
