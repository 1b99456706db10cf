"""What the capture tests share: models of their own, and a connection that hears what triggers say."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from django.apps.registry import Apps
from django.db import connection, models

from tests.conftest import Database
from trigger_ddp.capture import install
from trigger_ddp.capture.functions import Level
from trigger_ddp.capture.tables import Table
from trigger_ddp.changes.change import Change, Gap
from trigger_ddp.changes.decode import decode

_numbers = itertools.count(1)


def model(db_table: str, **attributes: Any) -> type[models.Model]:
    """A model that no app has, on a table that the test makes."""
    meta = {"db_table": db_table, "app_label": "capturing", "apps": Apps(), "managed": False}
    meta |= attributes.pop("meta", {})
    return type(
        f"Model{next(_numbers)}",
        (models.Model,),
        {"__module__": __name__, "Meta": type("Meta", (), meta), **attributes},
    )


def install_on(*tables: Table, level: Level | None = None) -> None:
    """Install the tables' triggers through Django's connection, and see that they are current."""
    report = install.status(connection, tables, level=level)
    for step in install.install_steps(report):
        install.apply(connection, step, lock_timeout=5)
    after = install.status(connection, tables, level=level)
    assert [status.differences for status in after.tables] == [()] * len(tables)


@dataclasses.dataclass
class Ear:
    """Hears the notifications of some tables."""

    connection: psycopg.Connection
    tables: Sequence[Table]
    speaker: psycopg.Connection

    def payloads(self) -> list[tuple[Table, str]]:
        """Everything that was committed since the last call."""
        marker = f"marker {next(_numbers)}"
        self.speaker.execute("SELECT pg_notify('capturing', %s)", [marker])
        heard: list[tuple[Table, str]] = []
        by_channel = {table.channel: table for table in self.tables}
        for notification in self.connection.notifies(timeout=60):
            if notification.payload == marker:
                return heard
            if notification.channel in by_channel:
                heard.append((by_channel[notification.channel], notification.payload))
        raise AssertionError("the marker did not come back")

    def changes(self) -> list[Change | Gap]:
        """The same, decoded."""
        payloads = self.payloads()
        assert all(len(payload.encode()) <= 7999 for _, payload in payloads)
        return [decode(table, payload) for table, payload in payloads]


@contextmanager
def listening(db: Database, *tables: Table) -> Iterator[Ear]:
    with db.connect() as ear, db.connect() as speaker:
        ear.execute("LISTEN capturing")
        for table in tables:
            ear.execute(f"LISTEN {table.channel}")
        yield Ear(ear, tables, speaker)
