"""Nothing can be fetched of a bundle but what the manifests of its web programs name."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.meteor import bundles
from tests.meteor.conftest import Site, body, wsgi
from trigger_ddp.meteor.bundle import BundleError, read

NAMES = (
    "programs/server/program.json",
    "programs/server/app/app.js",
    "programs/server/packages/secret.js",
    "programs/server/assets/key.pem",
    "main.js",
    "star.json",
    "programs/web.browser/program.json",
    "programs/web.browser/head.html",
)


def spellings(name: str) -> Iterator[str]:
    """Paths by which somebody might try to get at a file of the bundle."""
    below = name.removeprefix("programs/")
    for prefix in ("/", "/__browser/", "/__server/"):
        yield f"{prefix}{name}"
        yield f"{prefix}{below}"
        for up in ("..", "%2e%2e", "%252e%252e", ".%2e", "..%00", "..;", "%c0%ae%c0%ae", "%uff0e%uff0e"):
            for slash in ("/", "%2f", "%252f", "\\", "%5c", "%255c", "//", "/./"):
                for depth in (1, 2):
                    yield prefix + f"{up}{slash}" * depth + name
                    yield prefix + f"{up}{slash}" * depth + below
    for end in ("%00", "%00.js", "%20", ".", "/", "?meteor_js_resource=true", ";.css", "%0a"):
        yield f"/{name}{end}"
    yield f"//{name}"
    yield f"///etc/../{name}"


def ask(port: int, target: str) -> bytes:
    """The answer to a request whose target stands in it as it is, as no client library would send it."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as stream:
        stream.sendall(
            b"GET " + target.encode("latin-1") + b" HTTP/1.0\r\nHost: a\r\nUser-Agent: Firefox/128.0\r\n\r\n"
        )
        answer = b""
        while more := stream.recv(65536):
            answer += more
    return answer


#: What each of these files has that no page has.
TELLTALES = (bundles.SECRET.encode(), b"site-archive-pre1", b'"where": "internal"')


def harmless(answer: bytes) -> bool:
    # The head of a page is part of head.html; the place for styles is replaced in every page.
    return not any(telltale in answer for telltale in (*TELLTALES, b"<meteor-bundled-css"))


@pytest.mark.parametrize("name", NAMES)
def test_no_spelling_of_a_path_gets_at_a_file(site: Site, name: str) -> None:
    for path in spellings(name):
        if "\\" in path:
            continue  # the test client takes it for a slash's place in a URL; below it is sent as it is
        response = site.get(path)
        assert harmless(body(response).encode()), path
        assert response.status_code in (200, 301, 400, 404), path


def test_nor_over_http(site: Site, star: Path) -> None:
    bundle = star.parent
    targets = [path for name in NAMES[:3] for path in spellings(name) if "%2e" not in path]
    targets += [
        f"http://a/{NAMES[0]}", f"http://a/../{NAMES[0]}", f"file://{bundle}/main.js", f"{bundle}/main.js",
        f"/{bundle}/main.js", "main.js", "../main.js", "*", "/\x00", f"/{NAMES[0]}\x00", "/etc/passwd",
        "//etc/passwd", "/..//..//..//..//..//..//etc/passwd", f"/%00/../{NAMES[0]}",
    ]  # fmt: skip
    with wsgi(site.urls) as port:
        assert b"beep" in ask(port, "/robots%20of%20mars.txt")
        for target in targets:
            answer = ask(port, target)
            assert harmless(answer), target
            assert b"root:" not in answer, target
            assert not answer.startswith(b"HTTP/1.0 5"), (target, answer)


def test_modules_do_not_lead_out(site: Site) -> None:
    ways: list[Any] = [
        {"..": {"..": {"server": {"app": {"app.js": 1}}}}},
        {"../../server/app/app.js": 1},
        {"..": {"program.json": 1}},
        {"imports": {"..": {"..": {"program.json": 1}}}},
        {"imports/../../../server/app/app.js": 1},
        {"": {"main.js": 1}},
        {"/etc/passwd": 1},
        {"..\\..\\server\\app\\app.js": 1},
        {"imports\x00": 1},
        {"%2e%2e": {"%2e%2e": {"server": {"app": {"app.js": 1}}}}},
        "../../server/app/app.js",
        ["..", "..", "server"],
        1,
    ]
    for tree in ways:
        for query in ("", "?key=", "?key=server"):
            response = site.request(
                "post",
                f"/__meteor__/dynamic-import/fetch{query}",
                data=json.dumps(tree),
                content_type="text/plain",
            )
            assert (response.status_code, body(response)) == (200, "null"), tree


def change(star: Path, **item: Any) -> None:
    """Change the first item of the modern program's manifest."""
    program = star.parent / "programs/web.browser/program.json"
    content = json.loads(program.read_text())
    content["manifest"][0] |= item
    program.write_text(json.dumps(content))


@pytest.mark.parametrize(
    "path",
    [
        "../server/app/app.js", "/etc/passwd", "../../main.js", "..", ".", "", "app/../../server/app/app.js",
        "app", "nowhere.js", "a\x00b", "..\\server\\app\\app.js", "../web.browser.legacy/head.html",
        "../web.browser", "x" * 5000,
    ],
)  # fmt: skip
@pytest.mark.parametrize("where", ["client", "internal"])
def test_a_manifest_that_leads_out_is_refused(star: Path, path: str, where: str) -> None:
    change(star, path=path, where=where, type="head" if where == "internal" else "css")
    with pytest.raises(BundleError, match="is no file in"):
        read(star)


def test_a_source_map_that_leads_out_is_refused(star: Path) -> None:
    change(star, sourceMap="../server/app/app.js", sourceMapUrl="/a.map")
    with pytest.raises(BundleError, match="is no file in"):
        read(star)


@pytest.mark.parametrize("path", ["../outside/program.json", "/outside/program.json", "program.json"])
def test_a_program_that_is_elsewhere_is_refused(star: Path, path: str) -> None:
    outside = star.parent.parent / "outside"
    (star.parent / "programs/web.browser").rename(outside)
    (star.parent / "program.json").write_text((outside / "program.json").read_text())
    content = json.loads(star.read_text())
    for program in content["programs"]:
        if program["arch"] == "web.browser":
            program["path"] = path
    star.write_text(json.dumps(content))
    with pytest.raises(BundleError):
        read(star)


@pytest.mark.parametrize("target", ["../server/app/app.js", "/etc/passwd", "../../main.js"])
def test_links_that_lead_out_are_refused(star: Path, target: str) -> None:
    asset = star.parent / "programs/web.browser/app/robots of mars.txt"
    asset.unlink()
    asset.symlink_to(
        os.path.relpath(asset.parent.parent / target, asset.parent) if target[0] == "." else target
    )
    assert asset.read_bytes()
    with pytest.raises(BundleError, match="is no file in"):
        read(star)


def test_links_that_lead_out_later_are_not_followed(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    assert body(site.get("/robots%20of%20mars.txt")) == "beep\n"
    programs = site.star.parent / "programs"
    for arch in ("web.browser", "web.browser.legacy", "web.cordova"):
        asset = programs / arch / "app/robots of mars.txt"
        asset.unlink()
        asset.symlink_to(programs / "server/app/app.js")
    for method in ("get", "head"):
        response = site.request(method, "/robots%20of%20mars.txt")
        assert (response.status_code, response["Cache-Control"]) == (404, "no-cache")
        assert harmless(body(response).encode())
    assert "can't be read" in caplog.text
    module = programs / "web.browser/dynamic/imports/lazy.js"
    module.unlink()
    module.symlink_to(programs / "server/app/app.js")
    response = site.request(
        "post",
        "/__meteor__/dynamic-import/fetch",
        data='{"imports":{"lazy.js":1}}',
        content_type="text/plain",
    )
    assert body(response) == "null"


def test_links_within_a_program_are_followed(star: Path) -> None:
    asset = star.parent / "programs/web.browser/app/robots of mars.txt"
    asset.rename(asset.with_name("moved"))
    asset.symlink_to("moved")
    assert body(Site(star).get("/robots%20of%20mars.txt")) == "beep\n"


def test_the_server_is_no_program_to_serve(star: Path) -> None:
    assert set(read(star).programs) == {"web.browser", "web.browser.legacy", "web.cordova"}
    content = json.loads(star.read_text())
    content["programs"] = content["programs"][:1]
    star.write_text(json.dumps(content))
    with pytest.raises(BundleError, match="no program for browsers"):
        read(star)


def test_settings_that_are_not_public_stay(star: Path) -> None:
    site = Site(
        star, meteor_settings={"public": {"a": 1}, "key": bundles.SECRET}, inline_scripts_allowed=False
    )
    for path in ("/", "/meteor_runtime_config.js", "/__browser/manifest.json", "/__cordova/"):
        text = body(site.get(path))
        assert bundles.SECRET not in text
        assert "%27s%20secret" not in text
        assert "s%20secret" not in text
