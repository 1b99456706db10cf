"""The debug console's commands: words in, text out. They look and change nothing."""

from __future__ import annotations

import inspect
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator

import trio

from trigger_ddp import __version__
from trigger_ddp.live.query import LiveQuery
from trigger_ddp.protocol.session import Session
from trigger_ddp.server.connection import Connection
from trigger_ddp.server.families import render
from trigger_ddp.server.metrics import Metrics
from trigger_ddp.server.service import Service
from trigger_ddp.server.workers import THREAD_NAME

#: Rows that are shown where no other number is asked for, and the most that are.
ROWS, MOST_ROWS = 50, 1000
#: Characters of SQL, and of whatever else clients or applications may make long.
SQL_CHARACTERS, WORD_CHARACTERS = 160, 80

_LAST, _NEXT, _BESIDE, _BELOW = "└─ ", "├─ ", "│  ", "   "


class Commands:
    """What can be asked.

    Args:
        service: the process's service.
        metrics: its metrics.
    """

    def __init__(self, service: Service, metrics: Metrics) -> None:
        self._service = service
        self._metrics = metrics
        self._commands: dict[str, tuple[str, Callable[..., Iterable[str]]]] = {
            "help": ("this list", self.help),
            "tasks": ("[ROWS]: the tasks and the nurseries they run in, as a tree", self.tasks),
            "where": ("ID: the stack of a task", self.where),
            "sessions": ("[ROWS]: the sessions, those first for whom the most bytes wait", self.sessions),
            "session": ("ID: one of them, with its subscriptions", self.session),
            "queries": ("[ROWS]: the live queries, those with the most documents first", self.queries),
            "threads": ("the threads, what each does, and how many jobs wait", self.threads),
            "metrics": ("what /_ddp/metrics says", self.metrics),
            "quit": ("close the console", lambda: ()),
        }

    def run(self, words: list[str]) -> str:
        """The answer to a line. Raises whatever goes wrong in a command; a wrong line is no error."""
        if not words:
            return ""
        name, *arguments = words
        if name not in self._commands:
            return f"no such command: {_word(name)}; 'help' lists them"
        usage, command = self._commands[name]
        try:
            try:
                inspect.signature(command).bind(*arguments)
            except TypeError:
                raise UsageError("too many words") from None
            return "\n".join(command(*arguments))
        except UsageError as wrong:
            return f"{wrong}\nusage: {name} {usage}"

    def help(self) -> Iterator[str]:
        """The commands."""
        yield f"trigger_ddp {__version__}"
        for name, (usage, _command) in self._commands.items():
            yield f"  {name:<9} {usage}"

    # -- tasks ----------------------------------------------------------------------------------

    def tasks(self, rows: str = str(ROWS)) -> Iterator[str]:
        """The tree of tasks and nurseries."""
        root = trio.lowlevel.current_root_task()
        assert root is not None
        return _bounded(_tree(root), rows)

    def where(self, task_id: str = "") -> Iterator[str]:
        """The stack of a task."""
        task = next((task for task in _all_tasks() if _id(task) == task_id), None)
        if task is None:
            raise UsageError("there is no such task (any more)")
        yield f"{_id(task)} {task.name}"
        for frame, line in task.iter_await_frames():
            code = frame.f_code
            yield f"  {code.co_filename}:{line} in {code.co_qualname}"

    # -- sessions -------------------------------------------------------------------------------

    def sessions(self, rows: str = str(ROWS)) -> Iterator[str]:
        """One line for each session."""
        waiting = self._sessions()
        waiting.sort(key=lambda row: row[0], reverse=True)
        return _bounded((line for _, line in waiting), rows, f"{len(waiting)} sessions")

    def session(self, session_id: str = "") -> Iterator[str]:
        """One session."""
        conversation = self._service.conversations.get(session_id)
        if conversation is None:
            raise UsageError("there is no such session (any more)")
        session = conversation.session
        connection = self._service.connections.get(session)
        _, line = _session_row(session, connection)
        yield line
        if connection is not None:
            statistics = connection.statistics()
            yield (
                f"  wire {session.wire.value}, DDP {session.version}, {statistics.bytes_sent} bytes sent, "
                f"the oldest that waits for {statistics.oldest_seconds:.1f} s"
            )
        yield f"  {session.sent} messages sent, {session.pending} received that wait for their turn"
        for subscription in (*session.universal.values(), *session.subscriptions.values()):
            kind = "universal" if subscription.universal else f"subscription {_word(subscription.id)}"
            yield f"  {kind} {_word(subscription.name)}: {len(subscription.held)} live queries"
            for query in subscription.held:
                yield f"    {_query(query)}"

    def _sessions(self) -> list[tuple[int, str]]:
        service = self._service
        away = [
            conversation.session
            for conversation in service.conversations.values()
            if conversation.session not in service.connections
        ]
        rows = [_session_row(session, connection) for session, connection in service.connections.items()]
        rows += [_session_row(session, None) for session in away]
        return rows

    # -- live queries ---------------------------------------------------------------------------

    def queries(self, rows: str = str(ROWS)) -> Iterator[str]:
        """One line for each live query, under its shape's SQL."""
        shapes = self._service.engine.shapes
        found = [(len(query.documents), query) for shape in shapes for query in shape.queries]
        found.sort(key=lambda row: row[0], reverse=True)
        yield from _bounded(
            (f"{_query(query)}\n    {_sql(query)}" for _, query in found),
            rows,
            f"{len(found)} live queries of {len(shapes)} shapes",
        )

    # -- threads --------------------------------------------------------------------------------

    def threads(self) -> Iterator[str]:
        """The pools, and where each thread is."""
        for name, workers in self._service.pools.items():
            statistics = workers.statistics()
            yield (
                f"{name}: {statistics.size} threads, {statistics.running} at work, "
                f"{statistics.waiting} jobs waiting"
            )
        frames = sys._current_frames()
        for thread in threading.enumerate():
            frame = frames.get(thread.ident or 0)
            if frame is None or not thread.name.startswith(THREAD_NAME):
                continue
            yield f"{thread.name}:"
            for entry in traceback.extract_stack(frame, limit=30):
                yield f"  {entry.filename}:{entry.lineno} in {entry.name}"

    # -- metrics --------------------------------------------------------------------------------

    def metrics(self) -> Iterator[str]:
        """What is scraped."""
        yield render(self._metrics.collect()).decode().rstrip("\n")


class UsageError(Exception):
    """What was asked can't be answered; its text says why."""


def _bounded(lines: Iterable[str], rows: str, total: str = "") -> Iterator[str]:
    """At most so many lines, and what is left out."""
    if not (rows.isascii() and rows.isdigit()):
        raise UsageError("ROWS is a number")
    most = min(int(rows[:9]), MOST_ROWS)
    left_out = 0
    if total:
        yield total
    for number, line in enumerate(lines):
        if number < most:
            yield line
        else:
            left_out += 1
    if left_out:
        yield f"… and {left_out} more"


def _word(value: object) -> str:
    """Anything in few characters and on one line: clients choose some of it."""
    text = str(value)
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= WORD_CHARACTERS else f"{text[:WORD_CHARACTERS]}…"


def _id(task: trio.lowlevel.Task) -> str:
    return f"{id(task):x}"


def _all_tasks() -> Iterator[trio.lowlevel.Task]:
    waiting = [trio.lowlevel.current_root_task()]
    while waiting:
        task = waiting.pop()
        if task is not None:
            yield task
            waiting += [child for nursery in task.child_nurseries for child in nursery.child_tasks]


def _tree(root: trio.lowlevel.Task) -> Iterator[str]:
    """Tasks and nurseries, each below what it runs in. No recursion: they may be nested deeply."""
    waiting: list[tuple[str, str, trio.lowlevel.Task | trio.Nursery]] = [("", "", root)]
    while waiting:
        before, branch, node = waiting.pop()
        below: list[trio.lowlevel.Task | trio.Nursery]
        if isinstance(node, trio.lowlevel.Task):
            yield f"{before}{branch}{_id(node)} {_word(node.name)}"
            below = list(node.child_nurseries)
        else:
            yield f"{before}{branch}(nursery)"
            tasks: list[trio.lowlevel.Task] = sorted(node.child_tasks, key=lambda task: task.name)
            below = [*tasks]
        inner = before + {"": "", _LAST: _BELOW, _NEXT: _BESIDE}[branch]
        waiting += [(inner, _LAST if child is below[-1] else _NEXT, child) for child in reversed(below)]


def _session_row(session: Session, connection: Connection | None) -> tuple[int, str]:
    if connection is None:
        state, address, bytes_waiting = "away", "-", 0
    else:
        state = "closing" if connection.closed else "connected" if session.id else "connecting"
        address, bytes_waiting = connection.client_address, connection.statistics().bytes_waiting
    user = "-" if session.user is None else _word(session.user.pk)
    return bytes_waiting, (
        f"{session.id or '-':<17} {state:<10} user {user} of {address}, "
        f"{len(session.subscriptions)} subscriptions, {bytes_waiting} bytes waiting"
    )


def _query(query: LiveQuery) -> str:
    return (
        f"{_word(query.collection)}: {query.state.value}, {len(query.documents)} documents, "
        f"{query.holds} holders"
    )


def _sql(query: LiveQuery) -> str:
    statement = query.shape.compiled.load
    sql = " ".join(statement.sql.split()) if statement is not None else "nothing is asked: it is always empty"
    return sql if len(sql) <= SQL_CHARACTERS else f"{sql[:SQL_CHARACTERS]}…"
