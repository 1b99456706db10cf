"""``manage.py ddp_explain``: what it says of publications of every kind."""

from __future__ import annotations

import io
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import connection

from tests.conftest import Database
from trigger_ddp.api import API, Collection, Publication
from trigger_ddp.demo.bookstore import data
from trigger_ddp.demo.bookstore.models import Author, Book


@pytest.fixture(autouse=True)
def shop(db: Database) -> None:
    data.restore()
    call_command("ddp_install_triggers", verbosity=0)


def explain(*arguments: str, **options: Any) -> str:
    out = io.StringIO()
    call_command("ddp_explain", *arguments, stdout=out, no_color=True, **options)
    return out.getvalue()


def test_without_a_name_the_publications_are_listed():
    assert {"AllBooks", "BooksByAuthorEmail"} <= set(explain().split())


def test_a_join():
    said = explain("BooksByAuthorEmail", "janet@example.com")
    first, second = said.split("2. bookstore.Book as collection bookstore.book\n")
    assert first.startswith('BooksByAuthorEmail("janet@example.com")\n\n1. bookstore.Author as collection')
    assert '      "bookstore_author"."email" = janet@example.com\n' in second
    assert "kept live: by looking at the changed rows" in second
    assert "bookstore_author     trigger installed; the keys are looked up through the join" in second
    assert 'SELECT "bookstore_author"."email" AS "_route0",\n' in second
    assert "plan for one changed row:" in second
    assert "Scan on bookstore_book" in second or "Scan using bookstore_book" in second
    assert 'WHERE ("bookstore_book"."author_id") = ANY' in second
    assert said.endswith("\nno warnings\n")


def test_a_window_is_run_again():
    said = explain("CheapestBooks", "3")
    assert "kept live: by running it again, since it is a slice" in said
    assert "WARNING: changed rows that match, or are in it, run the whole query again" in said
    assert said.endswith("\n1 warning\n")


def test_a_subquery_on_its_own_table_is_run_again():
    said = explain("BooksOfTheProlific", "2")
    assert "since a subquery or raw SQL reads its own table" in said
    assert "WARNING: each change of bookstore_author, bookstore_book runs the whole query again" in said


def test_missing_triggers_are_named_with_the_command():
    said = explain("NoTrigger")
    assert "auth_permission   NO CURRENT TRIGGER" in said
    assert "WARNING: without triggers on auth_permission subscriptions are refused" in said
    assert "`manage.py ddp_install_triggers`" in said


class Signed(Collection):
    model = Book
    name = "signed"

    def serialize(self, obj: Any, meteor_ids: Any = None) -> dict[str, Any]:
        return {"fields": {"author": obj.author.name}}


class SignedAtOnce(Signed):
    name = "signed_at_once"
    depends_on = ["author"]


class SignedBooks(Publication):
    def get_queries(self, name: str) -> list[Any]:
        return [(Book.objects.all(), name)]


class UnindexedLink(Publication):
    queries = [Author.objects.filter(books__title="x")]


class NotLiveAtAll(Publication):
    queries = [Author.objects.values("name").distinct().order_by("name").using("other")]


class Written(Publication):
    queries = [Author.objects.raw("SELECT * FROM bookstore_author")]


class Mine(Publication):
    def get_queries(self) -> list[Any]:
        from trigger_ddp.api import this

        return [Author.objects.filter(name=this.user.username)]


@pytest.fixture
def registered() -> Any:
    with API.restored():
        API.register([Signed, SignedAtOnce, SignedBooks, UnindexedLink, NotLiveAtAll, Written, Mine])
        yield


def test_the_queries_that_serialising_makes(registered):
    said = explain("SignedBooks", "signed")
    assert (
        "fields: title, author_id, price, published, in_stock, tags_ids, and what its own serialize adds"
        in said
    )
    assert 'FROM "bookstore_author" WHERE "bookstore_author"."id" = ' in said
    assert 'depends_on = ["author"]' in said
    said = explain("SignedBooks", "signed_at_once")
    assert "rows makes 2 queries of its own" in said
    assert "no warnings" in said


def test_a_scan_for_want_of_an_index(registered):
    assert "WARNING" not in explain("UnindexedLink")
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT indexrelid::regclass FROM pg_index WHERE indrelid = 'bookstore_book'::regclass"
            " AND NOT indisprimary"
        )
        for (index,) in cursor.fetchall():
            cursor.execute(f"DROP INDEX {index}")
    assert "looking at one changed row reads all of bookstore_book: no index finds the rows" in explain(
        "UnindexedLink"
    )


def test_what_cannot_be_live(registered):
    assert "WARNING: it can't be kept live" in explain("NotLiveAtAll")


def test_a_raw_queryset(registered):
    said = explain("Written")
    assert "since PostgreSQL alone understands a raw query" in said
    assert "bookstore_author  trigger installed; everything is looked at again" in said


class Everywhere(Publication):
    name = None
    queries = [Author.objects.all()]


def test_a_universal_publication(registered):
    API.register(Everywhere)
    assert "Everywhere (universal)" in explain()
    assert explain("Everywhere").startswith("Everywhere()\n")


def test_as_a_user(registered):
    user = User.objects.create(username="ada")
    assert '"bookstore_author"."name" = ada\n' in explain("Mine", user=str(user.pk))
    with pytest.raises(CommandError, match="Mine raises AttributeError"):
        explain("Mine")
    with pytest.raises(CommandError, match="no user with primary key 'x'"):
        explain("Mine", user="x")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("AllBook",), "there is no publication 'AllBook'; there is: AllBooks"),
        (("CheapBooks",), "CheapBooks refuses: Match failed .400.*max_price"),
        (("CheapBooks", '"five"'), "CheapBooks refuses: Match failed"),
        (("Refuses",), "Members only"),
        (("Raises",), "Raises raises RuntimeError"),
        (("NotAQueryset",), "NotAQueryset: not a queryset"),
        (("BooksOfAuthor", "zz"), "BooksOfAuthor raises ValueError"),
    ],
)
def test_mistakes_are_told_in_a_sentence(arguments, message):
    with pytest.raises(CommandError, match=message):
        explain(*arguments)
