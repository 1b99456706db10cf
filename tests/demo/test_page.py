"""The demo's page as files: complete, and nothing in it comes from elsewhere."""

from __future__ import annotations

import json
import re
from pathlib import Path

from trigger_ddp.demo import page
from trigger_ddp.demo.embedded import Postgres, Programs
from trigger_ddp.demo.oneliners import one_liners, quoted

POSTGRES = Postgres(Programs(18, Path("/opt/pg 18/bin")), Path("/tmp/demo"))
PAGES = page.pages(one_liners(POSTGRES), postgres=18)
TEXTS = {path: response.body.decode() for path, response in PAGES.items()}

#: What makes a browser fetch: src and href, import, url(), fetch().
REFERENCE = re.compile(r"""(?:src=|href=|\bfrom |import\(|url\(|fetch\()["']([^"']+)["']""")


def test_every_file_that_is_referred_to_is_there_and_nothing_is_elsewhere() -> None:
    references = {name for text in TEXTS.values() for name in REFERENCE.findall(text)}
    assert references >= {"style.css", "demo.js", "./ddp.js", "demo.json"}
    assert {f"/{name.removeprefix('./')}" for name in references} - PAGES.keys() == set()


def test_no_file_is_forgotten() -> None:
    references = {name for text in TEXTS.values() for name in REFERENCE.findall(text)}
    assert PAGES.keys() - {f"/{name.removeprefix('./')}" for name in references} == {"/", "/index.html"}


def test_every_page_has_a_type_and_a_policy_that_keeps_it_to_itself() -> None:
    for path, response in PAGES.items():
        headers = dict(response.headers)
        assert headers["Content-Type"], path
        assert headers["Content-Security-Policy"].startswith("default-src 'self';")


def test_the_commands_are_those_of_this_run() -> None:
    facts = json.loads(TEXTS["/demo.json"])
    assert facts["postgres"] == 18
    for command in facts["commands"]:
        assert "/tmp/demo" in f"{command['program']} {command['argument']}"


def test_words_are_quoted_for_the_shell_as_people_would() -> None:
    assert quoted("/usr/bin/psql") == "/usr/bin/psql"
    assert quoted("SELECT 'a'") == "\"SELECT 'a'\""
    assert quoted('say "$HOME"') == "'say \"$HOME\"'"
    assert quoted("it's $5") == "'it'\"'\"'s $5'"
