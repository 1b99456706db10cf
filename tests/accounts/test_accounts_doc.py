"""docs/accounts.md names what there is, all of it, and its programs run."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from tests.accounts.conftest import Project
from tests.accounts.test_strange import only_django
from trigger_ddp import conf

PAGE = Path(__file__).resolve().parents[2] / "docs" / "accounts.md"
TEXT = PAGE.read_text("utf-8")


def names_in(heading: str) -> set[str]:
    """The code in the first cells of a section's table."""
    section = TEXT.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return {name for cell in cells for name in re.findall(r"`([\w/.]+)", cell)}


@only_django
def test_it_names_every_method(project: Project) -> None:
    methods = project.python(
        "from trigger_ddp.accounts.ddp import Accounts, Users; "
        "print(*Accounts().api_path_map(), *(n for n in Users().api_path_map() if 'update' in n))"
    )
    assert names_in("Methods") == set(methods.split())


@only_django
def test_it_names_every_hook(project: Project) -> None:
    hooks = project.python(
        "import inspect; from trigger_ddp.accounts import hooks; "
        "print(*(n for n, f in inspect.getmembers(hooks, inspect.isfunction) "
        "if f.__module__ == hooks.__name__ and n != 'validate'))"
    )
    assert names_in("Hooks") == set(hooks.split())


@only_django
def test_its_programs_run(project: Project) -> None:
    project.python(
        f"import pathlib, re; text = pathlib.Path({str(PAGE)!r}).read_text(); "
        "blocks = re.findall(r'(?ms)^```python\\n(.*?)^```$', text); "
        "[exec(block, {'__name__': 'documented'}) for block in blocks if 'class Names' not in block]"
    )


def test_its_settings_exist() -> None:
    known = {f"DDP_{field.name.upper()}" for field in dataclasses.fields(conf.Settings)}
    assert set(re.findall(r"DDP_[A-Z_]+", TEXT)) <= known
