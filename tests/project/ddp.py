"""What the test project publishes beside the bookstore, and the methods its clients call."""

from __future__ import annotations

import datetime
import os
import sys
import uuid
from collections.abc import Mapping
from functools import partial
from typing import Any

from django.contrib.auth.models import Permission
from django.core.exceptions import PermissionDenied
from django.db import connections
from django.db.models import Count, F
from django.db.models.expressions import RawSQL
from django.shortcuts import get_object_or_404
from django.utils.translation import gettext_lazy

import tests.project.abuse
import tests.project.access
import tests.project.hooking
import tests.project.noting
import tests.project.publishing  # noqa: F401 - registers what it declares
from tests.zoo.models import Keeper, Species, Stall
from trigger_ddp.api import (
    API,
    APIMixin,
    Collection,
    Handle,
    MeteorError,
    Publication,
    api_endpoint,
    meteor_random_id,
    this,
)
from trigger_ddp.demo.bookstore.models import Author, Book, Tag


class CheapBooks(Publication):
    def get_queries(self, max_price: float) -> list[Any]:
        return [Book.objects.filter(price__lte=max_price)]


class CheapestBooks(Publication):
    def get_queries(self, count: int) -> list[Any]:
        return [Book.objects.order_by("price", "pk")[:count]]


class TaggedBooks(Publication):
    def get_queries(self, name: str) -> list[Any]:
        return [Book.objects.filter(tags__name=name)]


class BooksOfTheProlific(Publication):
    def get_queries(self, books: int) -> list[Any]:
        prolific = Author.objects.annotate(written=Count("books")).filter(written__gte=books)
        return [Book.objects.filter(author__in=prolific.values("pk"))]


class BooksOfAuthor(Publication):
    def get_queries(self, author_id):  # type: ignore[no-untyped-def]  # no hints: what comes in is Django's problem
        return [Book.objects.filter(author_id=author_id)]


class CheapestOfAuthor(Publication):
    def get_queries(self, author_id: int) -> list[Any]:
        return [Book.objects.filter(author_id=author_id).order_by("price", "pk")[:5]]


class Raises(Publication):
    def get_queries(self) -> list[Any]:
        raise RuntimeError("the publication's secret")


class Refuses(Publication):
    def get_queries(self) -> list[Any]:
        raise MeteorError("members-only", "Members only")


class FailsInSQL(Publication):
    def get_queries(self) -> list[Any]:
        return [Author.objects.filter(pk__gt=RawSQL("1 / 0", ()))]


class OneDividedByPrice(Publication):
    def get_queries(self) -> list[Any]:
        return [Book.objects.filter(title__isnull=False).annotate(q=1 / F("price")).filter(q__gt=0)]


class NotAQueryset(Publication):
    def get_queries(self) -> list[Any]:
        return ["books"]


class NoTrigger(Publication):
    """Reads a table that nothing declares, so that it has no trigger."""

    def get_queries(self) -> list[Any]:
        return [Author.objects.filter(pk__in=Permission.objects.values("pk"))]


class Methods(APIMixin):
    api_path_prefix = ""

    @api_endpoint
    def echo(self, value: Any) -> Any:
        return value

    @api_endpoint
    def process(self) -> int:
        return os.getpid()

    @api_endpoint
    def address(self) -> str:
        address: str = this.connection.client_address
        return address

    @api_endpoint
    def connection_parameters(self) -> dict[str, str]:
        """Those of the thread's connection to the database that are not libpq's defaults."""
        connection = connections["default"]
        connection.ensure_connection()
        parameters: dict[str, str] = connection.connection.info.get_parameters()
        return parameters

    @api_endpoint
    def add(self, a: float, b: float) -> float:
        return a + b

    @api_endpoint
    def rename(self, book_id: str, title: str) -> None:
        Book.objects.filter(pk=book_id).update(title=title)

    @api_endpoint
    def fail(self) -> None:
        raise MeteorError("out-of-print", "No copies left", {"copies": 0})

    @api_endpoint
    def broken(self) -> None:
        raise RuntimeError("the secret of the test")

    @api_endpoint
    def not_ejson(self) -> object:
        return object()

    @api_endpoint
    def write_then_fail(self) -> None:
        Tag.objects.create(name="never")
        raise RuntimeError("after the write")

    @api_endpoint
    async def slow_echo(self, value: Any) -> Any:
        import trio  # not needed where the project only declares, for instance in a migration

        await trio.lowlevel.checkpoint()
        return value


API.register(
    [
        CheapBooks, CheapestBooks, TaggedBooks, BooksOfTheProlific, BooksOfAuthor, CheapestOfAuthor,
        Raises, Refuses, FailsInSQL, OneDividedByPrice, NotAQueryset, NoTrigger, Methods,
    ]
)  # fmt: skip


class KeepersById(Collection):
    """Known by an id that can move from one row to another."""

    model = Keeper
    name = "keepers"


class SpeciesByCode(Collection):
    model = Species
    name = "species"


class StallsByNumber(Collection):
    model = Stall
    name = "stalls"


class KeepersNamed(Publication):
    def get_queries(self, name: str) -> list[Any]:
        return [(Keeper.objects.filter(name=name), "keepers")]


class SpeciesAndStalls(Publication):
    def get_queries(self) -> list[Any]:
        return [(Species.objects.all(), "species"), (Stall.objects.all(), "stalls")]


class Authors(Publication):
    def get_queries(self) -> list[Any]:
        return [Author.objects.all()]


class AuthorsDependingOnTags(Publication):
    """The same SQL as `Authors`, but more tables."""

    depends_on = ["bookstore.Tag"]

    def get_queries(self) -> list[Any]:
        return [Author.objects.all()]


class AuthorsThatTakeTime(Publication):
    """Reading them takes a third of a second for each."""

    def get_queries(self) -> list[Any]:
        return [Author.objects.annotate(slept=RawSQL("pg_sleep(0.3)::text", ()))]


class AuthorsCalledLikeTags(Publication):
    """Reads the tags where not even PostgreSQL's plan tells."""

    def get_queries(self) -> list[Any]:
        words = RawSQL(
            "SELECT word FROM ts_stat('SELECT to_tsvector(''simple'', name) FROM bookstore_tag')", ()
        )
        return [Author.objects.filter(name__in=words)]


class AuthorsCalledLikeTagsLive(AuthorsCalledLikeTags):
    depends_on = ["bookstore.Tag"]


class OfAnotherDatabase(Publication):
    def get_queries(self) -> list[Any]:
        return [Author.objects.using("other")]


class Exits(Publication):
    def get_queries(self) -> list[Any]:
        sys.exit(3)


class RefusesInTheClientsLanguage(Publication):
    def get_queries(self) -> list[Any]:
        raise MeteorError("not-yours", gettext_lazy("Not yours"), {"at": ValueError("here")})


class RandomMethods(APIMixin):
    api_path_prefix = "random/"

    @api_endpoint
    def hire(self, name: str) -> list[Any]:
        return [this.random_seed, Keeper.objects.create(name=name).aid, this.random_stream("dice").fraction()]

    @api_endpoint
    async def hire_in_threads(self, *names: str) -> list[Any]:
        hired = [(await this.in_thread(partial(Keeper.objects.create, name=name))).aid for name in names]
        return [this.random_seed, *hired, meteor_random_id("/collection/zoo.keeper")]


class PersonalKeepers(Collection):
    """What clients write themselves."""

    model = Keeper
    name = "personal-keepers"
    user_rel = "account"
    allow = ("insert", "update", "remove")

    def can_insert(self, user: Any, obj: Any) -> bool:
        obj.account = user
        return True

    def can_update(self, user: Any, obj: Any, fields: Mapping[str, Any]) -> bool:
        return obj.name != "fixed"


class MyPersonalKeepers(Publication):
    def get_queries(self) -> list[Any]:
        return [(Keeper.objects.all(), "personal-keepers")]


class DjangosErrors(APIMixin):
    """Exceptions of Django's, by methods and publications."""

    api_path_prefix = "raise/"

    @api_endpoint
    def here(self, kind: str) -> None:
        Tag.objects.create(name="never")
        raise_djangos(kind)

    @api_endpoint
    async def there(self, kind: str) -> None:
        await this.in_thread(raise_djangos, kind)


def raise_djangos(kind: str) -> None:
    match kind:
        case "missing":
            Author.objects.get(name="a secret")
        case "404":
            get_object_or_404(Author, name="a secret")
        case "denied":
            raise PermissionDenied("a secret")
        case "invalid":
            Author(name="", email="x@x.org").full_clean()
        case "several":
            Author.objects.create(name="a", email="a")
            Author.objects.create(name="a", email="a")


class RaisesDjangos(Publication):
    def get_queries(self, kind: str) -> Any:
        raise_djangos(kind)


class RaisesDjangosInAFunction(Publication):
    async def publish(self, handle: Handle, kind: str, hand: bool) -> None:
        try:
            await this.in_thread(raise_djangos, kind)
        except Exception as error:
            if not hand:
                raise
            handle.error(error)


class HostileMethods(APIMixin):
    api_path_prefix = "hostile/"

    @api_endpoint
    def exit(self) -> None:
        sys.exit(3)

    @api_endpoint
    async def exit_on_the_event_loop(self) -> None:
        sys.exit(3)

    @api_endpoint
    def interrupt(self) -> None:
        raise KeyboardInterrupt

    @api_endpoint
    async def count_authors_on_the_event_loop(self) -> int:
        return Author.objects.count()

    @api_endpoint
    async def count_authors_in_a_thread(self) -> Any:
        return await this.in_thread(Author.objects.count)

    @api_endpoint
    def refuse_lazily(self) -> None:
        raise MeteorError("not-yours", gettext_lazy("Not yours"))

    @api_endpoint
    def refuse_with_details(self, kind: str) -> None:
        circle: list[Any] = []
        circle.append(circle)
        details = {
            "object": {"at": ValueError("here")},
            "key": {(1, 2): 3},
            "circle": circle,
            "text": "\ud800",
        }
        raise MeteorError("not-yours", "Not yours", details[kind])

    @api_endpoint
    def day_after(self, day: datetime.date) -> str:
        return f"{type(day).__name__} {day + datetime.timedelta(days=1)}"

    @api_endpoint
    def version_of(self, value: uuid.UUID) -> str:
        return f"{type(value).__name__} {value.version}"


API.register(
    [
        KeepersById, SpeciesByCode, StallsByNumber, KeepersNamed, SpeciesAndStalls, Authors,
        AuthorsDependingOnTags, AuthorsCalledLikeTags, AuthorsCalledLikeTagsLive, OfAnotherDatabase, Exits,
        AuthorsThatTakeTime,
        RefusesInTheClientsLanguage, HostileMethods, RandomMethods, DjangosErrors,
        RaisesDjangos, RaisesDjangosInAFunction, PersonalKeepers, MyPersonalKeepers,
    ]
)  # fmt: skip
