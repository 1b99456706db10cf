"""A bundle in a browser: its program runs, speaks DDP, imports a module, and notices new versions."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import browser
from tests.conftest import Database
from tests.meteor import bundles
from tests.meteor.conftest import Site, wsgi
from tests.serving import Server

#: Set to 1 where a browser must be there: without one the tests fail instead of being skipped.
REQUIRED = "TDDP_REQUIRE_BROWSER"

IMPORT = """
fetch('/app/__meteor__/dynamic-import/fetch', {method: 'POST', body: '{"imports": {"lazy.js": 1}}'})
  .then((answer) => answer.json())
  .then((tree) => {
    const module = {exports: {}};
    eval(`(${tree.imports['lazy.js']})`)(null, module.exports);
    return module.exports.answer;
  })
"""


@pytest.fixture(scope="module")
def tab() -> Iterator[browser.Page]:
    if browser.executable() is None:
        message = "no Chromium is installed, which these tests drive"
        if os.environ.get(REQUIRED) == "1":
            pytest.fail(message)
        pytest.skip(message)
    with browser.page() as tab:
        yield tab


@pytest.fixture(params=["today", "1.2"])
def write(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Path]:
    """Writes the bundle, and later the next version of it."""
    make = bundles.write if request.param == "today" else bundles.write_old
    return lambda **more: make(tmp_path / "bundle", **more)


@pytest.fixture(params=[True, False], ids=["inline", "file"])
def page(
    tab: browser.Page,
    db: Database,
    serve: Callable[..., Server],
    write: Callable[..., Path],
    request: pytest.FixtureRequest,
) -> Iterator[browser.Page]:
    """The bundle's page below /app/, with a DDP server beside it on another port."""
    db.psql(
        "INSERT INTO bookstore_author (id, name, email) VALUES (1, 'a', 'a@x');"
        "INSERT INTO bookstore_book (id, title, author_id, in_stock) VALUES (7, 'The Salt Road', 1, true)"
    )
    star = write()
    # Both processes have to know the same of the site: below which path it is, and what is public.
    environ = {"TDDP_TEST_BUNDLE": str(star), "TDDP_TEST_ROUTE": "app/"}
    server = serve(DJANGO_SETTINGS_MODULE="tests.meteor.settings", **environ)
    config = {"DDP_DEFAULT_CONNECTION_URL": f"{server.url}/"}
    site = Site(star, "app/", runtime_config=config, inline_scripts_allowed=request.param)
    with wsgi(site.urls) as port:
        tab.problems.clear()
        tab.open(f"http://127.0.0.1:{port}/app/some/where")
        tab.until("window.app?.state === 'ready'")
        yield tab
        assert tab.problems == []
        tab.open("about:blank")


def told(page: browser.Page, collection: str) -> Any:
    return page.evaluate(f"app.documents['{collection}']")


def until_reloaded(page: browser.Page, expression: str) -> None:
    """As `page.until`, while the page goes and comes."""

    def holds() -> Any:
        try:
            return page.evaluate(expression)
        except browser.PageError as error:
            if "navigated" in str(error) or "context" in str(error):
                return False
            raise

    browser.until(holds, expression)


def test_a_bundle_runs_and_is_replaced(page: browser.Page, db: Database, write: Callable[..., Path]) -> None:
    color = "getComputedStyle(document.getElementById('state')).color"
    assert page.evaluate(color) == "rgb(1, 2, 3)"
    assert page.evaluate("document.title") == "Books"
    assert page.evaluate("app.arch") == "web.browser"
    assert told(page, "bookstore.book")["7"]["title"] == "The Salt Road"
    db.psql("UPDATE bookstore_book SET title = 'live' WHERE id = 7")
    page.until("app.documents['bookstore.book']['7'].title === 'live'")

    # Other styles are taken without reloading.
    loaded = page.evaluate("app.loaded")
    write(styles="#state { color: rgb(4, 5, 6) }")
    page.until(f"{color} === 'rgb(4, 5, 6)'")
    page.until("document.querySelectorAll('link.__meteor-css__').length === 1")
    assert page.evaluate("app.loaded") == loaded

    # Another program makes the page load itself again, once.
    write(styles="#state { color: rgb(4, 5, 6) }", program=f"{bundles.PROGRAM}; window.version = 2;")
    until_reloaded(page, "window.version === 2 && window.app?.state === 'ready'")
    again = page.evaluate("app.loaded")
    assert again != loaded
    assert page.evaluate(color) == "rgb(4, 5, 6)"
    assert page.evaluate("performance.getEntriesByType('navigation')[0].type") == "reload"
    db.psql("UPDATE bookstore_book SET title = 'still live' WHERE id = 7")
    page.until("app.documents['bookstore.book']['7'].title === 'still live'")
    assert page.evaluate("app.loaded") == again


@pytest.mark.parametrize("write", ["today"], indirect=True)
def test_a_module_is_imported_on_demand(page: browser.Page) -> None:
    assert page.evaluate(IMPORT) == 42
