"""The Django app of Meteor's accounts."""

from __future__ import annotations

from django.apps import AppConfig
from django.core import checks


class AccountsConfig(AppConfig):
    name = "trigger_ddp.accounts"
    label = "trigger_ddp_accounts"
    verbose_name = "Trigger DDP accounts"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the system checks; ``ddp.py`` is found as every app's is."""
        from trigger_ddp.accounts.hashers import check_hashers

        checks.register(check_hashers)
