"""SockJS's resources that belong to no session, its framing in WebSockets, and headers that it wants.

Headers and texts are those that the SockJS protocol's own tests look for.
"""

from __future__ import annotations

import dataclasses
import hashlib
import html
import re
import secrets
import time
from collections.abc import Callable
from email.utils import formatdate

import msgspec

from trigger_ddp.server.exchange import Request, Response, not_allowed, not_found

#: Everything at or below this path belongs to SockJS.
PREFIX = "/sockjs"

#: Messages in one frame of a client. sockjs-client puts one into each, and over HTTP what has waited.
MOST_MESSAGES = 10_000

_SESSION = re.compile(r"/sockjs/[^/.]+/[^/.]+/websocket/?", re.ASCII)
_YEAR = 365 * 24 * 60 * 60

_IFRAME = re.compile(r"/sockjs/iframe[^/]*\.html", re.ASCII)
_JSESSIONID = re.compile(r"(?:^|;)\s*JSESSIONID=([^;,\s]{1,256})", re.ASCII)
_IFRAME_PAGE = """<!DOCTYPE html>
<html>
<head>
  <meta http-equiv="X-UA-Compatible" content="IE=edge" />
  <meta http-equiv="Content-Type" content="text/html; charset=UTF-8" />
  <script src="%s"></script>
  <script>
    document.domain = document.domain;
    SockJS.bootstrap_iframe();
  </script>
</head>
<body>
  <h2>Don't panic!</h2>
  <p>This is a SockJS hidden iframe. It's used for cross domain magic.</p>
</body>
</html>"""

#: Headers that keep a response from being taken for the next one.
NOT_CACHED = (("Cache-Control", "no-store, no-cache, no-transform, must-revalidate, max-age=0"),)

_decode_list = msgspec.json.Decoder(list[str]).decode
_decode_string = msgspec.json.Decoder(str).decode


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """What SockJS leaves to the server.

    Args:
        script_url: where the iframe page, which very old browsers use, finds sockjs-client: the release
            that the application itself uses.
        cookie: set a cookie ``JSESSIONID``, by which some load balancers send a client to one process.
        websocket: whether clients are to try a WebSocket first.
    """

    script_url: str = "https://cdn.jsdelivr.net/npm/sockjs-client@1.6.1/dist/sockjs.min.js"
    cookie: bool = False
    websocket: bool = True


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
        messages = _decode_list(text) if text[0] == "[" else [_decode_string(text)]
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise BrokenFraming(str(error)) from error
    if len(messages) > MOST_MESSAGES:
        raise BrokenFraming(f"{len(messages)} messages at once")
    return messages


def is_session(raw_path: str) -> bool:
    """Whether this is ``/sockjs/<server>/<session>/websocket``: two parts, not empty, without a dot."""
    return _SESSION.fullmatch(raw_path) is not None


def is_iframe(raw_path: str) -> bool:
    """Whether this is the page by which very old browsers connect from pages of other origins."""
    return _IFRAME.fullmatch(raw_path) is not None


def respond(request: Request, options: Options) -> Response:
    """The answer to a plain request at or below `PREFIX` that is no session's."""
    resource = _RESOURCES.get(request.raw_path)
    if resource is None and is_iframe(request.raw_path):
        resource = _iframe
    if resource is None:
        return not_found()
    return resource(request, options)


def _greeting(request: Request, options: Options) -> Response:
    if request.method not in ("GET", "HEAD"):
        return not_allowed("GET", "HEAD")
    return Response.text(200, "Welcome to SockJS!\n")


def _iframe(request: Request, options: Options) -> Response:
    if request.method not in ("GET", "HEAD"):
        return not_allowed("GET", "HEAD")
    body = (_IFRAME_PAGE % html.escape(options.script_url)).encode()
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    if request.http_headers.get("if-none-match") == etag:
        return Response(304, (("ETag", etag), *_for_a_year()))
    return Response(200, (("Content-Type", "text/html; charset=UTF-8"), ("ETag", etag), *_for_a_year()), body)


def _info(request: Request, options: Options) -> Response:
    if request.method == "OPTIONS":
        return preflight(request, "OPTIONS, GET")
    if request.method not in ("GET", "HEAD"):
        return not_allowed("OPTIONS", "GET", "HEAD")
    info = {
        "websocket": options.websocket,
        "origins": ["*:*"],
        "cookie_needed": options.cookie,
        "entropy": secrets.randbits(32),  # browsers once had no good source of their own
    }
    return Response(
        200,
        (("Content-Type", "application/json; charset=UTF-8"), *cross_origin(request), *NOT_CACHED),
        msgspec.json.encode(info),
    )


def preflight(request: Request, methods: str, *more: tuple[str, str]) -> Response:
    """The answer to a browser that asks whether a script of another origin may use these methods."""
    return Response(
        204,
        (
            *cross_origin(request),
            *_for_a_year(),
            ("Access-Control-Allow-Methods", methods),
            ("Access-Control-Max-Age", str(_YEAR)),
            *more,
        ),
    )


def cross_origin(request: Request) -> tuple[tuple[str, str], ...]:
    """SockJS clients ask with credentials, for which browsers want the origin itself and not ``*``.

    What is not ASCII, as no browser writes it, is not repeated.
    """
    headers = request.http_headers
    if (origin := headers.get("origin")) and origin.isascii():
        allowed: tuple[tuple[str, str], ...] = (
            ("Access-Control-Allow-Credentials", "true"),
            ("Access-Control-Allow-Origin", origin),
        )
    else:
        allowed = (("Access-Control-Allow-Origin", "*"),)
    if (asked := headers.get("access-control-request-headers")) and asked.isascii():
        allowed += (("Access-Control-Allow-Headers", asked),)
    return (*allowed, ("Vary", "Origin"))


def session_cookie(request: Request, options: Options) -> tuple[tuple[str, str], ...]:
    """The cookie that some load balancers want to see, with the value that it has, if that is ASCII."""
    if not options.cookie:
        return ()
    found = _JSESSIONID.search(request.http_headers.get("cookie", ""))
    value = found[1] if found is not None and found[1].isascii() else "dummy"
    return (("Set-Cookie", f"JSESSIONID={value}; path=/"),)


def _for_a_year() -> tuple[tuple[str, str], ...]:
    return (
        ("Cache-Control", f"public, max-age={_YEAR}"),
        ("Expires", formatdate(time.time() + _YEAR, usegmt=True)),
    )


_RESOURCES: dict[str, Callable[[Request, Options], Response]] = {
    PREFIX: _greeting,
    f"{PREFIX}/": _greeting,
    f"{PREFIX}/info": _info,
    f"{PREFIX}/info/": _info,
}
