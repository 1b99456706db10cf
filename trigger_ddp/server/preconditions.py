"""What has to be in order before a server starts; what is not is said in one sentence."""

from __future__ import annotations

import io
import logging

from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import connections
from django.db.utils import DatabaseError

from trigger_ddp.api import API
from trigger_ddp.capture import rights
from trigger_ddp.capture.install import status
from trigger_ddp.capture.tables import Table
from trigger_ddp.conf import settings
from trigger_ddp.errors import ConfigurationError, TriggersMissing

logger = logging.getLogger("trigger_ddp.server")

#: The oldest major version of PostgreSQL that the triggers are tested on.
OLDEST_POSTGRESQL = 15


def check_project() -> None:
    """Refuse a project whose settings or declarations have errors.

    Raises:
        ConfigurationError: ``manage.py check`` would fail.
    """
    errors = [
        message for message in checks.run_checks() if message.is_serious() and not message.is_silenced()
    ]
    if errors:
        first = f"{errors[0].msg} ({errors[0].id})"
        more = f", and {len(errors) - 1} more" if len(errors) > 1 else ""
        raise ConfigurationError(f"the project has errors: {first}{more}; `manage.py check` explains them")


def check_database(alias: str) -> None:
    """Refuse a database that is away, unknown, misconfigured, not PostgreSQL or too old.

    Raises:
        ConfigurationError: it is one of these.
    """
    if alias not in connections.settings:
        raise ConfigurationError(f"DDP_DATABASE names {alias!r}, which is not in DATABASES")
    try:
        connection = connections[alias]
    except (ImproperlyConfigured, ImportError) as error:
        engine, reason = connections.settings[alias]["ENGINE"], error.__cause__ or error
        raise ConfigurationError(
            f"the ENGINE of database {alias!r}, {engine!r}, can't be imported: {_one_line(reason)}"
        ) from error
    if connection.vendor != "postgresql":
        raise ConfigurationError(
            f"database {alias!r} is {connection.display_name}, but it is PostgreSQL's triggers that tell "
            "changes: set its ENGINE to django.db.backends.postgresql"
        )
    try:
        connection.ensure_connection()
        version = connection.pg_version  # type: ignore[attr-defined]  # only PostgreSQL's wrapper has it
    except ImproperlyConfigured as error:
        raise ConfigurationError(f"database {alias!r} can't be used: {_one_line(error)}") from error
    except DatabaseError as error:
        raise ConfigurationError(f"database {alias!r} can't be reached: {_one_line(error)}") from error
    if version < OLDEST_POSTGRESQL * 10000:
        raise ConfigurationError(
            f"database {alias!r} is PostgreSQL {version // 10000}; {OLDEST_POSTGRESQL} or newer is needed"
        )


def check_rights(alias: str) -> None:
    """Refuse a role that may not even see the tables; log the tables that it may not read.

    Raises:
        ConfigurationError: there is a schema that it may not use.
    """
    needs = rights.serving()
    found = rights.relations(connections[alias], needs)
    hint = "`manage.py ddp_grants --serve ROLE` prints the rights that it takes"
    if schemas := sorted({relation.schema for relation in found if not relation.schema_usable}):
        names = ", ".join(schemas)
        raise ConfigurationError(f"the role may not use schema {names} of database {alias!r}; {hint}")
    if tables := [relation.name for relation in found if not relation.below and not relation.readable]:
        logger.error(
            "the role may not read %s, so what is read from there will fail; %s", ", ".join(tables), hint
        )


def check_triggers(alias: str, *, install: bool) -> None:
    """Refuse to serve tables whose changes would go unnoticed.

    Args:
        alias: the database.
        install: mend what is missing or out of date.

    Raises:
        TriggersMissing: some table has no current trigger, and DDP_ALLOW_STALE is not set.
    """
    stale = stale_tables(alias)
    if stale and install:
        said = io.StringIO()
        try:
            call_command("ddp_install_triggers", database=alias, stdout=said)
        except CommandError as error:
            raise ConfigurationError(f"the triggers can't be installed: {_one_line(error)}") from error
        finally:
            for line in said.getvalue().splitlines():
                logger.info("triggers: %s", line.strip())  # as the log has it, in JSON for instance
        stale = stale_tables(alias)
    if stale and not settings().allow_stale:
        raise TriggersMissing(stale)
    if stale:
        logger.warning("%s; DDP_ALLOW_STALE serves them, but not live", TriggersMissing(stale))


def stale_tables(alias: str) -> list[str]:
    """Tables that are to be live and have no current trigger."""
    tables = [Table.from_model(model) for model in API.watched_models()]
    report = status(connections[alias], tables)
    return sorted(table.name for table in tables if not report.is_current(table))


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
