"""METEOR_SETTINGS and METEOR_PUBLIC_ENVS from four places, in django-ddp's order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from trigger_ddp.meteor.views import MeteorView


class Configured(MeteorView):
    json_path = Path("star.json")
    meteor_settings = {"public": {"of": "class", "class": 1, "deep": {"class": 1}}, "private": "class"}
    meteor_public_envs = ["OF_CLASS"]


def test_later_ones_take_precedence_level_by_level(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "METEOR_SETTINGS", '{"public": {"of": "env", "env": 1, "deep": {"env": 1}, "list": [2]}}'
    )
    django: dict[str, Any] = {"public": {"of": "django", "django": 1, "deep": {"django": 1}, "list": [1]}}
    with override_settings(METEOR_SETTINGS=django):
        view = Configured(meteor_settings={"public": {"of": "call", "deep": {"call": 1}}})
        assert view.public_settings == {
            "of": "call", "django": 1, "env": 1, "class": 1, "list": [2],
            "deep": {"django": 1, "env": 1, "class": 1, "call": 1},
        }  # fmt: skip
        assert view.meteor_settings is not None
        assert view.meteor_settings["private"] == "class"
        assert Configured().public_settings["of"] == "class"
        assert MeteorView(json_path="x").public_settings["of"] == "env"
        monkeypatch.delenv("METEOR_SETTINGS")
        assert MeteorView(json_path="x").public_settings == django["public"]
    assert django == {"public": {"of": "django", "django": 1, "deep": {"django": 1}, "list": [1]}}
    assert Configured.meteor_settings["public"]["of"] == "class"
    assert MeteorView(json_path="x").public_settings == {}


def test_environment_variables_are_published_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OF_DJANGO", "OF_ENV", "ALSO_OF_ENV", "OF_CLASS", "OF_CALL", "OF_NOBODY"):
        monkeypatch.setenv(name, name.lower())
    monkeypatch.setenv("METEOR_PUBLIC_ENVS", "OF_ENV, ALSO_OF_ENV,NOT_SET")
    monkeypatch.setenv("METEOR_SETTINGS", '{"public": {"OF_ENV": "replaced"}}')
    with override_settings(METEOR_PUBLIC_ENVS=["OF_DJANGO"]):
        public = Configured(meteor_public_envs=("OF_CALL",)).public_settings
    names = {name: name.lower() for name in ("OF_DJANGO", "OF_ENV", "ALSO_OF_ENV", "OF_CLASS", "OF_CALL")}
    assert {name: value for name, value in public.items() if name.isupper()} == names


@pytest.mark.parametrize(
    ("environ", "settings", "words"),
    [
        ({"METEOR_SETTINGS": "{"}, {}, "METEOR_SETTINGS in the environment is not JSON"),
        ({"METEOR_SETTINGS": "[]"}, {}, "METEOR_SETTINGS must be a dict, not list"),
        ({}, {"METEOR_SETTINGS": "{}"}, "METEOR_SETTINGS must be a dict, not str"),
        ({}, {"METEOR_SETTINGS": {"public": [1]}}, r"METEOR_SETTINGS\['public'\] must be a dict, not list"),
        ({}, {"METEOR_PUBLIC_ENVS": "HOME"}, "METEOR_PUBLIC_ENVS must be a list of names"),
    ],
)
def test_wrong_ones(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], settings: dict[str, Any], words: str
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with override_settings(**settings), pytest.raises(ImproperlyConfigured, match=words):
        MeteorView(json_path="x")


def test_empty_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METEOR_SETTINGS", "")
    with override_settings(METEOR_SETTINGS=None, METEOR_PUBLIC_ENVS=None):
        assert MeteorView(json_path="x").public_settings == {}
