"""The DDP_* settings and the system check that explains a wrong one."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings

from trigger_ddp import conf


def test_defaults() -> None:
    assert conf.settings() == conf.Settings()
    assert conf.check_settings() == []


def test_settings_are_read_anew_when_they_change() -> None:
    with override_settings(DDP_THREADS=3, DDP_API_ENDPOINT_DECORATORS=["a.b"]):
        assert conf.settings().threads == 3
        assert conf.settings().api_endpoint_decorators == ("a.b",)
        assert conf.check_settings() == []
    assert conf.settings() == conf.Settings()


def test_whole_numbers_serve_as_seconds() -> None:
    with override_settings(DDP_HEARTBEAT_INTERVAL=20):
        assert conf.settings().heartbeat_interval == 20.0
        assert conf.check_settings() == []


@pytest.mark.parametrize(
    ("name", "value", "problem_id", "words"),
    [
        ("DDP_THREADS", "8", "E001", "must be of type int, not str"),
        ("DDP_THREADS", True, "E001", "must be of type int, not bool"),
        ("DDP_ALLOW_STALE", 1, "E001", "must be of type bool, not int"),
        ("DDP_DATABASE", None, "E001", "must be of type str, not NoneType"),
        ("DDP_API_ENDPOINT_DECORATORS", "a.b", "E001", "must be of type tuple, not str"),
        ("DDP_THREADS", 0, "E002", "must be at least 1, not 0"),
        ("DDP_HEARTBEAT_TIMEOUT", 0, "E002", "must be at least 0.001, not 0.0"),
        ("DDP_THREDS", 8, "W001", "is not a setting"),
    ],
)
def test_a_wrong_setting_is_named_and_does_not_count(
    name: str, value: Any, problem_id: str, words: str
) -> None:
    with override_settings(**{name: value}):
        (problem,) = conf.check_settings()
        assert problem.id == f"trigger_ddp.{problem_id}"
        assert problem.msg.startswith(name)
        assert words in problem.msg
        assert problem.hint
        assert conf.settings() == conf.Settings()


def test_the_hint_tells_what_the_setting_is_for() -> None:
    with override_settings(DDP_THREADS="8"):
        (problem,) = conf.check_settings()
    assert problem.hint is not None
    assert problem.hint.startswith("DDP_THREADS: threads for publications and methods, each with")
    assert problem.hint.endswith("Default: 8.")


def test_every_setting_is_explained() -> None:
    for field in dataclasses.fields(conf.Settings):
        assert field.metadata["doc"], field.name


def test_every_setting_is_documented_as_it_is() -> None:
    page = (Path(__file__).resolve().parent.parent / "docs" / "settings.md").read_text("utf-8")
    rows = [
        f"| `DDP_{field.name.upper()}` | `{field.default!r}` | {field.metadata['doc']} |"
        for field in dataclasses.fields(conf.Settings)
    ]
    assert [line for line in page.splitlines() if line.startswith("| `")] == rows
