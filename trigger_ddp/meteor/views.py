"""`MeteorView`: the pages and files of a bundle, as Meteor's own server (packages/webapp) serves them."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, ClassVar
from urllib.parse import urlsplit

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured, RequestDataTooBig
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.utils.cache import patch_vary_headers
from django.views.generic import View

from trigger_ddp.conf import settings
from trigger_ddp.meteor import browsers, environment, files, modules, shelf
from trigger_ddp.meteor.boilerplate import CONFIG_PATH, Page, config_script, runtime_config, told
from trigger_ddp.meteor.bundle import Bundle, File, Program

logger = logging.getLogger(__name__)

#: Where clients ask for modules that they import on demand.
IMPORTS_PATH = "/__meteor__/dynamic-import/fetch"

#: What is not answered with a page, although a bundle may lack it.
NO_PAGES = frozenset({"/favicon.ico", "/robots.txt", "/app.manifest"})

_ALLOW = "OPTIONS, GET, HEAD"


class MeteorView(View):
    """What ``meteor build --directory`` made, at any path below where the view is.

    In an application's urls, after everything else, as with django-ddp::

        re_path(r"^(?P<path>.*)$", MeteorView.as_view(json_path="/srv/app/bundle/star.json"))

    Each attribute may also be given to ``as_view()``.

    Attributes:
        json_path: of the bundle's star.json, or of the directory that has it.
        meteor_settings: ``Meteor.settings``, over those of Django's ``METEOR_SETTINGS`` and the
            environment's; what is given to ``as_view()`` comes on top of the attribute. Clients see
            ``["public"]``.
        meteor_public_envs: names of environment variables that clients see among these, with those of
            ``METEOR_PUBLIC_ENVS``.
        runtime_config: more for ``__meteor_runtime_config__``, for instance
            ``{"DDP_DEFAULT_CONNECTION_URL": "https://ddp.example.org/"}``.
        root_url: where clients find the application. None: `DDP_ROOT_URL` where the settings have it, or else
            what the request says.
        root_url_path_prefix: the path of the application. None: where the view is.
        bundled_js_css_prefix: what stands before the paths of styles and scripts, for instance
            another host. None: ``root_url_path_prefix``.
        inline_scripts_allowed: the runtime configuration stands in the page. Without, it is a file, which a
            Content-Security-Policy may ask for.
        sri_mode: "anonymous" or "use-credentials": browsers compare styles and scripts with their hashes.
        app_id: Meteor's id of the application; None: ``APP_ID`` of the environment.
        html_attributes: of the page's html element.
        network_prefixes: paths that begin so are not answered with a page.
    """

    json_path: str | os.PathLike[str] | None = None
    meteor_settings: Mapping[str, Any] | None = None
    meteor_public_envs: Iterable[str] | None = None
    runtime_config: Mapping[str, Any] | None = None
    root_url: str | None = None
    root_url_path_prefix: str | None = None
    bundled_js_css_prefix: str | None = None
    inline_scripts_allowed: bool = True
    sri_mode: str | None = None
    app_id: str | None = None
    html_attributes: Mapping[str, str] = {}
    network_prefixes: ClassVar[tuple[str, ...]] = ("/sockjs/",)

    def __init__(self, **kwargs: Any) -> None:
        given = {name: kwargs.pop(name, None) for name in ("meteor_settings", "meteor_public_envs")}
        super().__init__(**kwargs)
        if self.json_path is None:
            raise ImproperlyConfigured(f"{type(self).__name__} needs json_path, the path of a star.json")
        self.meteor_settings = environment.meteor_settings(self.meteor_settings, given["meteor_settings"])
        self.public_settings = environment.public_settings(
            self.meteor_settings, self.meteor_public_envs, given["meteor_public_envs"]
        )
        if self.app_id is None:
            self.app_id = os.environ.get("APP_ID")

    @classmethod
    def as_view(cls, **initkwargs: Any) -> Any:
        """The view. It changes nothing, so no CSRF token is asked for."""
        view: Any = super().as_view(**initkwargs)
        view.csrf_exempt = True
        return view

    def bundle(self, *, anew: bool = False) -> Bundle:
        """The bundle as it is on disk now.

        Args:
            anew: read it, even where its files look as they did.

        Raises:
            BundleError: it can't be read, and never could.
        """
        assert self.json_path is not None
        return shelf.current(self.json_path, anew=anew)

    def choose_arch(self, request: HttpRequest, bundle: Bundle) -> str:
        """Which program a browser gets that asks for none by its URL; override it to decide otherwise."""
        return browsers.choose(request.headers.get("User-Agent", ""), bundle.programs)

    def dispatch(self, request: HttpRequest, *args: Any, path: str = "", **kwargs: Any) -> HttpResponseBase:
        """Answer a request for ``path`` below where the view is."""
        whole = f"/{path.removeprefix('/')}"
        if whole == IMPORTS_PATH or whole.startswith(f"{IMPORTS_PATH}/"):
            return self._modules(request)
        bundle = self.bundle()
        arch, rest = self._categorize(request, bundle, whole)
        program = bundle.programs.get(arch)
        if program is not None:
            if rest == CONFIG_PATH and not self.inline_scripts_allowed:
                script = config_script(self._config(request, bundle, program, path))
                return self._allowed(request) or _text(script, files.JAVASCRIPT)
            if (manifest := self._manifest(bundle, program, whole, rest)) is not None:
                return self._allowed(request) or manifest
            if (file := _find(bundle, program, whole, rest)) is not None:
                return self._allowed(request) or self._file(request, file, path)
        if whole in NO_PAGES or whole.startswith(self.network_prefixes):
            return _text("404 Not Found", status=404)
        return self._allowed(request) or self._page(request, bundle, program, path)

    # -- what is asked for ----------------------------------------------------------------------

    def _categorize(self, request: HttpRequest, bundle: Bundle, path: str) -> tuple[str, str]:
        """The architecture that a request is for, and the path without what names it."""
        first, slash, rest = path[1:].partition("/")
        for arch, program in bundle.programs.items():
            if f"/{first}" == program.prefix:
                return arch, f"{slash or '/'}{rest}"
        return self.choose_arch(request, bundle), path

    def _allowed(self, request: HttpRequest) -> HttpResponse | None:
        """The answer to a request with another method than GET and HEAD."""
        if request.method in ("GET", "HEAD"):
            return None
        response = HttpResponse(status=200 if request.method == "OPTIONS" else 405)
        response["Allow"] = _ALLOW
        response["Content-Length"] = "0"
        return response

    def _prefix(self, request: HttpRequest, path: str) -> str:
        """The path of the application, without a slash at its end."""
        if self.root_url_path_prefix is not None:
            return self.root_url_path_prefix.rstrip("/")
        return request.path.removesuffix(path).rstrip("/")

    def _root_url(self, request: HttpRequest, prefix: str) -> str:
        if self.root_url is not None:
            return self.root_url
        if hasattr(django_settings, "DDP_ROOT_URL"):
            return settings().root_url
        url = request.build_absolute_uri(f"{prefix}/")
        if django_settings.SECURE_SSL_REDIRECT and urlsplit(url).scheme == "http":
            return f"https{url.removeprefix('http')}"
        return url

    def _config(self, request: HttpRequest, bundle: Bundle, program: Program, path: str) -> dict[str, Any]:
        prefix = self._prefix(request, path)
        return runtime_config(
            bundle,
            program.arch,
            public_settings=self.public_settings,
            root_url=self._root_url(request, prefix),
            prefix=prefix,
            app_id=self.app_id,
            more=self.runtime_config,
        )

    # -- answers --------------------------------------------------------------------------------

    def _page(self, request: HttpRequest, bundle: Bundle, program: Program | None, path: str) -> HttpResponse:
        if request.GET.get("meteor_css_resource"):
            # The client looks for this rule to learn that its styles are those of an older version.
            return _text(".meteor-css-not-found-error { width: 0px;}", files.CSS)
        asks_for_file = request.GET.get("meteor_js_resource") or request.GET.get("meteor_dont_serve_index")
        if asks_for_file or program is None:
            return _text("404 Not Found", status=404)
        prefix = self._prefix(request, path)
        files_prefix = self.bundled_js_css_prefix
        page = Page(
            bundle,
            program,
            self._config(request, bundle, program, path),
            prefix=prefix,
            files_prefix=prefix if files_prefix is None else files_prefix.rstrip("/"),
            inline=self.inline_scripts_allowed,
            sri_mode=self.sri_mode,
            html_attributes=self.html_attributes,
        )
        response = _text(page.html(), "text/html; charset=utf-8")
        patch_vary_headers(response, ["User-Agent"])
        return response

    def _manifest(self, bundle: Bundle, program: Program, whole: str, rest: str) -> HttpResponse | None:
        """What a device asks for to learn of a new version."""
        if rest != "/manifest.json" or rest in program.files:
            return None
        if whole == rest and not bundle.has_old_autoupdate:
            return None
        versions = program.versions(self.public_settings)
        manifest = {
            "format": "web-program-pre1",
            "manifest": program.manifest,
            **told(versions),
            "cordovaCompatibilityVersions": program.cordova_versions,
            "PUBLIC_SETTINGS": self.public_settings,
            "hmrVersion": program.hmr_version,
        }
        present = {name: value for name, value in manifest.items() if value is not None}
        response = _text(json.dumps(present), files.JSON)
        response["ETag"] = f'"{versions.version}"'
        response["Access-Control-Allow-Origin"] = "*"
        return response

    def _file(self, request: HttpRequest, file: File, path: str) -> HttpResponseBase:
        try:
            return files.respond(request, file, self._prefix(request, path))
        except OSError as error:
            logger.warning("a file of the bundle can't be read: %s", error)
            return _text("404 Not Found", status=404)

    def _modules(self, request: HttpRequest) -> HttpResponse:
        """The modules that a client imports on demand; from any site, as in Meteor."""
        if request.method == "OPTIONS":
            response: HttpResponse = HttpResponse()
            response["Allow"] = "OPTIONS, POST"
            response["Content-Length"] = "0"
            response["Access-Control-Allow-Methods"] = "POST"
            asked = request.headers.get("Access-Control-Request-Headers")
            response["Access-Control-Allow-Headers"] = asked or "*"
        elif request.method == "POST":
            response = self._sources(request)
        else:
            response = _text(f"method {request.method} not allowed", status=405)
            response["Allow"] = "OPTIONS, POST"
        response["Access-Control-Allow-Origin"] = "*"
        return response

    def _sources(self, request: HttpRequest) -> HttpResponse:
        bundle = self.bundle()
        program = bundle.programs.get(self.choose_arch(request, bundle))
        try:
            tree = json.loads(request.body)
            found = None if program is None else modules.sources(program, tree)
        except (ValueError, RecursionError, RequestDataTooBig):
            return JsonResponse("bad request", status=400, safe=False)
        return JsonResponse(found, safe=False)


def _find(bundle: Bundle, program: Program, whole: str, rest: str) -> File | None:
    """A file of the program, or else of another one: old pages may ask for it by their own URLs."""
    others = [other for other in bundle.programs.values() if other is not program]
    for candidate in (program, *others):
        for path in (whole, rest):
            if path in candidate.files:
                return candidate.files[path]
    return None


def _text(
    text: str, content_type: str = "text/plain; charset=utf-8", status: int = HTTPStatus.OK
) -> HttpResponse:
    """An answer that is not kept by caches, since a new version of the bundle may have another."""
    response = HttpResponse(text, content_type=content_type, status=status)
    response["Cache-Control"] = "no-cache"
    return response
