"""What MeteorView answers, beside what it never gives away (test_boundaries.py)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from tests.meteor import bundles
from tests.meteor.conftest import EXPLORER, FIREFOX, Site, body
from trigger_ddp.meteor.views import MeteorView

CONFIG = re.compile(r'JSON\.parse\(decodeURIComponent\("([^"]*)"\)\)')


def config_of(page: str) -> dict[str, Any]:
    match = CONFIG.search(page)
    assert match is not None, page
    config: dict[str, Any] = json.loads(unquote(match[1]))
    return config


def scripts(page: str) -> list[str]:
    return re.findall(r'<script type="text/javascript" src="([^"]+)"', page)


def styles(page: str) -> list[str]:
    return re.findall(r'<link rel="stylesheet" type="text/css" class="__meteor-css__" href="([^"]+)"', page)


# -- pages ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/books/7", "/index.php", "/deep/er/", "/b%C3%BCcher", "/?a=b"])
def test_any_path_is_a_page(site: Site, path: str) -> None:
    response = site.get(path)
    assert response.status_code == 200
    assert response["Content-Type"] == "text/html; charset=utf-8"
    assert response["Cache-Control"] == "no-cache"
    assert response["Vary"] == "User-Agent"
    assert body(response).startswith("<!DOCTYPE html>\n<html>\n<head>\n")


def test_a_page_has_head_styles_body_and_scripts_in_order(site: Site) -> None:
    page = body(site.get("/"))
    places = [
        page.index(text)
        for text in (
            "<title>", "<meta-before>", "__meteor-css__", '<meta name="after"', "</head>\n<body>",
            '<p id="state">', "__meteor_runtime_config__", 'src="/',
        )
    ]  # fmt: skip
    assert places == sorted(places)
    assert "meteor-bundled-css" not in page
    assert len(styles(page)) == len(scripts(page)) == 1, "modules that are imported on demand are not loaded"


def test_styles_come_first_where_the_head_has_no_place_for_them(site_at: Callable[..., Site]) -> None:
    page = body(site_at(bundle={"head": "<title>x</title>"}).get("/"))
    assert page.index("__meteor-css__") < page.index("<title>")


def test_a_page_of_meteor_1_2_loads_its_scripts_in_the_head(tmp_path: Path) -> None:
    page = body(Site(bundles.write_old(tmp_path)).get("/"))
    places = [
        page.index(text)
        for text in ("__meteor-css__", "__meteor_runtime_config__", 'src="/', "<title>", "<body>", "<p id")
    ]
    assert places == sorted(places)
    config = config_of(page)
    versions = config["autoupdate"]["versions"]["web.browser"]
    assert config["autoupdateVersion"] == versions["versionNonRefreshable"]
    assert config["autoupdateVersionRefreshable"] == versions["versionRefreshable"]
    assert config["autoupdateVersionCordova"] == "none"


@pytest.mark.parametrize(
    ("agent", "arch"),
    [(FIREFOX, "web.browser"), (EXPLORER, "web.browser.legacy"), ("", "web.browser.legacy")],
)
def test_browsers_get_the_program_that_suits_them(site: Site, agent: str, arch: str) -> None:
    page = body(site.get("/", agent))
    assert f"// {arch}\n" in body(site.get(scripts(page)[0], agent))
    assert config_of(page)["isModern"] is (arch == "web.browser")


def test_a_browser_gets_the_other_program_where_its_own_is_left_out(site_at: Callable[..., Site]) -> None:
    for archs in (("web.browser",), ("web.browser.legacy",)):
        only = site_at(bundle={"archs": archs})
        for agent in (FIREFOX, EXPLORER):
            assert f"// {archs[0]}\n" in body(only.get(scripts(body(only.get("/", agent)))[0]))


def test_without_a_program_for_it_there_is_no_page(site_at: Callable[..., Site]) -> None:
    response = site_at(bundle={"archs": ("web.cordova",)}).get("/")
    assert (response.status_code, response["Cache-Control"]) == (404, "no-cache")


def test_a_prefix_names_the_program(site: Site) -> None:
    for prefix, arch in (("browser", "web.browser"), ("browser.legacy", "web.browser.legacy")):
        page = body(site.get(f"/__{prefix}/", EXPLORER))
        assert f"// {arch}\n" in body(site.get(f"/__{prefix}{scripts(page)[0]}"))
    assert "cordova.js" not in body(site.get("/__server/")), "a page like any other"


def test_a_device_gets_a_page_of_its_own(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    page = body(site.get("/__cordova/"))
    assert '<script src="/cordova.js"></script>' in page
    assert (
        page.index("cordova.js") < page.index('src="/', page.index("cordova.js") + 12) < page.index("<body>")
    )
    config = config_of(page)
    assert config["DDP_DEFAULT_CONNECTION_URL"] == config["ROOT_URL"] == "http://testserver/"
    assert "isModern" not in config
    monkeypatch.setenv("MOBILE_DDP_URL", "https://ddp.example/")
    monkeypatch.setenv("MOBILE_ROOT_URL", "https://www.example/")
    config = config_of(body(site.get("/__cordova/")))
    assert config["DDP_DEFAULT_CONNECTION_URL"] == "https://ddp.example/"
    assert config["ROOT_URL"] == "https://www.example/"


def test_the_manifest_tells_devices_what_to_fetch(site: Site) -> None:
    response = site.get("/__cordova/manifest.json")
    assert response["Content-Type"] == "application/json; charset=UTF-8"
    assert response["Access-Control-Allow-Origin"] == "*"
    manifest = json.loads(body(response))
    assert manifest["format"] == "web-program-pre1"
    assert manifest["cordovaCompatibilityVersions"] == {"ios": "1"}
    assert manifest["PUBLIC_SETTINGS"] == {}
    assert response["ETag"] == f'"{manifest["version"]}"'
    for item in manifest["manifest"]:
        if item["where"] == "client":
            sign = "&" if "?" in item["url"] else "?"
            found = site.get(f"/__cordova{item['url']}{sign}meteor_dont_serve_index=true")
            assert found.status_code == 200
            assert bundles.sha1(body(found).encode()) == item["hash"]
    assert body(site.get("/manifest.json")).startswith("<!DOCTYPE html>")


def test_meteor_1_2_has_its_manifest_at_the_top(tmp_path: Path) -> None:
    response = Site(bundles.write_old(tmp_path)).get("/manifest.json")
    assert [item["type"] for item in json.loads(body(response))["manifest"]][:2] == ["css", "js"]


# -- what programs read first -------------------------------------------------------------------------


def test_the_runtime_configuration(site: Site) -> None:
    config = config_of(body(site.get("/books", secure=True)))
    versions = config.pop("autoupdate")["versions"]
    assert config == {
        "meteorRelease": "METEOR@3.0.4",
        "gitCommitHash": "f" * 40,
        "meteorEnv": {"NODE_ENV": "production", "TEST_METADATA": "{}"},
        "PUBLIC_SETTINGS": {},
        "ROOT_URL": "https://testserver/",
        "ROOT_URL_PATH_PREFIX": "",
        "accountsConfigCalled": True,
        "isModern": True,
    }
    assert set(versions) == {"web.browser", "web.browser.legacy", "web.cordova"}
    assert set(versions["web.browser"]) == {
        "version", "versionRefreshable", "versionNonRefreshable", "versionReplaceable",
    }  # fmt: skip


def test_what_is_in_it_cannot_end_the_script(site_at: Callable[..., Site]) -> None:
    nasty = "</script><script>alert('1')</script>\"\u2028\ud800&<!--"
    page = body(site_at(meteor_settings={"public": {"nasty": nasty}}).get("/"))
    assert "alert('1')</script>" not in page
    assert config_of(page)["PUBLIC_SETTINGS"] == {"nasty": nasty}


def test_it_may_be_a_file(site_at: Callable[..., Site]) -> None:
    site = site_at(inline_scripts_allowed=False, meteor_settings={"public": {"a": 1}})
    page = body(site.get("/books"))
    assert "<script>" not in page
    assert CONFIG.search(page) is None
    url = scripts(page)[0]
    assert re.fullmatch(r"/meteor_runtime_config\.js\?hash=[0-9a-f]{40}", url)
    response = site.get(url)
    assert response["Content-Type"] == "application/javascript; charset=UTF-8"
    script = body(response)
    assert url.endswith(bundles.sha1(script.encode()))
    config = json.loads(script.removeprefix("__meteor_runtime_config__ = ").removesuffix(";"))
    assert config["PUBLIC_SETTINGS"] == {"a": 1}
    assert config["isModern"] is True
    assert '"isModern":false' in body(site.get(url, EXPLORER))
    assert site.request("post", url).status_code == 405


def test_it_is_no_file_where_it_stands_in_the_page(site: Site) -> None:
    assert body(site.get("/meteor_runtime_config.js")).startswith("<!DOCTYPE html>")


def test_the_application_adds_to_it(site_at: Callable[..., Site], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDP_DEFAULT_CONNECTION_URL", "https://one.example/")
    monkeypatch.setenv("DISABLE_SOCKJS", "1")
    config = config_of(body(site_at(app_id="a1").get("/")))
    assert config["DDP_DEFAULT_CONNECTION_URL"] == "https://one.example/"
    assert config["DISABLE_SOCKJS"] == "1"
    assert config["appId"] == "a1"
    more = {"DDP_DEFAULT_CONNECTION_URL": "https://two.example/", "x": [1]}
    config = config_of(body(site_at(runtime_config=more).get("/")))
    assert config["DDP_DEFAULT_CONNECTION_URL"] == "https://two.example/"
    assert config["x"] == [1]


def test_root_url(site_at: Callable[..., Site]) -> None:
    site, named = site_at(), site_at(root_url="https://named.example/")
    with override_settings(SECURE_SSL_REDIRECT=True):
        assert config_of(body(site.get("/")))["ROOT_URL"] == "https://testserver/"
    with override_settings(DDP_ROOT_URL="https://set.example/"):
        assert config_of(body(site.get("/")))["ROOT_URL"] == "https://set.example/"
        assert config_of(body(named.get("/")))["ROOT_URL"] == "https://named.example/"


def test_below_a_path(site_at: Callable[..., Site]) -> None:
    site = site_at(route="app/", inline_scripts_allowed=False)
    page = body(site.get("/app/books/7"))
    urls = scripts(page)
    assert urls[0].startswith("/app/meteor_runtime_config.js?hash=")
    assert urls[1].startswith("/app/")
    assert '"ROOT_URL":"http://testserver/app/","ROOT_URL_PATH_PREFIX":"/app"' in body(site.get(urls[0]))
    response = site.get(urls[1])
    assert "// web.browser\n" in body(response)
    assert response["X-SourceMap"].startswith("/app/")
    assert site.get(response["X-SourceMap"]).status_code == 200
    assert site.get(urls[1].removeprefix("/app")).status_code == 404, "not this view's"


def test_files_may_be_on_another_host(site_at: Callable[..., Site]) -> None:
    page = body(site_at(bundled_js_css_prefix="https://cdn.example/x/").get("/"))
    assert all(url.startswith("https://cdn.example/x/") for url in scripts(page) + styles(page))
    page = body(site_at(bundled_js_css_prefix="/").get("/"))  # django-ddp's default
    assert re.fullmatch(r"/[0-9a-f]{40}\.js\?meteor_js_resource=true", scripts(page)[0])


def test_browsers_may_be_told_the_hashes(site_at: Callable[..., Site]) -> None:
    assert "integrity" not in body(site_at().get("/"))
    page = body(site_at(sri_mode="anonymous", html_attributes={"lang": 'a"b'}).get("/"))
    assert len(re.findall(r'integrity="sha512-[\w+/]{86}==" crossorigin="anonymous">', page)) == 2
    assert '<html lang="a&quot;b">' in page


# -- files --------------------------------------------------------------------------------------------


def test_bundled_files_are_kept_for_a_year(site: Site) -> None:
    page = body(site.get("/"))
    for url, kind in ((scripts(page)[0], "application/javascript"), (styles(page)[0], "text/css")):
        response = site.get(url)
        assert response.status_code == 200
        assert response["Content-Type"] == f"{kind}; charset=UTF-8"
        assert response["Cache-Control"] == "public, max-age=31536000"
        assert response["Vary"] == "User-Agent"
        assert response["ETag"] == f'"{bundles.sha1(body(response).encode())}"'
        assert int(response["Content-Length"]) > 10


def test_assets_are_asked_for_again(site: Site) -> None:
    response = site.get("/robots%20of%20mars.txt")
    assert body(response) == "beep\n"
    assert response["Content-Type"] == "text/plain; charset=UTF-8"
    assert response["Cache-Control"] == "public, max-age=0"
    assert "Vary" not in response
    assert body(site.get("/deep/.hidden")) == "hidden"
    again = site.get("/robots%20of%20mars.txt", headers={"if-none-match": response["ETag"]})
    assert (again.status_code, body(again), again["ETag"]) == (304, "", response["ETag"])
    other = site.get("/robots%20of%20mars.txt", headers={"if-none-match": '"another"'})
    assert (other.status_code, body(other)) == (200, "beep\n")


def test_source_maps(site: Site) -> None:
    response = site.get(scripts(body(site.get("/")))[0])
    assert response["SourceMap"] == response["X-SourceMap"]
    found = site.get(response["X-SourceMap"])
    assert body(found) == ")]}'\n{}"
    assert found["Content-Type"] == "application/json; charset=UTF-8"
    assert found["Cache-Control"] == "public, max-age=31536000"


def test_files_of_other_programs_are_there_too(site: Site) -> None:
    url = scripts(body(site.get("/", EXPLORER)))[0]
    assert "// web.browser.legacy\n" in body(site.get(url, FIREFOX))


def test_head_has_no_body(site: Site) -> None:
    whole = site.get("/robots%20of%20mars.txt")
    response = site.request("head", "/robots%20of%20mars.txt")
    assert (response.status_code, body(response)) == (200, "")
    for name in ("Content-Length", "Content-Type", "ETag", "Cache-Control"):
        assert response[name] == whole[name]
    assert site.request("head", "/books").status_code == 200


@pytest.mark.parametrize(
    ("asked", "status", "content", "told"),
    [
        ("bytes=0-0", 206, "b", "bytes 0-0/5"),
        ("bytes=1-2", 206, "ee", "bytes 1-2/5"),
        ("bytes=2-", 206, "ep\n", "bytes 2-4/5"),
        ("bytes=-2", 206, "p\n", "bytes 3-4/5"),
        ("bytes=-99", 206, "beep\n", "bytes 0-4/5"),
        ("bytes=0-99", 206, "beep\n", "bytes 0-4/5"),
        ("bytes=5-", 416, "", "bytes */5"),
        ("bytes=-0", 416, "", "bytes */5"),
        ("bytes=2-1", 200, "beep\n", None),
        ("bytes=-", 200, "beep\n", None),
        ("bytes=0-0,2-2", 200, "beep\n", None),
        ("bytes=a-b", 200, "beep\n", None),
        ("lines=0-0", 200, "beep\n", None),
        (f"bytes=0-{'9' * 19}", 200, "beep\n", None),
    ],
)
def test_a_part_of_a_file(site: Site, asked: str, status: int, content: str, told: str | None) -> None:
    response = site.get("/robots%20of%20mars.txt", headers={"range": asked})
    assert (response.status_code, body(response), response.get("Content-Range")) == (status, content, told)
    if status != 416:
        assert int(response["Content-Length"]) == len(content)
        assert response["Accept-Ranges"] == "bytes"


def test_a_part_of_an_older_file(site: Site) -> None:
    etag = site.get("/robots%20of%20mars.txt")["ETag"]
    for version, status in ((etag, 206), ('"older"', 200), ("Tue, 01 Jan 2030 00:00:00 GMT", 200)):
        asked = {"range": "bytes=0-0", "if-range": version}
        assert site.get("/robots%20of%20mars.txt", headers=asked).status_code == status


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("a.png", "image/png"), ("a.svg", "image/svg+xml"), ("a.html", "text/html; charset=UTF-8"),
        ("a.tar.gz", "application/gzip"), ("a.unknown", "application/octet-stream"),
    ],
)  # fmt: skip
def test_types_of_assets(site: Site, name: str, content_type: str) -> None:
    program = site.star.parent / "programs/web.browser"
    content = json.loads((program / "program.json").read_text())
    content["manifest"].append({"path": f"app/{name}", "where": "client", "type": "asset", "url": f"/{name}"})
    (program / "app" / name).write_text("x")
    (program / "program.json").write_text(json.dumps(content))
    response = site.get(f"/{name}")
    assert (body(response), response["Content-Type"], "ETag" in response) == ("x", content_type, False)


def test_what_is_missing(site: Site) -> None:
    for path in ("/favicon.ico", "/robots.txt", "/app.manifest", "/sockjs/info", "/sockjs/1/2/websocket"):
        assert site.get(path).status_code == 404
    gone = site.get("/0.css?meteor_css_resource=true")
    assert (gone.status_code, body(gone)) == (200, ".meteor-css-not-found-error { width: 0px;}")
    assert (gone["Content-Type"], gone["Cache-Control"]) == ("text/css; charset=UTF-8", "no-cache")
    for query in ("meteor_js_resource=true", "meteor_dont_serve_index=true"):
        gone = site.get(f"/0.js?{query}")
        assert (gone.status_code, gone["Cache-Control"]) == (404, "no-cache")


@pytest.mark.parametrize("path", ["/", "/robots%20of%20mars.txt", "/__browser/manifest.json"])
def test_other_methods(site: Site, path: str) -> None:
    for method in ("post", "put", "delete", "patch"):
        response = site.request(method, path)
        assert (response.status_code, response["Allow"]) == (405, "OPTIONS, GET, HEAD")
    response = site.request("options", path)
    assert (response.status_code, response["Allow"], body(response)) == (200, "OPTIONS, GET, HEAD", "")


# -- modules ------------------------------------------------------------------------------------------

IMPORTS = "/__meteor__/dynamic-import/fetch"


def fetch(site: Site, tree: Any, **more: Any) -> Any:
    text = tree if isinstance(tree, str) else json.dumps(tree)
    return site.request("post", IMPORTS, data=text, content_type="text/plain;charset=UTF-8", **more)


def test_modules_are_fetched_as_a_tree(site: Site) -> None:
    tree = {
        "imports": {"lazy.js": 1, "none.js": 1},
        "node_modules": {"meteor": {"a:b": {"c.js": 1}}},
        "nothing": {"here.js": 1},
    }
    response = fetch(site, tree)
    assert (response.status_code, response["Access-Control-Allow-Origin"]) == (200, "*")
    assert json.loads(body(response)) == {
        "imports": {"lazy.js": bundles.LAZY},
        "node_modules": {"meteor": {"a:b": {"c.js": "function(){}"}}},
    }
    assert body(fetch(site, {"nothing": 1})) == body(fetch(site, {})) == "null"


def test_a_module_is_sent_once_however_often_it_is_named(site: Site) -> None:
    tree = {"node_modules": {"meteor": {"a:b": {"c.js": 1}, "a_b": {"c.js": 1}}}}
    assert json.loads(body(fetch(site, tree))) == {
        "node_modules": {"meteor": {"a:b": {"c.js": "function(){}"}}}
    }


@pytest.mark.parametrize(
    "text", ["", "{", "[" * 100_000, '{"a":' * 900 + "1" + "}" * 900, "\x00", "\ufeff{}"]
)
def test_no_tree(site: Site, text: str) -> None:
    response = fetch(site, text)
    if response.status_code != 200:
        assert (response.status_code, json.loads(body(response))) == (400, "bad request")


def test_a_tree_that_is_too_large(site: Site) -> None:
    with override_settings(DATA_UPLOAD_MAX_MEMORY_SIZE=10):
        assert fetch(site, {"imports": {"lazy.js": 1}}).status_code == 400


def test_modules_of_other_sites_pages(site: Site) -> None:
    asked = {"access-control-request-headers": "x-y"}
    response = site.request("options", IMPORTS, headers=asked)
    assert response["Access-Control-Allow-Origin"] == "*"
    assert response["Access-Control-Allow-Methods"] == "POST"
    assert response["Access-Control-Allow-Headers"] == "x-y"
    response = site.get(IMPORTS)
    assert (response.status_code, response["Allow"]) == (405, "OPTIONS, POST")


# -- the view -----------------------------------------------------------------------------------------


def test_it_needs_a_bundle() -> None:
    with pytest.raises(ImproperlyConfigured, match="MeteorView needs json_path"):
        MeteorView()


def test_a_directory_will_do(star: Path) -> None:
    assert "<title>Books</title>" in body(Site(star.parent).get("/"))


def test_a_new_version_is_served_at_once(site: Site) -> None:
    before = body(site.get("/"))
    bundles.write(site.star.parent, styles="p { color: red }")
    after = body(site.get("/"))
    assert styles(after) != styles(before)
    assert body(site.get(styles(after)[0])) == "p { color: red }"
    assert body(site.get(styles(before)[0])) == ".meteor-css-not-found-error { width: 0px;}"


def test_half_a_version_is_not_served(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    before = body(site.get("/"))
    program = site.star.parent / "programs/web.browser/program.json"
    program.write_text(program.read_text()[:100])
    assert body(site.get("/")) == body(site.get("/")) == before
    assert len(caplog.records) == 1
    assert "the bundle that was read before is served on" in caplog.text
    bundles.write(site.star.parent, styles="p { color: red }")
    assert styles(body(site.get("/"))) != styles(before)


def test_a_link_to_another_version(tmp_path: Path) -> None:
    one = bundles.write(tmp_path / "1", head="<title>one</title>").parent
    two = bundles.write(tmp_path / "2", head="<title>two</title>").parent
    link = tmp_path / "current"
    link.symlink_to(one)
    site = Site(link / "star.json")
    assert "<title>one" in body(site.get("/"))
    (tmp_path / "new").symlink_to(two)
    (tmp_path / "new").rename(link)
    assert "<title>two" in body(site.get("/"))
