"""``manage.py ddp_grants``: the least rights of the roles that install triggers and that serve, as SQL."""

from __future__ import annotations

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, connections
from django.db.models import Model

from trigger_ddp import conf
from trigger_ddp.capture import rights
from trigger_ddp.errors import ConfigurationError
from trigger_ddp.management.commands.ddp_install_triggers import models_named

DESCRIPTION = """\
Print the GRANTs that a role needs to install the triggers of this project, and that a role needs to serve it:
each table by its name, and no right that would not be missed. Changes nothing. Run it again after migrations
that make tables.

What the application's own methods and publications read and write beside that, nobody knows but you: name it
by --reads and --writes.
"""

EXAMPLES = """\
examples:
  manage.py ddp_grants --install ddp_install --serve ddp_serve | psql -d mysite
  manage.py ddp_grants --serve ddp_serve --writes shop.Order shop.OrderLine --reads shop
"""


class Command(BaseCommand):
    help = "Prints the least rights in the database that installing and serving need, as SQL."

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> Any:
        parser = super().create_parser(prog_name, subcommand, **kwargs)
        parser.description = DESCRIPTION
        parser.epilog = EXAMPLES
        parser.formatter_class = RawDescriptionHelpFormatter
        return parser

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--install", metavar="ROLE", help="the role that runs ddp_install_triggers")
        parser.add_argument("--serve", metavar="ROLE", help="the role that serves")
        for name, what in (("--reads", "read"), ("--writes", "read and write")):
            parser.add_argument(
                name, metavar="app_label[.Model]", nargs="+", default=[],
                help=f"what methods {what} beside what is published",
            )  # fmt: skip
        parser.add_argument(
            "--database", metavar="ALIAS", help="an alias of DATABASES; default: DDP_DATABASE"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        alias: str = options["database"] or conf.settings().database
        if alias not in connections.settings:
            raise CommandError(f"{alias!r} is not in DATABASES, which has: {', '.join(connections.settings)}")
        if not options["install"] and not options["serve"]:
            raise CommandError("say for which roles: --install ROLE, --serve ROLE, or both")
        self.connection = connections[alias]
        reads, writes = (_with_lists(models_named(options[name])) for name in ("reads", "writes"))
        try:
            if options["install"]:
                self.print_grants("installs the triggers", options["install"], rights.installing())
            if options["serve"]:
                self.print_grants("serves", options["serve"], rights.serving(reads=reads, writes=writes))
        except ConfigurationError as error:
            raise CommandError(str(error)) from error
        except DatabaseError as error:
            raise CommandError(f"database {alias!r}: {' '.join(str(error).split())}") from error

    def print_grants(self, what: str, role: str, needs: rights.Needs) -> None:
        self.stdout.write(f"-- The role that {what}.")
        for statement, why in rights.grants(self.connection, needs, role):
            self.stdout.write(f"{statement}  -- {why}" if why else statement)


def _with_lists(models: list[type[Model]]) -> list[type[Model]]:
    """The models with the tables of their many-to-many fields."""
    found: dict[Any, None] = dict.fromkeys(models)
    for model in models:
        for field in model._meta.many_to_many:
            found[field.remote_field.through] = None
    return list(found)
