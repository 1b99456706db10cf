"""Every app's ddp.py is imported when Django starts, and its errors come out."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from trigger_ddp.api import API

ROOT = Path(__file__).parent.parent.parent
START = """
import django
from django.conf import settings
settings.configure(INSTALLED_APPS=["trigger_ddp", "shop"], SECRET_KEY="x")
django.setup()
from trigger_ddp.api import API
print(sorted(API.api_path_map()))
"""


def test_the_apps_of_the_test_project_are_registered() -> None:
    assert "bookstore.book" in API.collections
    assert "AllBooks" in API.publications
    assert "bookstore/setPrice" in API.api_path_map()


def start(directory: Path, source: str) -> subprocess.CompletedProcess[str]:
    """Start Django with an app ``shop`` whose ddp.py is ``source``."""
    (directory / "shop").mkdir()
    (directory / "shop" / "__init__.py").touch()
    (directory / "shop" / "ddp.py").write_text(source)
    environ = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{directory}"}
    environ.pop("DJANGO_SETTINGS_MODULE")
    return subprocess.run([sys.executable, "-c", START], env=environ, capture_output=True, text=True)


GOOD = """
from trigger_ddp.api import API, APIMixin, api_endpoint

@API.register
class Shop(APIMixin):
    api_path_prefix = "shop."

    @api_endpoint
    def buy(self, thing: str) -> None: ...

    def ready(self) -> None:
        print("ready")
"""


def test_an_app_is_found(tmp_path: Path) -> None:
    done = start(tmp_path, GOOD)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "ready\n['/schema', 'shop.buy']\n"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import nowhere_to_be_found", "No module named 'nowhere_to_be_found'"),
        ("1 / 0", "ZeroDivisionError"),
        (GOOD + GOOD, "method 'shop.buy' of shop.ddp.Shop is already registered by shop.ddp.Shop"),
    ],
)
def test_what_is_wrong_in_it_is_raised(tmp_path: Path, source: str, words: str) -> None:
    done = start(tmp_path, source)
    assert done.returncode != 0
    assert words in done.stderr
