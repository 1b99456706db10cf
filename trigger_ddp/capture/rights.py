"""The least rights in the database: of the role that installs triggers, and of the one that serves."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, LiteralString

from django.apps import apps
from django.contrib.auth import get_user_model
from django.core.exceptions import ImproperlyConfigured
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import CASCADE, DO_NOTHING, Model
from psycopg import sql

from trigger_ddp.api import API, Collection
from trigger_ddp.api.dependencies import with_parents
from trigger_ddp.capture.columns import quoted_parts
from trigger_ddp.capture.resources import script
from trigger_ddp.errors import ConfigurationError

#: In the order in which a GRANT names them.
PRIVILEGES: tuple[LiteralString, ...] = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRIGGER")

#: What trigger_ddp.accounts does with its own tables. A row that is locked counts as updated.
ACCOUNTS: dict[str, tuple[LiteralString, ...]] = {
    "LoginToken": ("SELECT", "INSERT", "DELETE"),
    "MailToken": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "Account": ("SELECT", "INSERT", "UPDATE"),
}


@dataclasses.dataclass(slots=True)
class Need:
    """What a role needs of one table.

    Args:
        privileges: of `PRIVILEGES`.
        reasons: for people.
    """

    privileges: set[LiteralString] = dataclasses.field(default_factory=set)
    reasons: dict[str, None] = dataclasses.field(default_factory=dict)


#: By concrete model.
Needs = dict[type[Model], Need]


def installing() -> Needs:
    """What the role needs that runs ``ddp_install_triggers`` without arguments."""
    needs: Needs = {}
    for model in API.watched_models():
        _add(needs, model, "gets triggers", "TRIGGER")
    return needs


def _user_models() -> list[type[Model]]:
    """The project's user model and its parents; none where it has no users, as the demo."""
    try:
        return list(with_parents(get_user_model()))
    except ImproperlyConfigured:
        return []


def serving(*, reads: Iterable[type[Model]] = (), writes: Iterable[type[Model]] = ()) -> Needs:
    """What the role needs that serves.

    Args:
        reads, writes: models that the application's own methods read, or read and write: nobody else knows.
    """
    needs: Needs = {}
    for model in API.watched_models():
        _add(needs, model, "published", "SELECT")
    for model in _user_models():
        _add(needs, model, "users", "SELECT")
    accounts = apps.is_installed("trigger_ddp.accounts")
    written = [collection for collection in API.collections.values() if collection.allow]
    if _user_models() and (accounts or written):
        for model in _permission_models():
            _add(needs, model, "permissions", "SELECT")
    for collection in written:
        _add_written(needs, collection)
    if accounts:
        for name, privileges in ACCOUNTS.items():
            _add(needs, apps.get_model("trigger_ddp_accounts", name), "accounts", *privileges)
        for model in _user_models():
            _add(needs, model, "accounts", "SELECT", "INSERT", "UPDATE")
    for model in reads:
        _add(needs, model, "read by methods", "SELECT")
    for model in writes:
        _add(needs, model, "written by methods", "SELECT", "INSERT", "UPDATE", "DELETE")
    return needs


def _add(needs: Needs, model: Any, reason: str, *privileges: LiteralString) -> None:
    need = needs.setdefault(model._meta.concrete_model, Need())
    need.privileges.update(privileges)
    need.reasons[reason] = None


def _permission_models() -> Iterator[type[Model]]:
    """What Django's ``has_perm`` reads."""
    user_model: Any = get_user_model()
    if not hasattr(user_model, "user_permissions"):
        return
    from django.contrib.auth.models import Group, Permission  # not without django.contrib.auth

    yield user_model.groups.through
    yield user_model.user_permissions.through
    yield from (Group, Permission, Group.permissions.through)
    content_type: Any = Permission._meta.get_field("content_type").related_model
    yield content_type


def _add_written(needs: Needs, collection: Collection) -> None:
    """What clients may do to a collection: insert, update and remove, through the ORM."""
    model: Any = collection.model
    reason = f"clients write {collection.name}"
    inserts, updates, removes = (action in collection.allow for action in ("insert", "update", "remove"))
    for table in with_parents(model):
        _add(needs, table, reason, "SELECT")
        if inserts:
            _add(needs, table, reason, "INSERT")
        if updates or removes:
            _add(needs, table, reason, "UPDATE")  # a row is locked before it is removed
        if removes:
            _add(needs, table, reason, "DELETE")
    if inserts or updates:
        for field in model._meta.concrete_fields:
            if field.is_relation:
                _add(needs, field.related_model, f"checked for {collection.name}", "SELECT")
        for field in model._meta.many_to_many:
            _add(needs, field.related_model, f"checked for {collection.name}", "SELECT")
            if field.remote_field.through._meta.auto_created:
                _add(needs, field.remote_field.through, reason, "SELECT", "INSERT", "DELETE")
    if removes:
        _add_deleted(needs, model, f"goes with {collection.name}", set())


def _add_deleted(needs: Needs, model: Any, reason: str, seen: set[type[Model]]) -> None:
    """What Django deletes or sets to NULL when it deletes an object."""
    for relation in model._meta.get_fields(include_hidden=True):
        if not (relation.auto_created and not relation.concrete) or relation.many_to_many:
            continue
        on_delete, related = relation.on_delete, relation.related_model
        if on_delete in (DO_NOTHING, None):
            continue
        if on_delete is not CASCADE:
            _add(needs, related, reason, "SELECT", "UPDATE")
            continue
        for table in with_parents(related):
            _add(needs, table, reason, "SELECT", "DELETE")
        if related not in seen:
            seen.add(related)
            _add_deleted(needs, related, reason, seen)


# -- in the database ------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class Relation:
    """A model's table as it is in the database, or one below it.

    Args:
        model: whose it is.
        below: it is a partition or an inheriting table.
        schema_usable: the role that asks may use its schema.
        readable: it may read the table, or some of its columns.
        sequences: in the same schema, that defaults of its columns take numbers from.
    """

    model: type[Model]
    schema: str
    name: str
    below: bool
    schema_usable: bool
    readable: bool
    sequences: tuple[str, ...]


def relations(connection: BaseDatabaseWrapper, models: Iterable[type[Model]]) -> list[Relation]:
    """Where the models' tables are, whatever the role's rights to them; those that are nowhere are left out.

    Raises:
        django.db.Error: the database can't be asked.
    """
    models = list(models)
    parts = [quoted_parts(model._meta.db_table) for model in models]
    with connection.cursor() as cursor:
        cursor.execute(
            script("relations").text,
            {
                "schemas": [part[0] if len(part) == 2 else None for part in parts],
                "names": [part[-1] for part in parts],
            },
        )
        return [
            Relation(models[position], schema, name, below, usable, readable, tuple(sequences))
            for position, schema, name, below, usable, readable, sequences in cursor.fetchall()
        ]


def grants(connection: BaseDatabaseWrapper, needs: Needs, role: str) -> list[tuple[str, str]]:
    """The GRANTs that give ``role`` what it needs and no more, each with the reasons.

    Raises:
        ConfigurationError: a table does not exist.
        django.db.Error: the database can't be asked.
    """
    found = relations(connection, needs)
    if absent := needs.keys() - {relation.model for relation in found}:
        names = ", ".join(sorted(model._meta.db_table for model in absent))
        raise ConfigurationError(f"there is no table {names} in the database: has `manage.py migrate` run?")
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_catalog.current_database()")
        (database,) = cursor.fetchone() or ("",)
    install = any("TRIGGER" in need.privileges for need in needs.values())
    told = [(_grant(["CONNECT"], "DATABASE", sql.Identifier(database), role), "")]
    for schema in sorted({relation.schema for relation in found}):
        privileges: list[LiteralString] = ["USAGE", "CREATE"] if install else ["USAGE"]
        why = "its functions go there" if install else ""
        told.append((_grant(privileges, "SCHEMA", sql.Identifier(schema), role), why))
    for relation in found:
        need = needs[relation.model]
        # Whoever may use a table may use what is below it through it; triggers are made on each.
        if relation.below and not install:
            continue
        why = ", ".join(need.reasons)
        where = sql.Identifier(relation.schema, relation.name)
        privileges = [privilege for privilege in PRIVILEGES if privilege in need.privileges]
        told.append((_grant(privileges, "TABLE", where, role), why))
        if "INSERT" in need.privileges:
            for name in relation.sequences:
                numbers = sql.Identifier(relation.schema, name)
                told.append((_grant(["USAGE"], "SEQUENCE", numbers, role), f"numbers for {relation.name}"))
    return told


def _grant(privileges: Sequence[LiteralString], kind: LiteralString, where: sql.Identifier, role: str) -> str:
    return (
        script("grant")
        .fill(
            privileges=sql.SQL(", ").join([sql.SQL(privilege) for privilege in privileges]),
            kind=sql.SQL(kind), object=where, role=sql.Identifier(role),
        )
        .as_string(None)
    )  # fmt: skip
