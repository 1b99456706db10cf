"""Writes bundles as `meteor build --directory` leaves them, with a small program that speaks DDP.

The format is that of meteor/meteor's tools/isobuild/bundler.js, today's and that of Meteor 1.2. Nothing of
a bundle's server is here but a secret that nobody may get.
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PROGRAM = (HERE / "program.js").read_text("utf-8")
STYLES = "#state { color: rgb(1, 2, 3) }\n"
HEAD = '<title>Books</title>\n<meta-before>\n<meteor-bundled-css />\n<meta name="after" content="css">'
BODY = '<p id="state">loading</p>\n<ul id="books"></ul>'
LAZY = "function(require,exports,module){exports.answer = 42}"

#: What stands in files that must stay on the server.
SECRET = "the server's secret"


def sha1(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


class _Writer:
    """The directory of one program, and its manifest as it grows."""

    def __init__(self, directory: Path, *, old: bool) -> None:
        self.directory = directory
        self.old = old
        self.manifest: list[dict[str, Any]] = []

    def file(self, path: str, content: str) -> bytes:
        target = self.directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data := content.encode())
        return data

    def add(self, path: str, kind: str, content: str, url: str, **more: Any) -> None:
        data = self.file(path, content)
        item = {
            "path": path, "where": "client", "type": kind, "cacheable": False, "url": url, "size": len(data),
            "hash": sha1(data), **more,
        }  # fmt: skip
        if not self.old:
            item |= {
                "replaceable": False, "sri": base64.b64encode(hashlib.sha512(data).digest()).decode(),
            }  # fmt: skip
        self.manifest.append(item)

    def bundled(self, kind: str, content: str) -> None:
        """Minified code: named by its hash, to be cached for ever, with a source map."""
        name = f"{sha1(content.encode())}.{kind}"
        more = {}
        if kind == "js":
            self.file(f"{name}.map", ")]}'\n{}")
            more = {"sourceMap": f"{name}.map", "sourceMapUrl": f"/{sha1(content.encode())}.map"}
        self.add(name, kind, content, f"/{name}?meteor_{kind}_resource=true", cacheable=True, **more)

    def internal(self, kind: str, content: str) -> None:
        data = self.file(f"{kind}.html", content)
        self.manifest.append({"path": f"{kind}.html", "where": "internal", "type": kind, "hash": sha1(data)})

    def finish(self, **more: Any) -> None:
        program = {"format": "web-program-pre1", "manifest": self.manifest, **more}
        self.file("program.json", json.dumps(program))


def write(
    directory: Path,
    *,
    program: str = PROGRAM,
    styles: str = STYLES,
    head: str = HEAD,
    release: str = "METEOR@3.0.4",
    archs: tuple[str, ...] = ("web.browser", "web.browser.legacy", "web.cordova"),
) -> Path:
    """A bundle in ``directory``, which may have one already. Returns the path of its star.json."""
    old = release.startswith("METEOR@1.2")
    for arch in archs:
        writer = _Writer(directory / "programs" / arch, old=old)
        writer.bundled("css", styles)
        writer.bundled("js", f"{program}\n// {arch}\n")
        writer.add("app/robots of mars.txt", "asset", "beep\n", "/robots%20of%20mars.txt")
        writer.add("app/deep/.hidden", "asset", "hidden", "/deep/.hidden")
        if not old:
            writer.add(
                "dynamic/imports/lazy.js", "dynamic js", LAZY, "/dynamic/imports/lazy.js", cacheable=True
            )
            writer.add(
                "dynamic/node_modules/meteor/a_b/c.js", "dynamic js", "function(){}", "/dynamic/a_b.js"
            )
        writer.internal("head", head)
        writer.internal("body", BODY)
        writer.finish(**({"cordovaCompatibilityVersions": {"ios": "1"}} if arch == "web.cordova" else {}))
    server = directory / "programs" / "server"
    for name in ("program.json", "app/app.js", "packages/secret.js", "assets/key.pem"):
        (server / name).parent.mkdir(parents=True, exist_ok=True)
        (server / name).write_text(f'{{"secret": "{SECRET}"}}')
    for name in ("main.js", "README", ".node_version.txt"):
        (directory / name).write_text(SECRET)
    star = {
        "format": "site-archive-pre1",
        "builtBy": f"Meteor {release}",
        "programs": [
            {"name": "server", "arch": "os.linux.x86_64", "path": "programs/server/program.json"},
            *({"name": arch, "arch": arch, "path": f"programs/{arch}/program.json"} for arch in archs),
        ],
        "meteorRelease": release,
    }
    if not old:
        star |= {"nodeVersion": "20.18.0", "npmVersion": "10.8.2", "gitCommitHash": "f" * 40}
    path = directory / "star.json"
    path.write_text(json.dumps(star))
    return path


def write_old(directory: Path, **more: Any) -> Path:
    """A bundle as Meteor 1.2 made it."""
    return write(directory, **{"release": "METEOR@1.2.1", "archs": ("web.browser",), **more})
