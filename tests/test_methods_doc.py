"""docs/methods.md: its declarations can be registered, and its table of errors is the code's."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from django.apps.registry import Apps
from django.core.exceptions import ObjectDoesNotExist, PermissionDenied, ValidationError
from django.db import models

from tests.zoo.models import Keeper
from trigger_ddp.api import API, AleaIdField, APIMixin, Collection, api_endpoint
from trigger_ddp.api.failures import as_meteor_error
from trigger_ddp.demo.bookstore import models as bookstore

TEXT = (Path(__file__).resolve().parent.parent / "docs" / "methods.md").read_text("utf-8")


def test_its_declarations(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 3
    monkeypatch.setitem(sys.modules, "bookstore", types.ModuleType("bookstore"))
    monkeypatch.setitem(sys.modules, "bookstore.models", bookstore)
    meta = '    class Meta:\n        app_label, apps = "documented", Apps()\n'
    blocks[1] = blocks[1].replace("class Note(models.Model):\n", f"class Note(models.Model):\n{meta}")
    names: dict[str, Any] = {
        "models": models, "Apps": Apps, "AleaIdField": AleaIdField, "APIMixin": APIMixin, "API": API,
        "Collection": Collection, "api_endpoint": api_endpoint, "__name__": __name__,
    }  # fmt: skip
    with API.restored():
        for block in blocks[:2]:
            exec(block, names)
        API.register(names["Notes"])
        assert {"shop/rename", "shop/count", "/notes.add"} <= set(API.api_path_map())
        exec(blocks[2], {**names, "models": types.SimpleNamespace(Note=Keeper)})
        assert {f"/notes/{name}" for name in ("insert", "updateAsync", "remove")} <= set(API.api_path_map())


@pytest.mark.parametrize("error", [PermissionDenied(), ObjectDoesNotExist(), ValidationError("x")])
def test_its_table_of_errors(error: Exception) -> None:
    told = as_meteor_error(error)
    assert told is not None
    code = told.error if isinstance(told.error, int) else f"`{told.error}`"
    (row,) = [
        line for line in TEXT.splitlines() if line.startswith("| Django") and type(error).__name__ in line
    ]
    assert f"{code}, `{told.reason}`" in row
