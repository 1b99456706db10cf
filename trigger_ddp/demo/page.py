"""The demo's web page: the files of `static/`, and this run's shell commands as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from trigger_ddp.demo.oneliners import OneLiner
from trigger_ddp.server.exchange import Response

CONTENT_TYPES = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "json": "application/json",
    "svg": "image/svg+xml",
}

HEADERS = (
    ("Cache-Control", "no-cache"),
    # 'self' covers the WebSocket of the same host and port too. The page needs nothing from anywhere else.
    ("Content-Security-Policy", "default-src 'self'; base-uri 'none'; frame-ancestors 'none'"),
    ("X-Content-Type-Options", "nosniff"),
)


def pages(commands: Sequence[OneLiner], **facts: Any) -> dict[str, Response]:
    """Every path of the page with its response.

    Args:
        commands: what the page offers to copy.
        facts: further entries of `demo.json`, for instance the version of PostgreSQL.
    """
    static = files("trigger_ddp.demo") / "static"
    contents = {entry.name: entry.read_bytes() for entry in static.iterdir() if entry.is_file()}
    listing = {"commands": [dataclasses.asdict(command) for command in commands], **facts}
    contents["demo.json"] = json.dumps(listing).encode()
    responses = {f"/{name}": _response(name, body) for name, body in contents.items()}
    return responses | {"/": responses["/index.html"]}


def _response(name: str, body: bytes) -> Response:
    return Response(200, (("Content-Type", CONTENT_TYPES[name.rpartition(".")[2]]), *HEADERS), body)
