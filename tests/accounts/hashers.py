"""The hashers, quick enough to log in often, and counting how often they hash."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.hashers import PBKDF2PasswordHasher

from trigger_ddp.accounts.hashers import MeteorPBKDF2PasswordHasher


class Counting(PBKDF2PasswordHasher):
    iterations = 10
    hashed = 0

    def encode(self, *args: Any, **kwargs: Any) -> str:
        Counting.hashed += 1
        return super().encode(*args, **kwargs)


class Quick(MeteorPBKDF2PasswordHasher, Counting):
    pass


class QuickDjango(Counting):
    pass
