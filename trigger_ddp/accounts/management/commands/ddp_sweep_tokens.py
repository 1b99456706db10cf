"""``manage.py ddp_sweep_tokens``: deletes expired tokens, as every server does by itself each ten minutes."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from trigger_ddp.accounts.tokens import sweep


class Command(BaseCommand):
    help = "Deletes expired tokens of logins and mails, which closes the connections that use them."

    def handle(self, *args: Any, **options: Any) -> None:
        self.stdout.write(f"{sweep()} expired tokens were deleted.")
