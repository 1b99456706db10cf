"""LISTEN on one PostgreSQL connection: the `ChangeSource` of a server that can reach its database directly.

One task owns the connection. It says one thing at a time, chosen by comparing what is wanted with what is in
force; so an outage needs no bookkeeping: the next connection starts with nothing in force.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
import math
import secrets
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import psycopg
import trio
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import PGnotify

from trigger_ddp.changes.change import Change, Gap
from trigger_ddp.errors import ConfigurationError
from trigger_ddp.server.backoff import Backoff
from trigger_ddp.server.link import Link, LinkLostError, Reply, connect, one_line
from trigger_ddp.server.source import Deliver, Event, Fence, SourceStatistics, WatchedTable
from trigger_ddp.server.stalled import network_defaults

logger = logging.getLogger(__name__)

#: Reads the payload of a notification on a table's channel. Never raises: any role may NOTIFY.
Decode: TypeAlias = Callable[[Any, str], Change | Gap]

#: Seconds until a notification of our own that PostgreSQL refused is tried again.
REFUSED_PAUSE = 1.0

#: PostgreSQL's limit for the name of a channel, in bytes: LISTEN cuts a longer one, pg_notify raises.
CHANNEL_BYTES = 63

#: How full the notification queue is when that is worth a warning, and another one. It has 8 GB unless
#: max_notify_queue_pages says otherwise, so that the first comes long before writes fail.
QUEUE_WARNINGS = (0.1, 0.25, 0.5, 0.75)

#: Arguments of psycopg.connect() that are not libpq's, as Django's get_connection_params() returns them.
_NOT_CONNINFO = {"autocommit", "context", "cursor_factory", "prepare_threshold", "row_factory"}

#: A role's or database's limits are meant for queries, not for a connection that is idle on purpose. Nothing
#: depends on the durability of our commits, and not waiting for the disk shortens the lock that all who
#: notify share. While that lock is stuck, lock_timeout keeps the connection itself usable.
_SETTINGS = sql.SQL(
    "SET statement_timeout = 0; SET idle_session_timeout = 0; "
    "SET synchronous_commit = off; SET lock_timeout = {}"
)
_NOTIFY = sql.SQL("SELECT pg_catalog.pg_notify({}, {})")
_HEARTBEAT = sql.SQL("SELECT pg_catalog.pg_notify({}, {}), pg_catalog.pg_notification_queue_usage()")
_LISTEN = sql.SQL("LISTEN {}")
_UNLISTEN = sql.SQL("UNLISTEN {}")
_THEN = sql.SQL("; ")


@dataclasses.dataclass(slots=True, eq=False)
class _Talk:
    """What is known of the present connection. Times are trio's.

    Args:
        heard_at: when PostgreSQL was last heard, or when the wait for an answer began.
        heartbeat_at: when the next heartbeat is due.
        quiet_until: no notification is sent before; set when one was refused.
        listening: the tables' channels in force; None before the first LISTEN was executed.
        starting: of the running statement: the channels that will be in force after it.
        notified: of the running statement: the token it notifies; None if it is about channels.
        refused: whether the latest notification was refused.
    """

    link: Link
    heard_at: float
    heartbeat_at: float
    quiet_until: float
    listening: set[str] | None = None
    starting: frozenset[str] = frozenset()
    notified: str | None = None
    refused: bool = False


class Listener:
    """A `ChangeSource` that LISTENs on a connection of its own.

    Args:
        conninfo: libpq's connection string, or its keywords as a mapping (Django's
            ``connection.get_connection_params()`` will do). Several hosts and ``target_session_attrs``
            make a failover. It must lead to the server itself, or to a proxy that pools whole sessions.
        decode: turns (table, payload) into a Change or Gap.
        heartbeat_interval: seconds between two notifications to itself.
        heartbeat_timeout: seconds of silence, while an answer is due, that mean a lost connection.
        backoff: the delays between tries to connect.
        retry_first: keep trying when the first connection fails, instead of raising.

    Raises:
        ConfigurationError: libpq does not understand the conninfo.
    """

    def __init__(
        self,
        conninfo: str | Mapping[str, Any],
        decode: Decode,
        *,
        heartbeat_interval: float = 15.0,
        heartbeat_timeout: float = 10.0,
        backoff: Backoff | None = None,
        retry_first: bool = False,
    ) -> None:
        self._conninfo = _complete_conninfo(conninfo)
        self._decode = decode
        self._heartbeat_interval = heartbeat_interval
        self._heartbeat_timeout = heartbeat_timeout
        self._backoff = backoff or Backoff()
        self._retry_first = retry_first

        self._subscribed: dict[str, tuple[WatchedTable, int]] = {}  # by channel, with their subscribers
        self._talk: _Talk | None = None
        self._nap: trio.CancelScope | None = None  # the wait for PostgreSQL; cancelled to say something
        self._executed = trio.lowlevel.ParkingLot()  # where subscribe() waits for its LISTEN

        # Any role may NOTIFY, so neither the channel nor the tokens on it can be guessed.
        self._channel = f"tddp:fence:{secrets.token_hex(16)}"
        self._token_prefix = secrets.token_hex(8)
        self._numbers = itertools.count(1)
        self._asked: list[Fence] = []  # fences that are to be sent
        self._sent: dict[str, list[Fence]] = {}  # those under way, by notified token; a heartbeat brings none

        self._reconnects = self._notifications = self._undecodable = self._ignored = 0
        self._queue_usage = self._queue_warned = 0.0
        self._last_error: str | None = None

    @property
    def connected(self) -> bool:
        """Whether changes arrive now."""
        return self._talk is not None and self._talk.listening is not None

    def statistics(self) -> SourceStatistics:
        """The counters as they are now."""
        return SourceStatistics(
            connected=self.connected,
            reconnects=self._reconnects,
            notifications=self._notifications,
            undecodable=self._undecodable,
            ignored=self._ignored,
            queue_usage=self._queue_usage,
            last_error=self._last_error,
        )

    # -- what others ask for -----------------------------------------------------------------------------

    async def subscribe(self, tables: Iterable[WatchedTable]) -> None:
        """As `ChangeSource.subscribe`; raises ValueError for a channel name of more than 63 bytes."""
        tables = tuple(tables)
        channels = {table.channel for table in tables}
        for channel in channels:
            if len(channel.encode()) > CHANNEL_BYTES:
                raise ValueError(f"the channel {channel!r} is longer than {CHANNEL_BYTES} bytes")
        for table in tables:
            _, subscribers = self._subscribed.get(table.channel, (table, 0))
            self._subscribed[table.channel] = (table, subscribers + 1)
        self._wake()
        try:
            await trio.lowlevel.checkpoint()
            while not self._in_force(channels):
                await self._executed.park()
        except BaseException:
            self._forget(tables)
            raise

    async def unsubscribe(self, tables: Iterable[WatchedTable]) -> None:
        """As `ChangeSource.unsubscribe`; raises KeyError for a table that nobody subscribed to."""
        self._forget(tables)
        await trio.lowlevel.checkpoint()

    def fence(self) -> Fence:
        """As `ChangeSource.fence`; while a statement runs, the "turn" lasts until it has ended."""
        if not self._asked:
            self._asked.append(Fence(str(next(self._numbers))))
            self._wake()
        # One that still has to be sent serves this caller too, even one that an outage brought back: its
        # notification commits after everything this caller can mean.
        return self._asked[-1]

    def _in_force(self, channels: set[str]) -> bool:
        listening = self._talk.listening if self._talk is not None else None
        return listening is not None and channels <= listening

    def _forget(self, tables: Iterable[WatchedTable]) -> None:
        for table in tables:
            known, subscribers = self._subscribed.pop(table.channel)
            if subscribers > 1:
                self._subscribed[table.channel] = (known, subscribers - 1)
        self._wake()

    def _wake(self) -> None:
        """Have the task look for something to say; while a statement runs it will do so by itself."""
        if self._nap is not None and self._talk is not None and not self._talk.link.busy:
            self._nap.cancel()

    # -- the task ----------------------------------------------------------------------------------------

    async def run(
        self, deliver: Deliver, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """As `ChangeSource.run`; what ``deliver`` raises ends it."""
        started = False
        lost_at: float | None = None
        tries = 0

        def on_connected() -> None:
            nonlocal started, lost_at
            now = trio.current_time()
            self._backoff.succeeded(now)
            if lost_at is not None:
                logger.warning("the listening connection is up after %.1f s (%d tries)", now - lost_at, tries)
                lost_at = None
            if started:
                self._reconnects += 1
                deliver([Gap(None, "reconnected")])
            else:
                started = True
                task_status.started()

        while True:
            try:
                await self._listen_until_lost(deliver, on_connected)
            except LinkLostError as error:
                now = trio.current_time()
                self._last_error = str(error)
                if not started and not self._retry_first:
                    raise ConfigurationError(f"can't listen to PostgreSQL: {error}") from error
                if lost_at is None:
                    lost_at, tries = now, 0
                    what = "is lost" if started else "can't be made yet"
                    logger.warning("the listening connection %s, trying again: %s", what, error)
                else:
                    logger.debug("the listening connection can't be made yet: %s", error)
            tries += 1
            await trio.sleep(self._backoff.failed(now))

    async def _listen_until_lost(self, deliver: Deliver, on_connected: Callable[[], None]) -> None:
        """Connect, LISTEN, and tell what arrives. Ends with a `LinkLostError`, or what ``deliver`` raises."""
        link = Link(await connect(self._conninfo))
        now = trio.current_time()
        self._talk = talk = _Talk(link, heard_at=now, heartbeat_at=now, quiet_until=now)
        try:
            while True:
                if not link.busy:
                    self._say_something(talk)
                await self._wait(talk)
                if events := self._read(link.receive()):
                    deliver(events)
                if (reply := link.take_reply()) is not None:
                    self._conclude(talk, reply, on_connected)
        finally:
            self._talk = None
            link.close()
            # Sent again under new tokens: an old one that arrives after all must release nothing, since
            # what was committed before it may have been missed.
            self._asked[:0] = [fence for fences in self._sent.values() for fence in fences]
            self._sent.clear()

    def _say_something(self, talk: _Talk) -> None:
        """Send the most urgent statement, if there is one."""
        now = trio.current_time()
        answer_due = bool(self._sent)
        statement = self._next_statement(talk, now)
        if statement is not None:
            if not answer_due:
                talk.heard_at = now
            talk.link.send(statement)

    def _next_statement(self, talk: _Talk, now: float) -> sql.Composable | None:
        wanted = self._subscribed.keys()
        if talk.listening is None:
            talk.starting, talk.notified = frozenset(wanted), None
            half_the_timeout = max(1, int(self._heartbeat_timeout * 1000 / 2))  # in milliseconds
            settings = _SETTINGS.format(half_the_timeout)
            return _THEN.join([settings, *_for_each(_LISTEN, [self._channel, *wanted])])
        heartbeat = now >= talk.heartbeat_at
        must_notify = (heartbeat or bool(self._asked)) and now >= talk.quiet_until
        must_notify_first = must_notify and talk.notified is None  # in turns, so that neither starves
        if talk.listening != wanted and not must_notify_first:
            new, old = wanted - talk.listening, talk.listening - wanted
            talk.listening -= old
            talk.starting, talk.notified = frozenset(new), None
            return _THEN.join([*_for_each(_LISTEN, new), *_for_each(_UNLISTEN, old)])
        if not must_notify:
            return None
        talk.notified = token = f"{self._token_prefix}:{next(self._numbers)}"
        self._sent[token], self._asked = self._asked, []
        if heartbeat:
            talk.heartbeat_at = now + self._heartbeat_interval
        return (_HEARTBEAT if heartbeat else _NOTIFY).format(self._channel, token)

    async def _wait(self, talk: _Talk) -> None:
        """Sleep until PostgreSQL is heard or there is something to say; too long a silence raises."""
        now = trio.current_time()
        overdue_at = say_at = math.inf
        if talk.link.busy or self._sent:
            overdue_at = talk.heard_at + self._heartbeat_timeout
        if not talk.link.busy:
            say_at = max(talk.quiet_until, now if self._asked else talk.heartbeat_at)
        # Never a time that has passed, which would cancel before the socket is looked at: after a long pause
        # of this process the answer may well be there.
        with trio.CancelScope(deadline=max(min(overdue_at, say_at), now + 0.001)) as self._nap:
            try:
                await talk.link.wait()
                talk.heard_at = trio.current_time()
            finally:
                self._nap = None
        if trio.current_time() >= talk.heard_at + self._heartbeat_timeout and overdue_at < math.inf:
            raise LinkLostError(
                f"PostgreSQL has been silent for {self._heartbeat_timeout:g} s"
                if talk.link.busy
                else "our own notification did not come back; does a proxy in between pool transactions?"
            )

    def _conclude(self, talk: _Talk, reply: Reply, on_connected: Callable[[], None]) -> None:
        """Take note of what the statement that has just ended brought."""
        if talk.notified is None:
            if reply.error is not None:
                raise LinkLostError(reply.error)
            first = talk.listening is None
            talk.listening = (talk.listening or set()) | talk.starting
            if first:
                on_connected()
            self._executed.unpark_all()
        elif reply.error is None:
            talk.refused = False
            if len(reply.row) > 1:
                self._look_at_queue(float(reply.row[1] or 0))
        else:
            # The queue is full, or its lock was held for long; what we listen to is still in force. What the
            # fences are to wait for can't be committed either.
            self._asked[:0] = self._sent.pop(talk.notified, [])
            talk.quiet_until = trio.current_time() + REFUSED_PAUSE
            if not talk.refused:
                logger.warning("PostgreSQL refuses our own notification, trying again: %s", reply.error)
            talk.refused = True

    # -- what arrives ------------------------------------------------------------------------------------

    def _read(self, notifications: Iterable[PGnotify]) -> list[Event]:
        events: list[Event] = []
        for notification in notifications:
            self._notifications += 1
            channel, payload = notification.relname.decode(), notification.extra.decode()
            if channel == self._channel:
                fences = self._sent.pop(payload, None)
                if fences is None:
                    self._ignored += 1
                else:
                    events += fences
            elif channel in self._subscribed:
                table, _ = self._subscribed[channel]
                event = self._decode(table, payload)
                if isinstance(event, Gap) and event.reason == "undecodable":
                    self._undecodable += 1
                events.append(event)
            else:
                self._ignored += 1
        return events

    def _look_at_queue(self, usage: float) -> None:
        level = max((level for level in QUEUE_WARNINGS if usage >= level), default=0.0)
        if level > self._queue_warned:
            self._queue_warned = level
            logger.warning(
                "PostgreSQL's notification queue is %.0f %% full: some session listens but does not read, "
                "perhaps idle in a transaction; when the queue is full, writes fail",
                usage * 100,
            )
        elif self._queue_warned and usage < QUEUE_WARNINGS[0] / 2:
            self._queue_warned = 0.0
            logger.warning("PostgreSQL's notification queue is nearly empty again")
        self._queue_usage = usage


def _for_each(command: sql.SQL, channels: Iterable[str]) -> list[sql.Composable]:
    return [command.format(sql.Identifier(channel)) for channel in channels]


def _complete_conninfo(conninfo: str | Mapping[str, Any]) -> str:
    """The conninfo with our defaults. Raises ConfigurationError."""
    defaults = {"fallback_application_name": "trigger_ddp listener", **network_defaults()}
    try:
        given = conninfo_to_dict(conninfo) if isinstance(conninfo, str) else conninfo
        given = {key: value for key, value in given.items() if key not in _NOT_CONNINFO and value is not None}
        # In UTF8, PostgreSQL vouches for the encoding of each notification, even from a SQL_ASCII database.
        return make_conninfo("", **{**defaults, **given, "client_encoding": "UTF8"})
    except psycopg.ProgrammingError as error:
        raise ConfigurationError(f"the listening connection can't be made: {one_line(str(error))}") from error
