"""No version of a dependency that is known to be vulnerable may be installed.

`.ci/run` asks pip-audit as well, which knows of what was found since.
"""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))["project"]
REQUIREMENTS = {canonicalize_name(one.name): one for one in map(Requirement, PROJECT["dependencies"])}

#: Version, and what it is vulnerable to.
VULNERABLE = [
    ("django", "5.2.7", "CVE-2025-64459: SQL injection by the keywords of filter()"),
    ("django", "5.2.11", "CVE-2026-25673 and CVE-2026-25674"),
    ("django", "6.0.2", "the same"),
    ("h11", "0.14.0", "CVE-2025-43859: request smuggling by chunks that end wrongly"),
    ("sqlparse", "0.5.3", "denial of service by nested tuples, which the fix of CVE-2024-4340 left"),
]


@pytest.mark.parametrize("name", sorted(REQUIREMENTS))
def test_what_is_installed_is_new_enough(name: str) -> None:
    assert REQUIREMENTS[canonicalize_name(name)].specifier.contains(version(name), prereleases=True)


@pytest.mark.parametrize(("name", "bad", "why"), VULNERABLE)
def test_what_is_vulnerable_may_not_be_installed(name: str, bad: str, why: str) -> None:
    assert not REQUIREMENTS[canonicalize_name(name)].specifier.contains(bad), why


def test_every_dependency_has_a_minimum() -> None:
    assert all(re.search(r">=\d", str(one.specifier)) for one in REQUIREMENTS.values())
