"""The hashers, quick enough to log in often."""

from __future__ import annotations

from django.contrib.auth.hashers import PBKDF2PasswordHasher

from trigger_ddp.accounts.hashers import MeteorPBKDF2PasswordHasher


class Quick(MeteorPBKDF2PasswordHasher):
    iterations = 10


class QuickDjango(PBKDF2PasswordHasher):
    iterations = 10
