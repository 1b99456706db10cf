"""The tables that a query is said to read, against what PostgreSQL says of a view of its SQL."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.db.models import (
    Case,
    Count,
    DecimalField,
    Exists,
    F,
    FilteredRelation,
    IntegerField,
    Max,
    OuterRef,
    Q,
    Subquery,
    When,
    Window,
)
from django.db.models.expressions import RawSQL
from django.db.models.functions import Coalesce, Lower, RowNumber

from tests.zoo.models import Animal, AnimalProxy, Nest, Parrot, Stall
from trigger_ddp.api import Collection
from trigger_ddp.demo.bookstore.models import Author, Book, Tag
from trigger_ddp.live.compile import compile_queryset
from trigger_ddp.live.compiled import CompiledQuery


def tagged(name: str = "x") -> Any:
    return Book.objects.filter(tags__name=name)


QUERYSETS = {
    "a slice ordered by a joined column": lambda: Book.objects.order_by("author__name")[:3],
    "a slice ordered by a reverse relation": lambda: Author.objects.order_by("books__title")[:3],
    "a slice ordered by F of a joined column": lambda: Book.objects.order_by(F("author__name").desc())[:3],
    "a slice ordered by a function of one": lambda: Book.objects.order_by(Lower("author__name"))[:3],
    "a slice ordered by a subquery": lambda: Book.objects.order_by(
        Subquery(Tag.objects.filter(books=OuterRef("pk")).values("name")[:1])
    )[:3],
    "a slice ordered by an aggregate": lambda: (
        Author.objects.alias(last=Max("books__published")).order_by("-last")[:3]
    ),
    "a slice in the model's own order": lambda: Animal.objects.all()[:3],
    "DISTINCT ON a joined column": lambda: Book.objects.order_by("author__name").distinct("author__name"),
    "subqueries in a list": lambda: Author.objects.filter(
        pk__in=[Subquery(Book.objects.order_by("-price").values("author")[:1]), 3]
    ),
    "the table itself in a list": lambda: Book.objects.filter(
        price__in=[Subquery(Book.objects.order_by("-price").values("price")[:1])]
    ),
    "a range of subqueries": lambda: Author.objects.filter(
        pk__range=(Subquery(Book.objects.values("author")[:1]), 100)
    ),
    "a subquery ordered by a joined column": lambda: Tag.objects.filter(
        pk=Subquery(Book.objects.order_by("author__name").values("pk")[:1])
    ),
    "a filtered relation": lambda: Author.objects.annotate(
        b=FilteredRelation("books", condition=Q(books__price__gt=1))
    ).filter(b__title="x"),
    "a filtered relation with a subquery": lambda: Author.objects.annotate(
        b=FilteredRelation("books", condition=Q(Exists(Tag.objects.filter(name="live"))))
    ).filter(b__title="x"),
    "exclude over a many-to-many": lambda: Book.objects.exclude(tags__name="x"),
    "exclude over two relations": lambda: Tag.objects.exclude(books__author__name="x"),
    "an aggregate": lambda: Author.objects.annotate(n=Count("books__tags")).filter(n=1),
    "an aggregate with a filter": lambda: Author.objects.annotate(
        n=Count("books", filter=Q(books__in=tagged()))
    ).filter(n__gt=0),
    "a window": lambda: Book.objects.annotate(
        r=Window(RowNumber(), partition_by="author__name", order_by="price")
    ).filter(r=1),
    "a case": lambda: Book.objects.annotate(
        x=Case(
            When(author__in=Author.objects.filter(books__in=tagged()), then=1),
            default=0, output_field=IntegerField(),
        )
    ).filter(x=1),
    "a subquery in a function": lambda: Book.objects.filter(
        price=Coalesce(Subquery(Tag.objects.values("pk")[:1], output_field=DecimalField()), 1)
    ),
    "a union": lambda: Book.objects.filter(author__name="x").union(tagged()),
    "an intersection": lambda: Book.objects.filter(author__name="x").intersection(tagged()),
    "a union in a subquery": lambda: Author.objects.filter(
        pk__in=tagged().values("author").union(Book.objects.filter(price=1).values("author"))
    ),
    "further tables": lambda: Book.objects.extra(
        tables=["bookstore_tag"], where=["bookstore_tag.id = bookstore_book.id"]
    ),
    "raw SQL in extra": lambda: Book.objects.extra(
        where=["bookstore_book.id IN (SELECT id FROM bookstore_tag)"]
    ),
    "raw SQL in an expression": lambda: Book.objects.filter(
        pk__in=RawSQL("SELECT id FROM bookstore_tag", ())
    ),
    "Exists in Exists": lambda: Author.objects.filter(
        Exists(Book.objects.filter(Exists(Tag.objects.filter(books=OuterRef("pk"))), author=OuterRef("pk")))
    ),
    "multi-table inheritance": lambda: Parrot.objects.filter(mother__keeper__name="x"),
    "a slice of it": lambda: Parrot.objects.all()[:3],
    "a parent by its child": lambda: Animal.objects.filter(bird__parrot__words=1),
    "a proxy joined to itself": lambda: AnimalProxy.objects.filter(mother__mother__name="x"),
    "a one-to-one": lambda: Nest.objects.filter(bird__mother__name="x"),
    "a composite key": lambda: Stall.objects.filter(animal__name="x"),
    "permissions": lambda: User.objects.filter(groups__permissions__codename="x"),
    "select_related": lambda: Book.objects.select_related("author"),
}  # fmt: skip


def compiled(queryset: Any) -> CompiledQuery:
    class Anything(Collection):
        model = queryset.model

    return compile_queryset(Anything(), queryset)


def truth(query: CompiledQuery) -> set[str]:
    """The tables that a view of the query's SQL depends on."""
    assert query.shape.load is not None
    operations: Any = connection.ops
    text = operations.compose_sql(*query.shape.load.about(query.routes))
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE VIEW its_sql AS SELECT FROM ({text}) s")
        cursor.execute(
            "SELECT DISTINCT c.relname FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid"
            " JOIN pg_class c ON c.oid = d.refobjid WHERE r.ev_class = 'its_sql'::regclass"
            " AND d.refclassid = 'pg_class'::regclass AND c.relname <> 'its_sql'"
        )
        return {name for (name,) in cursor.fetchall()}


@pytest.mark.parametrize("name", QUERYSETS)
def test_every_table_is_a_dependency(name, db):
    query = compiled(QUERYSETS[name]())
    assert truth(query) <= {dependency.table.relation for dependency in query.shape.tables.values()}


def test_raw_sql_is_looked_at_whole(db):
    query = compiled(Book.objects.extra(where=["price > 1"]))
    assert {dependency.links for dependency in query.shape.tables.values()} == {None}
