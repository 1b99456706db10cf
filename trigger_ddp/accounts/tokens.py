"""Tokens: made, shown once, stored as hashes, found again, expired, swept."""

from __future__ import annotations

import base64
import datetime
import hashlib
import secrets
from typing import Any

from django.db.models import Q
from django.utils import timezone

from trigger_ddp.accounts.models import LoginToken, MailToken
from trigger_ddp.conf import settings

#: Meteor's ``Random.secret``: 43 of these characters have 256 bits.
_ALPHABET = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
_LENGTH = 43

#: Seconds between two sweeps, as in Meteor.
SWEEP_SECONDS = 600


def new_token() -> str:
    """A secret of 43 characters."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH))


def hash_token(token: str) -> str:
    """What is stored of a token: the base64 text of its SHA-256 digest, as Meteor has it."""
    return base64.b64encode(hashlib.sha256(token.encode()).digest()).decode()


def issue(user: Any, created: datetime.datetime | None = None) -> tuple[str, LoginToken]:
    """A new login token of a user: its text, which is nowhere stored, and its row.

    Args:
        user: the user.
        created: since when it counts as good; by default now.
    """
    token = new_token()
    row = LoginToken.objects.create(
        user=user, hashed_token=hash_token(token), created=created or timezone.now()
    )
    return token, row


def expires(row: LoginToken) -> datetime.datetime:
    """When a login token ends."""
    created: datetime.datetime = row.created
    return created + datetime.timedelta(days=settings().login_expiration_days)


def forget_logins(user: Any) -> int:
    """Log out all clients of a user, as after its password was set; returns how many tokens it had."""
    return LoginToken.objects.filter(user=user).delete()[0]


def issue_for_mail(user: Any, purpose: str, address: str) -> tuple[str, MailToken]:
    """A new token for a link in a mail, in place of older ones: its text, and its row."""
    if purpose != MailToken.Purpose.VERIFY:
        MailToken.objects.filter(user=user, purpose=purpose).delete()
    token = new_token()
    row = MailToken.objects.create(
        user=user, purpose=purpose, hashed_token=hash_token(token), address=address
    )
    return token, row


def mail_token_expires(row: MailToken) -> datetime.datetime:
    """When the link of a mail ends."""
    created: datetime.datetime = row.created
    return created + _mail_lifetime(row.purpose)


def _mail_lifetime(purpose: str) -> datetime.timedelta:
    enrolls = purpose == MailToken.Purpose.ENROLL
    return datetime.timedelta(
        days=settings().password_enroll_token_expiration_days
        if enrolls
        else settings().password_reset_token_expiration_days
    )


def find_mail_token(token: str, *purposes: str) -> MailToken | None:
    """The row of a link's token, locked until the end of the transaction; None if it is used or too old."""
    row = (
        MailToken.objects.select_for_update(of=("self",))
        .select_related("user")
        .filter(hashed_token=hash_token(token), purpose__in=purposes)
        .first()
    )
    return row if row is not None and timezone.now() < mail_token_expires(row) else None


def sweep() -> int:
    """Delete all tokens that are too old, which closes the connections that use them.

    Returns:
        How many there were.
    """
    now = timezone.now()
    old_logins = LoginToken.objects.filter(
        created__lte=now - datetime.timedelta(days=settings().login_expiration_days)
    )
    old_mails = Q()
    for purpose in MailToken.Purpose:
        old_mails |= Q(purpose=purpose, created__lte=now - _mail_lifetime(purpose))
    return old_logins.delete()[0] + MailToken.objects.filter(old_mails).delete()[0]
