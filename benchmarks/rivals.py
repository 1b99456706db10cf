"""Ways to find out whom a changed row concerns, as bare SQL, for `benchmarks.scaling`."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import psycopg

from benchmarks.bookstore import Bookstore, email
from benchmarks.clocks import cpu_seconds

#: Queries that stand for one query per subscription, when there are more.
SAMPLE = 200

BOOK = "b.id, b.title, b.author_id, b.price, b.published, b.in_stock"
OF_AUTHOR = "FROM bookstore_book b WHERE"
OF_ADDRESS = "FROM bookstore_book b JOIN bookstore_author a ON a.id = b.author_id WHERE"


@dataclasses.dataclass(frozen=True)
class Filter:
    """A filter with one parameter.

    Args:
        source: FROM … WHERE, for one more condition.
        expression: what must equal the parameter …
        kind: … and its type.
        parameter: SQL of the parameter of the subscription about author ``n``.
    """

    source: str
    expression: str
    kind: str
    parameter: str

    @property
    def lateral(self) -> str:
        matching = f"SELECT {BOOK} {self.source} {self.expression} = p.parameter AND b.id = ANY(%s)"
        parameters = f"unnest(%s::{self.kind}[]) AS p(parameter)"
        return f"SELECT b.*, p.parameter FROM {parameters} CROSS JOIN LATERAL ({matching}) b"

    @property
    def single(self) -> str:
        return f"SELECT {BOOK} {self.source} {self.expression} = %s AND b.id = ANY(%s)"

    @property
    def lifted(self) -> str:
        return f"SELECT {BOOK}, {self.expression} {self.source} b.id = ANY(%s)"


FILTERS = {
    "filter": Filter(OF_AUTHOR, "b.author_id", "bigint", "n"),
    "join": Filter(OF_ADDRESS, "a.email", "varchar", email("n")),
}


@dataclasses.dataclass(frozen=True)
class Cost:
    """Seconds of one way for one write; CPU is this process's and PostgreSQL's together."""

    wall: float
    cpu: float

    def times(self, factor: float) -> Cost:
        return Cost(self.wall * factor, self.cpu * factor)


def measure(dsn: str, store: Bookstore, subscriptions: int, filter_: Filter, rounds: int) -> dict[str, Cost]:
    """The cost of each way, by its name: ``lifted`` first, which is the floor.

    Args:
        dsn: of the database with the books.
        store: how they were dealt out.
        subscriptions: how many there are, one for each of the first authors.
        filter_: whose parameters are looked for.
        rounds: how many writes.
    """
    # Not prepared, as Django has it.
    with psycopg.connect(dsn, autocommit=True, prepare_threshold=None) as connection:
        listed = f"SELECT {filter_.parameter} FROM generate_series(1, {subscriptions}) n"
        parameters = [row[0] for row in connection.execute(listed)]
        asked = parameters[:SAMPLE]

        def found(sql: str, *params: Any) -> int:
            return len(connection.execute(sql, params).fetchall())

        def lifted(book: int) -> int:
            return found(filter_.lifted, [book])

        def lateral(book: int) -> int:
            return found(filter_.lateral, parameters, [book])

        def single(book: int) -> int:
            return sum(found(filter_.single, parameter, [book]) for parameter in asked)

        def cost(look: Callable[[int], int], rounds: int) -> Cost:
            books = [store.book(1 + n % len(asked), n % 2) for n in range(rounds + 1)]
            look(books.pop())  # warms up
            backend = connection.info.backend_pid
            cpu, wall = time.process_time() + cpu_seconds(backend), time.perf_counter()
            matches = sum(look(book) for book in books)
            wall, cpu = time.perf_counter() - wall, time.process_time() + cpu_seconds(backend) - cpu
            assert matches == rounds  # every way finds the one subscription that the book belongs to
            return Cost(wall, cpu).times(1 / rounds)

        return {
            "lifted": cost(lifted, rounds * 10),
            "LATERAL over all": cost(lateral, rounds),
            "one query each": cost(single, max(1, rounds // 10)).times(subscriptions / len(asked)),
        }
