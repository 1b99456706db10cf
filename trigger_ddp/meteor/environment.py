"""``Meteor.settings`` from Django's settings, the environment and the view, in django-ddp's order."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured

#: The names in Django's settings and of environment variables.
SETTINGS = "METEOR_SETTINGS"
PUBLIC_ENVS = "METEOR_PUBLIC_ENVS"


def meteor_settings(*of_the_view: Mapping[str, Any] | None) -> dict[str, Any]:
    """All settings. Dicts are merged, level by level; of anything else the later one stands.

    Args:
        of_the_view: what comes after Django's ``METEOR_SETTINGS`` and the environment's, which is JSON.

    Raises:
        ImproperlyConfigured: one of them is not a dict, or not JSON.
    """
    merged: dict[str, Any] = {}
    sources = [getattr(django_settings, SETTINGS, None), _from_environment(), *of_the_view]
    for source in sources:
        if source is not None and not isinstance(source, Mapping):
            raise ImproperlyConfigured(f"{SETTINGS} must be a dict, not {type(source).__name__}")
        merged = _merge(merged, source or {})
    return merged


def public_settings(settings: Mapping[str, Any], *envs_of_the_view: Iterable[str] | None) -> dict[str, Any]:
    """What clients see: ``settings["public"]``, and the environment variables that are named to be public.

    Args:
        settings: of `meteor_settings`.
        envs_of_the_view: names beside those of Django's ``METEOR_PUBLIC_ENVS`` and the environment's,
            which are separated by commas or spaces. A variable that is not set is left out.

    Raises:
        ImproperlyConfigured: ``public`` is not a dict, or the names are one string.
    """
    public = settings.get("public")
    if public is not None and not isinstance(public, Mapping):
        raise ImproperlyConfigured(f"{SETTINGS}['public'] must be a dict, not {type(public).__name__}")
    names: dict[str, None] = {}
    of_environment = os.environ.get(PUBLIC_ENVS, "").replace(",", " ").split()
    for source in (getattr(django_settings, PUBLIC_ENVS, None), of_environment, *envs_of_the_view):
        if isinstance(source, str):
            raise ImproperlyConfigured(f"{PUBLIC_ENVS} must be a list of names, not a string")
        names.update(dict.fromkeys(source or ()))
    # Sorted, since the versions that clients compare are hashes of this, made in several processes.
    set_now = {name: os.environ[name] for name in sorted(names) if name in os.environ}
    return {**(public or {}), **set_now}


def _from_environment() -> Any:
    text = os.environ.get(SETTINGS)
    if not text:
        return None
    try:
        return json.loads(text)
    except ValueError as error:
        raise ImproperlyConfigured(f"{SETTINGS} in the environment is not JSON: {error}") from error


def _merge(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(one)
    for name, value in other.items():
        if isinstance(value, Mapping):
            before = merged.get(name)
            merged[name] = _merge(before if isinstance(before, Mapping) else {}, value)
        else:
            merged[name] = value
    return merged
