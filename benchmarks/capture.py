"""What the triggers cost the writers: ``python -m benchmarks.capture [--major 18] [--seconds 5]``.

Starts a PostgreSQL of its own. Variants of one table are measured in turn, round after round, so that a
machine that gets slower meanwhile slows all of them; the best of the rounds is printed, as the one that other
work on the machine disturbed least.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

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
EXECUTED = """
CREATE FUNCTION always_execute() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE told text;
BEGIN
  EXECUTE 'SELECT string_agg(n.id::text, '','') FROM new_rows n JOIN old_rows o USING (id) WHERE o *<> n'
  INTO told;
  IF told IS NOT NULL THEN PERFORM pg_notify('always_execute', left(told, 7999)); END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER always_execute AFTER UPDATE ON always_execute
REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION always_execute();
"""
LEVELS: dict[str, Level] = {"row_level": "row", "statement_level": "statement"}
VARIANTS = ("no_trigger", "bare_notify", "always_execute", *LEVELS)


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
        conn.execute(EXECUTED)
        conn.execute("VACUUM ANALYZE")
    point_django_at(cluster, "postgres")
    for name, level in LEVELS.items():
        owner = models.ForeignKey("self", models.CASCADE, db_constraint=False)
        install_on(
            Table.from_model(model(name, id=models.IntegerField(primary_key=True), owner=owner)), level=level
        )
    connection.close()


def single_rows(cluster: postgres.Cluster, name: str, seconds: int, clients: int) -> float:
    """Transactions of one single-row UPDATE per second, as pgbench counts them."""
    with tempfile.TemporaryDirectory() as directory:
        script = Path(directory) / "update.sql"
        script.write_text(
            f"\\set id random(1, {ROWS})\nUPDATE {name} SET amount = amount + 1 WHERE id = :id;\n"
        )
        dsn = cluster.dsn("postgres")
        pgbench = next(
            path / "pgbench" for path in postgres.binaries().values() if (path / "pgbench").exists()
        )
        done = subprocess.run(
            [pgbench, "-n", "-Mprepared", f"-T{seconds}", f"-c{clients}", f"-f{script}", dsn],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    found = re.search(r"tps = ([\d.]+)", done.stdout)
    assert found
    return float(found[1])


def inside(cluster: postgres.Cluster, name: str) -> float:
    """Microseconds of one single-row UPDATE within a loop in the server: no round trip, no commit."""
    with cluster.connect() as conn, conn.transaction(force_rollback=True):
        started = time.perf_counter()
        conn.execute(
            "DO $$ BEGIN FOR i IN 1..20000 LOOP"
            f" UPDATE {name} SET amount = amount + 1 WHERE id = 1 + i % 100; END LOOP; END $$"
        )
        return (time.perf_counter() - started) / 20000 * 1e6


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--major", type=int, default=max(postgres.binaries()))
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    cluster = postgres.Cluster(options.major, postgres.binaries()[options.major])
    measures: dict[str, Callable[[str], float]] = {
        "us/update, in the server": lambda name: inside(cluster, name),
        "tps, 1 client": lambda name: single_rows(cluster, name, options.seconds, 1),
        "tps, 8 clients": lambda name: single_rows(cluster, name, options.seconds, 8),
        "ms, 4 000 rows": lambda name: many_rows(cluster, name, 4_000),
        f"ms, {ROWS} rows": lambda name: many_rows(cluster, name, ROWS),
    }
    try:
        prepare(cluster)
        print(f"PostgreSQL {options.major}".ljust(28), *(name.rjust(15) for name in VARIANTS))
        for label, measure in measures.items():
            found: dict[str, list[float]] = defaultdict(list)
            for _ in range(options.rounds):
                for name in VARIANTS:
                    found[name].append(measure(name))
            best = max if label.startswith("tps") else min
            figures = [f"{best(found[name]):15.1f}" for name in VARIANTS]
            print(label.ljust(28), *figures, flush=True)
    finally:
        cluster.remove()


if __name__ == "__main__":
    main()
