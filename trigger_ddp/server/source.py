"""Where committed changes come from: the interface, and the events it delivers.

The server is written against `ChangeSource`. `server.listener.Listener` implements it with LISTEN on
one connection; a source that reads the write-ahead log or a message bus would be another.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Protocol, TypeAlias

import trio

from trigger_ddp.changes.change import Change, Gap


@dataclasses.dataclass(frozen=True, slots=True)
class Fence:
    """A marker in the stream of changes: all that was committed before it was asked for is before it.

    Args:
        token: tells the fences of one source apart; means nothing else.
    """

    token: str


#: What a source delivers.
Event: TypeAlias = Change | Gap | Fence

#: Takes one batch of events, in the order of the commits. Called on trio's thread, must not block. What it
#: raises is a bug of the receiver and ends the source.
Deliver: TypeAlias = Callable[[list[Event]], None]


class WatchedTable(Protocol):
    """What a source needs to know of a table; `capture.tables.Table` is one."""

    @property
    def name(self) -> str:
        """The table as `Change.table` and `Gap.table` name it."""

    @property
    def channel(self) -> str:
        """The channel its triggers notify: at most 63 bytes of UTF-8."""

    @property
    def version(self) -> str:
        """The fingerprint of the trigger function that is expected."""


@dataclasses.dataclass(frozen=True, slots=True)
class SourceStatistics:
    """A source's counters since it was made.

    Args:
        connected: whether changes arrive now.
        reconnects: how often the connection was lost and regained.
        notifications: notifications received, of every kind.
        undecodable: of these, the ones on a table's channel that could not be read; each became a Gap.
        ignored: of these, the ones on a channel no longer subscribed to, and forged or outdated fences.
        queue_usage: how full PostgreSQL's notification queue was at the last look, 0 to 1. It fills while
            any session of the cluster listens but does not read; once full, writes that notify fail.
        last_error: why the connection was last lost, or could not be made.
    """

    connected: bool
    reconnects: int
    notifications: int
    undecodable: int
    ignored: int
    queue_usage: float
    last_error: str | None


class ChangeSource(Protocol):
    """A stream of the committed changes of the tables subscribed to.

    All methods belong to the thread that trio runs on.
    """

    @property
    def connected(self) -> bool:
        """Whether changes arrive now; while False, what is delivered next is a Gap."""

    async def run(
        self, deliver: Deliver, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Deliver events until cancelled; run it once, in a task of its own.

        ``task_status.started()`` is called when the first connection is up. After a lost connection:
        connects again, subscribes again, delivers ``[Gap(None, "reconnected")]``, and only then brings
        the fences that are still owed.

        Raises:
            ConfigurationError: the first connection can't be made.
        """

    async def subscribe(self, tables: Iterable[WatchedTable]) -> None:
        """Return when every change of the tables that commits from now on will be delivered.

        Waits through an outage. Subscriptions are counted: to each belongs one `unsubscribe`, except to
        one that was cancelled or raised.
        """

    async def unsubscribe(self, tables: Iterable[WatchedTable]) -> None:
        """Take back one `subscribe` of these tables; when it was a table's last, its changes end at once."""

    def fence(self) -> Fence:
        """Ask for a Fence; it is delivered after everything that was committed before this call.

        Calls of one turn of the event loop get the same Fence, and it is delivered once. During an outage
        it comes after the Gap that ends the outage.
        """

    def statistics(self) -> SourceStatistics:
        """The counters as they are now."""
