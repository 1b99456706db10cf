"""What the reference application stores, beside users."""

from __future__ import annotations

from django.conf import settings
from django.db import models

from trigger_ddp.api import AleaIdField


class Item(models.Model):
    """A document of ``conformance.items``."""

    id = AleaIdField(primary_key=True)
    group = models.CharField(max_length=50)
    text = models.CharField(max_length=100)
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.CASCADE, null=True, related_name="+", db_constraint=False
    )
