"""A bundle as ``meteor build`` leaves it, read once: frozen values with everything that may be served.

Of the bundle's programs only those for browsers and devices are read, ``web.*``; what the manifests of these
do not name, and the server's program, is not reachable from these values. Formats: meteor/meteor,
tools/isobuild/bundler.js (``site-archive-pre1``, ``web-program-pre1``).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, TypeVar
from urllib.parse import unquote

import msgspec

from trigger_ddp.errors import ConfigurationError
from trigger_ddp.matching import convert

#: `AUTOUPDATE_VERSION` in the environment is every version at once, as in Meteor.
AUTOUPDATE_VERSION = "AUTOUPDATE_VERSION"


class BundleError(ConfigurationError):
    """A bundle is not there, not whole, or not one."""


@dataclasses.dataclass(frozen=True, slots=True)
class File:
    """A file that clients may fetch.

    Args:
        root: its program's directory, which it does not leave.
        path: where it is.
        type: ``js``, ``css``, ``asset``, ``json``, ``dynamic js`` or ``map``.
        cacheable: its URL changes whenever it does.
        hash: of its content; "" where the manifest has none.
        source_map_url: where its source map is fetched, or "".
    """

    root: str
    path: str
    type: str
    cacheable: bool = False
    hash: str = ""
    source_map_url: str = ""

    def open(self) -> BinaryIO:
        """The file, opened.

        Raises:
            OSError: it is not there, or a link by now leads out of its program.
        """
        return Path(_inside(self.root, self.path)).open("rb")


@dataclasses.dataclass(frozen=True, slots=True)
class Link:
    """What a page loads: the URL, and the SHA-512 of what is there or ""."""

    url: str
    sri: str


@dataclasses.dataclass(frozen=True, slots=True)
class Versions:
    """What a program is known by: hashes of all, its styles, what needs a reload, what can be replaced."""

    version: str
    refreshable: str
    non_refreshable: str
    replaceable: str


@dataclasses.dataclass(frozen=True, slots=True)
class Program:
    """A program for browsers or devices.

    Args:
        arch: ``web.browser``, ``web.browser.legacy`` or ``web.cordova``.
        manifest: the items as program.json has them; not to be changed.
        files: by the path of their URL, decoded.
        modules: those that are imported on demand, by their path in the bundle.
        css, scripts: what a page loads, in this order.
        head, body: HTML of the application.
        cordova_versions: what a device's app must be compatible with, by platform.
        hmr_version: of a build for development, or None.
        hashed: what the versions are hashes of, beside the settings; in the order of `Versions`.
    """

    arch: str
    manifest: tuple[Mapping[str, Any], ...]
    files: Mapping[str, File]
    modules: Mapping[str, File]
    css: tuple[Link, ...]
    scripts: tuple[Link, ...]
    head: str
    body: str
    cordova_versions: Mapping[str, Any] | None
    hmr_version: int | None
    hashed: tuple[str, str, str, str]

    @property
    def prefix(self) -> str:
        """The first segment of the URLs that ask for this program: ``/__browser``."""
        return f"/__{self.arch.removeprefix('web.')}"

    def versions(self, public_settings: Mapping[str, Any]) -> Versions:
        """The versions with these settings. They are what Meteor's webapp-hashing makes of a manifest."""
        if forced := os.environ.get(AUTOUPDATE_VERSION):
            return Versions(forced, forced, forced, forced)

        settings = json.dumps({"PUBLIC_SETTINGS": public_settings}, ensure_ascii=False, separators=(",", ":"))
        return Versions(*(_sha1(settings + part) for part in self.hashed))


@dataclasses.dataclass(frozen=True, slots=True)
class Bundle:
    """What a star.json describes.

    Args:
        path: of the star.json.
        release: Meteor's, ``METEOR@3.0.4``; "" where it is not told.
        git_commit_hash: of the application, or "".
        programs: by architecture.
        sources: the files that decide what it is: star.json and each program's program.json.
    """

    path: str
    release: str
    git_commit_hash: str
    programs: Mapping[str, Program]
    sources: tuple[str, ...]

    @property
    def loads_in_head(self) -> bool:
        """Whether its pages load scripts before the application's own head, as before Meteor 1.3."""
        return self._numbers < (1, 3)

    @property
    def has_old_autoupdate(self) -> bool:
        """Whether its clients know the versions' documents by their names of before Meteor 1.8."""
        return self._numbers < (1, 8)

    @property
    def _numbers(self) -> tuple[int, ...]:
        """The release's major and minor number."""
        found = re.search(r"@v?(\d+)\.(\d+)", self.release)
        return (int(found[1]), int(found[2])) if found else (99, 0)


# -- reading ------------------------------------------------------------------------------------------


class _StarProgram(msgspec.Struct):
    arch: str
    path: str


class _Star(msgspec.Struct):
    format: str
    programs: list[_StarProgram]
    meteorRelease: str | None = None  # noqa: N815  as the file has it
    gitCommitHash: str | None = None  # noqa: N815


class _Item(msgspec.Struct):
    path: str
    where: str
    type: str
    url: str | None = None
    cacheable: bool | None = None
    hash: str | None = None
    sri: str | None = None
    sourceMap: str | None = None  # noqa: N815
    sourceMapUrl: str | None = None  # noqa: N815


class _Program(msgspec.Struct):
    format: str
    manifest: list[dict[str, Any]]
    cordovaCompatibilityVersions: dict[str, Any] | None = None  # noqa: N815
    hmrVersion: int | None = None  # noqa: N815


_Format = TypeVar("_Format", _Star, _Program)


def read(path: str | os.PathLike[str]) -> Bundle:
    """Read a bundle.

    Args:
        path: of its star.json, or of the directory that has it.

    Raises:
        BundleError: it is not there, not whole, of another format, or leads out of itself.
    """
    star_json = star_path(path)
    root = os.path.realpath(Path(star_json).parent)
    star = _decode(Path(star_json), _Star, "site-archive-pre1")
    found = [program for program in star.programs if program.arch.startswith("web.")]
    if not found:
        raise BundleError(f"{star_json} has no program for browsers")
    programs = {program.arch: _read_program(root, program) for program in found}
    return Bundle(
        path=star_json,
        release=star.meteorRelease or "",
        git_commit_hash=star.gitCommitHash or "",
        programs=MappingProxyType(programs),
        sources=(star_json, *(str(Path(root, program.path)) for program in found)),
    )


def star_path(path: str | os.PathLike[str]) -> str:
    """The path of a bundle's star.json, whose directory may be named instead."""
    named = Path(path)
    return str(named / "star.json" if named.is_dir() else named)


def _read_program(root: str, named: _StarProgram) -> Program:
    program_json = _within(root, named.path)
    program = _decode(Path(program_json), _Program, "web-program-pre1")
    directory = os.path.dirname(program_json)  # noqa: PTH120  as text, like all paths here
    if directory == root:
        raise BundleError(f"{program_json} is no program of its own: its directory is the whole bundle")
    files: dict[str, File] = {}
    modules: dict[str, File] = {}
    css: list[Link] = []
    scripts: list[Link] = []
    texts = {"head": "", "body": ""}
    for told in program.manifest:
        try:
            item = convert(told, _Item)
        except msgspec.ValidationError as error:
            raise BundleError(f"{program_json} has an item that is none: {error}") from error
        if item.where == "internal" and item.type in texts:
            texts[item.type] = _text(Path(_within(directory, item.path)))
        if item.where != "client" or not item.url:
            continue
        path, map_url = _within(directory, item.path), item.sourceMapUrl or ""
        file = File(directory, path, item.type, bool(item.cacheable), item.hash or "", map_url)
        files[_pathname(item.url)] = file
        if item.sourceMap and map_url:
            files[_pathname(map_url)] = File(directory, _within(directory, item.sourceMap), "map", True)
        if item.type == "css":
            css.append(Link(item.url, item.sri or ""))
        elif item.path.startswith("dynamic/"):
            if item.type in ("js", "dynamic js"):
                modules[item.path] = file
        elif item.type == "js":
            scripts.append(Link(item.url, item.sri or ""))
    return Program(
        arch=named.arch,
        manifest=tuple(program.manifest),
        files=MappingProxyType(files),
        modules=MappingProxyType(modules),
        css=tuple(css),
        scripts=tuple(scripts),
        head=texts["head"],
        body=texts["body"],
        cordova_versions=program.cordovaCompatibilityVersions,
        hmr_version=program.hmrVersion,
        hashed=_hashed(program.manifest),
    )


def _hashed(manifest: list[dict[str, Any]]) -> tuple[str, str, str, str]:
    """What makes up each of the four `Versions`."""
    items = [item for item in manifest if item["where"] in ("client", "internal")]

    def of(wanted: Callable[[Mapping[str, Any]], object]) -> str:
        return "".join(f"{item['path']}{item.get('hash') or ''}" for item in items if wanted(item))

    return (
        of(lambda item: True),
        of(lambda item: item["type"] == "css"),
        of(lambda item: item["type"] != "css" and not item.get("replaceable")),
        of(lambda item: item.get("replaceable")),
    )


def _sha1(text: str) -> str:
    return hashlib.sha1(text.encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest()


def _decode(path: Path, kind: type[_Format], wanted: str) -> _Format:
    try:
        found = convert(msgspec.json.decode(path.read_bytes()), kind)
    except OSError as error:
        raise BundleError(f"{path} can't be read: {error.strerror or error}") from error
    except msgspec.MsgspecError as error:
        raise BundleError(f"{path} is not what meteor build writes: {error}") from error
    if found.format != wanted:
        raise BundleError(f"{path} has format {found.format!r}; only {wanted!r} is known")
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{path} can't be read: {error}") from error


def _pathname(url: str) -> str:
    """The path of a manifest's URL, decoded.

    Raises:
        BundleError: it is not a path of this site.
    """
    if not url.startswith("/"):
        raise BundleError(f"a manifest has the URL {url!r}, which does not begin with a slash")
    return unquote(re.split("[?#]", url, maxsplit=1)[0])


def _within(root: str, path: str) -> str:
    """The path of what a bundle names.

    Raises:
        BundleError: it is not there, no file, or outside of ``root``.
    """
    try:
        found = _inside(root, str(Path(root, path)))
    except (OSError, ValueError) as error:
        raise BundleError(f"{path!r} is no file in {root}") from error
    if not Path(found).is_file():
        raise BundleError(f"{path!r} is no file in {root}")
    return found


def _inside(root: str, path: str) -> str:
    """The real path of what is below ``root``.

    Raises:
        OSError: it is not there, or links or dots lead out.
    """
    found = os.path.realpath(path, strict=True)
    if not found.startswith(root + os.sep):
        raise FileNotFoundError(f"{path} leads out of {root}")
    return found
