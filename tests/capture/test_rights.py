"""What the serving role needs for what a project may declare; tests/rights sees it in force."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.contrib.contenttypes.models import ContentType

from tests.conftest import Database
from tests.zoo.models import Animal, Bird, Keeper, Nest, Parrot, Species, Ticket, Visit
from trigger_ddp.api import API, Collection
from trigger_ddp.capture import rights


def needed(model: Any, *allowed: str) -> rights.Needs:
    """What is needed where clients may do this to the model's collection, and nothing to others."""
    with API.restored():
        for collection in API.collections.values():
            collection.allow = ()  # type: ignore[misc]
        written = type("Written", (Collection,), {"model": model, "name": "written", "allow": allowed})
        API.register(written)
        try:
            return rights.serving()
        finally:
            for collection in API.collections.values():
                vars(collection).pop("allow", None)


@pytest.fixture(autouse=True)
def pointed(db: Database) -> None:
    """Django knows a PostgreSQL database, as dependencies need."""


@pytest.mark.parametrize(
    ("allowed", "keeper", "animal"),
    [
        (["insert"], {"SELECT", "INSERT"}, None),
        (["update"], {"SELECT", "UPDATE"}, None),
        (["remove"], {"SELECT", "UPDATE", "DELETE"}, {"SELECT", "DELETE"}),
        (["insert", "update", "remove"], {"SELECT", "INSERT", "UPDATE", "DELETE"}, {"SELECT", "DELETE"}),
    ],
)
def test_what_clients_may_write(allowed: list[str], keeper: set[str], animal: set[str] | None) -> None:
    needs = needed(Keeper, *allowed)
    assert needs[Keeper].privileges == keeper
    assert (needs[Animal].privileges if Animal in needs else None) == animal
    assert needs[User].privileges == {"SELECT"}


def test_what_goes_along_and_what_is_beside() -> None:
    needs = needed(Parrot, "insert", "remove")
    for model in (Parrot, Bird, Animal):  # the parents' tables hold the rest of its fields
        assert needs[model].privileges == {"SELECT", "INSERT", "UPDATE", "DELETE"}
    assert needs[Animal.friends.through].privileges == {"SELECT", "INSERT", "DELETE"}
    assert needs[Visit].privileges == {"SELECT", "DELETE"}
    assert needs[Nest].privileges == {"SELECT", "DELETE"}
    assert needs[Species].privileges == {"SELECT"}


def test_what_is_deleted_takes_its_parents_along() -> None:
    needs = needed(Ticket, "remove")
    for model in (Parrot, Bird, Animal, Visit):
        assert needs[model].privileges == {"SELECT", "DELETE"}


def test_permissions_are_read_where_somebody_asks_for_them() -> None:
    needs = needed(Keeper, "insert")
    for model in (Group, Permission, ContentType, Group.permissions.through, User.user_permissions.through):
        assert "permissions" in needs[model].reasons
        assert needs[model].privileges == {"SELECT"}
    assert ContentType not in needed(Keeper)
    assert "permissions" not in needed(Keeper)[Group].reasons
