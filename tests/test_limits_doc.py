"""docs/limits.md: what it names exists, and every reason to refuse has its row."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from trigger_ddp.conf import Settings
from trigger_ddp.protocol.ending import Ending
from trigger_ddp.server.metrics import REFUSALS

DOCS = Path(__file__).resolve().parent.parent / "docs"
TEXT = (DOCS / "limits.md").read_text("utf-8")
ROWS = [line.split("|")[1:-1] for line in TEXT.splitlines() if line.startswith("| ")][1:]
#: What ends connections without anybody having misbehaved.
GOOD_ENDINGS = {Ending.CLIENT, Ending.REPLACED, Ending.SERVER, Ending.SHUTDOWN, Ending.ERROR}


def test_settings_exist_and_have_the_defaults_that_are_named() -> None:
    known = {f"DDP_{field.name.upper()}": field.default for field in dataclasses.fields(Settings)}
    assert set(re.findall(r"DDP_[A-Z_]+[A-Z]", TEXT)) <= known.keys()
    named = re.findall(r"`(DDP_[A-Z_]+)` \(([\d ]+)( MiB| GiB| s)?\)", TEXT)
    assert len(named) >= 10
    for name, number, unit in named:
        factor = {" MiB": 2**20, " GiB": 2**30}.get(unit, 1)
        assert known[name] == int(number.replace(" ", "")) * factor, name


def test_every_reason_has_a_row() -> None:
    named = set(re.findall(r"`(\w+)`", " ".join(row[3] for row in ROWS)))
    reasons = {*REFUSALS, *(ending.value for ending in Ending)}
    assert named <= reasons
    assert reasons - named == {"bad_request", *(ending.value for ending in GOOD_ENDINGS)}


def test_operators_find_every_reason() -> None:
    operations = (DOCS / "operations.md").read_text("utf-8")
    assert [reason for reason in REFUSALS if f"`{reason}`" not in operations] == []
    assert [ending.value for ending in Ending if f"`{ending.value}`" not in operations] == []
