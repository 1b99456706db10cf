"""What the triggers cost the writers: ``python -m benchmarks.writes``.

Variants of one table take turns, round after round:

no_trigger
    has none.
bare_notify
    has a row trigger that calls ``pg_notify`` with the row's id, and nothing else: the least that anybody who
    wants to be told by PostgreSQL must pay.
row_level, statement_level
    have ours, of either kind.

PostgreSQL's own pgbench writes single rows, each in a transaction, as 1, 8 and 16 writers; somebody listens
to every channel meanwhile. "Durable" is with fsync and synchronous_commit, as PostgreSQL is delivered and
as databases are run; "processor" is without, so that nothing but the processor's work counts. Then how long
single rows take within the server, and statements that write many. Of transactions the median of the rounds
is printed, since one writer and its server have two speeds, by whether they share a processor; of the rest
the best, which other work on the machine has disturbed least.
"""

from __future__ import annotations

import contextlib
import os
import re
import statistics
import subprocess
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from benchmarks import report
from tests import postgres

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.project.settings")

import django

django.setup()

from django.db import connection, models  # noqa: E402

from tests.capture.capturing import install_on, model  # noqa: E402
from tests.conftest import point_django_at  # noqa: E402
from trigger_ddp.capture.functions import Level  # noqa: E402
from trigger_ddp.capture.tables import Table  # noqa: E402

ROWS = 20_000
BARE = """
CREATE FUNCTION bare() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM pg_notify('bare', NEW.id::text); RETURN NULL; END $$;
CREATE TRIGGER bare AFTER UPDATE ON bare_notify FOR EACH ROW EXECUTE FUNCTION bare();
"""
LEVELS: dict[str, Level] = {"row_level": "row", "statement_level": "statement"}
VARIANTS = ("no_trigger", "bare_notify", *LEVELS)
#: What is installed unless told otherwise.
DEFAULT = "statement_level"

_models: dict[str, Any] = {}


def prepare(cluster: postgres.Cluster) -> None:
    with cluster.connect() as conn:
        for name in VARIANTS:
            conn.execute(
                f"CREATE TABLE {name} (id int PRIMARY KEY, owner_id int, amount int, title text)"
                " WITH (fillfactor = 50)"
            )
            conn.execute(
                f"INSERT INTO {name} SELECT i, i % 100, 0, 'title ' || i FROM generate_series(1, {ROWS}) i"
            )
        conn.execute(BARE)
        conn.execute("VACUUM ANALYZE")
    point_django_at(cluster, "postgres")
    for name, level in LEVELS.items():
        owner = models.ForeignKey("self", models.CASCADE, db_constraint=False)
        _models[name] = model(name, id=models.IntegerField(primary_key=True), owner=owner)
        install_on(Table.from_model(_models[name]), level=level)
    connection.close()


def single_rows(cluster: postgres.Cluster, name: str, seconds: int, clients: int) -> float:
    """Transactions of one single-row UPDATE per second, as pgbench counts them; for 0 seconds a few."""
    with tempfile.TemporaryDirectory() as directory:
        script = Path(directory) / "update.sql"
        script.write_text(
            f"\\set id random(1, {ROWS})\nUPDATE {name} SET amount = amount + 1 WHERE id = :id;\n"
        )
        dsn = cluster.dsn("postgres")
        pgbench = next(
            path / "pgbench" for path in postgres.binaries().values() if (path / "pgbench").exists()
        )
        how_long = f"-T{seconds}" if seconds else "-t20"
        done = subprocess.run(
            [pgbench, "-n", "-Mprepared", how_long, f"-c{clients}", f"-f{script}", dsn],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    found = re.search(r"tps = ([\d.]+)", done.stdout)
    assert found
    return float(found[1])


def inside(cluster: postgres.Cluster, name: str, times: int) -> float:
    """Microseconds of one single-row UPDATE within a loop in the server: no round trip, no commit."""
    with cluster.connect() as conn, conn.transaction(force_rollback=True):
        started = time.perf_counter()
        conn.execute(
            f"DO $$ BEGIN FOR i IN 1..{times} LOOP"
            f" UPDATE {name} SET amount = amount + 1 WHERE id = 1 + i % 100; END LOOP; END $$"
        )
        return (time.perf_counter() - started) / times * 1e6


def many_rows(cluster: postgres.Cluster, name: str, rows: int) -> float:
    """Milliseconds of an UPDATE of ``rows`` rows in a session that updated one row before."""
    with cluster.connect() as conn:
        for _ in range(6):
            conn.execute(f"UPDATE {name} SET amount = amount + 1 WHERE id = 1")
        conn.execute(f"UPDATE {name} SET amount = amount + 1 WHERE id IN (1, 2)")
        started = time.perf_counter()
        conn.execute(f"UPDATE {name} SET amount = amount + 1 WHERE id <= {rows}")
        took = (time.perf_counter() - started) * 1000
        conn.execute(f"VACUUM {name}")
    return took


@contextlib.contextmanager
def listening(cluster: postgres.Cluster) -> Iterator[None]:
    """In this block a session listens to all, and reads what comes."""
    over = threading.Event()

    def read() -> None:
        with psycopg.connect(cluster.dsn("postgres"), autocommit=True) as listener:
            channels = [Table.from_model(model).channel for model in _models.values()]
            for channel in ("bare", *channels):
                listener.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
            while not over.is_set():
                for _ in listener.notifies(timeout=0.1):
                    pass

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def make_durable(cluster: postgres.Cluster, durable: bool) -> None:
    with cluster.connect() as conn:
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            conn.execute(f"ALTER SYSTEM SET {setting} = {'on' if durable else 'off'}")
        conn.execute("SELECT pg_reload_conf()")


def measured(
    rounds: int, measure: Callable[[str], float], of: Callable[[list[float]], float]
) -> dict[str, float]:
    """One figure of all rounds for each variant."""
    figures: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        for name in VARIANTS:
            figures[name].append(measure(name))
    return {name: of(found) for name, found in figures.items()}


def main() -> None:
    parser = report.parser(__doc__)
    parser.add_argument("--seconds", type=int, default=2, help="of each run of pgbench (default: 2)")
    parser.add_argument("--rounds", type=int, default=3, help="(default: 3)")
    options = parser.parse_args()
    writers: Sequence[int] = (1, 8, 16)
    rounds, seconds, times = options.rounds, options.seconds, 20_000
    if options.quick:
        writers, rounds, seconds = (1, 2), 1, 0
        times = 100
    found = report.Report("writes", str(options.major))
    cluster = postgres.Cluster(options.major, postgres.binaries()[options.major])
    try:
        prepare(cluster)
        with listening(cluster):
            for kind in ("durable", "processor"):
                make_durable(cluster, kind == "durable")
                single(found, cluster, kind, writers, rounds, seconds)
        rows = {
            "us for a row, within the server": lambda name: inside(cluster, name, times),
            "ms, 4 000 rows": lambda name: many_rows(cluster, name, 4_000),
            f"ms, {ROWS} rows": lambda name: many_rows(cluster, name, ROWS),
        }
        figures = {title: measured(rounds, measure, min) for title, measure in rows.items()}
    finally:
        cluster.remove()
    found.table(
        "statements",
        ("", *VARIANTS),
        [(title, *(one[v] for v in VARIANTS)) for title, one in figures.items()],
    )
    found.write(options.json)


def single(
    found: report.Report,
    cluster: postgres.Cluster,
    kind: str,
    writers: Sequence[int],
    rounds: int,
    seconds: int,
) -> None:
    """Single rows, by so many writers."""
    tps = {
        count: measured(rounds, lambda name: single_rows(cluster, name, seconds, count), statistics.median)  # noqa: B023
        for count in writers
    }
    found.table(
        f"{kind}: transactions of a single row, a second",
        ("writers", *VARIANTS),
        [(count, *(round(one[name]) for name in VARIANTS)) for count, one in tps.items()],
    )
    for count, one in tps.items():
        ours = found.number(f"{kind}, {count} writers", one[DEFAULT], "transactions/s", "more")
        found.target(f"{kind}, {count} writers, to bare notify", ours / one["bare_notify"], 0.95, "least")
        if count == 1:
            found.target(f"{kind}, 1 writer, to no trigger", ours / one["no_trigger"], 0.9, "least")


if __name__ == "__main__":
    main()
