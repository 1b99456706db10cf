"""Whatever statements are committed, what is told names exactly the rows that differ before and after."""

from __future__ import annotations

import dataclasses

import psycopg
import pytest
from django.db import models
from django.test import override_settings
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from tests.capture.capturing import install_on, listening, model
from tests.conftest import Database
from trigger_ddp.capture.functions import Level
from trigger_ddp.capture.tables import Table
from trigger_ddp.changes.change import Change, Gap

THRESHOLD = 6
DDL = """
CREATE TABLE thing (id int PRIMARY KEY, owner_id int, body text, data json, seen timestamptz) {partitioning};
CREATE TABLE other (id int PRIMARY KEY, owner_id int, body text);
INSERT INTO other SELECT i, i % 3, 'merged' FROM generate_series(1, 12) i;
"""
LAYOUTS = {
    "plain": "",
    "partitioned": "PARTITION BY RANGE (id)",
}
PARTITIONS = """
CREATE TABLE low PARTITION OF thing FOR VALUES FROM (MINVALUE) TO (7);
CREATE TABLE high (data json, seen timestamptz, owner_id int, gone int, body text, id int NOT NULL);
ALTER TABLE high DROP gone;
ALTER TABLE thing ATTACH PARTITION high FOR VALUES FROM (7) TO (MAXVALUE);
"""

keys = st.integers(1, 12)
key_lists = st.lists(keys, min_size=0, max_size=10, unique=True).map(
    lambda found: ", ".join(map(str, found)) or "NULL"
)
owners = st.none() | st.integers(0, 2)
texts = st.sampled_from(["a", "b", None])


def literal(value: object) -> str:
    return "NULL" if value is None else f"'{value}'"


rows = st.lists(
    st.builds(
        lambda key, owner, text: f"({key}, {literal(owner)}, {literal(text)}, '{{}}', now())",
        keys,
        owners,
        texts,
    ),
    min_size=1,
    max_size=9,
)


def with_keys(statement: str) -> st.SearchStrategy[str]:
    """``statement`` with some keys in place of KEYS."""
    return key_lists.map(lambda found: statement.replace("KEYS", found))


def inserting(rest: str = "") -> st.SearchStrategy[str]:
    return rows.map(lambda new: f"INSERT INTO thing VALUES {', '.join(new)} {rest}")


statements = st.one_of(
    inserting(),
    inserting("ON CONFLICT DO NOTHING"),
    inserting("ON CONFLICT (id) DO UPDATE SET owner_id = excluded.owner_id, body = excluded.body"),
    inserting("ON CONFLICT (id) DO UPDATE SET body = thing.body"),
    with_keys("UPDATE thing SET body = 'a' WHERE id IN (KEYS)"),
    with_keys("UPDATE thing SET body = NULL WHERE id IN (KEYS)"),
    with_keys("UPDATE thing SET owner_id = NULL WHERE id IN (KEYS)"),
    with_keys("UPDATE thing SET owner_id = 1 WHERE id IN (KEYS)"),
    with_keys("UPDATE thing SET data = data WHERE id IN (KEYS)"),
    with_keys("UPDATE thing SET data = '[]' WHERE id IN (KEYS)"),
    with_keys("UPDATE thing SET id = id - 20 WHERE id IN (KEYS)"),
    with_keys("UPDATE thing SET id = id + 5 WHERE id IN (KEYS)"),
    with_keys("DELETE FROM thing WHERE id IN (KEYS)"),
    with_keys("DELETE FROM thing USING other WHERE thing.id = other.id AND other.id IN (KEYS)"),
    st.just("DELETE FROM thing"),
    st.just("TRUNCATE thing"),
    st.lists(keys, min_size=1, max_size=9, unique=True).map(
        lambda new: "COPY " + "\n".join(f"{key}\t{key % 3}" for key in new)
    ),
    with_keys(
        "MERGE INTO thing t USING (SELECT * FROM other WHERE id IN (KEYS)) o ON t.id = o.id "
        "WHEN MATCHED AND t.owner_id = 0 THEN DELETE "
        "WHEN MATCHED AND t.owner_id = 1 THEN UPDATE SET body = o.body, owner_id = o.owner_id "
        "WHEN NOT MATCHED AND o.owner_id < 2 THEN"
        " INSERT (id, owner_id, body) VALUES (o.id, o.owner_id, o.body)"
    ),
    with_keys(
        "WITH gone AS (DELETE FROM thing WHERE id IN (KEYS) AND id < 6 RETURNING id) "
        "UPDATE thing SET body = 'cte' WHERE id >= 6"
    ),
)


@dataclasses.dataclass
class Block:
    """Statements within a savepoint, or a transaction, that is kept or not."""

    kept: bool
    steps: list[str | Block]


blocks: st.SearchStrategy[Block] = st.recursive(
    st.builds(Block, st.booleans() | st.just(True), st.lists(statements, min_size=1, max_size=4)),
    lambda inner: st.builds(Block, st.booleans(), st.lists(statements | inner, min_size=1, max_size=3)),
    max_leaves=3,
)

Pair = tuple[str, str | None]
Snapshot = dict[str, tuple[Pair, str]]


@dataclasses.dataclass
class Expected:
    """What committed statements must have told."""

    now: set[Pair] = dataclasses.field(default_factory=set)
    before: set[Pair] = dataclasses.field(default_factory=set)
    truncated: bool = False
    may_be_bulk: bool = False

    def absorb(self, other: Expected) -> None:
        self.now |= other.now
        self.before |= other.before
        self.truncated |= other.truncated
        self.may_be_bulk |= other.may_be_bulk


def snapshot(conn: psycopg.Connection) -> Snapshot:
    found = conn.execute("SELECT id::text, owner_id::text, thing::text FROM thing")
    return {key: ((key, owner), whole) for key, owner, whole in found}


def run(conn: psycopg.Connection, block: Block) -> Expected:
    """Execute a block; what it must tell if everything around it is committed."""
    expected = Expected()
    try:
        with conn.transaction():
            for step in block.steps:
                if isinstance(step, Block):
                    expected.absorb(run(conn, step))
                else:
                    expected.absorb(execute(conn, step))
            if not block.kept:
                raise psycopg.Rollback
    except psycopg.errors.IntegrityError as error:
        note(f"   -- {error}")
        return Expected()
    except psycopg.errors.CardinalityViolation:  # ON CONFLICT touched one row twice
        return Expected()
    return expected if block.kept else Expected()


def execute(conn: psycopg.Connection, statement: str) -> Expected:
    note(statement)
    before = snapshot(conn)
    if statement.startswith("COPY "):
        with conn.cursor().copy("COPY thing (id, owner_id) FROM STDIN") as copy:
            copy.write(statement.removeprefix("COPY ") + "\n")
        written = statement.count("\t")
    else:
        written = conn.execute(statement).rowcount
    after = snapshot(conn)
    if statement.startswith("TRUNCATE"):
        return Expected(truncated=True)
    changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    return Expected(
        now={after[key][0] for key in changed if key in after},
        before={
            before[key][0]
            for key in changed
            if key in before and (key not in after or before[key][0] != after[key][0])
        },
        # rows of all parts of one statement
        may_be_bulk=written > THRESHOLD or "WITH" in statement,
    )


@pytest.mark.every_major
@pytest.mark.parametrize("level", ["statement", "row"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_committed_statements_tell_the_rows_that_differ(db: Database, layout: str, level: Level) -> None:
    with override_settings(DDP_BULK_THRESHOLD=THRESHOLD):
        table = Table.from_model(
            model(
                "thing",
                id=models.IntegerField(primary_key=True),
                owner=models.ForeignKey("self", models.CASCADE, db_constraint=False),
            )
        )
    with db.connect() as conn, listening(db, table) as ear:
        conn.execute(DDL.format(partitioning=LAYOUTS[layout]))
        if layout == "partitioned":
            conn.execute(PARTITIONS)
        install_on(table, level=level)

        @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
        @given(st.lists(blocks, min_size=1, max_size=3))
        def check(transactions: list[Block]) -> None:
            conn.execute(
                "TRUNCATE thing;"
                "INSERT INTO thing SELECT i, i % 3, 'x', '{}', now() FROM generate_series(1, 8) i"
            )
            ear.payloads()
            for block in transactions:
                note("BEGIN")
                expected = run(conn, block)
                compare(ear.changes(), expected, level)

        check()


def compare(told: list[Change | Gap], expected: Expected, level: Level) -> None:
    note(f"told {told}, expected {expected}")
    gaps = {change.reason for change in told if isinstance(change, Gap)}
    assert ("truncate" in gaps) is expected.truncated
    assert gaps <= {"truncate", "bulk"}
    changes = [change for change in told if isinstance(change, Change)]
    now = {row for change in changes if change.op != "D" for row in change.rows}
    before = {row for change in changes for row in (change.rows if change.op == "D" else change.old)}
    if "bulk" in gaps:
        assert level == "statement"
        assert expected.may_be_bulk
        assert now <= expected.now
        assert before <= expected.before
    else:
        assert now == expected.now
        assert before == expected.before
    if level == "statement":
        assert all(len(change.rows) <= THRESHOLD for change in changes)
