"""What is compiled once is not compiled again, and never taken for something else."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from django.db import connection
from django.db.models import Exists, OuterRef, Prefetch, QuerySet
from django.test.utils import CaptureQueriesContext, override_settings
from django.utils import timezone, translation

from trigger_ddp.api import Collection
from trigger_ddp.demo.bookstore.models import Author, Book
from trigger_ddp.live import cache
from trigger_ddp.live import compile as compiling
from trigger_ddp.live.compile import compile_queryset

pytestmark = pytest.mark.usefixtures("db")


class Books(Collection):
    model = Book
    name = "cached.books"


BOOKS = Books()


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Grows with each queryset that is compiled."""
    compiling._compiled.clear()
    found: list[Any] = []
    of = compiling._Compiler.compile
    monkeypatch.setattr(compiling._Compiler, "compile", lambda self: found.append(self.queryset) or of(self))
    return found


def test_the_same_queryset_is_compiled_once(compiled: list[Any]) -> None:
    compile_queryset(BOOKS, Book.objects.filter(author__email="b", price__lt=3))  # see cache.py
    first = compile_queryset(BOOKS, Book.objects.filter(author__email="a", price__lt=3))
    assert compile_queryset(BOOKS, Book.objects.filter(author__email="a", price__lt=3)) is first
    assert len(compiled) == 2
    nothing = compile_queryset(BOOKS, Book.objects.none())
    assert compile_queryset(BOOKS, Book.objects.none()) is nothing


@pytest.mark.parametrize(
    "other",
    [
        lambda: Book.objects.filter(price__lt=4),
        lambda: Book.objects.filter(price__lte=3),
        lambda: Book.objects.filter(price__lt=3).only("title"),
        lambda: Book.objects.filter(price__lt=3).values("title"),
        lambda: Book.objects.filter(price__lt=3).order_by("title")[:3],
        lambda: Book.objects.filter(price__lt=3).distinct(),
        lambda: Book.objects.filter(price__lt=3).prefetch_related("tags"),
        lambda: Book.objects.filter(price__lt=3).exclude(title="x"),
    ],
)
def test_another_queryset_is_another(compiled: list[Any], other: Any) -> None:
    compile_queryset(BOOKS, Book.objects.filter(price__lt=3))
    compile_queryset(BOOKS, other())
    assert len(compiled) == 2


def test_what_else_decides(compiled: list[Any]) -> None:
    def again(collection: Any = BOOKS, depends_on: Any = ()) -> bool:
        before = len(compiled)
        compile_queryset(collection, Book.objects.filter(price__lt=3), depends_on)
        return len(compiled) > before

    assert again()
    assert not again()
    assert again(collection=Books())
    assert again(depends_on=[Author])
    with translation.override("de"):
        assert again()
    with timezone.override("Asia/Tokyo"):
        assert again()
    with override_settings(DDP_BULK_THRESHOLD=7):
        assert again()
    assert not again()


def test_columns_that_may_be_others(compiled: list[Any]) -> None:
    compile_queryset(BOOKS, Book.objects.filter(price__lt=3))
    compiling.forget_columns()
    compile_queryset(BOOKS, Book.objects.filter(price__lt=3))
    assert len(compiled) == 2


def test_columns_that_become_others_while_it_is_compiled(
    compiled: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    of = compiling._Compiler.compile

    def and_meanwhile(self: Any) -> Any:
        thread = threading.Thread(target=compiling.forget_columns)
        thread.start()
        thread.join(10)
        assert not thread.is_alive(), "who forgets must not wait"
        return of(self)

    with monkeypatch.context() as patched:
        patched.setattr(compiling._Compiler, "compile", and_meanwhile)
        compile_queryset(BOOKS, Book.objects.filter(price__lt=3))
    compile_queryset(BOOKS, Book.objects.filter(price__lt=3))
    assert len(compiled) == 2


class Remembering(QuerySet):  # type: ignore[type-arg]
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.extra_thing = 1


class Unpicklable(str):
    def __reduce__(self) -> Any:
        raise TypeError


@pytest.mark.parametrize(
    "made",
    [
        lambda: Remembering(Book),
        lambda: Book.objects.prefetch_related(Prefetch("tags")),
        lambda: Book.objects.filter(title=Unpicklable("x")),
        lambda: Book.objects.filter(title="x" * cache.MOST_BYTES),
        lambda: Book.objects.raw("SELECT * FROM bookstore_book"),
    ],
)
def test_what_can_not_be_told_is_compiled_each_time(compiled: list[Any], made: Any) -> None:
    for _ in range(2):
        compile_queryset(BOOKS, made())
    assert len(compiled) == 2


def test_nothing_is_evaluated(compiled: list[Any]) -> None:
    authors = Author.objects.filter(pk=OuterRef("author_id"), name="x")
    for _ in range(2):
        compile_queryset(BOOKS, Book.objects.filter(Exists(authors)))  # asks what columns there are
    with CaptureQueriesContext(connection) as queries:
        compile_queryset(BOOKS, Book.objects.filter(Exists(authors)))
    assert (len(compiled), len(queries)) == (2, 0)


def test_the_last_ones_used_are_kept(compiled: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "MOST", 2)
    for price in (1, 2, 1, 3, 1, 2):
        compile_queryset(BOOKS, Book.objects.filter(price=price))
    assert len(compiled) == 4
