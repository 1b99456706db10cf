"""The event loop's thread asks the database nothing; every other thread may."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.core.exceptions import SynchronousOnlyOperation
from django.db import connection, connections, transaction

from tests.conftest import Database
from trigger_ddp.demo.bookstore.models import Author
from trigger_ddp.server.guard import no_queries_on_this_thread


def in_transaction() -> None:
    with transaction.atomic():
        """Not even an empty one."""


def raw() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


QUERIES: dict[str, Callable[[], Any]] = {
    "read": lambda: list(Author.objects.all()),
    "iterate": lambda: list(Author.objects.iterator()),
    "write": lambda: Author.objects.create(name="A", email="a@example.com"),
    "transaction": in_transaction,
    "raw": raw,
    "connect": lambda: connection.ensure_connection(),
}


def in_another_thread(function: Callable[[], Any]) -> Any:
    results = []

    def work() -> None:
        try:
            results.append(function())
        finally:
            connections.close_all()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(timeout=30)
    (result,) = results
    return result


@pytest.mark.parametrize("connected", [False, True], ids=["away", "connected"])
@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES.keys())
def test_refused_here_until_the_block_ends(db: Database, query: Callable[[], Any], connected: bool) -> None:
    connections.close_all()
    if connected:
        connection.ensure_connection()
    before = connection.connection
    with no_queries_on_this_thread(), pytest.raises(SynchronousOnlyOperation, match=r"await this\.in_thread"):
        query()
    assert connection.connection is before
    query()


def test_reconnecting_is_refused(db: Database) -> None:
    connection.close()
    with no_queries_on_this_thread(), pytest.raises(SynchronousOnlyOperation):
        connection.connect()
    assert connection.connection is None


def test_a_cursor_opened_before_is_refused_too(db: Database) -> None:
    with connection.cursor() as cursor:
        with no_queries_on_this_thread():
            with pytest.raises(SynchronousOnlyOperation):
                cursor.execute("SELECT 1")
            with pytest.raises(SynchronousOnlyOperation):
                cursor.executemany("SELECT %s", [[1], [2]])
        cursor.execute("SELECT 7")
        assert cursor.fetchone() == (7,)


def test_a_connection_that_may_be_broken_is_not_tried_first(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection.ensure_connection()
    monkeypatch.setattr(connection, "health_check_enabled", True)
    monkeypatch.setattr(connection, "health_check_done", False)
    db.psql(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    before = connection.connection
    with no_queries_on_this_thread(), pytest.raises(SynchronousOnlyOperation):
        raw()
    assert connection.connection is before


def test_other_threads_may(db: Database) -> None:
    with no_queries_on_this_thread():
        assert in_another_thread(Author.objects.count) == 0
        with pytest.raises(SynchronousOnlyOperation):
            Author.objects.count()


def test_what_needs_no_query_works(db: Database) -> None:
    with no_queries_on_this_thread():
        assert "bookstore_author" in str(Author.objects.filter(name="A").query)
        connection.close()
        connections.close_all()


def test_everything_is_as_before_afterwards_whatever_happened(db: Database) -> None:
    connection.ensure_connection()
    wrapper = connections["default"]  # `connection` only stands for it
    before = dict(vars(wrapper))
    with no_queries_on_this_thread():
        assert vars(wrapper) != before
    assert vars(wrapper) == before
    with pytest.raises(ZeroDivisionError), no_queries_on_this_thread():
        _ = 1 / 0
    assert vars(wrapper) == before
    assert wrapper.execute_wrappers == []


def test_nested(db: Database) -> None:
    with no_queries_on_this_thread():
        with no_queries_on_this_thread(), pytest.raises(SynchronousOnlyOperation):
            Author.objects.count()
        with pytest.raises(SynchronousOnlyOperation):
            Author.objects.count()
    assert Author.objects.count() == 0


def test_every_database_and_those_that_are_none(
    db: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(connections.settings, "copy", dict(connections.settings["default"]))
    monkeypatch.setitem(connections.settings, "broken", {"ENGINE": "no.such.engine"})
    with caplog.at_level(logging.WARNING), no_queries_on_this_thread():
        for alias in ("default", "copy"):
            with pytest.raises(SynchronousOnlyOperation):
                Author.objects.using(alias).count()
    (record,) = caplog.records
    assert record.getMessage().startswith(
        "database 'broken' can't be used: 'no.such.engine' isn't an available"
    )
    assert Author.objects.using("copy").count() == 0
    connections["copy"].close()
    del connections["copy"]
