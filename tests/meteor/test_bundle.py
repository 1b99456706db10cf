"""Reading a bundle, and the versions of its programs."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.meteor import bundles
from trigger_ddp.meteor import shelf
from trigger_ddp.meteor.bundle import BundleError, read


def test_what_is_read(star: Path) -> None:
    bundle = read(star)
    assert (bundle.release, bundle.git_commit_hash) == ("METEOR@3.0.4", "f" * 40)
    assert read(star.parent) == bundle
    program = bundle.programs["web.browser"]
    assert (len(program.css), len(program.scripts)) == (1, 1)
    assert set(program.modules) == {"dynamic/imports/lazy.js", "dynamic/node_modules/meteor/a_b/c.js"}
    assert "/robots of mars.txt" in program.files
    assert not [url for url in program.files if "html" in url or "program.json" in url]


@pytest.mark.parametrize(
    ("release", "in_head", "old"),
    [
        ("METEOR@1.2.1", True, True), ("METEOR@1.3", False, True), ("METEOR@1.7.0.5", False, True),
        ("METEOR@1.8", False, False), ("METEOR@1.12.2", False, False), ("METEOR@3.0.4", False, False),
        ("METEOR@3.5-beta.1", False, False), ("none", False, False), ("", False, False),
        ("someone:METEOR@1.2.1", True, True),
    ],
)  # fmt: skip
def test_what_a_release_expects(tmp_path: Path, release: str, in_head: bool, old: bool) -> None:
    bundle = read(bundles.write(tmp_path, release=release))
    assert (bundle.loads_in_head, bundle.has_old_autoupdate) == (in_head, old)


def test_versions_are_those_that_meteor_computes(star: Path) -> None:
    """Meteor's: SHA-1 of the settings as JSON.stringify writes them, then path and hash of each item."""
    public = {"a": [1, "ä"], "b": None}
    items = json.loads((star.parent / "programs/web.browser/program.json").read_text())["manifest"]

    def expected(wanted: Any) -> str:
        text = '{"PUBLIC_SETTINGS":{"a":[1,"ä"],"b":null}}'
        text += "".join(item["path"] + item["hash"] for item in items if wanted(item))
        return hashlib.sha1(text.encode()).hexdigest()

    versions = read(star).programs["web.browser"].versions(public)
    assert versions.version == expected(lambda item: True)
    assert versions.refreshable == expected(lambda item: item["type"] == "css")
    assert versions.non_refreshable == expected(lambda item: item["type"] != "css")
    assert versions.replaceable == expected(lambda item: False)


def test_what_changes_which_version(tmp_path: Path) -> None:
    def versions(public: dict[str, Any] | None = None, **changed: str) -> Any:
        star = bundles.write(tmp_path / "b", **changed)  # type: ignore[arg-type]
        return read(star).programs["web.browser"].versions(public or {})

    first = versions()
    assert versions() == first
    styled = versions(styles="p {}")
    assert styled.refreshable != first.refreshable
    assert styled.non_refreshable == first.non_refreshable
    assert styled.version != first.version
    for other in (versions(program="1"), versions(head="<title>x</title>")):
        assert other.refreshable == first.refreshable
        assert other.non_refreshable != first.non_refreshable
    configured = versions({"a": 1})
    assert configured.refreshable != first.refreshable
    assert configured.non_refreshable != first.non_refreshable


def test_versions_may_be_forced(star: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOUPDATE_VERSION", "7")
    versions = read(star).programs["web.browser"].versions({})
    assert {versions.version, versions.refreshable, versions.non_refreshable, versions.replaceable} == {"7"}


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("star.json", None, "star.json can't be read: No such file"),
        ("star.json", "{", "star.json is not what meteor build writes"),
        ("star.json", "[]", "star.json is not what meteor build writes"),
        ("star.json", '{"format": "site-archive-pre2", "programs": []}', "only 'site-archive-pre1'"),
        ("star.json", '{"format": "site-archive-pre1", "programs": []}', "no program for browsers"),
        ("programs/web.browser/program.json", None, "is no file in"),
        ("programs/web.browser/program.json", '{"format": "x", "manifest": []}', "only 'web-program-pre1'"),
        (
            "programs/web.browser/program.json",
            '{"format": "web-program-pre1", "manifest": [{"path": "a"}]}',
            "has an item that is none",
        ),
        (
            "programs/web.browser/program.json",
            '{"format": "web-program-pre1", "manifest": ['
            '{"path": "head.html", "where": "client", "type": "js", "url": "http://evil.example/a.js"}]}',
            "does not begin with a slash",
        ),
        ("programs/web.browser/head.html", None, "is no file in"),
        ("programs/web.browser/head.html", b"\xff", "can't be read"),
    ],
)
def test_what_is_no_bundle(star: Path, file: str, content: str | bytes | None, words: str) -> None:
    target = star.parent / file
    if content is None:
        target.unlink()
    else:
        target.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(BundleError) as raised:
        read(star)
    assert words in str(raised.value)


def test_a_bundle_is_read_once_until_it_changes(star: Path) -> None:
    first = shelf.current(star)
    assert shelf.current(star) is first
    again = shelf.current(star, anew=True)
    assert again is not first
    assert again == first
    assert shelf.current(star) is again
    bundles.write(star.parent, program="1")
    assert shelf.current(star) != first


def test_a_bundle_that_never_was(tmp_path: Path) -> None:
    with pytest.raises(BundleError):
        shelf.current(tmp_path / "star.json")
    star = bundles.write(tmp_path)
    assert shelf.current(tmp_path / "star.json") == read(star)


def test_a_bundle_that_changes_while_it_is_read(
    star: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first = shelf.current(star)
    other = read(bundles.write(tmp_path / "other", program="1"))
    bundles.write(star.parent, program="2")
    answers = iter([first, other])
    with monkeypatch.context() as patch:
        patch.setattr(shelf, "read", lambda path: next(answers))
        assert shelf.current(star) is first
    assert "is being written" in caplog.text
    bundles.write(star.parent, program="3")
    assert shelf.current(star) == read(star)
