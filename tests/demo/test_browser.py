"""The demo as a person sees it: in a browser, while the database and the network do as they like."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests import browser
from tests.demo.running import Demo, demo
from tests.proxy import Proxy

#: Set to 1 where a browser must be there: without one the tests fail instead of being skipped.
REQUIRED = "TDDP_REQUIRE_BROWSER"
#: Names a PNG file: the screenshot of the documentation is written to it.
SCREENSHOT = "TDDP_SCREENSHOT"

#: As tests/clients have it installed.
SOCKJS_CLIENT = Path(__file__).parent.parent / "clients" / "node_modules" / "sockjs-client"

#: Everything that is animated, and every state the page says the connection is in, from now on.
WATCH = """
window.seen = {animations: [], states: []};
document.addEventListener('animationstart', ({animationName: name, target}) =>
  window.seen.animations.push([name, target.classList[0], target.closest('tr')?.dataset.id]));
new MutationObserver(() => window.seen.states.push(document.getElementById('status').dataset.state))
  .observe(document.getElementById('status'), {attributeFilter: ['data-state']});
"""


@pytest.fixture(scope="module")
def running() -> Iterator[Demo]:
    if browser.executable() is None:
        message = "no Chromium is installed, which these tests drive"
        if os.environ.get(REQUIRED) == "1":
            pytest.fail(message)
        pytest.skip(message)
    with demo("--port", "0") as running:
        yield running


@pytest.fixture(scope="module")
def facts(running: Demo) -> dict[str, Any]:
    url = running.url()
    facts: dict[str, Any] = running.facts(url)
    return facts | {"url": url, "port": int(url.rstrip("/").rpartition(":")[2])}


@pytest.fixture
def database(facts: dict[str, Any]) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    conninfo = f"host={facts['socket_directory']} port=5432 user=postgres dbname=bookstore"
    with psycopg.connect(conninfo, autocommit=True) as connection:
        yield connection


@pytest.fixture
def proxy(facts: dict[str, Any]) -> Iterator[Proxy]:
    with Proxy("127.0.0.1", facts["port"]) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def tab(running: Demo) -> Iterator[browser.Page]:
    with browser.page() as tab:
        tab.command("Emulation.setFocusEmulationEnabled", enabled=True)
        tab.command("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
        yield tab


@pytest.fixture
def page(tab: browser.Page, proxy: Proxy, running: Demo) -> Iterator[browser.Page]:
    """The page with all books of a fresh bookstore, seen through the proxy."""
    try:
        open_page(tab, proxy)
    except AssertionError as error:
        raise AssertionError(f"{error}; the demo said:\n{running.said()}") from None
    yield tab
    assert tab.problems == []
    assert "Traceback" not in running.said()
    tab.open("about:blank")


def open_page(tab: browser.Page, proxy: Proxy) -> None:
    tab.problems.clear()
    tab.resize(1280, 900)
    tab.open(f"http://127.0.0.1:{proxy.port}/")
    tab.until("document.getElementById('main').getAttribute('aria-busy') === 'false'")
    click(tab, "[data-method='bookstore/restore']")
    tab.until("!document.querySelector('[data-method=\"bookstore/restore\"]').disabled")
    tab.until("document.querySelectorAll('#books tbody tr[data-id]').length === 25")
    tab.evaluate(WATCH)


def click(page: browser.Page, selector: str) -> None:
    page.evaluate(f"document.querySelector({selector!r}).click()")


def choose(page: browser.Page, email: str) -> None:
    page.evaluate(f"document.getElementById('filter').value = {email!r}")
    page.evaluate("document.getElementById('filter').dispatchEvent(new Event('change'))")


def cell(number: int, name: str) -> str:
    """The JavaScript for the text of a cell of a book's row; null if there is no such row."""
    return f"(document.querySelector('#books tr[data-id=\"{number}\"] .{name}')?.textContent ?? null)"


def psql(facts: dict[str, Any], statement: str) -> None:
    """Run a statement with the very command that the page offers, but for the statement."""
    program = next(command["program"] for command in facts["commands"] if command["kind"] == "psql")
    subprocess.run([*shlex.split(program), statement], check=True, capture_output=True)


def test_the_tables_are_there(page: browser.Page) -> None:
    assert page.evaluate("document.querySelectorAll('#authors tbody tr').length") == 8
    assert page.evaluate("document.getElementById('status').textContent") == "Connected"
    assert page.evaluate(cell(1, "title")) == "The Salt Roadhistorytravel"
    assert page.evaluate(cell(1, "author")) == "Amara Okafor"
    assert page.evaluate(cell(1, "published")) == "2019-04-11"
    assert page.evaluate(cell(1, "price")) == "€18.90"
    titles = page.evaluate("[...document.querySelectorAll('#books .name')].map((name) => name.textContent)")
    assert titles == sorted(titles)


def test_what_psql_writes_is_seen_in_that_cell(page: browser.Page, facts: dict[str, Any]) -> None:
    psql(facts, "UPDATE bookstore_book SET price = 77.5 WHERE id = 7")
    page.until(f"{cell(7, 'price')} === '€77.50'")
    page.until("window.seen.animations.length > 0")
    assert page.evaluate("window.seen.animations") == [["changed", "price", "7"]]


def test_rows_come_and_go(page: browser.Page, facts: dict[str, Any]) -> None:
    psql(facts, "INSERT INTO bookstore_book (id, title, author_id, in_stock) VALUES (900, '0', 1, true)")
    page.until(f"{cell(900, 'title')} === '0'")
    first = "document.querySelector('#books tbody tr').dataset.id"
    assert page.evaluate(first) == "900"
    assert page.evaluate(cell(900, "price")) == "\N{EN DASH}"
    page.until("window.seen.animations.some(([name, , id]) => name === 'entering' && id === '900')")
    psql(facts, "DELETE FROM bookstore_book WHERE id = 900")
    page.until(f"{cell(900, 'title')} === null")
    page.until("window.seen.animations.some(([name]) => name === 'leaving')")
    page.until("document.querySelectorAll('#books tbody tr').length === 25")


def test_a_renamed_author_is_renamed_with_every_book(page: browser.Page, facts: dict[str, Any]) -> None:
    psql(facts, "UPDATE bookstore_author SET name = 'A. Okafor' WHERE id = 1")
    page.until(f"{cell(1, 'author')} === 'A. Okafor' && {cell(2, 'author')} === 'A. Okafor'")
    assert page.evaluate("document.querySelector('#filter option[value^=amara]').textContent") == "A. Okafor"


def test_tags_are_live(page: browser.Page, facts: dict[str, Any]) -> None:
    psql(facts, "DELETE FROM bookstore_book_tags WHERE book_id = 1 AND tag_id = 4")
    page.until(f"{cell(1, 'title')} === 'The Salt Roadtravel'")


def test_the_filter_subscribes_to_one_author(page: browser.Page, facts: dict[str, Any]) -> None:
    choose(page, "leila@haddad.example")
    page.until("document.querySelectorAll('#books tbody tr').length === 3")
    page.until("document.querySelectorAll('#authors tbody tr').length === 1")
    psql(facts, "UPDATE bookstore_book SET author_id = 5 WHERE id = 1")
    page.until(f"{cell(1, 'author')} === 'Leila Haddad'")
    psql(facts, "UPDATE bookstore_book SET author_id = 1 WHERE id = 1")
    page.until(f"{cell(1, 'author')} === null")
    assert page.evaluate("document.getElementById('filter').options.length") == 9
    choose(page, "")
    page.until("document.querySelectorAll('#books tbody tr[data-id]').length === 25")


def test_methods_change_the_database(
    page: browser.Page, database: psycopg.Connection[tuple[Any, ...]]
) -> None:
    click(page, "[data-method='bookstore/raisePrices']")
    page.until(f"{cell(1, 'price')} === '€20.79'")
    click(page, "#books tr[data-id='1'] .price button")
    page.evaluate("document.querySelector('td.price input').value = '12,5'")
    page.evaluate(
        "document.querySelector('td.price input').dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter'}))"
    )
    page.until(f"{cell(1, 'price')} === '€12.50'")
    click(page, "#books tr[data-id='1'] .stock button")
    page.until(f"{cell(1, 'stock')} === 'sold out'")
    row = database.execute("SELECT price::text, in_stock FROM bookstore_book WHERE id = 1").fetchone()
    assert row == ("12.50", False)


def test_what_the_server_refuses_is_said(page: browser.Page) -> None:
    click(page, "#books tr[data-id='1'] .price button")
    page.evaluate("document.querySelector('td.price input').value = 'a lot'")
    page.evaluate("document.querySelector('td.price input').blur()")
    page.until("document.getElementById('toast').textContent === 'A price is a number from 0 to 999999.99'")
    assert page.evaluate(cell(1, "price")) == "€18.90"


def test_a_lost_database_connection_heals(
    page: browser.Page, facts: dict[str, Any], database: psycopg.Connection[tuple[Any, ...]]
) -> None:
    ended = database.execute(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    ).fetchone()
    assert ended is not None
    assert ended[0] >= 1
    psql(facts, "UPDATE bookstore_book SET price = 66.6 WHERE id = 6")
    page.until(f"{cell(6, 'price')} === '€66.60'")
    psql(facts, "UPDATE bookstore_book SET price = 55.5 WHERE id = 5")
    page.until(f"{cell(5, 'price')} === '€55.50'")
    assert page.evaluate("window.seen.states") == [], "the browser's connection was not concerned"


def test_a_lost_socket_heals(page: browser.Page, facts: dict[str, Any], proxy: Proxy) -> None:
    proxy.refuse()
    proxy.cut()
    page.until(
        "/^(Reconnecting|No network).* in \\d+ s$/.test(document.getElementById('status').textContent)"
    )
    assert page.evaluate("document.querySelectorAll('#books tbody tr').length") == 25
    psql(facts, "UPDATE bookstore_book SET price = 44.4 WHERE id = 4")
    psql(facts, "DELETE FROM bookstore_book_tags WHERE book_id = 5; DELETE FROM bookstore_book WHERE id = 5")
    proxy.accept()
    page.until("document.getElementById('status').textContent === 'Connected'")
    page.until(f"{cell(4, 'price')} === '€44.40' && {cell(5, 'price')} === null")
    page.until("window.seen.animations.some(([name]) => name === 'leaving')")
    books = [
        [name, place]
        for name, place, number in page.evaluate("window.seen.animations")
        if name in ("changed", "entering") and number in map(str, range(9, 26)) and place != "books-of"
    ]
    assert books == [], "only the differences are animated, not what was merely sent again"
    assert page.evaluate("window.seen.states").count("connected") == 1


def test_a_silent_socket_is_found_out_and_replaced(page: browser.Page, proxy: Proxy) -> None:
    """Nothing closes this connection: the client has to ask, and to give up."""
    page.evaluate("""
        import('./ddp.js').then(({DDPClient}) => {
          const url = `ws://${location.host}/websocket`;
          window.client = new DDPClient(url, {pingAfter: 100, pongTimeout: 500});
          window.client.connect();
        })
    """)
    page.until("client.status.state === 'connected'")
    proxy.stall()
    page.until("client.status.reason === 'The server does not answer'")
    proxy.cut()
    proxy.resume()
    page.until("client.status.state === 'connected'")
    page.evaluate("client.disconnect()")


def test_offline_by_hand_and_back(page: browser.Page, facts: dict[str, Any]) -> None:
    click(page, "#toggle-connection")
    page.until("document.getElementById('status').textContent === 'Offline'")
    psql(facts, "UPDATE bookstore_book SET price = 33.3 WHERE id = 3")
    click(page, "#toggle-connection")
    page.until(f"{cell(3, 'price')} === '€33.30'")
    assert page.evaluate("window.seen.states") == ["offline", "connecting", "connected"]


def test_commands_are_copied(page: browser.Page, facts: dict[str, Any]) -> None:
    click(page, ".commands button")
    page.until("document.querySelector('.commands .copied').textContent === 'copied'")
    command = facts["commands"][0]
    assert page.evaluate("navigator.clipboard.readText()") == f"{command['program']} {command['argument']}"


def test_ejson_survives_a_round_trip(page: browser.Page) -> None:
    """Values, and their wire forms, that the demo itself does not meet."""
    assert page.evaluate("""
        import('./ejson.js').then(({encode, decode}) => {
          const pairs = [
            [new Date(5), {$date: 5}],
            [new Uint8Array([1, 255]), {$binary: 'Af8='}],
            [Infinity, {$InfNaN: 1}],
            [-Infinity, {$InfNaN: -1}],
            [{$date: 1}, {$escape: {$date: 1}}],
            [{a: [new Date(0)]}, {a: [{$date: 0}]}],
            [/a+/gi, {$regexp: 'a+', $flags: 'gi'}],
          ];
          const same = (one, other) => JSON.stringify(encode(one)) === JSON.stringify(encode(other));
          return pairs.every(([value, wire]) =>
            JSON.stringify(encode(value)) === JSON.stringify(wire) && same(decode(wire), value)
              && decode(wire).constructor === value.constructor)
            && Number.isNaN(decode({$InfNaN: 0}))
            && String(decode({$type: 'Decimal', $value: '1.50'})) === '1.50';
        })
    """)


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844), (320, 640)])
def test_nothing_sticks_out(page: browser.Page, width: int, height: int) -> None:
    page.resize(width, height)
    page.until("document.documentElement.scrollWidth <= innerWidth")


def test_screenshot(page: browser.Page, facts: dict[str, Any]) -> None:
    target = os.environ.get(SCREENSHOT)
    if not target:
        pytest.skip(f"{SCREENSHOT} names no file to write")
    page.resize(1280, 1140)
    page.command("Emulation.setScrollbarsHidden", hidden=True)
    page.evaluate(f"""
        for (const program of document.querySelectorAll('.program'))  // not this machine's paths
          program.textContent = program.textContent.replace({sys.prefix!r}, '/opt/venv')
    """)
    psql(facts, "UPDATE bookstore_book SET price = price + 1 WHERE id % 5 = 3")
    page.until("window.seen.animations.length >= 5")
    page.screenshot(Path(target))
    assert Path(target).stat().st_size > 10_000


#: What sockjs-client does without a WebSocket in a browser of today.
SOCKJS_TRANSPORTS = ("xhr-streaming", "eventsource", "htmlfile", "xhr-polling", "jsonp-polling")

#: Behind sockjs-client: the page opens no WebSocket, but SockJS with one transport.
INSTEAD_OF_WEBSOCKET = """
window.sockets = [];
window.WebSocket = function (url) {
  const address = url.replace(/^ws/, 'http').replace(/websocket$/, 'sockjs');
  const socket = new SockJS(address, null, {transports: ['%s']});
  window.sockets.push(socket);
  return socket;
};
"""


@pytest.mark.parametrize("transport", SOCKJS_TRANSPORTS)
def test_sockjs(
    tab: browser.Page, proxy: Proxy, facts: dict[str, Any], running: Demo, node: str, transport: str
) -> None:
    program = (SOCKJS_CLIENT / "dist" / "sockjs.min.js").read_text()
    source = program + INSTEAD_OF_WEBSOCKET % transport
    script = tab.command("Page.addScriptToEvaluateOnNewDocument", source=source)
    try:
        open_page(tab, proxy)
        assert tab.evaluate("window.sockets.at(-1).transport") == transport
        psql(facts, "UPDATE bookstore_book SET price = 77.5, title = '100 % </script>' WHERE id = 7")
        tab.until(f"{cell(7, 'price')} === '€77.50'")
        assert str(tab.evaluate(cell(7, "title"))).startswith("100 % </script>")
        click(tab, "[data-method='bookstore/raisePrices']")
        tab.until(f"{cell(7, 'price')} === '€85.25'")
        assert tab.evaluate("window.seen.states") == []
        proxy.cut()  # which one who polls may not even notice
        psql(facts, "UPDATE bookstore_book SET price = 78.5 WHERE id = 7")
        tab.until(f"{cell(7, 'price')} === '€78.50'")
        tab.until("document.getElementById('status').dataset.state === 'connected'")
        assert tab.evaluate("window.sockets.at(-1).transport") == transport
    finally:
        tab.command("Page.removeScriptToEvaluateOnNewDocument", identifier=script["identifier"])
        tab.open("about:blank")
    assert "Traceback" not in running.said()
