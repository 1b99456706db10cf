"""The data of the benchmarks: the bookstore with many books, and whose they are."""

from __future__ import annotations

import dataclasses

from django.core.management import call_command
from django.db import connections

from tests import postgres
from tests.conftest import Database, point_django_at


@dataclasses.dataclass(frozen=True)
class Bookstore:
    """Books dealt out to authors in turn, so that author ``a`` has the books ``a``, ``a + authors`` …

    Each author's first book costs 1, the second 2, and so on.
    """

    authors: int
    books: int

    def book(self, author: int, number: int) -> int:
        """The id of one of an author's books, counted from 0: its price is ``number + 1``."""
        return author + number * self.authors

    @property
    def books_each(self) -> int:
        """How many books every author has, where they can be dealt out evenly."""
        return self.books // self.authors

    def create(self, cluster: postgres.Cluster, name: str) -> Database:
        """A new database with the books in it, and Django's connections to it."""
        with cluster.connect() as connection:
            connection.execute(f"CREATE DATABASE {name}")
        point_django_at(cluster, name)
        call_command("migrate", verbosity=0, run_syncdb=True)
        connections.close_all()
        with cluster.connect(name) as connection:
            connection.execute(
                "INSERT INTO bookstore_author (id, name, email)"
                f" SELECT n, 'Author ' || n, {email('n')} FROM generate_series(1, {self.authors}) n"
            )
            connection.execute(
                "INSERT INTO bookstore_book (id, title, author_id, price, in_stock)"
                f" SELECT n, 'Book ' || n, (n - 1) % {self.authors} + 1, (n - 1) / {self.authors} + 1, true"
                f" FROM generate_series(1, {self.books}) n"
            )
            connection.execute("VACUUM ANALYZE")
        return Database(cluster, name)


def email(author: str) -> str:
    """SQL of an author's e-mail address, given SQL of the author's id."""
    return f"{author} || '@x'"
