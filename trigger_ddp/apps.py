"""The Django app: finds every app's ``ddp.py`` and checks what is declared there."""

from __future__ import annotations

from django.apps import AppConfig
from django.core import checks
from django.utils.module_loading import autodiscover_modules

from trigger_ddp import conf


class TriggerDDPConfig(AppConfig):
    name = "trigger_ddp"
    label = "trigger_ddp"
    verbose_name = "Trigger DDP"

    def ready(self) -> None:
        """Import ``<app>/ddp.py`` of all installed apps; what is wrong in one of them is raised."""
        # Not at the top: they import models, which can't be before the apps are loaded.
        from trigger_ddp.api.checks import check_declarations
        from trigger_ddp.api.registry import API

        checks.register(conf.check_settings)
        checks.register(check_declarations)
        autodiscover_modules("ddp")
        API.ready()
