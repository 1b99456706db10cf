"""What querysets compile to, asked of a real PostgreSQL."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection
from django.db.models import (
    CharField,
    Count,
    Exists,
    ExpressionWrapper,
    F,
    FloatField,
    Model,
    OuterRef,
    Prefetch,
    Q,
    Value,
    Window,
)  # fmt: skip
from django.db.models.functions import Concat, RowNumber, Upper
from django.db.models.lookups import LessThanOrEqual
from django.test.utils import CaptureQueriesContext, isolate_apps

from tests.live.asking import ask, compiled, flat, load, look, look_at
from tests.zoo.models import Animal, Badge, Stall
from trigger_ddp.api import Collection, get_meteor_id
from trigger_ddp.demo.bookstore.models import Author, Book, Tag
from trigger_ddp.errors import NotLive
from trigger_ddp.live.compile import compile_queryset
from trigger_ddp.live.compiled import CompiledQuery

BOOK, AUTHOR, TAGS, TAG = "bookstore_book", "bookstore_author", "bookstore_book_tags", "bookstore_tag"


@pytest.fixture
def asserted_queries() -> Any:
    """A block that must make just so many queries."""

    @contextlib.contextmanager
    def check(expected: int) -> Iterator[Any]:
        with CaptureQueriesContext(connection) as queries:
            yield ask
        assert len(queries) == expected, queries.captured_queries

    return check


@pytest.fixture(autouse=True)
def shelf(db: Any) -> None:
    authors = [Author.objects.create(name=name, email=f"{name}@x") for name in ("ada", "bob")]
    for number in range(6):
        Book.objects.create(title=f"t{number}", author=authors[number % 2], price=number or None)
    Book.objects.first().tags.add(*[Tag.objects.create(name=name) for name in "ab"])


def strategies(query: CompiledQuery) -> dict[str, str]:
    return {name: dependency.strategy for name, dependency in query.shape.tables.items()}


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
        lambda: (
            Book.objects.filter(tags__name__in=["a", "b"]).distinct().order_by("-author__name", "price")[:3]
        ),
        lambda: Book.objects.filter(author=1).distinct().order_by("author__name", "-price")[:2],
        lambda: Book.objects.order_by("price").reverse()[:2],
        lambda: Book.objects.extra(order_by=["-price"])[:2],
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
    documents = load(query)
    assert set(documents) == expected
    asked = [str(pk) for pk in (1, 2, 3, 999)]
    answers = look(query, *asked)
    if query.shape.by_keys:
        assert {key: document for _, key, document in answers} == {
            key: document for key, document in documents.items() if key in asked
        }
    elif query.shape.look is not None:
        # It tells whom a row may concern: at least those who hold it.
        assert {key for _, key, _ in answers} >= expected.intersection(asked)


def test_documents_have_the_fields_of_the_collection():
    document = load(compiled(Book.objects.filter(title="t0")))["1"]
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
    document = load(compiled(queryset()))["1"]
    assert set(document.fields) - {"tags_ids"} == {"title"}


class OwnBook(Collection):
    model = Book

    def serialize(self, obj: Any, meteor_ids: Any = None) -> dict[str, Any]:
        data = super().serialize(obj, meteor_ids)
        data["fields"]["shouted"] = obj.title.upper()
        return data


@pytest.mark.parametrize("narrow", [lambda books: books.only("title"), lambda books: books.values("title")])
def test_an_own_serialize_publishes_no_more_than_was_asked_for(narrow):
    document = load(compile_queryset(OwnBook(), narrow(Book.objects)))["1"]
    assert set(document.fields) - {"tags_ids"} == {"title", "shouted"}


def test_an_own_serialize_gives_the_documents():
    document = load(compile_queryset(OwnBook(), Book.objects.all()))["1"]
    assert document.fields["shouted"] == b'"T0"'
    assert document.fields["tags_ids"] == b'["1","2"]'


def test_a_static_queryset_compiles_to_the_same_every_time():
    static = Author.objects.exclude(books__title="t0")
    first, second = compiled(static), compiled(static)
    assert first.shape is second.shape
    assert set(load(second)) == {"2"}


def test_a_union_of_other_columns_publishes_the_rows_it_is_of():
    first, second = (Book.objects.filter(price=price).values("author_id") for price in (5, 4))
    assert set(load(compiled(first.union(second)))) == {"5", "6"}


def test_only_the_database_that_is_listened_to_is_published():
    with pytest.raises(NotLive, match="'other'"):
        compiled(Book.objects.using("other"))


@pytest.mark.parametrize(
    ("queryset", "why"),
    [
        (lambda: Book.objects.values("title").annotate(n=Count("tags")), "groups its rows"),
        (lambda: Book.objects.values("title", "tags__name"), "'tags__name'"),
        (lambda: Book.objects.values("title").union(Book.objects.values("title"))[:2], "have no ids"),
    ],
)
def test_rows_without_ids_are_refused_with_a_reason(queryset, why):
    with pytest.raises(NotLive, match=why):
        compiled(queryset())


KEYS, LOOKED_UP, ALL = (
    "the notification tells the keys",
    "the keys are looked up through the join",
    "everything is looked at again",
)


@pytest.mark.parametrize(
    ("queryset", "expected"),
    [
        (lambda: Book.objects.filter(price=1), {BOOK: KEYS, TAGS: KEYS}),
        (lambda: Book.objects.filter(author__email="x"), {BOOK: KEYS, TAGS: KEYS, AUTHOR: LOOKED_UP}),
        (lambda: Book.objects.filter(tags__name="x"), {BOOK: KEYS, TAGS: KEYS, TAG: LOOKED_UP}),
        (lambda: Book.objects.order_by("author__name")[:2], {BOOK: KEYS, TAGS: KEYS, AUTHOR: LOOKED_UP}),
        (lambda: Book.objects.order_by("author__name")[1:2], {BOOK: ALL, TAGS: ALL, AUTHOR: ALL}),
        (lambda: Author.objects.filter(books__title="x"), {AUTHOR: KEYS, BOOK: KEYS}),
        (lambda: Author.objects.annotate(n=Count("books")).filter(n=1), {AUTHOR: KEYS, BOOK: KEYS}),
        (
            lambda: Book.objects.filter(author__in=Author.objects.filter(name="x")),
            {BOOK: KEYS, TAGS: KEYS, AUTHOR: ALL},
        ),
        (
            lambda: Book.objects.filter(title__in=Book.objects.filter(price=1).values("title")),
            {BOOK: ALL, TAGS: KEYS},
        ),
        (
            lambda: Author.objects.filter(pk=1).union(Author.objects.filter(books__price=1)),
            {AUTHOR: ALL, BOOK: ALL},
        ),
        (lambda: Author.objects.raw("TABLE bookstore_author -- 100%", None), {AUTHOR: ALL}),
    ],
)  # fmt: skip
def test_what_a_change_of_each_table_means(queryset, expected):
    assert strategies(compiled(queryset())) == expected


def test_what_depends_on_names_is_a_dependency():
    query = compiled(Author.objects.all(), depends_on=["bookstore.Tag"])
    assert strategies(query) == {AUTHOR: KEYS, TAG: ALL}
    assert query.shape is not compiled(Author.objects.all()).shape


class Credited(Collection):
    """Reads its author's row."""

    model = Book
    depends_on = ["author"]

    def serialize(self, obj: Any, meteor_ids: Any = None) -> dict[str, Any]:
        return {"fields": {"credit": f"{obj.title} by {obj.author.name}"}}


def test_a_path_in_depends_on_leads_back_from_its_tables(asserted_queries):
    query = compile_queryset(Credited(), Book.objects.all())
    assert strategies(query) == {BOOK: KEYS, TAGS: KEYS, AUTHOR: LOOKED_UP}
    with asserted_queries(3):  # the books, their tags, their authors
        assert load(query)["1"].fields == {"credit": b'"t0 by ada"'}


def test_querysets_share_a_shape_just_when_they_differ_in_lifted_constants_only():
    def shape(queryset: Any) -> Any:
        return compiled(queryset).shape

    kept = [shape(Book.objects.filter(price=1))]
    kept.append(shape(Book.objects.filter(price=1).order_by("title")))
    kept.append(shape(Book.objects.filter(price=2)))
    assert len(set(kept)) == 1
    others = [
        Book.objects.filter(title="1"), Book.objects.only("title").filter(price=1),
        Book.objects.filter(price=1).annotate(a=F("title")),
        Book.objects.filter(price=1).annotate(b=F("title")), Book.objects.filter(price__gte=1),
    ]  # fmt: skip
    assert len({*kept, *map(shape, others)}) == 6


@pytest.mark.parametrize(
    ("queryset", "fields"),
    [
        (lambda: Book.objects.annotate(loud=Upper("title")), {"loud": b'"T1"'}),
        (lambda: Book.objects.annotate(n=Count("tags")).order_by("pk")[:3], {"n": b"0"}),
        (lambda: Book.objects.annotate(Count("tags")), {"tags__count": b"0"}),
        (lambda: Book.objects.annotate(writer=F("author")), {"writer": b'"2"'}),
        (lambda: Book.objects.annotate(writer=F("author__name")), {"writer": b'"bob"'}),
        (lambda: Book.objects.extra(select={"one": "1"}), {"one": b"1"}),
        (lambda: Book.objects.raw("SELECT *, 1 AS one FROM bookstore_book"), {"one": b"1"}),
    ],
)
def test_annotations_are_fields(queryset, fields):
    document = load(compiled(queryset()))["2"]
    model = {"title", "author_id", "price", "published", "in_stock", "tags_ids"}
    assert set(document.fields) == model | fields.keys()
    assert fields.items() <= document.fields.items()


@pytest.mark.parametrize(
    ("queryset", "fields"),
    [
        (lambda: Book.objects.alias(loud=Upper("title")).only("title"), {"title": b'"t1"'}),
        (
            lambda: Book.objects.values("title", "author__email"),
            {"title": b'"t1"', "author__email": b'"bob@x"'},
        ),
        (lambda: Book.objects.values_list("author", "pk"), {"author_id": b'"2"'}),
        (lambda: Book.objects.values(loud=Upper("title")), {"loud": b'"T1"'}),
        (
            lambda: Book.objects.annotate(n=Count("tags"), m=Value(1)).values("title", "n"),
            {"title": b'"t1"', "n": b"0"},
        ),
        (
            lambda: Book.objects.raw("SELECT id, upper(title) AS title FROM bookstore_book"),
            {"title": b'"T1"'},
        ),
    ],
)
def test_documents_have_exactly_the_fields_asked_for(queryset, fields):
    document = load(compiled(queryset()))["2"]
    assert {name: value for name, value in document.fields.items() if name != "tags_ids"} == fields


def test_an_own_serialize_has_annotations_too():
    query = compile_queryset(OwnBook(), Book.objects.annotate(x=Concat("title", Value("!"))))
    assert load(query)["1"].fields["x"] == b'"t0!"'


class Tagged(Collection):
    model = Book

    def serialize(self, obj: Any, meteor_ids: Any = None) -> dict[str, Any]:
        return {"fields": {"tagged": [tag.name for tag in obj.tags.all()]}}


def test_prefetches_that_an_own_serialize_sees_are_not_shared():
    def tagged(name: str) -> CompiledQuery:
        tags = Prefetch("tags", Tag.objects.filter(name=name))
        return compile_queryset(Tagged(), Book.objects.filter(pk=1).prefetch_related(tags))

    first, second = tagged("a"), tagged("b")
    assert first.shape is not second.shape
    assert first.shape is tagged("a").shape
    assert [load(one)["1"].fields["tagged"] for one in (first, second)] == [b'["a"]', b'["b"]']


class LoudBook(Book):
    class Meta:
        proxy = True
        app_label = "bookstore"


class Named(Collection):
    """Shows of what class its instances are."""

    model = Book

    def serialize(self, obj: Any, meteor_ids: Any = None) -> dict[str, Any]:
        return {"fields": {"class": type(obj).__name__}}


def test_what_is_read_differently_is_not_shared():
    def priced(field: Any) -> CompiledQuery:
        return compiled(Book.objects.annotate(p=ExpressionWrapper(F("price"), output_field=field)))

    def written(**translations: str) -> CompiledQuery:
        names = "SELECT id, name AS a, email AS b FROM bookstore_author"
        return compiled(Author.objects.raw(names, translations=translations))

    first, second = priced(FloatField()), priced(CharField())
    assert [load(one)["2"].fields["p"] for one in (first, second)] == [b"1.0", b'"1.00"']
    books, loud = (compile_queryset(Named(), model.objects.filter(pk=1)) for model in (Book, LoudBook))
    assert [load(one)["1"].fields["class"] for one in (books, loud)] == [b'"Book"', b'"LoudBook"']
    right, wrong = written(a="name", b="email"), written(a="email", b="name")
    assert [load(one)["1"].fields["name"] for one in (right, wrong)] == [b'"ada"', b'"ada@x"']


def test_a_window_function_in_a_filter_is_no_matter_of_one_row():
    first = LessThanOrEqual(Window(RowNumber(), order_by=F("id").asc()), 2)
    query = compiled(Book.objects.filter(first))
    assert (set(load(query)), query.shape.by_keys, query.shape.look) == ({"1", "2"}, False, None)


def test_of_several_values_of_an_annotation_the_same_is_always_chosen():
    query = compiled(Author.objects.annotate(wrote=F("books__title")))
    before = load(query)["1"].fields["wrote"]
    Book.objects.filter(author=1).order_by("pk").update(in_stock=False)
    Book.objects.filter(author=1, pk=1).update(in_stock=True)
    assert load(query)["1"].fields["wrote"] == before


@pytest.mark.parametrize(
    ("queryset", "fields"),
    [
        (lambda: Book.objects.only("title").union(Book.objects.only("title")), {"title"}),
        (lambda: Book.objects.values("pk", "title").union(Book.objects.values("pk", "title")), {"title"}),
        (
            lambda: (
                Book.objects.annotate(x=Upper("title")).only("title").union(
                    Book.objects.annotate(x=Upper("title")).only("title")
                )
            ),
            {"title", "x"},
        ),
    ],
)  # fmt: skip
def test_a_union_has_the_fields_asked_for(queryset, fields):
    assert set(load(compiled(queryset()))["2"].fields) - {"tags_ids"} == fields


def test_a_union_with_another_model_is_refused():
    with pytest.raises(NotLive, match="has two models"):
        compiled(Book.objects.values("pk").union(Author.objects.values("pk")))


def test_a_window_ordered_by_a_window_function_is_run_again_at_every_change():
    crowded = Window(Count("pk"), partition_by="author").desc()
    assert compiled(Book.objects.order_by(crowded, "pk")[:1]).shape.look is None


def test_distinct_on_in_a_slice_without_an_order():
    assert set(load(compiled(Book.objects.distinct("author")[:1]))) == {"1"}


def test_of_several_constants_of_a_list_the_first_decides():
    query = compiled(Book.objects.annotate(tag=F("tags__name")).filter(tag__in=["b", "a"]))
    assert query.routes == (("a",), ("b",))


def test_two_joins_to_many_are_not_both_lifted():
    chained = compiled(Author.objects.filter(books__title="t0").filter(books__title="t2"))
    assert len(chained.shape.lifted) == 1
    assert set(load(chained)) == {"1"}
    assert len(compiled(Author.objects.filter(books__title="t0", books__in_stock=True)).shape.lifted) == 2


def test_a_slice_of_a_union_is_kept_live():
    union = Book.objects.filter(price=1).union(Book.objects.filter(price__gt=2)).order_by("-title")
    documents = load(compiled(union[:2]))
    assert set(documents) == {"6", "5"}
    assert documents["6"].fields["title"] == b'"t5"'


def test_several_windows_are_loaded_by_one_statement(asserted_queries):
    def window(author: int) -> CompiledQuery:
        return compiled(Book.objects.filter(author=author).order_by("-price", "pk")[:2])

    first, second = window(1), window(2)
    assert first.shape is second.shape
    assert first.shape.load is not None
    routes = (*first.routes, *second.routes)
    with asserted_queries(1) as ask:
        answers = first.shape.read(ask(first.shape.load, routes), set(routes))
    assert {(route, key) for route, key, _ in flat(answers)} == {
        ((1,), "1"), ((1,), "5"), ((2,), "6"), ((2,), "4"),
    }  # fmt: skip
    assert {(route, key) for route, key, _ in look(first, "1", "2", "3")} == {
        ((1,), "1"), ((1,), "3"),
    }  # fmt: skip


def test_a_window_in_the_models_own_order():
    for name in "cab":
        Animal.objects.create(name=name)
    query = compile_queryset(Animals(), Animal.objects.all()[:2])
    assert [document.fields["name"] for document in load(query).values()] == [b'"a"', b'"b"']


def test_rows_that_are_equal_in_order_have_one_window():
    for _ in range(3):
        assert set(load(compiled(Book.objects.order_by("in_stock")[:2]))) == {"1", "2"}


class Animals(Collection):
    model = Animal


class Badges(Collection):
    model = Badge


class Stalls(Collection):
    model = Stall


def test_a_through_row_that_tells_another_column_is_followed_through_it():
    query = compile_queryset(Badges(), Badge.objects.all())
    assert strategies(query)["zoo_badgeholder"] == LOOKED_UP


def test_composite_keys():
    stalls = [Stall.objects.create(house=house, number=1) for house in ("a", "b:")]
    query = compile_queryset(Stalls(), Stall.objects.filter(number=1))
    shape = query.shape
    assert shape.load is not None
    answers = look_at(query, ("b:", "1"), ("c", "1"))
    assert [(key, document.id) for _, key, document in answers if document] == [(("b:", "1"), "b\\::1")]
    assert len(stalls) == 2


def test_a_field_may_be_called_as_it_likes():
    Badge.objects.create(code="c", slug="s", f2=3)
    assert load(compile_queryset(Badges(), Badge.objects.filter(f2=3)))["c"].fields["f2"] == b"3"


class FixedChar(CharField):
    """A column whose values PostgreSQL pads with spaces, which it leaves out of their text."""

    def db_type(self, connection: Any) -> str:
        return f"char({self.max_length})"


@isolate_apps("tests.zoo")
def test_a_key_that_is_not_its_own_text():
    class Country(Model):
        code = FixedChar(primary_key=True, max_length=5)

        class Meta:
            app_label = "zoo"

    class Countries(Collection):
        model = Country

    with connection.schema_editor() as editor:
        editor.create_model(Country)
    try:
        obj = Country.objects.create(code="DE")
        obj.refresh_from_db()
        (document,) = load(compile_queryset(Countries(), Country.objects.all())).values()
        assert document.id == get_meteor_id(obj) == "DE   "
    finally:
        with connection.schema_editor() as editor:
            editor.delete_model(Country)
