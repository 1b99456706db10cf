"""Queries whose answers are lost on the way: found and ended, so that their threads are not lost too.

Where a router forgets a connection, or a proxy hangs, nobody says so, and a thread would wait for its answer
for ever. The kernel ends a connection whose other end does not acknowledge (`set_network_defaults`). If what
acknowledges is a proxy, only PostgreSQL knows (`StalledWatch`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import socket
import struct
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any
from weakref import WeakKeyDictionary

import psycopg
import trio
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.db.backends.signals import connection_created
from psycopg import sql
from psycopg.conninfo import make_conninfo
from psycopg.pq import TransactionStatus

from trigger_ddp.server.link import Link, LinkLostError, connect

logger = logging.getLogger(__name__)

#: In force for a connection unless its parameters say otherwise. The kernel then ends one whose peer is
#: gone some 30 seconds after something was sent, or 40 after something was heard. Not for Unix sockets.
NETWORK_DEFAULTS = {
    "connect_timeout": "10",  # seconds, for each address
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",  # milliseconds
}

#: Seconds between two looks at what the threads wait for.
LOOK_SECONDS = 5.0

#: Seconds that a connection waits for an answer, at each look, before PostgreSQL is asked about it.
PATIENCE = 15.0

#: Seconds from connecting to asking: if the network has just begun to pass again, what it held up arrives.
SETTLE_SECONDS = 1.0

#: Seconds that PostgreSQL may take to say what its processes do, the above included.
ANSWER_SECONDS = 10.0

#: When the server started, without a time zone, which is the session's.
_STARTED = sql.SQL("extract(epoch FROM pg_catalog.pg_postmaster_start_time())::text")
_WHO = sql.SQL("SELECT pg_catalog.pg_backend_pid(), {}").format(_STARTED)

#: Processes that work, or did until a moment ago: their answers may well be on the way. One that waits for
#: its client to take an answer in (ClientWrite) does not work; whether that arrives is seen at our socket.
_AT_WORK = sql.SQL(
    "SELECT {started}, pg_catalog.string_agg(pid::text, ' ') FROM pg_catalog.pg_stat_activity"
    " WHERE pid = ANY ({pids}) AND (wait_event = 'ClientWrite' OR state LIKE 'idle%'"
    " AND state_change < pg_catalog.clock_timestamp() - {recently} * interval '1 second') IS NOT TRUE"
)

#: Where struct tcp_info has the milliseconds since data was last received, and how much of it to ask for.
_LAST_DATA_RECEIVED, _TCP_INFO_BYTES = 52, 56


def network_defaults() -> dict[str, str]:
    """`NETWORK_DEFAULTS` without what libpq's environment says."""
    defaults = dict(NETWORK_DEFAULTS)
    if "PGCONNECT_TIMEOUT" in os.environ:
        del defaults["connect_timeout"]
    return defaults


def set_network_defaults() -> None:
    """Have Django's connections to PostgreSQL found dead when they are, unless DATABASES says otherwise."""
    for alias in connections:
        if _is_postgresql(alias):
            options = connections.settings[alias].setdefault("OPTIONS", {})
            for name, value in network_defaults().items():
                options.setdefault(name, value)


def _is_postgresql(alias: str) -> bool:
    try:
        return bool(connections[alias].vendor == "postgresql")
    except (ImproperlyConfigured, ImportError):
        return False  # `check_database` says what is wrong, if it is ours


@dataclasses.dataclass(frozen=True, slots=True)
class _Backend:
    """The other end of a connection.

    Args:
        pid: its process.
        started: when the server started, which no other server did.
        conninfo: for another connection to the same server.
    """

    pid: int
    started: str
    conninfo: str = dataclasses.field(repr=False)


class StalledWatch:
    """Ends those of Django's connections where an answer is waited for that PostgreSQL is not working on.

    Their queries then fail as they do when PostgreSQL hangs up. It asks PostgreSQL, so a query may take as
    long as it takes. Where a proxy that pools is in between, there is nothing to ask for and no watch.

    Args:
        alias: the database.
    """

    def __init__(self, alias: str) -> None:
        self._alias = alias
        self._lock = threading.Lock()
        self._known: WeakKeyDictionary[Any, _Backend] = WeakKeyDictionary()
        self._waiting: dict[
            Any, float
        ] = {}  # connections with the same query running at each look, since when

    async def run(self) -> None:
        """Run until cancelled."""
        with self._noting_connections():
            while True:
                await trio.sleep(LOOK_SECONDS)
                await self._look()

    @contextlib.contextmanager
    def _noting_connections(self) -> Iterator[None]:
        connection_created.connect(self._note, weak=False)
        try:
            yield
        finally:
            connection_created.disconnect(self._note)

    def _note(self, connection: Any, **kwargs: Any) -> None:
        """On the thread that has just connected."""
        if connection.alias != self._alias or connection.vendor != "postgresql":
            return
        driver = connection.connection
        if not driver.autocommit:
            return  # what is asked here would begin a transaction
        with self._lock:
            if driver in self._known:  # of a pool
                return
        try:
            pid, started = driver.execute(_WHO).fetchone()
        except psycopg.errors.InsufficientPrivilege as error:  # somebody has taken it from PUBLIC
            logger.warning("answers that are lost on the way are not noticed: %s", error)
            return
        info = driver.info
        if pid != info.backend_pid:
            logger.info("a proxy that pools is in between: answers that it loses are not noticed")
            return
        conninfo = make_conninfo(
            "",
            **{
                **info.get_parameters(),
                "password": info.password or None,
                "host": info.host,
                "hostaddr": info.hostaddr or None,
                "port": info.port,
                "target_session_attrs": None,
                "client_encoding": "UTF8",
                "application_name": "trigger_ddp watch",
                "connect_timeout": int(ANSWER_SECONDS),
            },
        )
        with self._lock:
            self._known[driver] = _Backend(pid, started, conninfo)

    async def _look(self) -> None:
        now = trio.current_time()
        with self._lock:
            known = dict(self._known)
        overdue: dict[str, list[Any]] = defaultdict(list)
        waiting: dict[Any, float] = {}
        for driver, backend in known.items():
            silent = _silent_seconds(driver, TransactionStatus.ACTIVE)
            if silent is None:
                continue
            since = self._waiting.get(driver, now)
            # Whatever is received since may have been the answer to one query, and this another.
            waiting[driver] = since = since if now - since <= silent else now
            if now - since >= PATIENCE:
                overdue[backend.conninfo].append(driver)
        self._waiting = waiting
        for conninfo, drivers in overdue.items():
            try:
                started, at_work = await _ask(conninfo, [known[driver].pid for driver in drivers])
            except (LinkLostError, trio.TooSlowError) as error:
                logger.debug("PostgreSQL can't be asked what it does: %s", error)
                continue
            lost = [
                known[driver].pid
                for driver in drivers
                # A server that has another start is another server, or was started anew.
                if known[driver].started == started
                and known[driver].pid not in at_work
                and _shut_down(driver, TransactionStatus.ACTIVE)
            ]
            if lost:
                # Those that nobody uses at the moment are as dead as a rule: not to be found out one by one.
                idle = [
                    driver
                    for driver, backend in known.items()
                    if backend.conninfo == conninfo and _shut_down(driver, TransactionStatus.IDLE)
                ]
                logger.warning(
                    "answers were lost on the way: PostgreSQL's processes %s have nothing to do while threads"
                    " wait for them; their connections are closed, and %d idle ones",
                    ", ".join(map(str, lost)),
                    len(idle),
                )


async def _ask(conninfo: str, pids: Iterable[int]) -> tuple[str, set[int]]:
    """When the server started, and which of its processes are at work."""
    with trio.fail_after(ANSWER_SECONDS):
        link = Link(await connect(conninfo))
        try:
            await trio.sleep(SETTLE_SECONDS)
            link.send(_AT_WORK.format(started=_STARTED, pids=list(pids), recently=ANSWER_SECONDS))
            while (reply := link.take_reply()) is None:
                await link.wait()
                link.receive()
        finally:
            link.close()
    if reply.error is not None:
        raise LinkLostError(reply.error)
    started, at_work = reply.row
    assert started is not None
    return started, set(map(int, (at_work or "").split()))


def _silent_seconds(driver: Any, status: TransactionStatus, *, shut_down: bool = False) -> float | None:
    """Seconds since a connection with this status received something; None if it has another one.

    Nor can it be known on a Unix socket, which has no network in between, or elsewhere than on Linux.

    Args:
        shut_down: have whoever waits see the end of the connection, or whoever uses it next.
    """
    try:
        with socket.socket(fileno=os.dup(driver.pgconn.socket)) as sock:
            info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
            (milliseconds,) = struct.unpack_from("I", info, _LAST_DATA_RECEIVED)
            with contextlib.suppress(BlockingIOError):
                sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
                return 0.0  # the answer is there: it is the thread that takes its time
            # With this status it is open, the same connection as before, and `sock` a handle of its socket.
            if driver.pgconn.transaction_status != status:
                return None
            if shut_down:
                sock.shutdown(socket.SHUT_RDWR)
    except (AttributeError, OSError, psycopg.Error, struct.error):
        return None  # it was closed meanwhile, or see above
    return float(milliseconds / 1000)


def _shut_down(driver: Any, status: TransactionStatus) -> bool:
    """End a connection with this status that has received nothing for a while; whether that was so."""
    silent = _silent_seconds(driver, status)
    return (
        silent is not None
        and silent >= PATIENCE
        and _silent_seconds(driver, status, shut_down=True) is not None
    )
