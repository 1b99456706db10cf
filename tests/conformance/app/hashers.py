"""Passwords hashed in no time: the suite's are no secrets, and it makes some two hundred of them."""

from __future__ import annotations

from trigger_ddp.accounts.hashers import MeteorPBKDF2PasswordHasher


class QuickHasher(MeteorPBKDF2PasswordHasher):
    iterations = 1000
