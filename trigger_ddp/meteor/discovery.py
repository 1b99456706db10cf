"""The `MeteorView`s that the project's urls have: what a server process knows of bundles."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

from django.conf import settings as django_settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.urls import URLPattern, get_resolver
from django.urls.resolvers import RoutePattern

from trigger_ddp.meteor.bundle import Bundle, BundleError
from trigger_ddp.meteor.views import MeteorView


@dataclasses.dataclass(frozen=True, slots=True)
class Site:
    """A view of the urls.

    Args:
        view: an instance with its settings.
        files_prefix: what stands before the paths of its styles, as in its pages.
    """

    view: MeteorView
    files_prefix: str

    def bundle(self, *, anew: bool = False) -> Bundle:
        """As `MeteorView.bundle`."""
        return self.view.bundle(anew=anew)


def sites() -> list[Site]:
    """The project's `MeteorView`s, in the order of its urls. Imports the urls.

    Raises:
        ImproperlyConfigured: the settings of one of them are wrong.
        Exception: whatever importing the urls raises.
    """
    if not getattr(django_settings, "ROOT_URLCONF", None):
        return []  # a project without a web side
    script_name = django_settings.FORCE_SCRIPT_NAME or ""
    return [
        _site(callback, f"{script_name.rstrip('/')}/{route}")
        for callback, route in _callbacks(get_resolver().url_patterns, "")
    ]


def _callbacks(patterns: Any, route: str) -> Iterator[tuple[Any, str]]:
    """The views, and where each is."""
    for pattern in patterns:
        here = route + _literal(pattern.pattern)
        if not isinstance(pattern, URLPattern):
            yield from _callbacks(pattern.url_patterns, here)
            continue
        view_class = getattr(pattern.callback, "view_class", None)
        if isinstance(view_class, type) and issubclass(view_class, MeteorView):
            yield pattern.callback, here


def _literal(pattern: Any) -> str:
    """What a route begins with, up to its first parameter or to what a regular expression is for."""
    text = str(pattern).removeprefix("^")
    special = r"[<]" if isinstance(pattern, RoutePattern) else r"[(\[.*+?|{$\\]"
    return re.split(special, text, maxsplit=1)[0]


def _site(callback: Any, route: str) -> Site:
    view: MeteorView = callback.view_class(**callback.view_initkwargs)
    for prefix in (view.bundled_js_css_prefix, view.root_url_path_prefix):
        if prefix is not None:
            return Site(view, prefix.rstrip("/"))
    return Site(view, route.rstrip("/"))


def check_bundles(**kwargs: Any) -> list[checks.CheckMessage]:
    """Django system check: the bundles of the urls can be read, and clients can tell them apart."""
    problems: list[checks.CheckMessage] = []
    try:
        found = sites()
    except ImproperlyConfigured as error:
        return [checks.Error(str(error), id="trigger_ddp_meteor.E001")]
    for site in found:
        try:
            site.bundle()
        except BundleError as error:
            hint = "Build it: meteor build --directory …, and let json_path name its star.json."
            problems.append(checks.Error(str(error), hint=hint, id="trigger_ddp_meteor.E002"))
    if len(found) > len({site.view.app_id or "" for site in found}):
        problems.append(
            checks.Warning(
                "Several bundles are served whose clients can't be told apart; they learn of no new version.",
                hint="Give each MeteorView the app_id of its application, as in .meteor/.id.",
                id="trigger_ddp_meteor.W001",
            )
        )
    return problems
