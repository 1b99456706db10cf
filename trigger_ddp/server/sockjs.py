"""SockJS as far as its WebSocket transport goes: the info resource, the greeting, and its framing.

Headers and texts are those that the SockJS protocol's own tests look for.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable
from email.utils import formatdate

import msgspec

from trigger_ddp.server.exchange import Request, Response, not_allowed, not_found

#: Everything at or below this path belongs to SockJS.
PREFIX = "/sockjs"

_SESSION = re.compile(r"/sockjs/[^/.]+/[^/.]+/websocket/?", re.ASCII)
_YEAR = 365 * 24 * 60 * 60

_decode_list = msgspec.json.Decoder(list[str]).decode
_decode_string = msgspec.json.Decoder(str).decode


class BrokenFraming(Exception):
    """The client sent what is neither a JSON string nor a JSON array of strings."""


def unframe(text: str) -> list[str]:
    """The DDP messages in one WebSocket message of a SockJS client; an empty one holds none.

    Raises:
        BrokenFraming: SockJS ends the connection then.
    """
    if not text:
        return []
    try:
        return _decode_list(text) if text[0] == "[" else [_decode_string(text)]
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise BrokenFraming(str(error)) from error


def is_session(raw_path: str) -> bool:
    """Whether this is ``/sockjs/<server>/<session>/websocket``: two parts, not empty, without a dot."""
    return _SESSION.fullmatch(raw_path) is not None


def respond(request: Request) -> Response:
    """The answer to a plain request at or below `PREFIX`."""
    resource = _RESOURCES.get(request.raw_path)
    if resource is None:
        return not_found()
    return resource(request)


def _greeting(request: Request) -> Response:
    if request.method not in ("GET", "HEAD"):
        return not_allowed("GET", "HEAD")
    return Response.text(200, "Welcome to SockJS!\n")


def _info(request: Request) -> Response:
    if request.method == "OPTIONS":
        return Response(
            204,
            (
                *_cross_origin(request),
                ("Cache-Control", f"public, max-age={_YEAR}"),
                ("Expires", formatdate(time.time() + _YEAR, usegmt=True)),
                ("Access-Control-Allow-Methods", "OPTIONS, GET"),
                ("Access-Control-Max-Age", str(_YEAR)),
            ),
        )
    if request.method not in ("GET", "HEAD"):
        return not_allowed("OPTIONS", "GET", "HEAD")
    info = {
        "websocket": True,
        "origins": ["*:*"],
        "cookie_needed": False,
        "entropy": secrets.randbits(32),  # browsers once had no good source of their own
    }
    return Response(
        200,
        (
            ("Content-Type", "application/json; charset=UTF-8"),
            *_cross_origin(request),
            ("Cache-Control", "no-store, no-cache, no-transform, must-revalidate, max-age=0"),
        ),
        msgspec.json.encode(info),
    )


def _cross_origin(request: Request) -> tuple[tuple[str, str], ...]:
    """SockJS clients ask with credentials, for which browsers want the origin itself and not ``*``."""
    headers = request.http_headers
    if origin := headers.get("origin"):
        allowed: tuple[tuple[str, str], ...] = (
            ("Access-Control-Allow-Credentials", "true"),
            ("Access-Control-Allow-Origin", origin),
        )
    else:
        allowed = (("Access-Control-Allow-Origin", "*"),)
    if asked := headers.get("access-control-request-headers"):
        allowed += (("Access-Control-Allow-Headers", asked),)
    return (*allowed, ("Vary", "Origin"))


_RESOURCES: dict[str, Callable[[Request], Response]] = {
    PREFIX: _greeting,
    f"{PREFIX}/": _greeting,
    f"{PREFIX}/info": _info,
    f"{PREFIX}/info/": _info,
}
