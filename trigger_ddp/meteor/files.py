"""A file of a bundle as an answer: its headers, whether it has changed, and a part if only that is wanted."""

from __future__ import annotations

import mimetypes
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from django.http import FileResponse, HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.utils.cache import get_conditional_response, patch_vary_headers

from trigger_ddp.meteor.bundle import File

JAVASCRIPT = "application/javascript; charset=UTF-8"
CSS = "text/css; charset=UTF-8"
JSON = "application/json; charset=UTF-8"

_TYPES = {"js": JAVASCRIPT, "dynamic js": JAVASCRIPT, "css": CSS, "json": JSON, "map": JSON}
#: What `mimetypes` calls encodings is not to be unpacked by browsers: the file is asked for as it is.
_PACKED = {"gzip": "application/gzip", "bzip2": "application/x-bzip", "xz": "application/x-xz"}
_YEAR = 365 * 24 * 60 * 60
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_SLICE = 65536


def respond(request: HttpRequest, file: File, prefix: str) -> HttpResponseBase:
    """The answer to GET or HEAD.

    Args:
        request: with its conditions.
        file: what is asked for.
        prefix: what stands before paths of this site.

    Raises:
        OSError: the file is not there any more.
    """
    etag = f'"{file.hash}"' if file.hash else None
    unchanged = get_conditional_response(request, etag=etag) if etag else None
    response = _open(request, file, etag) if unchanged is None else unchanged
    response["Cache-Control"] = f"public, max-age={_YEAR if file.cacheable else 0}"
    if file.cacheable:
        patch_vary_headers(response, ["User-Agent"])
    if etag:
        response["ETag"] = etag
    if file.source_map_url:
        for name in ("X-SourceMap", "SourceMap"):
            response[name] = f"{prefix}{file.source_map_url}"
    return response


def _open(request: HttpRequest, file: File, etag: str | None) -> HttpResponseBase:
    content_type = _content_type(file)
    stream = file.open()
    size = os.fstat(stream.fileno()).st_size
    if request.method == "HEAD":
        stream.close()
        headers = {"Content-Length": str(size), "Accept-Ranges": "bytes"}
        return HttpResponse(content_type=content_type, headers=headers)
    asked = request.headers.get("Range", "")
    wanted = _RANGE.fullmatch(asked) if request.headers.get("If-Range", etag) == etag else None
    if wanted is None or wanted[0] == "bytes=-":
        return FileResponse(stream, content_type=content_type, headers={"Accept-Ranges": "bytes"})
    return _part(stream, content_type, size, wanted[1], wanted[2])


def _part(stream: BinaryIO, content_type: str, size: int, first: str, last: str) -> HttpResponseBase:
    """The part of a file from byte ``first`` to ``last``, or the last so many where only that is given."""
    if first:
        start, end = int(first), min(int(last), size - 1) if last else size - 1
    else:
        start, end = max(size - int(last), 0), size - 1
    if first and last and int(last) < int(first):  # no range at all
        return FileResponse(stream, content_type=content_type, headers={"Accept-Ranges": "bytes"})
    if start > end:
        stream.close()
        return HttpResponse(status=416, headers={"Content-Range": f"bytes */{size}"})
    headers = {
        "Content-Range": f"bytes {start}-{end}/{size}",
        "Content-Length": str(end - start + 1),
        "Accept-Ranges": "bytes",
    }
    stream.seek(start)
    slices = _read(stream, end - start + 1)
    return StreamingHttpResponse(slices, status=206, content_type=content_type, headers=headers)


def _read(stream: BinaryIO, left: int) -> Iterator[bytes]:
    with stream:
        while left > 0 and (data := stream.read(min(_SLICE, left))):
            left -= len(data)
            yield data


def _content_type(file: File) -> str:
    if file.type in _TYPES:
        return _TYPES[file.type]
    guessed, encoding = mimetypes.guess_type(Path(file.path).name)
    if encoding is not None:
        guessed = _PACKED.get(encoding)
    guessed = guessed or "application/octet-stream"
    return f"{guessed}; charset=UTF-8" if guessed.startswith("text/") else guessed
