"""DDP_ALLOWED_ORIGINS: whose pages may connect, by which transport ever."""

from __future__ import annotations

import logging

import pytest
from django.test import override_settings

from tests.server.network import Served, WireClient, in_trio, serving, upgrade
from tests.server.test_http import ask, request
from trigger_ddp import conf
from trigger_ddp.server.metrics import Metrics
from trigger_ddp.server.origins import Origins

OURS = "https://app.example.org"
ALLOWED = (OURS, "https://*.books.example:8443", "capacitor://localhost", "http://[::1]:3000")
EVIL = "https://evil.example"


@pytest.mark.parametrize(
    "origin",
    [
        OURS, "HTTPS://App.Example.org", "https://a.books.example:8443", "https://a.b-c.books.example:8443",
        "capacitor://localhost", "http://[::1]:3000",
    ],
)  # fmt: skip
def test_who_is_on_the_list(origin: str) -> None:
    assert Origins(ALLOWED).allow(origin)


@pytest.mark.parametrize(
    "origin",
    [
        EVIL, "", "null", "http://app.example.org", f"{OURS}:8443", f"{OURS}.evil.example", f"{OURS}/",
        f"x{OURS}",
        "https://evil.example?https://app.example.org", "https://appxexample.org", f"{EVIL} {OURS}",
        f"{OURS} {EVIL}", f"{OURS}, {OURS}", f"{OURS}\n",
        "https://books.example:8443", "https://.books.example:8443", "https://evilbooks.example:8443",
        "https://a.books.example", "https://evil.example/.books.example:8443", "https://a..books.example:8443",
        "https://evil.example#.books.example:8443", "https://*.books.example:8443", "http://0:0:0:0:1:3000",
        "https://user@app.example.org",
    ],
)  # fmt: skip
def test_who_is_not(origin: str) -> None:
    assert not Origins(ALLOWED).allow(origin)
    assert Origins().allow(origin), "without a list everybody may"


@pytest.mark.parametrize("entry", [*ALLOWED, "http://localhost:3000", "https://x.org:80", "http://10.0.0.1"])
def test_entries(entry: str) -> None:
    with override_settings(DDP_ALLOWED_ORIGINS=[entry]):
        assert conf.check_settings() == []
        assert conf.settings().allowed_origins == (entry,)


@pytest.mark.parametrize(
    "entry",
    [
        "app.example.org", f"{OURS}/", f"{OURS}/path", "https://App.example.org", "*", "https://*", "null",
        "", 7,
        "https://a.*.org", "https://*example.org", f"{OURS}:443", "http://x.org:80", "https://", f" {OURS}",
        "https://user@x.org", f"{OURS}:port", f"{OURS}\n", "https://*.*.org", "https://x.org:443",
    ],
)  # fmt: skip
def test_entries_that_no_browser_would_send_are_named(entry: object) -> None:
    with override_settings(DDP_ALLOWED_ORIGINS=[OURS, entry]):
        (problem,) = conf.check_settings()
    assert problem.id == "trigger_ddp.E003"
    assert problem.msg == f"DDP_ALLOWED_ORIGINS must not contain {entry!r}."


async def status(served: Served, data: bytes) -> int:
    client = WireClient(await served.connect())
    await client.send(data)
    head = await client.head()
    assert EVIL not in head
    await client.stream.aclose()
    return int(head.split()[1])


#: Requests of a page's script, of which browsers send the origin.
BY_SCRIPT = [
    ("POST /sockjs/0/{}/xhr", b"", 200), ("POST /sockjs/0/{}/xhr_streaming", b"", 200),
    ("GET /sockjs/0/{}/eventsource", b"", 200), ("POST /sockjs/0/{}/xhr_send", b'["x"]', 404),
    ("OPTIONS /sockjs/0/{}/xhr_send", b"", 204), ("OPTIONS /sockjs/info", b"", 204),
    ("GET /sockjs/info", b"", 200),
]  # fmt: skip
#: What is made of scripts, frames and forms.
BY_MARKUP = [
    ("GET /sockjs/0/{}/jsonp?c=x", b"", 200), ("GET /sockjs/0/{}/htmlfile?c=x", b"", 200),
    ("GET /sockjs/0/{}/htmlfile/?c=x", b"", 200), ("POST /sockjs/0/{}/jsonp_send", b'["x"]', 404),
]  # fmt: skip
PATHS = ["/websocket", "/websocket/", "/sockjs/websocket", "/sockjs/0/a/websocket"]


@in_trio
async def test_every_way_to_connect_is_looked_at(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "trigger_ddp.server.origins")
    metrics, number = Metrics(), 0

    def line(form: str) -> str:
        nonlocal number
        number += 1
        return form.format(f"s{number}")

    async with serving(origins=Origins(ALLOWED), metrics=metrics) as served:
        for path in PATHS:
            assert await status(served, upgrade(path, f"Origin: {OURS}")) == 101
            assert await status(served, upgrade(path)) == 101, "no browser"
            assert await status(served, upgrade(path, f"Origin: {EVIL}")) == 403
            assert await status(served, upgrade(path, "Origin: null")) == 403
            assert await status(served, upgrade(path, f"Origin: {OURS}", f"Origin: {EVIL}")) == 403
            assert await status(served, upgrade(path, f"Origin: {EVIL}", f"Referer: {OURS}/")) == 403
        for form, body, expected in BY_SCRIPT:
            assert await status(served, request(line(form), f"Origin: {OURS}", body=body)) == expected
            assert await status(served, request(line(form), body=body)) == expected
            assert await status(served, request(line(form), f"Origin: {EVIL}", body=body)) == 403
        for form, body, expected in BY_MARKUP:
            assert await status(served, request(line(form), f"Origin: {OURS}", body=body)) == expected
            assert await status(served, request(line(form), f"Referer: {OURS}/x?y", body=body)) == expected
            for headers in [
                (), (f"Origin: {EVIL}",), (f"Referer: {EVIL}/{OURS}/",), (f"Referer: {OURS}.evil.example/",),
                ("Referer: about:blank",), (f"Origin: {EVIL}", f"Referer: {OURS}/"), ("Origin:",),
            ]:  # fmt: skip
                assert await status(served, request(line(form), *headers, body=body)) == 403, (form, headers)
        assert metrics.refusals["origin"] == len(PATHS) * 4 + len(BY_SCRIPT) + len(BY_MARKUP) * 7
    shown = [record for record in caplog.records if record.levelno > logging.DEBUG]
    assert len(shown) == 1, "once a minute"
    assert shown[0].getMessage().endswith(f"is refused: DDP_ALLOWED_ORIGINS does not have '{EVIL}'")


@in_trio
async def test_what_is_refused_sends_nothing_to_a_session_that_is_open() -> None:
    async with serving(origins=Origins(ALLOWED)) as served:
        client = WireClient(await served.connect())
        await client.send(request("POST /sockjs/0/victim/xhr_streaming", f"Origin: {OURS}"))
        assert (await client.head()).startswith("HTTP/1.1 200")
        for form in ("xhr_send", "jsonp_send"):
            data = request(f"POST /sockjs/0/victim/{form}", f"Origin: {EVIL}", body=b'["of evil"]')
            assert await status(served, data) == 403
        data = request("POST /sockjs/0/victim/xhr_send", f"Origin: {OURS}", body=b'["of ours"]')
        assert await status(served, data) == 204
        while b"of ours" not in client.buffer:
            await client._more()
        assert b"of evil" not in client.buffer


@in_trio
async def test_the_iframe_page_would_lend_its_origin_to_any_page() -> None:
    async with serving() as served:
        assert await status(served, request("GET /sockjs/iframe.html")) == 200
    async with serving(origins=Origins(ALLOWED)) as served:
        for headers in [(), (f"Origin: {OURS}",), (f"Referer: {OURS}/",)]:
            assert await status(served, request("GET /sockjs/iframe-1.6.1.html", *headers)) == 403


@in_trio
async def test_the_rest_of_the_port_is_the_projects_business() -> None:
    async with serving(origins=Origins(ALLOWED)) as served:
        client = WireClient(await served.connect())
        assert (await ask(client, request("GET /page", f"Origin: {EVIL}")))[0] == 404
        assert (await ask(client, request("GET /sockjs/info", f"Origin: {OURS}")))[1][
            "access-control-allow-origin"
        ] == OURS
