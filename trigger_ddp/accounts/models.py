"""What logins and mails need to remember, and what a user has in Meteor that Django has no place for.

Of tokens only hashes are stored, and keys are numbers: a table, a backup or a notification gives nothing
away that would let anybody log in.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db import models
from django.utils import timezone


class LoginToken(models.Model):
    """One login of a user. Deleting the row logs out who uses it, and closes their connections."""

    user: Any = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="ddp_login_tokens")
    hashed_token: Any = models.CharField("hashed token", max_length=44, unique=True, editable=False)
    created: Any = models.DateTimeField(default=timezone.now, db_index=True)

    class Meta:
        verbose_name = "login token"

    def __str__(self) -> str:
        return f"login {self.pk} of {self.created:%Y-%m-%d %H:%M}"


class MailToken(models.Model):
    """A link in a mail."""

    class Purpose(models.TextChoices):
        RESET = "reset", "reset password"
        ENROLL = "enroll", "enroll account"
        VERIFY = "verify", "verify address"

    user: Any = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="ddp_mail_tokens")
    purpose: Any = models.CharField(max_length=8, choices=Purpose.choices)
    hashed_token: Any = models.CharField("hashed token", max_length=44, unique=True, editable=False)
    address: Any = models.EmailField()
    created: Any = models.DateTimeField(default=timezone.now, db_index=True)

    class Meta:
        verbose_name = "mail token"

    def __str__(self) -> str:
        return f"{self.purpose} {self.pk}"


class Account(models.Model):
    """A user's profile, and which of its addresses is verified."""

    user: Any = models.OneToOneField(
        settings.AUTH_USER_MODEL, models.CASCADE, primary_key=True, related_name="ddp_account"
    )
    profile: Any = models.JSONField(default=dict, blank=True)
    verified_address: Any = models.EmailField(blank=True)
    created: Any = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return f"account of {self.pk}"
