"""A collection to try, and its methods called as the server calls them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db import transaction

from tests.conftest import Database
from tests.zoo.models import (
    Animal,
    Every,
    EveryPostgres,
    Keeper,
)
from trigger_ddp.api import API, Collection, MeteorError, this
from trigger_ddp.api.arguments import bind

EVERYTHING = ("insert", "update", "remove")
DENIED = (403, "Access denied")


@pytest.fixture
def registry() -> Iterator[None]:
    with API.restored():
        yield


@pytest.fixture
def ann(db: Database, registry: None) -> Iterator[User]:
    """Somebody with every permission, who is no superuser."""
    user = User.objects.create(username="ann")
    user.user_permissions.set(Permission.objects.all())
    with this.bound(user=user, user_id=user.pk):
        yield user


@pytest.fixture
def nothing_required(monkeypatch: pytest.MonkeyPatch) -> None:
    for field in (*Every._meta.fields, *EveryPostgres._meta.fields, *Animal._meta.fields):
        monkeypatch.setattr(field, "blank", True)
    monkeypatch.setattr(Keeper._meta.get_field("account"), "blank", True)


def register(model: Any, name: str = "tested", **attributes: Any) -> Any:
    body = {"model": model, "name": name, "allow": EVERYTHING, **attributes}
    return API.register(type("Tested", (Collection,), body))


def call(name: str, *params: Any, collection: str = "tested") -> Any:
    """As the server calls a method, except that what it writes is there at once."""
    method = API.api_path_map()[f"/{collection}/{name}"]
    with transaction.atomic():
        return method(*bind(method, params))


def refused(name: str, *params: Any) -> tuple[Any, ...]:
    with pytest.raises(MeteorError) as caught:
        call(name, *params)
    error = caught.value
    return (
        (error.error, error.reason) if error.details is None else (error.error, error.reason, error.details)
    )
