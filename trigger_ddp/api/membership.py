"""Whose row is whose: the tables that say who a user is, and where in their rows the user's key stands."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.contrib.auth import get_user_model
from django.db import models

from trigger_ddp.api.dependencies import with_parents


def memberships() -> Iterator[tuple[type[models.Model], str]]:
    """The many-to-many tables that Django made for the user model: (through model, its column of the user).

    They tell the user's groups and permissions, and whatever else the user model relates to so.
    """
    user_model: Any = get_user_model()
    for field in user_model._meta.many_to_many:
        through = field.remote_field.through
        if through._meta.auto_created:
            yield through, field.m2m_column_name()


def user_tables() -> Iterator[type[models.Model]]:
    """The user model with its multi-table parents, and the models of `memberships`."""
    yield from with_parents(get_user_model())
    for through, _ in memberships():
        yield through
