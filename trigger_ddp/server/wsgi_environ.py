"""What PEP 3333 has a server tell an application of a request."""

from __future__ import annotations

import sys
from typing import Any
from urllib.parse import unquote_to_bytes

from trigger_ddp.server.exchange import Request

#: Headers that would become the variable of something else: programs take HTTP_PROXY for the proxy that
#: they are to use, which nobody outside may choose (https://httpoxy.org).
_LEFT_OUT = frozenset({b"proxy"})


def build(
    request: Request,
    *,
    scheme: str,
    version: bytes,
    server: tuple[str, int] | None,
    multiprocess: bool = False,
) -> dict[str, Any]:
    """The environ of a request; ``wsgi.input`` and ``wsgi.file_wrapper`` are still to be added.

    A header whose name has an underscore is left out, since it could pass for another one that a proxy
    has checked or set.

    Args:
        request: its head; its target begins with a slash.
        scheme: how the client speaks to us, or to the proxy before us: "http" or "https".
        version: of HTTP, as ``b"1.1"``.
        server: host and port at our end; None for a Unix socket.
        multiprocess: whether other processes may serve the same application.
    """
    environ: dict[str, Any] = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(request.raw_path).decode("latin-1"),
        "QUERY_STRING": request.query,
        "SERVER_PROTOCOL": f"HTTP/{version.decode('ascii')}",
        "REMOTE_ADDR": "" if request.client_address in ("unix", "unknown") else request.client_address,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scheme,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": multiprocess,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
    }
    if request.client_port is not None:
        environ["REMOTE_PORT"] = str(request.client_port)
    host, port = server or _of_host_header(request, scheme)
    environ["SERVER_NAME"], environ["SERVER_PORT"] = host, str(port)
    for name, value in request.headers:
        if b"_" in name or name in _LEFT_OUT:
            continue
        key = name.decode("ascii").upper().replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = f"HTTP_{key}"
        text = value.decode("latin-1")
        separator = "; " if key == "HTTP_COOKIE" else ","
        environ[key] = f"{environ[key]}{separator}{text}" if key in environ else text
    return environ


def _of_host_header(request: Request, scheme: str) -> tuple[str, int]:
    """What the client calls us, where the socket has no address."""
    host, colon, port = request.http_headers.get("host", "").rpartition(":")
    if colon and port.isascii() and port.isdigit():
        return host or "localhost", int(port)
    name = host + colon + port
    return name or "localhost", 443 if scheme == "https" else 80
