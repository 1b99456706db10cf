"""What querysets compile to, asked of a real PostgreSQL."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.db.models import Count, Exists, F, OuterRef, Q

from tests.zoo.models import Badge
from trigger_ddp.api import API, Collection
from trigger_ddp.demo.bookstore.models import Author, Book, Tag
from trigger_ddp.errors import NotLive
from trigger_ddp.live.compile import CompiledQuery, Reach, compile_queryset

BOOK, AUTHOR, TAGS, TAG = "bookstore_book", "bookstore_author", "bookstore_book_tags", "bookstore_tag"


@pytest.fixture(autouse=True)
def shelf(db: Any) -> None:
    authors = [Author.objects.create(name=name, email=f"{name}@x") for name in ("ada", "bob")]
    for number in range(6):
        Book.objects.create(title=f"t{number}", author=authors[number % 2], price=number or None)
    Book.objects.first().tags.add(*[Tag.objects.create(name=name) for name in "ab"])


def compiled(queryset: Any, **kwargs: Any) -> CompiledQuery:
    return compile_queryset(API.collection_for_model(queryset.model), queryset, **kwargs)


def rows(query: CompiledQuery, keys: list[str] | None = None) -> dict[str, Any]:
    statement = query.everything if keys is None else query.by_keys
    if statement is None:
        return {}
    params = statement.params if keys is None else statement.for_keys([(key,) for key in keys])
    with connection.cursor() as cursor:
        cursor.execute(statement.sql, params)
        answers = query.read(cursor.fetchall())
    assert all(route == () for _, route, _ in answers)
    return {key: document for (key,), _, document in answers}


def reach(query: CompiledQuery) -> dict[str, Reach]:
    return {name: dependency.reach for name, dependency in query.tables.items()}


@pytest.mark.parametrize(
    "queryset",
    [
        lambda: Book.objects.all(),
        lambda: Book.objects.filter(price__gte=2).exclude(title="t3"),
        lambda: Book.objects.filter(Q(title__startswith="t") & ~Q(price=None) | Q(pk=1)),
        lambda: Book.objects.filter(author__email="ada@x"),
        lambda: Book.objects.filter(tags__name__in=["a", "b"]),
        lambda: Book.objects.filter(tags__name__in=["a", "b"]).distinct(),
        lambda: Book.objects.filter(price__gt=F("id") - 2),
        lambda: Book.objects.order_by("-price")[:3],
        lambda: Book.objects.order_by("author", "price").distinct("author"),
        lambda: Book.objects.annotate(n=Count("tags")).filter(n__gt=0),
        lambda: Book.objects.filter(Exists(Tag.objects.filter(books=OuterRef("pk")))),
        lambda: Book.objects.filter(price=1).union(Book.objects.filter(price=2)),
        lambda: Book.objects.filter(price=1).union(Book.objects.filter(price=2)).order_by("title"),
        lambda: Book.objects.filter(price__gt=1).intersection(Book.objects.filter(price__lt=4)),
        lambda: Book.objects.filter(price__gt=1).difference(Book.objects.filter(price=4)),
        lambda: Book.objects.order_by("author__name", "-price")[:2],
        lambda: Author.objects.exclude(books__title="t0"),
        lambda: Book.objects.extra(where=["price > %s"], params=[2]),
        lambda: Book.objects.filter(title="100%"),
        lambda: Book.objects.none(),
        lambda: Book.objects.filter(pk__in=[]),
        lambda: Author.objects.filter(books__price__gt=1),
    ],
)
def test_the_statements_find_what_the_queryset_finds(queryset):
    queryset = queryset()
    expected = {str(row.pk) for row in queryset}
    query = compiled(queryset)
    assert set(rows(query)) == expected
    asked = [str(pk) for pk in (1, 2, 3, 999)]
    assert set(rows(query, asked)) == expected.intersection(asked)
    assert rows(query, asked).items() <= rows(query).items()


def test_documents_have_the_fields_of_the_collection():
    document = rows(compiled(Book.objects.filter(title="t0")))["1"]
    assert document.id == "1"
    assert document.fields == {
        "title": b'"t0"', "author_id": b'"1"', "price": b"null", "published": b"null", "in_stock": b"true",
        "tags_ids": b'["1","2"]',
    }  # fmt: skip


@pytest.mark.parametrize(
    "queryset",
    [
        lambda: Book.objects.only("title"),
        lambda: Book.objects.defer("author", "price", "published", "in_stock", "tags"),
        lambda: Book.objects.values("title"),
        lambda: Book.objects.values_list("title", flat=True),
    ],
)
def test_only_defer_and_values_leave_the_other_fields_at_home(queryset):
    document = rows(compiled(queryset()))["1"]
    assert set(document.fields) - {"tags_ids"} == {"title"}


class OwnBook(Collection):
    model = Book

    def serialize(self, obj: Any, meteor_ids: Any = None) -> dict[str, Any]:
        data = super().serialize(obj, meteor_ids)
        data["fields"]["shouted"] = obj.title.upper()
        return data


@pytest.mark.parametrize("narrow", [lambda books: books.only("title"), lambda books: books.values("title")])
def test_an_own_serialize_publishes_no_more_than_was_asked_for(narrow):
    document = rows(compile_queryset(OwnBook(), narrow(Book.objects)))["1"]
    assert set(document.fields) - {"tags_ids"} == {"title", "shouted"}


def test_an_own_serialize_gives_the_documents():
    document = rows(compile_queryset(OwnBook(), Book.objects.all()))["1"]
    assert document.fields["shouted"] == b'"T0"'
    assert document.fields["tags_ids"] == b'["1","2"]'


def test_a_static_queryset_compiles_to_the_same_every_time():
    static = Author.objects.exclude(books__title="t0")
    first, second = compiled(static), compiled(static)
    assert first.identity == second.identity
    assert set(rows(second)) == {"2"}


def test_a_union_of_other_columns_publishes_the_rows_it_is_of():
    first, second = (Book.objects.filter(price=price).values("author_id") for price in (5, 4))
    assert set(rows(compiled(first.union(second)))) == {"5", "6"}


def test_only_the_database_that_is_listened_to_is_published():
    with pytest.raises(NotLive, match="'other'"):
        compiled(Book.objects.using("other"))


def test_values_of_something_else_are_refused_rather_than_published_in_full():
    for queryset in (
        Book.objects.values("author__email"),
        Book.objects.values("title").annotate(n=Count("tags")),
    ):
        with pytest.raises(NotLive):
            compiled(queryset)


def test_what_a_change_of_each_table_means():
    assert reach(compiled(Book.objects.filter(price=1))) == {BOOK: Reach.KEYS, TAGS: Reach.KEYS}
    assert reach(compiled(Book.objects.filter(author__email="x"))) == {
        BOOK: Reach.KEYS, TAGS: Reach.KEYS, AUTHOR: Reach.EVERYTHING,
    }  # fmt: skip
    assert reach(compiled(Book.objects.filter(tags__name="x"))) == {
        BOOK: Reach.KEYS, TAGS: Reach.EVERYTHING, TAG: Reach.EVERYTHING,
    }  # fmt: skip
    assert reach(compiled(Book.objects.all()[:2])) == {BOOK: Reach.EVERYTHING, TAGS: Reach.KEYS}
    assert (
        reach(compiled(Book.objects.filter(author__in=Author.objects.filter(name="x"))))[AUTHOR]
        is Reach.EVERYTHING
    )
    assert reach(compiled(Book.objects.filter(title__in=Book.objects.filter(price=1).values("title"))))[
        BOOK
    ] is (Reach.EVERYTHING)
    union = Author.objects.filter(pk=1).union(Author.objects.filter(books__price=1))
    assert reach(compiled(union)) == {AUTHOR: Reach.EVERYTHING, BOOK: Reach.EVERYTHING}
    assert reach(compiled(Author.objects.all(), depends_on=["bookstore.Tag"]))[TAG] is Reach.EVERYTHING


def test_a_through_row_leads_to_its_root():
    dependency = compiled(Book.objects.all()).tables[TAGS]
    columns = [column.name for column in (*dependency.table.primary_key, *dependency.table.foreign_keys)]
    assert columns[dependency.first : dependency.last] == ["book_id"]


def test_querysets_with_the_same_sql_and_parameters_share_an_identity_and_no_others_do():
    def identity(queryset: Any) -> tuple[str, str]:
        return compiled(queryset).identity

    assert identity(Book.objects.filter(price=1)) == identity(Book.objects.filter(price=1).order_by("title"))
    assert identity(Book.objects.filter(price=1)) != identity(Book.objects.filter(price=2))
    assert identity(Book.objects.filter(title="1")) != identity(Book.objects.filter(title="2"))
    assert identity(Book.objects.only("title")) != identity(Book.objects.all())


def test_a_raw_queryset_is_refused():
    with pytest.raises(NotLive):
        compiled(Book.objects.raw("SELECT * FROM bookstore_book"))


class Badges(Collection):
    model = Badge


def test_a_through_row_that_does_not_tell_the_key_concerns_every_row():
    query = compile_queryset(Badges(), Badge.objects.all())
    assert reach(query)["zoo_badgeholder"] is Reach.EVERYTHING


def test_a_field_may_be_called_as_it_likes():
    Badge.objects.create(code="c", slug="s", f2=3)
    assert rows(compile_queryset(Badges(), Badge.objects.filter(f2=3)))["c"].fields["f2"] == b"3"
