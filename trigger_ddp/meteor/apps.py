"""The Django app of Meteor bundles."""

from __future__ import annotations

from django.apps import AppConfig
from django.core import checks


class MeteorConfig(AppConfig):
    name = "trigger_ddp.meteor"
    label = "trigger_ddp_meteor"
    verbose_name = "Trigger DDP Meteor bundles"

    def ready(self) -> None:
        """Register the system check; ``ddp.py`` is found as every app's is."""
        from trigger_ddp.meteor.discovery import check_bundles

        checks.register(check_bundles)
