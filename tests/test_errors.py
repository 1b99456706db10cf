"""The tree of errors, and what of a MeteorError goes over the wire."""

from __future__ import annotations

import ast
import enum
import json
import re
from pathlib import Path

import pytest
from django.utils.functional import lazy
from django.utils.safestring import mark_safe
from django.utils.translation import gettext_lazy

import trigger_ddp
from trigger_ddp import errors
from trigger_ddp.errors import MeteorError

PACKAGE = Path(trigger_ddp.__file__).parent
LINE = re.compile(r"^    (?:[│ ]   )*[├└]── (\w+) .*?(?:\((trigger_ddp\.[\w.]+)\))?$", re.MULTILINE)


def defined_errors() -> dict[str, str]:
    """The public subclasses of TriggerDDPError anywhere in the package, and their modules."""
    bases: dict[str, set[str]] = {}
    modules = {}
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.ClassDef):
                bases[node.name] = {ast.unparse(base).split(".")[-1] for base in node.bases}
                modules[node.name] = ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts)

    ours: set[str] = set()
    while more := {name for name in bases if bases[name] & {"TriggerDDPError", *ours}} - ours:
        ours |= more
    return {name: modules[name] for name in ours if not name.startswith("_")}


def test_the_docstring_names_every_error_and_where_it_is_defined() -> None:
    drawn = {name: module or errors.__name__ for name, module in LINE.findall(errors.__doc__ or "")}
    assert drawn == defined_errors()


class Code(enum.StrEnum):
    FULL = "full"


class OldCode(str, enum.Enum):  # noqa: UP042  as code older than StrEnum has it
    FULL = "full"


class Number(enum.IntEnum):
    GONE = 410


@pytest.mark.parametrize(
    ("error", "wire"),
    [
        (MeteorError("full"), {"error": "full", "message": "[full]"}),
        (MeteorError(404, "No"), {"error": 404, "reason": "No", "message": "No [404]"}),
        (MeteorError(404, ""), {"error": 404, "reason": "", "message": "[404]"}),
        (MeteorError(1, "No", [1]), {"error": 1, "reason": "No", "details": [1], "message": "No [1]"}),
        (MeteorError(403, gettext_lazy("yes")), {"error": 403, "reason": "yes", "message": "yes [403]"}),
        (MeteorError(gettext_lazy("yes")), {"error": "yes", "message": "[yes]"}),
        (MeteorError(403, mark_safe("<b>")), {"error": 403, "reason": "<b>", "message": "<b> [403]"}),
        (MeteorError(Code.FULL), {"error": "full", "message": "[full]"}),
        (MeteorError(OldCode.FULL), {"error": "full", "message": "[full]"}),
        (MeteorError(Number.GONE), {"error": 410, "message": "[410]"}),
        (MeteorError(403, ValueError("it is so")),
         {"error": 403, "reason": "it is so", "message": "it is so [403]"}),
    ],
    ids=repr,
)  # fmt: skip
def test_what_goes_over_the_wire(error: MeteorError, wire: dict[str, object]) -> None:
    given = error.as_dict()
    assert given == {"isClientSafe": True, **wire, "errorType": "Meteor.Error"}
    assert {type(value) for value in given.values()} <= {bool, int, str, list}
    assert json.loads(json.dumps(given)) == given
    assert str(error) == wire["message"]


def test_a_lazy_reason_is_put_into_words_when_it_is_sent() -> None:
    words = "not yet"
    error = MeteorError(403, lazy(lambda: words, str)())
    words = "No"
    assert (error.as_dict()["reason"], error.as_dict()["message"]) == ("No", "No [403]")
