"""Views that say how they are served."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path

from django.db import connection, transaction
from django.http import (
    FileResponse,
    HttpRequest,
    HttpResponse,
    HttpResponseForbidden,
    JsonResponse,
    StreamingHttpResponse,
)
from django.views.decorators.csrf import csrf_exempt

from trigger_ddp.demo.bookstore.models import Author

PATIENCE = 20
_go_on = threading.Semaphore(0)
_closed = threading.Event()


def hello(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"hello {request.META['REMOTE_ADDR']} by {request.scheme}")


@transaction.non_atomic_requests
async def hello_async(request: HttpRequest) -> HttpResponse:
    return HttpResponse("hello from a coroutine")


def processes(request: HttpRequest) -> HttpResponse:
    """Whether there are others."""
    return HttpResponse(str(request.META["wsgi.multiprocess"]))


@csrf_exempt
def digest(request: HttpRequest) -> HttpResponse:
    """Of the body, read in parts."""
    hashed, parts = hashlib.sha256(), 0
    while part := request.read(65536):
        hashed.update(part)
        parts += 1
    return JsonResponse({"digest": hashed.hexdigest(), "parts": parts})


@csrf_exempt
def upload(request: HttpRequest) -> HttpResponse:
    """Of a form with a field and a file."""
    sent = request.FILES["file"]
    hashed = hashlib.sha256()
    for chunk in sent.chunks():
        hashed.update(chunk)
    return JsonResponse({"name": request.POST["name"], "size": sent.size, "digest": hashed.hexdigest()})


@csrf_exempt
def refuse(request: HttpRequest) -> HttpResponse:
    return HttpResponseForbidden("nothing of that was read")


@csrf_exempt
def authors(request: HttpRequest) -> HttpResponse:
    """Makes an author, and fails after that if it is asked to."""
    Author.objects.create(name=request.POST["name"], email=f"{request.POST['name']}@example.org")
    if "fail" in request.POST:
        raise ValueError("after the insert")
    return HttpResponse(str(Author.objects.count()))


def backend(request: HttpRequest) -> HttpResponse:
    """The process id of the database connection."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return HttpResponse(str(cursor.fetchone()[0]))


def file(request: HttpRequest) -> FileResponse:
    return FileResponse(Path(__file__).open("rb"))


def stream(request: HttpRequest) -> StreamingHttpResponse:
    """A part, and another each time that `go_on` is asked for."""

    def parts() -> Iterator[str]:
        try:
            yield "part 0\n"
            for number in range(1, int(request.GET["parts"])):
                assert _go_on.acquire(timeout=PATIENCE)
                yield f"part {number}\n"
        finally:
            _closed.set()

    return StreamingHttpResponse(parts(), content_type="text/plain")


def go_on(request: HttpRequest) -> HttpResponse:
    _go_on.release()
    return HttpResponse("")


def closed(request: HttpRequest) -> HttpResponse:
    """Answers once a stream was closed."""
    return HttpResponse(str(_closed.wait(PATIENCE)))
