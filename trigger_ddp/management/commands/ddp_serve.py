"""``manage.py ddp_serve``: `trigger-ddp serve` for those who live in manage.py."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from trigger_ddp import cli


class Command(BaseCommand):
    help = cli.SERVE_DESCRIPTION
    requires_system_checks: list[str] = []  # the server makes the checks itself, and answers in its own way

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        return super().create_parser(
            prog_name, subcommand, formatter_class=argparse.RawDescriptionHelpFormatter, **kwargs
        )

    def add_arguments(self, parser: CommandParser) -> None:
        cli.add_serve_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        sys.exit(cli.serve(argparse.Namespace(**options)))
