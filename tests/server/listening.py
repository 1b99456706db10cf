"""A listener that a test holds, and what it is told: shared by the listener's tests."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from tests.conftest import Database
from tests.proxy import Proxy
from tests.server import eventually
from trigger_ddp.changes.change import Change, Gap
from trigger_ddp.server.backoff import Backoff
from trigger_ddp.server.listener import Listener
from trigger_ddp.server.source import ChangeSource, Event

RECONNECTED = Gap(None, "reconnected")


@dataclasses.dataclass(frozen=True)
class Table:
    name: str
    channel: str
    version: str = "1"


BOOKS = Table("bookstore_book", "tddp:book")
AUTHORS = Table("bookstore_author", "tddp:author")


def decode(table: Table, payload: str) -> Change | Gap:
    if payload.startswith("?"):
        return Gap(table.name, "undecodable")
    return Change(table.name, "I", ((payload,),))


def change(payload: object, table: Table = BOOKS) -> Change:
    return Change(table.name, "I", ((str(payload),),))


def quick() -> Backoff:
    return Backoff(least=0.01, most=0.05)


@asynccontextmanager
async def listening(conninfo: Any, **options: Any) -> AsyncIterator[tuple[Listener, list[Event]]]:
    """A running listener and, growing, the events it has delivered."""
    source = Listener(conninfo, decode, backoff=quick(), **options)
    events: list[Event] = []
    async with trio.open_nursery() as nursery:
        await nursery.start(source.run, events.extend)
        yield source, events
        nursery.cancel_scope.cancel()


async def pass_fence(source: ChangeSource, events: list[Event]) -> int:
    """Wait for a fence asked for now; return its position among the events."""
    fence = source.fence()
    await eventually(lambda: fence in events, "the fence")
    return events.index(fence)


def notify(db: Database, *payloads: object, table: Table = BOOKS) -> None:
    with db.connect() as conn:
        conn.cursor().executemany(
            "SELECT pg_notify(%s, %s)", [(table.channel, str(each)) for each in payloads]
        )


def activity(db: Database, column: str = "pid") -> str:
    """A column of pg_stat_activity for the listener's session, empty if there is none."""
    return db.psql(
        f"SELECT {column} FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name = 'trigger_ddp listener'"
    ).strip()


def tcp(db: Database, *proxies: Proxy) -> str:
    hosts, ports = (",".join(str(getattr(proxy, name)) for proxy in proxies) for name in ("host", "port"))
    return f"host={hosts} port={ports} user=postgres dbname={db.name}"
