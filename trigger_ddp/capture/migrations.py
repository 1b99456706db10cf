"""Django migrations that make and remove triggers.

The SQL stands in them literally. What earlier migrations made is read from the hints of their operations, so
only what differs is written, and undoing a migration brings back what the one before had made.
"""

from __future__ import annotations

import dataclasses
import sysconfig
from collections.abc import Iterable, Sequence
from pathlib import Path
from string import Template

from django.apps import apps
from django.db.migrations import Migration, RunSQL
from django.db.migrations.autodetector import MigrationAutodetector
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.writer import MigrationWriter

import trigger_ddp
from trigger_ddp.capture import statements
from trigger_ddp.capture.functions import Level
from trigger_ddp.capture.resources import migration_template
from trigger_ddp.capture.tables import Table
from trigger_ddp.errors import ConfigurationError


@dataclasses.dataclass(frozen=True, slots=True)
class Wanted:
    """One table as it should be after the new migrations.

    Args:
        table: the table.
        level: of its triggers; None keeps what earlier migrations made, or else is "statement"
        descendants: see to partitions and inheriting tables when the migration runs.
        installed: False to remove its triggers.
    """

    table: Table
    level: Level | None = None
    descendants: bool = False
    installed: bool = True


@dataclasses.dataclass(frozen=True, slots=True)
class MigrationFile:
    """A migration to be written.

    Args:
        app_label: the app it belongs to.
        name: without ``.py``.
        path: of the file.
        text: of the file.
        tables: names of the tables it is about.
    """

    app_label: str
    name: str
    path: Path
    text: str
    tables: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class _Made:
    """What the latest operation for a table made; an empty version for nothing."""

    version: str
    level: Level
    forward: tuple[str, ...]


def plan(
    wanted: Sequence[Wanted], *, app_label: str | None = None, prune: bool = False
) -> list[MigrationFile]:
    """The migrations that bring the tables from what earlier migrations made to what is wanted.

    Args:
        wanted: the tables.
        app_label: the app that takes all of it; None for each model's own.
        prune: also remove what earlier migrations made for other models' tables.

    Raises:
        ConfigurationError: an app has no migrations, several latest ones, or is an installed package.
    """
    loader = MigrationLoader(None, ignore_no_migrations=True)
    made = _made(loader)
    changes = [
        (want, operation)
        for want in [*wanted, *(_no_longer_wanted(wanted, made) if prune else ())]
        if (operation := _operation(want, made.get(want.table.name))) is not None
    ]
    by_app: dict[str, list[tuple[Wanted, str]]] = {}
    for want, operation in changes:
        own = want.table.model_label.split(".")[0]
        by_app.setdefault(app_label or own, []).append((want, operation))
    return [_file(loader, label, operations) for label, operations in by_app.items()]


def _made(loader: MigrationLoader) -> dict[str, _Made]:
    """What all migrations on disk make, by table."""
    made: dict[str, _Made] = {}
    seen: set[tuple[str, str]] = set()
    for leaf in loader.graph.leaf_nodes():
        for node in loader.graph.forwards_plan(leaf):
            if node in seen:
                continue
            seen.add(node)
            for operation in loader.graph.nodes[node].operations:
                if isinstance(operation, RunSQL) and "ddp_table" in operation.hints:
                    hints = operation.hints
                    made[hints["ddp_table"]] = _Made(
                        hints["ddp_version"], hints["ddp_level"], tuple(map(str, operation.sql))
                    )
    return made


def _no_longer_wanted(wanted: Sequence[Wanted], made: dict[str, _Made]) -> Iterable[Wanted]:
    """Tables that still have a model and triggers, but are not wanted."""
    names = {want.table.name for want in wanted}
    left = {name for name, latest in made.items() if latest.version and name not in names}
    if left:
        for model in apps.get_models(include_auto_created=True):
            if not model._meta.proxy and not model._meta.swapped:
                table = Table.from_model(model)
                if table.name in left:
                    left.remove(table.name)
                    yield Wanted(table, installed=False)


def _operation(want: Wanted, latest: _Made | None) -> str | None:
    """The operation's Python text; None if there is nothing to do."""
    table = want.table
    level: Level = want.level or (latest.level if latest else "statement")
    before = latest.forward if latest and latest.version else ()
    if not want.installed:
        if not before:
            return None
        forward, backward = statements.remove(table), list(before)
    elif latest and (latest.version, latest.level) == (table.version, level):
        return None
    else:
        create = statements.create(table, level, descendants=want.descendants)
        forward = [*(statements.remove(table) if before else ()), *create]
        backward = [*statements.remove(table), *before]
    text = migration_template("operation.py.txt").rstrip("\n")
    return Template(text).substitute(
        sql="\n".join(map(_python_string, forward)),
        reverse_sql="\n".join(map(_python_string, backward)),
        table=repr(table.name),
        version=repr(table.version if want.installed else ""),
        level=repr(level),
    )


def _file(loader: MigrationLoader, app_label: str, operations: Sequence[tuple[Wanted, str]]) -> MigrationFile:
    leaf = _leaf(loader, app_label)
    number = (MigrationAutodetector.parse_number(leaf[1]) or 0) + 1 if leaf else 1
    name = f"{number:04}_ddp_triggers"
    path = Path(MigrationWriter(Migration(name, app_label)).path)
    if any(path.is_relative_to(sysconfig.get_path(scheme)) for scheme in ("purelib", "platlib")):
        raise ConfigurationError(
            f"{app_label} is an installed package, so its migrations can't be added to: "
            "name an app of this project with --app"
        )
    others = {want.table.model_label.split(".")[0] for want, _ in operations} - {app_label}
    dependencies = [
        leaf,
        *(_leaf(loader, other) for other in sorted(others) if other in loader.migrated_apps),
    ]
    tables = tuple(want.table.name for want, _ in operations)
    text = Template(migration_template("migration.py.txt")).substitute(
        tables=", ".join(tables).replace("\\", "/").replace('"', "'"),
        package_version=trigger_ddp.__version__,
        dependencies="\n".join(f"        {dependency!r}," for dependency in dependencies if dependency),
        operations="\n".join(operation for _, operation in operations),
    )
    return MigrationFile(app_label, name, path, text, tables)


def _leaf(loader: MigrationLoader, app_label: str) -> tuple[str, str] | None:
    """The app's latest migration; None if it has an empty migrations package."""
    if app_label not in loader.migrated_apps:
        raise ConfigurationError(
            f"{app_label} has no migrations: run `manage.py makemigrations {app_label}` first, "
            "or name another app with --app"
        )
    leaves: list[tuple[str, str]] = loader.graph.leaf_nodes(app_label)
    if len(leaves) > 1:
        raise ConfigurationError(
            f"{app_label} has more than one latest migration: run `manage.py makemigrations --merge` first"
        )
    return leaves[0] if leaves else None


def _python_string(text: str) -> str:
    """``text`` as an item of a list, over several lines where Python reads them back as they are."""
    readable = all(character.isprintable() or character == "\n" for character in text)
    if not readable or '"""' in text or text.endswith(('"', "\\")):
        return f"                {text!r},"
    return f'                r"""{text}""",'
