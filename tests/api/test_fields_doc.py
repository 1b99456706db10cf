"""docs/fields.md speaks of every field class that Django has."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from django.contrib.postgres import fields as postgres
from django.db import models

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "fields.md"


def field_classes(module: Any) -> list[str]:
    return sorted(
        name
        for name, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, models.Field) and value is not models.Field
    )


@pytest.mark.parametrize(
    "name", [*field_classes(models), *field_classes(postgres), "SearchVectorField", "AleaIdField"]
)
def test_documented(name: str) -> None:
    rows = [line for line in DOCUMENT.read_text("utf-8").splitlines() if line.startswith("|")]
    assert any(re.search(rf"[`.]{name}`", row.split("|")[1]) for row in rows), f"no row for {name}"


def test_there_are_classes_to_look_for() -> None:
    assert len(field_classes(models)) > 30
    assert len(field_classes(postgres)) > 8
