"""Querysets as people write them, some of them odd: what is loaded and looked at is what the ORM finds."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Any

import pytest
from django.db.models import (
    Case,
    Count,
    DecimalField,
    Exists,
    F,
    FilteredRelation,
    Max,
    OuterRef,
    Q,
    Subquery,
    Sum,
    Value,
    When,
    Window,
)  # fmt: skip
from django.db.models.expressions import RawSQL
from django.db.models.functions import Coalesce, Lower, RowNumber, TruncMonth

from tests import postgres
from tests.conftest import new_database
from tests.library import data
from tests.library import models as library
from tests.live.asking import ask, flat, look_at
from trigger_ddp.api import Collection
from trigger_ddp.live.compile import compile_queryset
from trigger_ddp.live.document import Key, name_of

A, B, C, G, P, R = (
    library.Author, library.Book, library.Comic, library.Genre, library.Publisher, library.Review,
)  # fmt: skip

QUERYSETS: dict[str, Any] = {
    "multi one filter": lambda: A.objects.filter(books__title="x", books__year=2020),
    "multi chained": lambda: A.objects.filter(books__title="x").filter(books__year=2020),
    "left join or": lambda: B.objects.filter(Q(editor__name="ann") | Q(editor=None), author__name="ann"),
    "filtered relation": lambda: A.objects.annotate(
        fb=FilteredRelation("books", condition=Q(books__year=2020))
    ).filter(fb__title="x"),
    "annot filter": lambda: B.objects.annotate(t=Lower("title")).filter(t="x", author__name="ann"),
    "count having lifted": lambda: (
        A.objects.filter(publisher__country="de").annotate(n=Count("books")).filter(n__gte=1)
    ),
    "count filter": lambda: A.objects.annotate(n=Count("books", filter=Q(books__year=2020))).filter(n=1),
    "two counts": lambda: A.objects.annotate(
        n=Count("books", distinct=True), m=Count("books__reviews", distinct=True)
    ),
    "lift multi + count": lambda: B.objects.filter(genres__name="crime").annotate(n=Count("reviews")),
    "sum order slice": lambda: A.objects.annotate(s=Sum("books__price")).order_by("-s", "pk")[:2],
    "distinct on lifted": lambda: (
        B.objects.filter(in_stock=True).order_by("author", "-price", "pk").distinct("author")
    ),
    "window rank": lambda: (
        B.objects.filter(in_stock=True)
        .annotate(r=Window(RowNumber(), partition_by="author", order_by=["price", "pk"]))
        .filter(r=1)
    ),
    "values annotate pk": lambda: B.objects.values("pk", "title").annotate(n=Count("reviews")),
    "subquery annot": lambda: B.objects.annotate(
        best=Subquery(R.objects.filter(book=OuterRef("pk")).order_by("-stars", "pk").values("stars")[:1])
    ),
    "subquery annot filter": lambda: B.objects.annotate(
        best=Subquery(R.objects.filter(book=OuterRef("pk")).order_by("-stars", "pk").values("stars")[:1])
    ).filter(best=5),
    "exists annot": lambda: B.objects.annotate(e=Exists(R.objects.filter(book=OuterRef("pk")))).filter(
        e=True, year=2020
    ),
    "order by subquery slice": lambda: B.objects.order_by(
        Subquery(R.objects.filter(book=OuterRef("pk")).order_by("-stars").values("stars")[:1]).desc(
            nulls_last=True
        ),
        "pk",
    )[:2],
    "order by multi slice": lambda: B.objects.order_by("reviews__stars", "pk")[:3],
    "case": lambda: B.objects.annotate(c=Case(When(year=2020, then=Value("a")), default=Value("b"))).filter(
        c="a"
    ),
    "only related": lambda: B.objects.select_related("author").only("title", "author__name"),
    "defer": lambda: B.objects.defer("price", "author"),
    "mti child": lambda: C.objects.filter(title="x"),
    "mti child by parent fk": lambda: C.objects.filter(author__name="ann", colour=True),
    "mti parent by child": lambda: B.objects.filter(comic__colour=True),
    "self fk": lambda: B.objects.filter(sequel_of__title="x"),
    "self rev": lambda: B.objects.filter(sequel_of__sequel_of__year=2020),
    "coalesce": lambda: B.objects.alias(p=Coalesce("price", Value(0), output_field=DecimalField())).filter(
        p__gt=4, year=2020
    ),
    "isnull true lifted": lambda: B.objects.filter(editor__isnull=True, year=2020),
    "exclude": lambda: B.objects.filter(year=2020).exclude(genres__name="crime"),
    "not in": lambda: B.objects.filter(~Q(author__name__in=["ann"]), year__in=[2020, 2021]),
    "union": lambda: B.objects.filter(year=2020).union(B.objects.filter(title="x")),
    "nested union": lambda: B.objects.filter(year=2020).union(
        B.objects.filter(title="x").intersection(B.objects.filter(in_stock=True))
    ),
    "difference": lambda: B.objects.filter(in_stock=True).difference(B.objects.filter(year=2020)),
    "in sliced": lambda: B.objects.filter(author__in=A.objects.order_by("name", "pk")[:2]),
    "percent": lambda: B.objects.filter(title="it's %"),
    "percent rest": lambda: B.objects.filter(title__contains="%", year=2020),
    "percent slice": lambda: B.objects.filter(title__contains="%", year=2020).order_by("-price", "pk")[:2],
    "rawsql annot": lambda: B.objects.annotate(z=RawSQL("price * %s", [2])).filter(year=2020),
    "rawsql slice": lambda: (
        B.objects.annotate(z=RawSQL("price * %s", [2])).filter(year=2020).order_by("z", "pk")[:2]
    ),
    "extra select slice": lambda: (
        B.objects.extra(select={"z": "price * 2"}).filter(year=2020).order_by("price", "pk")[:2]
    ),
    "dates": lambda: B.objects.filter(published__year=2020, published__month=6),
    "week day": lambda: B.objects.filter(published__week_day=2),
    "F date trunc": lambda: B.objects.annotate(m=TruncMonth("published")).filter(m=datetime.date(2020, 6, 1)),
    "distinct slice multi": lambda: (
        B.objects.filter(genres__name__in=["crime", "poetry"]).distinct().order_by("-price", "pk")[:3]
    ),
    "reverse": lambda: B.objects.filter(year=2020).order_by("price", "pk").reverse()[:2],
    "aggregate group slice dist": lambda: (
        B.objects.annotate(n=Count("genres")).filter(n__gt=0).order_by("-n", "pk")[:2]
    ),
    "composite": lambda: library.Copy.objects.filter(condition="new"),
    "composite pk in": lambda: library.Copy.objects.filter(pk=(1, 1)),
    "composite slice": lambda: library.Copy.objects.order_by("number", "book")[:2],
    "composite fk": lambda: library.Copy.objects.filter(book__title="x"),
    "composite count": lambda: library.Copy.objects.annotate(n=Count("book__reviews")),
    "aid": lambda: G.objects.filter(name="crime"),
    "values fk path": lambda: B.objects.values("title", "author__publisher__country", "author"),
    "values path slice": lambda: B.objects.values("title", "author__name").order_by("title", "pk")[:3],
    "annot agg multi F": lambda: B.objects.annotate(g=F("genres__name")).filter(g="crime"),
    "iso": lambda: B.objects.filter(published__iso_year=2020),
    "q and nested": lambda: B.objects.filter(
        Q(year=2020) & (Q(title="x") | Q(price__gt=1)) & Q(Q(in_stock=True))
    ),
    "xor": lambda: B.objects.filter(Q(year=2020) ^ Q(in_stock=True)),
    "decimal": lambda: B.objects.filter(price="5.00"),
    "union values slice ordered": lambda: (
        B.objects.filter(year=2020).union(B.objects.filter(title="x")).order_by("-title", "id")[:2]
    ),
    "annotate const": lambda: B.objects.annotate(k=Value("x")).filter(year=2020),
    "bool expr filter": lambda: B.objects.filter(
        Exists(R.objects.filter(book=OuterRef("pk"), stars=5)), in_stock=True
    ),
    "groupby alias": lambda: A.objects.alias(n=Count("books")).filter(n__gte=1),
    "nonpk annotate": lambda: B.objects.annotate(n=Count("genres") + Value(1)).filter(n=2),
    "stringagg": lambda: A.objects.annotate(n=Max("books__price")).filter(n__gte=5, name="ann"),
    "none": lambda: B.objects.none(),
}


@pytest.fixture(scope="module")
def shelves(cluster: postgres.Cluster) -> Iterator[None]:
    with new_database(cluster) as db:
        data.prepare(db)
        data.reset(db)
        yield


def keys_of(queryset: Any) -> set[Key]:
    """The keys of a queryset's rows as notifications tell them, as the ORM finds them."""
    fields = [] if queryset._fields is None else list(queryset.query.values_select)
    rows = queryset.values("pk", *fields) if fields else queryset
    found = {row["pk"] if fields else row.pk for row in rows}
    return {tuple(map(str, key)) if isinstance(key, tuple) else (str(key),) for key in found}


@pytest.mark.parametrize("name", QUERYSETS)
def test_rows_are_those_that_the_orm_finds(name: str, shelves: None) -> None:
    queryset = QUERYSETS[name]()

    class Anything(Collection):
        model = queryset.model

    query = compile_queryset(Anything(), queryset)
    shape, wanted = query.shape, keys_of(queryset)
    rows = [] if shape.load is None else ask(shape.load, query.routes)
    wanted = set(map(name_of, wanted))
    assert {name for _, name, _ in flat(shape.read(rows, set(query.routes)))} == wanted
    if shape.look is not None:
        everything = keys_of(queryset.model.objects.all())
        looked = {name for _, name, _ in look_at(query, *everything)}
        # A query that is run again is told of what may concern it, which is more.
        assert looked == wanted if shape.by_keys else looked >= wanted
