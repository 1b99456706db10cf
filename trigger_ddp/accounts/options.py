"""The options of the methods, as clients may send them; everything else does not match."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

import msgspec

from trigger_ddp.accounts.hashers import digest_from
from trigger_ddp.errors import MeteorError
from trigger_ddp.matching import convert

T = TypeVar("T")

_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=1000)]


class Digested(msgspec.Struct, forbid_unknown_fields=True):
    """A password as Meteor's clients send it."""

    digest: Annotated[str, msgspec.Meta(pattern="^[0-9a-fA-F]{64}$")]
    algorithm: Literal["sha-256"]


Password = Annotated[str, msgspec.Meta(min_length=1, max_length=256)] | Digested


class Selector(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Who is meant: by exactly one of these."""

    id: _Text | None = None
    username: _Text | None = None
    email: _Text | None = None

    def __post_init__(self) -> None:
        if len(self.as_dict()) != 1:
            raise ValueError("User property must have exactly one field")

    def as_dict(self) -> dict[str, str]:
        """The one that is there."""
        return {name: value for name in self.__struct_fields__ if (value := getattr(self, name)) is not None}


class ByPassword(msgspec.Struct):
    """The options of ``login`` with a password."""

    user: Selector
    password: Password


class ByToken(msgspec.Struct):
    """The options of ``login`` with a token."""

    resume: _Text


class NewUser(msgspec.Struct):
    """The options of ``createUser``."""

    username: Annotated[str, msgspec.Meta(max_length=254)] | None = None
    email: Annotated[str, msgspec.Meta(max_length=254)] | None = None
    password: Password | None = None
    profile: dict[str, Any] | None = None


def match(value: Any, kind: type[T]) -> T:
    """``value`` as a ``kind``.

    Raises:
        MeteorError: 400, it is none; the details say why.
    """
    try:
        return convert(value, kind)
    except msgspec.ValidationError as error:
        raise MeteorError(400, "Match failed", str(error)) from None


def password_of(value: str | Digested) -> str:
    """A password that matched, as a text or a `hashers.Digest`."""
    return value if isinstance(value, str) else digest_from(msgspec.structs.asdict(value))
