"""The documents by which clients learn of a new version, told by a real server."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from django.conf import settings as django_settings
from django.test import override_settings
from django.urls import include, path, re_path

from tests.ddp import DDPClient
from tests.meteor import bundles
from tests.serving import Server
from trigger_ddp.api import API, this
from trigger_ddp.meteor.autoupdate import ClientVersions, documents, read
from trigger_ddp.meteor.discovery import check_bundles, sites
from trigger_ddp.meteor.views import MeteorView

with API.restored():  # the tests' own process has no such app
    from trigger_ddp.meteor.ddp import _Lookout

NAME = COLLECTION = "meteor_autoupdate_clientVersions"


@pytest.fixture
def start(serve: Callable[..., Server], star: Path) -> Callable[..., Server]:
    def start(**environ: str) -> Server:
        project = {"DJANGO_SETTINGS_MODULE": "tests.meteor.settings", "TDDP_TEST_BUNDLE": str(star)}
        return serve(**{**project, **environ})

    return start


@pytest.fixture
def client(start: Callable[..., Server]) -> Iterator[DDPClient]:
    with DDPClient(start().url) as client:
        yield client
        assert client.violations == []


def expected(star: Path, public: dict[str, Any] | None = None) -> dict[str, Any]:
    """The documents that the bundle on disk asks for."""
    view = MeteorView.as_view(json_path=star, meteor_settings={"public": public or {}})
    with override_settings(ROOT_URLCONF=urls(re_path("^(?P<path>.*)$", view))):
        (site,) = sites()
        return {name: dict(fields) for name, fields in documents(site, site.bundle()).items()}


def urls(*patterns: Any) -> Any:
    return type("urls", (), {"urlpatterns": list(patterns)})


# -- a server -----------------------------------------------------------------------------------------


def test_a_client_is_told_the_versions(client: DDPClient, star: Path) -> None:
    client.subscribe(NAME)
    told = client.documents[COLLECTION]
    assert told == expected(star)
    assert set(told) == {
        "web.browser", "web.browser.legacy", "web.cordova",
        "version", "version-refreshable", "version-cordova",
    }  # fmt: skip
    (styles,) = told["web.browser"]["assets"]
    assert styles["url"] == f"/{bundles.sha1(bundles.STYLES.encode())}.css?meteor_css_resource=true"
    assert told["version"] == {"version": "outdated"}


def test_a_new_version_is_told(client: DDPClient, star: Path) -> None:
    client.subscribe(NAME, None)
    before = expected(star)
    since = len(client.messages)
    bundles.write(star.parent, styles="p {}")
    now = expected(star)
    client.wait_until(lambda: client.documents[COLLECTION] == now)
    news = [m for m in client.messages[since:] if m["msg"] != "ping"]
    assert {(m["msg"], m["id"]) for m in news} == {
        ("changed", "web.browser"), ("changed", "web.browser.legacy"), ("changed", "web.cordova"),
    }  # fmt: skip
    assert set(news[0]["fields"]) == {"version", "versionRefreshable", "assets"}
    assert now["web.browser"]["versionNonRefreshable"] == before["web.browser"]["versionNonRefreshable"]


def test_an_old_bundle_has_documents_that_its_clients_know(
    start: Callable[..., Server], tmp_path: Path
) -> None:
    star = bundles.write_old(tmp_path / "old")
    with DDPClient(start(TDDP_TEST_BUNDLE=str(star)).url) as client:
        client.subscribe(NAME)
        told = client.documents[COLLECTION]
        assert told == expected(star)
        program = told["web.browser"]
        assert told["version"] == {"version": program["versionNonRefreshable"]}
        assert told["version-refreshable"] == {
            "version": program["versionRefreshable"], "assets": {"allCss": program["assets"]},
        }  # fmt: skip
        assert told["version-cordova"] == {"version": "none", "refreshable": False}


def test_sighup_reads_the_bundle_although_it_looks_the_same(start: Callable[..., Server], star: Path) -> None:
    server = start()
    with DDPClient(server.url) as client:
        client.subscribe(NAME)
        program = star.parent / "programs/web.browser/program.json"
        stat, text = program.stat(), program.read_text()
        digest = bundles.sha1(bundles.BODY.encode())
        program.write_text(text.replace(digest, "0" * 40))
        os.utime(program, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        with DDPClient(server.url) as other:
            other.subscribe(NAME)  # for which the server looks, and sees nothing new
            assert other.documents[COLLECTION] == client.documents[COLLECTION]
        server.process.send_signal(signal.SIGHUP)
        now = expected(star)
        client.wait_until(lambda: client.documents[COLLECTION] == now)
        server.wait_for_log("clients are told of another version")


def test_the_settings_are_part_of_the_versions(start: Callable[..., Server], star: Path) -> None:
    with DDPClient(start(METEOR_SETTINGS='{"public": {"a": 1}, "b": 2}').url) as client:
        client.subscribe(NAME)
        assert client.documents[COLLECTION] == expected(star, {"a": 1})
        assert client.documents[COLLECTION] != expected(star)


def test_a_client_of_another_application_is_told_nothing(start: Callable[..., Server]) -> None:
    with DDPClient(start(APP_ID="mine").url) as client:
        client.subscribe(NAME, "another")
        assert client.documents[COLLECTION] == {}
        client.subscribe(NAME, "mine")
        assert len(client.documents[COLLECTION]) == 6


def test_other_parameters_are_refused(client: DDPClient) -> None:
    for params in ([7], [{}], ["a", "b"]):
        subscription = client.start_subscription(NAME, *params)
        answer = client.wait_for(lambda m: m["msg"] == "nosub" and m["id"] == subscription)  # noqa: B023
        assert answer["error"]["error"] == 400


def test_a_bundle_that_goes_away_is_told_of_as_it_was(start: Callable[..., Server], star: Path) -> None:
    server = start()
    with DDPClient(server.url) as client:
        client.subscribe(NAME)
        before = dict(client.documents[COLLECTION])
        aside = star.rename(star.with_name("aside"))
        server.wait_for_log("the bundle that was read before is served on")
        with DDPClient(server.url) as other:
            other.subscribe(NAME)
            assert other.documents[COLLECTION] == before
        aside.rename(star)
        bundles.write(star.parent, program="1")
        client.wait_until(lambda: client.documents[COLLECTION] == expected(star))


def test_a_server_does_not_start_without_its_bundle(start: Callable[..., Server], star: Path) -> None:
    star.unlink()
    with pytest.raises(AssertionError, match=r"star\.json can't be read: No such file.*E002"):
        start()


# -- the urls -----------------------------------------------------------------------------------------


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    return bundles.write(tmp_path / "one"), bundles.write(tmp_path / "two", program="2")


def test_views_are_found_wherever_they_are(star: Path) -> None:
    view = MeteorView.as_view(json_path=star)
    deep = include(([re_path("^(?P<path>.*)$", view)], "deep"))
    with override_settings(
        ROOT_URLCONF=urls(path("a/", include([path("b/", deep)])), path("x", lambda request: None))
    ):
        (site,) = sites()
        assert site.bundle().path == str(star)
        assert site.files_prefix == "/a/b"
        (styles,) = documents(site, site.bundle())["web.browser"]["assets"]
        assert styles["url"].startswith("/a/b/")
    cdn = MeteorView.as_view(json_path=star, bundled_js_css_prefix="https://cdn.example")
    with override_settings(ROOT_URLCONF=urls(re_path("^app/(?P<path>.*)$", cdn))):
        assert sites()[0].files_prefix == "https://cdn.example"


def test_a_project_may_have_no_urls() -> None:
    with override_settings(ROOT_URLCONF=None):
        assert sites() == []
        del django_settings.ROOT_URLCONF
        assert sites() == check_bundles() == []


def test_a_site_may_be_below_what_the_web_server_takes_off(star: Path) -> None:
    view = MeteorView.as_view(json_path=star)
    with override_settings(ROOT_URLCONF=urls(re_path("^b/(?P<path>.*)$", view)), FORCE_SCRIPT_NAME="/a/"):
        assert sites()[0].files_prefix == "/a/b"
    view = MeteorView.as_view(json_path=star, root_url_path_prefix="/c/")
    with override_settings(ROOT_URLCONF=urls(re_path("^b/(?P<path>.*)$", view))):
        assert sites()[0].files_prefix == "/c"


def test_the_check(two: tuple[Path, Path], tmp_path: Path) -> None:
    def found(*views: Any) -> list[str | None]:
        patterns = [re_path(rf"^{number}/(?P<path>.*)$", view) for number, view in enumerate(views)]
        with override_settings(ROOT_URLCONF=urls(*patterns)):
            return [problem.id for problem in check_bundles()]

    one, other = (MeteorView.as_view(json_path=star) for star in two)
    assert found() == found(one) == []
    assert found(one, other) == ["trigger_ddp_meteor.W001"]
    named = [MeteorView.as_view(json_path=star, app_id=star.parent.name) for star in two]
    assert found(*named) == []
    assert found(MeteorView.as_view(json_path=tmp_path / "none.json")) == ["trigger_ddp_meteor.E002"]
    assert found(MeteorView.as_view()) == ["trigger_ddp_meteor.E001"]
    with override_settings(METEOR_SETTINGS=[]):
        assert found(one) == ["trigger_ddp_meteor.E001"]


# -- who is told what ---------------------------------------------------------------------------------


class Told:
    """What of a handle is used, noted."""

    def __init__(self) -> None:
        self.notes: list[tuple[Any, ...]] = []
        self.stops: list[Callable[[], object]] = []

    def added(self, collection: str, document_id: str, fields: Any) -> None:
        self.notes.append(("added", document_id, dict(fields)))

    def changed(self, collection: str, document_id: str, fields: Any, cleared: Any) -> None:
        self.notes.append(("changed", document_id, dict(fields), set(cleared)))

    def removed(self, collection: str, document_id: str) -> None:
        self.notes.append(("removed", document_id))

    def on_stop(self, callback: Callable[[], object]) -> None:
        self.stops.append(callback)

    def take(self) -> list[tuple[Any, ...]]:
        notes, self.notes = self.notes, []
        return notes


def watching(versions: ClientVersions, app_id: str | None) -> Told:
    told = Told()
    versions.watch(told, app_id)  # type: ignore[arg-type]
    return told


def test_differences_are_told() -> None:
    versions = ClientVersions()
    told = watching(versions, None)
    assert told.take() == []
    assert versions.replace({None: {"a": {"x": 1, "y": 1}, "b": {"x": 1}}})
    assert told.take() == [("added", "a", {"x": 1, "y": 1}), ("added", "b", {"x": 1})]
    assert not versions.replace({None: {"a": {"x": 1, "y": 1}, "b": {"x": 1}}})
    assert told.take() == []
    assert versions.replace({None: {"a": {"x": 2}, "c": {}}})
    assert told.take() == [("removed", "b"), ("changed", "a", {"x": 2}, {"y"}), ("added", "c", {})]
    told.stops[0]()
    assert not versions.watched
    versions.replace({})
    assert told.take() == []


def test_clients_are_told_of_their_own_application() -> None:
    versions = ClientVersions()
    versions.replace({"one": {"a": {"n": 1}}, "two": {"a": {"n": 2}}})
    assert watching(versions, "one").take() == [("added", "a", {"n": 1})]
    assert watching(versions, "three").take() == watching(versions, None).take() == []
    versions.replace({None: {"a": {"n": 0}}, "two": {"a": {"n": 2}}})
    assert watching(versions, "one").take() == [("added", "a", {"n": 0})]
    assert watching(versions, "two").take() == [], "it could be of either"


def test_bundles_that_cannot_be_told_apart(two: tuple[Path, Path]) -> None:
    views = [MeteorView.as_view(json_path=star) for star in (*two, two[0])]
    patterns = [re_path(rf"^{number}(?P<path>.*)$", view, name="x") for number, view in enumerate(views)]
    with override_settings(ROOT_URLCONF=urls(*patterns[:2])):
        assert read(sites()) == {None: {}}
    with override_settings(ROOT_URLCONF=urls(*patterns[:1])):
        assert len(read(sites())[None]) == 6


def test_an_older_look_that_takes_longer_is_dropped() -> None:
    """To tell an older version after a newer one would make clients reload twice."""

    async def main() -> None:
        lookout, answers = _Lookout(), {1: trio.Event(), 2: trio.Event()}
        lookout.sites = [None]  # type: ignore[list-item]

        async def in_thread(function: Any, *arguments: Any) -> Any:
            number = numbers.pop(0)
            await answers[number].wait()
            return {None: {"a": {"n": number}}}

        numbers, told = [1, 2], watching(lookout.versions, None)
        with this.bound(in_thread=in_thread):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lookout.refresh)
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(lookout.refresh)
                await trio.testing.wait_all_tasks_blocked()
                answers[2].set()
                await trio.testing.wait_all_tasks_blocked()
                answers[1].set()
        assert told.take() == [("added", "a", {"n": 2})]

    trio.run(main)
