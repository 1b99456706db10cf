"""For tests/access: publications of parts, and exceptions that are full of what nobody may see."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import connection
from django.db.models import IntegerField
from django.db.models.expressions import RawSQL
from django.http import Http404

from trigger_ddp.api import API, APIMixin, Handle, Publication, api_endpoint, this
from trigger_ddp.demo.bookstore.models import Author, Book, Tag


class UserNames(Publication):
    """Everybody's name and nothing else."""

    name = "access/names"

    def get_queries(self) -> list[Any]:
        return [User.objects.only("username")]


class AuthorNames(Publication):
    name = "access/author-names"

    def get_queries(self) -> list[Any]:
        return [Author.objects.values("name")]


class AuthorsOfReaders(Publication):
    """Names for everybody; addresses for the group."""

    name = "access/authors"

    def get_queries(self) -> list[Any]:
        reads = this.user is not None and this.user.groups.filter(name="readers").exists()
        return [Author.objects.all() if reads else Author.objects.only("name")]


#: Where the database can't be asked; it is the password there, too.
SECRET = "canary-never-to-be-seen"


@dataclasses.dataclass
class Strict:
    """Parameters of this class are refused in its own words."""

    code: str

    def __post_init__(self) -> None:
        raise ValueError(SECRET)


def _secret() -> str:
    """What is in the database for nobody to see."""
    password: str = User.objects.get(pk=1).password
    return password


def fail(kind: str) -> None:
    """Raise something with a secret in its text, its arguments and the variables around."""
    secret = _secret()
    match kind:
        case "runtime":
            raise RuntimeError(secret)
        case "key":
            {}[secret]
        case "missing":
            Author.objects.get(name=secret)
        case "unique":
            Tag.objects.create(name=secret)
            Tag.objects.create(name=secret)
        case "foreign key":
            Book.objects.create(title=secret, author_id=987654)
            connection.check_constraints()
        case "too long":
            Tag.objects.create(name=secret * 20)
        case "cast":
            list(Author.objects.filter(pk=RawSQL("%s::int", [secret])))
        case "field":
            Author.objects.filter(**{secret: 1})
        case "value":
            Author.objects.filter(pk=secret)
        case "denied":
            raise PermissionDenied(secret)
        case "404":
            raise Http404(secret)
        case "group":
            raise ExceptionGroup(secret, [ValueError(secret), ValidationError("of a group")])
        case "chain":
            try:
                raise ValueError(secret)
            except ValueError as error:
                raise RuntimeError("wrapped") from error
        case "noted":
            error = RuntimeError("noted")
            error.add_note(secret)
            raise error
        case "repr":
            raise type(secret, (Exception,), {})
        case "msgspec":
            msgspec.convert({"code": "x"}, Strict)
        case "exit":
            raise SystemExit(secret)


FAILURES = (
    "runtime", "key", "missing", "unique", "foreign key", "too long", "cast", "field", "value", "denied",
    "404", "group", "chain", "noted", "repr", "msgspec", "exit",
)  # fmt: skip


class Fails(Publication):
    name = "access/fails"

    def get_queries(self, kind: str) -> Any:
        fail(kind)


@API.publish("access/fails-in-a-function")
async def fails_in_a_function(handle: Handle, kind: str) -> None:
    await this.in_thread(fail, kind)


class FailsInTheQuery(Publication):
    """The error is PostgreSQL's, of the statement that keeps the query live."""

    name = "access/fails-in-the-query"

    def get_queries(self) -> list[Any]:
        return [Author.objects.annotate(number=RawSQL("%s::int", [_secret()], IntegerField()))]


class FailsLater(Publication):
    """There is no error before a row is as it should not be."""

    name = "access/fails-later"

    def get_queries(self) -> list[Any]:
        secret = RawSQL("CASE WHEN name = 'bad' THEN (%s || name)::int END", [_secret()], IntegerField())
        return [Author.objects.annotate(number=secret)]


class Methods(APIMixin):
    api_path_prefix = "access/"

    @api_endpoint
    def fail(self, kind: str) -> None:
        fail(kind)

    @api_endpoint
    async def fail_async(self, kind: str) -> None:
        await this.in_thread(fail, kind)

    @api_endpoint
    def strict(self, value: Strict) -> None:
        """Never called: no parameter fits."""

    @api_endpoint
    def result(self) -> Any:
        return {"user": User.objects.get(pk=1)}

    @api_endpoint
    def login_and_fail(self, user_id: int, kind: str) -> None:
        this.set_user_id(user_id)
        fail(kind)


API.register([UserNames, AuthorNames, AuthorsOfReaders, Fails, FailsInTheQuery, FailsLater, Methods])
