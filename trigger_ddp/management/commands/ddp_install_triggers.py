"""``manage.py ddp_install_triggers``: make, compare and remove the triggers that tell changes."""

from __future__ import annotations

import re
from argparse import ArgumentParser, ArgumentTypeError, RawDescriptionHelpFormatter
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import sqlparse
from django.apps import apps
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, connections
from django.db.models import Model
from psycopg.errors import InsufficientPrivilege

from trigger_ddp import conf
from trigger_ddp.api import API
from trigger_ddp.capture import install, migrations
from trigger_ddp.capture.functions import LEVELS, Level
from trigger_ddp.capture.install import Report, State, Step
from trigger_ddp.capture.tables import Table
from trigger_ddp.errors import ConfigurationError

DESCRIPTION = """\
Make PostgreSQL tell the servers which rows are written: installs triggers on tables, and keeps them
up to date.

Without a label it does so for every model that has a collection, their many-to-many and parent tables and
whatever depends_on names, and removes triggers that no model asks for any more. Run it after `migrate`, as
often as you like: what is up to date is not touched. Each table is done in a short transaction of its own.
"""

EXAMPLES = """\
examples:
  manage.py ddp_install_triggers                       all that collections and publications need
  manage.py ddp_install_triggers bookstore auth.User   the models of one app, and one more
  manage.py ddp_install_triggers --check               for deployments: exits with 1 if something differs
  manage.py ddp_install_triggers --dry-run | psql      look at the SQL first, or have a DBA run it
  manage.py ddp_install_triggers --make-migrations     have `migrate` do it, with everything else
  manage.py ddp_install_triggers --for-each row shop.Order
                                                       a table that logical replication writes
  manage.py ddp_install_triggers --uninstall           remove every trigger of ours
"""


class Command(BaseCommand):
    help = "Installs the triggers that make PostgreSQL tell which rows are written."

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> Any:
        parser = super().create_parser(prog_name, subcommand, **kwargs)
        parser.description = DESCRIPTION
        parser.epilog = EXAMPLES
        parser.formatter_class = RawDescriptionHelpFormatter
        return parser

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "labels",
            metavar="app_label[.Model]",
            nargs="*",
            help="an app, or one of its models; default: all that collections and publications need",
        )
        parser.add_argument(
            "--check",
            action="store_true",
            help="change nothing; print each difference, exit with 1 if there is one",
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="change nothing; print the SQL, or the migrations' names"
        )
        parser.add_argument("--uninstall", action="store_true", help="remove the triggers instead")
        parser.add_argument(
            "--make-migrations",
            action="store_true",
            help="write reversible migrations that do it (or with --uninstall undo it), and run nothing",
        )
        parser.add_argument(
            "--app", metavar="APP_LABEL", help="the app that takes the migrations; default: each model's own"
        )
        parser.add_argument(
            "--for-each",
            choices=LEVELS,
            help="'statement' (default) costs far less for many rows; 'row' also sees what logical "
            "replication writes; a table that has triggers keeps its kind unless told",
        )
        parser.add_argument(
            "--database", metavar="ALIAS", help="an alias of DATABASES; default: DDP_DATABASE"
        )
        parser.add_argument(
            "--lock-timeout",
            metavar="TIME",
            type=seconds,
            default=5.0,
            help="how long to wait for other transactions that use a table, as 5s or 500ms; whoever writes "
            "the table meanwhile has to queue; default: 5s; 0 waits for ever",
        )

    def handle(self, *labels: str, **options: Any) -> None:
        alias: str = options["database"] or conf.settings().database
        if alias not in connections.settings:
            raise CommandError(f"{alias!r} is not in DATABASES, which has: {', '.join(connections.settings)}")
        if options["check"] and any(options[name] for name in ("dry_run", "uninstall", "make_migrations")):
            raise CommandError("--check goes with none of --dry-run, --uninstall and --make-migrations")
        if options["app"] and not options["make_migrations"]:
            raise CommandError("--app only goes with --make-migrations")
        labels = tuple(options.get("labels") or labels)
        level: Level | None = options["for_each"]
        self.verbosity: int = options["verbosity"]
        self.connection = connections[alias]
        self.lock_timeout: float = options["lock_timeout"]
        models = models_named(labels) if labels else API.watched_models()
        try:
            tables = _tables(models)
            report = install.status(self.connection, tables, level=level)
            if options["make_migrations"]:
                self.make_migrations(
                    report,
                    level,
                    app_label=options["app"],
                    installed=not options["uninstall"],
                    prune=not labels,
                    dry_run=options["dry_run"],
                )
                return
        except ConfigurationError as error:
            raise CommandError(str(error)) from error
        except DatabaseError as error:
            raise CommandError(f"database {alias!r}: {_one_line(error)}") from error

        if options["check"]:
            self.check_installed(report, prune=not labels)
            return
        steps = install.uninstall_steps(report) if options["uninstall"] else install.install_steps(report)
        if not labels:
            steps += install.prune_steps(report)
        if options["dry_run"]:
            self.print_sql(report, steps)
        else:
            self.run_steps(report, steps)
        refused = [] if options["uninstall"] else _refusals(report)
        if refused:
            raise CommandError(f"{_tables_counted(len(refused))} can't have triggers:\n" + _indented(refused))

    def check_installed(self, report: Report, *, prune: bool) -> None:
        differences = [sentence for status in report.tables for sentence in status.differences]
        if prune:
            differences += [
                f"function {function.schema}.{function.name} is not asked for by any model"
                + (f", but called for {install.tables_of(function)}" if function.triggers else "")
                for function in report.orphans
            ]
        if differences:
            raise CommandError(
                f"the triggers of {self.connection.alias!r} are not as they should be; "
                "`manage.py ddp_install_triggers` mends it:\n" + _indented(differences)
            )
        if self.verbosity:
            self.stdout.write(f"{_tables_counted(len(report.tables))} up to date")

    def print_sql(self, report: Report, steps: Sequence[Step]) -> None:
        for step in steps:
            self.stdout.write(_comment(f"{step.table}: {'; '.join(step.why) or 'no longer wanted'}"))
            statements = [
                "BEGIN;",
                f"SET LOCAL lock_timeout = {round(self.lock_timeout * 1000)};",
                *step.statements,
                "COMMIT;",
            ]
            for statement in statements:
                self.stdout.write(sqlparse.format(statement, reindent=True))
            self.stdout.write("")
        if not steps:
            self.stdout.write(_comment(f"nothing to do: {_tables_counted(len(report.tables))} up to date"))

    def run_steps(self, report: Report, steps: Sequence[Step]) -> None:
        counts: Counter[str] = Counter()
        failures: list[str] = []
        refused = False
        if self.verbosity:
            stepped = {step.table for step in steps}
            for status in report.tables:
                if status.table.name not in stepped and status.state is State.CURRENT:
                    counts["up to date"] += 1
                    self.stdout.write(f"  up to date {status.table.name}")
        for step in steps:
            try:
                install.apply(self.connection, step, lock_timeout=self.lock_timeout)
            except install.LockTimeout as error:
                failures.append(str(error))
            except DatabaseError as error:
                failures.append(f"{step.table}: {_one_line(error)}")
                refused = refused or isinstance(error.__cause__, InsufficientPrivilege)
            else:
                counts[step.done] += 1
                if self.verbosity:
                    self.stdout.write(self.style.SUCCESS(f"  {step.done:10} {step.table}"))
                if self.verbosity > 1:
                    for sentence in step.why:
                        self.stdout.write(f"             {sentence}")
                continue
            counts["failed"] += 1
            if self.verbosity:
                self.stdout.write(self.style.ERROR(f"  failed     {step.table}"))
        if self.verbosity:
            summary = ", ".join(f"{number} {what}" for what, number in counts.items())
            self.stdout.write(f"{self.connection.alias}: {summary or 'nothing to do'}")
        if failures:
            raise CommandError(
                f"{_tables_counted(len(failures))} left as before:\n"
                + _indented([*failures, *_refusals(report)])
                + (
                    "\n`manage.py ddp_grants --install ROLE` prints the rights that it takes"
                    if refused
                    else ""
                )
            )

    def make_migrations(
        self,
        report: Report,
        level: Level | None,
        *,
        app_label: str | None,
        installed: bool,
        prune: bool,
        dry_run: bool,
    ) -> None:
        if refused := [
            status for status in report.tables if status.state is State.REFUSED and status.members
        ]:
            raise CommandError("; ".join(sentence for status in refused for sentence in status.differences))
        wanted = [
            migrations.Wanted(status.table, level, descendants=len(status.members) > 1, installed=installed)
            for status in report.tables
        ]
        files = migrations.plan(wanted, app_label=app_label, prune=prune and installed)
        for file in files:
            if not dry_run:
                file.path.parent.mkdir(parents=True, exist_ok=True)
                file.path.write_text(file.text, encoding="utf-8")
            if self.verbosity:
                self.stdout.write(
                    f"{'would write' if dry_run else 'wrote'} {file.path}: {', '.join(file.tables)}"
                )
        if not files and self.verbosity:
            self.stdout.write("no changes: the migrations already make these triggers")


def seconds(text: str) -> float:
    """A time as ``5``, ``5s`` or ``500ms``, in seconds."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|)", text.strip())
    if found is None:
        raise ArgumentTypeError(f"{text!r} is not a time such as 5s or 500ms")
    return float(found[1]) / (1000 if found[2] == "ms" else 1)


def models_named(labels: Iterable[str]) -> list[type[Model]]:
    """The models that labels name, as ``app_label`` or ``app_label.Model``.

    Raises:
        CommandError: there is no such app or model.
    """
    models: dict[type[Model], None] = {}
    for label in labels:
        app_label, _, name = label.partition(".")
        try:
            config = apps.get_app_config(app_label)
        except LookupError:
            known = ", ".join(sorted(config.label for config in apps.get_app_configs()))
            raise CommandError(f"there is no app {app_label!r}; the apps are: {known}") from None
        of_app = {model._meta.model_name: model for model in config.get_models(include_auto_created=True)}
        if not name:
            models.update(
                dict.fromkeys(
                    model for model in of_app.values() if model._meta.managed and not model._meta.proxy
                )
            )
        elif name.lower() in of_app:
            models[of_app[name.lower()]] = None
        else:
            known = ", ".join(sorted(model.__name__ for model in of_app.values())) or "none"
            raise CommandError(f"{app_label} has no model {name!r}; its models are: {known}")
    return list(models)


def _tables(models: Iterable[type[Model]]) -> list[Table]:
    """The models' tables, each once."""
    tables: dict[str, Table] = {}
    for model in models:
        table = Table.from_model(model)
        known = tables.setdefault(table.name, table)
        if known.version != table.version:
            raise ConfigurationError(
                f"{known.model_label} and {table.model_label} both stand for {table.name}, with other keys: "
                "only one of them can be live"
            )
    return list(tables.values())


def _refusals(report: Report) -> list[str]:
    return [
        sentence
        for status in report.tables
        if status.state is State.REFUSED
        for sentence in status.differences
    ]


def _tables_counted(number: int) -> str:
    return f"{number} table" if number == 1 else f"{number} tables"


def _indented(sentences: Iterable[str]) -> str:
    return "\n".join(f"  {sentence}" for sentence in sentences)


def _comment(text: str) -> str:
    return "-- " + " ".join(text.split())


def _one_line(error: DatabaseError) -> str:
    return " ".join(str(error).split())
