"""Random identifiers in Meteor's alphabets."""

from __future__ import annotations

import secrets

#: Letters and digits that people don't mistake for one another; Meteor's ids consist of them.
UNMISTAKABLE = "23456789ABCDEFGHJKLMNPQRSTWXYZabcdefghijkmnopqrstuvwxyz"

_HEXADECIMAL = "0123456789abcdef"


def meteor_random_id(length: int = 17) -> str:
    """A document id as Meteor's ``Random.id`` makes them: unguessable; 17 characters have 98 bits."""
    return "".join(secrets.choice(UNMISTAKABLE) for _ in range(length))


def hex_string(digits: int) -> str:
    """``digits`` random lower-case hexadecimal digits, as Meteor's ``Random.hexString``."""
    return "".join(secrets.choice(_HEXADECIMAL) for _ in range(digits))
