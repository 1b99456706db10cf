"""Passwords as Meteor's clients send them: the SHA-256 digest, so that the server never sees the text.

Meteor's server stores a hash of the digest's hexadecimal digits (packages/accounts-password); so does
`MeteorPBKDF2PasswordHasher`. A password that comes as text is digested first, and fits both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.contrib.auth.hashers import PBKDF2PasswordHasher, get_hashers, make_password
from django.core import checks

#: Dotted path to put first into ``PASSWORD_HASHERS``.
HASHER = "trigger_ddp.accounts.hashers.MeteorPBKDF2PasswordHasher"


class Digest(str):
    """The lower-case hexadecimal SHA-256 digest of a password, where Django takes a password.

    Against the hash of any other hasher than ours it fits no password.
    """

    __slots__ = ()

    @classmethod
    def of(cls, password: str) -> Digest:
        """The digest of a password's text."""
        return password if isinstance(password, cls) else cls(hashlib.sha256(password.encode()).hexdigest())


class MeteorPBKDF2PasswordHasher(PBKDF2PasswordHasher):
    """Django's PBKDF2 over the digest of the password."""

    algorithm = "meteor_pbkdf2_sha256"

    def encode(self, password: str, salt: str, iterations: int | None = None) -> str:
        """As Django's, for a text or its `Digest`."""
        return super().encode(Digest.of(password), salt, iterations)


def is_ours(encoded: str) -> bool:
    """Whether a user's ``password`` column is of our hasher, so that digests can be compared with it."""
    return encoded.startswith(MeteorPBKDF2PasswordHasher.algorithm + "$")


def hash_password(password: str) -> str:
    """What to store for a password or its `Digest`, by our hasher, whichever one the project prefers."""
    return make_password(password, hasher=MeteorPBKDF2PasswordHasher.algorithm)


def waste_time(password: str) -> None:
    """Work as hard as for a password that is compared, so that nobody learns that there was none."""
    hash_password(password)


def check_hashers(**_kwargs: Any) -> list[checks.CheckMessage]:
    """Django system check: digests can only be compared with what our hasher has made."""
    ours = [isinstance(hasher, MeteorPBKDF2PasswordHasher) for hasher in get_hashers()]
    if not any(ours):
        return [
            checks.Error(
                "Meteor's clients can't log in: PASSWORD_HASHERS has no hasher for their digests.",
                hint=f"Put {HASHER!r} first, before {settings.PASSWORD_HASHERS[0]!r}.",
                id="trigger_ddp.E201",
            )
        ]
    if not ours[0]:
        return [
            checks.Warning(
                "Users whose password is set by Django can't log in with Meteor's clients: the first of "
                "PASSWORD_HASHERS is not the one for their digests.",
                hint=f"Put {HASHER!r} first. Other hashes are replaced when their users log in with a text.",
                id="trigger_ddp.W201",
            )
        ]
    return []


def digest_from(value: Mapping[str, str]) -> Digest:
    """The digest in a client's ``{digest, algorithm}``, which has been checked."""
    return Digest(value["digest"].lower())
