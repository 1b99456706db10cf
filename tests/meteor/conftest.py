"""Bundles written by hand, and the site that serves one in this process."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import pytest
from django.core.handlers.wsgi import WSGIHandler
from django.test import Client, override_settings
from django.urls import re_path

from tests.meteor import bundles
from trigger_ddp.meteor.views import MeteorView

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"
EXPLORER = "Mozilla/5.0 (Windows NT 6.1; Trident/7.0; rv:11.0) like Gecko"


class Site:
    """A client of a project whose urls have a `MeteorView` at their end."""

    def __init__(self, star: Path, route: str = "", **initkwargs: Any) -> None:
        self.star = star
        self.view = MeteorView.as_view(json_path=star, **initkwargs)
        self.urls = type("urls", (), {"urlpatterns": [re_path(rf"^{route}(?P<path>.*)$", self.view)]})
        self.client = Client(enforce_csrf_checks=True)

    def get(self, url: str, agent: str = FIREFOX, **more: Any) -> Any:
        return self.request("get", url, agent, **more)

    def request(self, method: str, url: str, agent: str = FIREFOX, **more: Any) -> Any:
        settings = override_settings(
            ROOT_URLCONF=self.urls,
            ALLOWED_HOSTS=["*"],
            MIDDLEWARE=["django.middleware.csrf.CsrfViewMiddleware"],
        )
        headers = {"user-agent": agent, **more.pop("headers", {})}
        with settings:
            response: Any = getattr(self.client, method)(url, headers=headers, **more)
        content = b"".join(response.streaming_content) if response.streaming else response.content
        response.close()
        response.text_sent = content.decode()
        return response


def body(response: Any) -> str:
    """What a response of a `Site` had."""
    text: str = response.text_sent
    return text


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("METEOR_SETTINGS", "METEOR_PUBLIC_ENVS", "APP_ID", "AUTOUPDATE_VERSION", "NODE_ENV"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def star(tmp_path: Path) -> Path:
    return bundles.write(tmp_path / "bundle")


@pytest.fixture
def site(star: Path) -> Site:
    return Site(star)


@pytest.fixture
def site_at(tmp_path: Path) -> Callable[..., Site]:
    """Makes sites of new bundles: ``site_at(route="app/", release=…, view attributes…)``."""
    numbers = iter(range(1000))

    def make(route: str = "", bundle: dict[str, Any] | None = None, **initkwargs: Any) -> Site:
        return Site(bundles.write(tmp_path / f"b{next(numbers)}", **(bundle or {})), route, **initkwargs)

    return make


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  as it is named there
        pass


class _Threaded(ThreadingMixIn, WSGIServer):
    daemon_threads = True


@contextlib.contextmanager
def wsgi(urls: Any) -> Iterator[int]:
    """Serve a project with these urls over HTTP, as ``runserver`` does. Yields the port."""
    settings = override_settings(ROOT_URLCONF=urls, ALLOWED_HOSTS=["*"], MIDDLEWARE=[])
    with settings, make_server("127.0.0.1", 0, WSGIHandler(), _Threaded, _Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()
