"""Threads for blocking code: a fixed number, long-lived, each with Django connections that it keeps.

Trio's own worker threads end after ten idle seconds and take their database connections with them, and
they are as many as there are calls. These are a pool: its size bounds the connections to the database.
Of the idle ones the one that worked last works next, so that what it needs is in the processor's cache, and
that few connections are open where little is to do.
"""

from __future__ import annotations

import contextvars
import dataclasses
import logging
import queue
import select
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeVar, TypeVarTuple

import outcome
import trio
from django import db
from django.db.backends.base.base import BaseDatabaseWrapper

from trigger_ddp.api.failures import as_meteor_error

logger = logging.getLogger(__name__)

#: How the names of the threads begin.
THREAD_NAME = "trigger_ddp "

_T = TypeVar("_T")
_Args = TypeVarTuple("_Args")


@dataclasses.dataclass(frozen=True, slots=True)
class WorkersStatistics:
    """How busy the threads are.

    Args:
        size: number of threads.
        running: functions running now, those included whose callers were cancelled.
        waiting: functions waiting for a thread.
    """

    size: int
    running: int
    waiting: int


@dataclasses.dataclass(eq=False, slots=True)
class _Job:
    task: trio.lowlevel.Task
    call: Callable[[], Any]
    name: str
    abandoned: bool = False  # set on trio's thread; the worker reads it only to skip work nobody waits for


#: What a thread, or any of them, is to do; None: to end.
_Inbox = queue.SimpleQueue[_Job | None]


class Workers:
    """Runs blocking functions on threads of its own: ``async with Workers(8) as workers``.

    Args:
        size: number of threads.
        drain_seconds: how long leaving the block waits for functions that are still running. The threads
            are daemons: one that hangs beyond that can't keep the process from ending.
        name: of the threads.
    """

    def __init__(self, size: int, *, drain_seconds: float = 10.0, name: str = "worker") -> None:
        if size < 1:
            raise ValueError(f"size must be at least 1, not {size}")
        self._size = size
        self._drain_seconds = drain_seconds
        self._name = name
        self._idle: list[_Inbox] = []  # of idle threads, the one that worked last at the end
        self._waiting: _Inbox = queue.SimpleQueue()  # jobs for which no thread was idle
        self._unfinished: set[_Job] = set()
        self._open = False
        self._alive = 0
        self._all_ended = trio.Event()
        self._threads: list[threading.Thread] = []

    async def __aenter__(self) -> Self:
        await trio.lowlevel.checkpoint()
        self._token = trio.lowlevel.current_trio_token()
        self._open = True
        self._alive = self._size
        for number in range(self._size, 0, -1):
            inbox: _Inbox = queue.SimpleQueue()
            self._idle.append(inbox)
            name = f"{THREAD_NAME}{self._name} {number}"
            thread = threading.Thread(target=self._work, args=[inbox], name=name, daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._open = False
        while self._idle:
            self._idle.pop().put(None)
        with trio.move_on_after(self._drain_seconds, shield=True):
            await self._all_ended.wait()
        if not self._all_ended.is_set():
            names = ", ".join(sorted(job.name for job in self._unfinished))
            logger.warning(
                "%d worker threads still run after %g s and are left behind: %s",
                self._alive, self._drain_seconds, names,
            )  # fmt: skip
            return
        for thread in self._threads:
            thread.join()  # each has said that it ends, which takes microseconds

    async def run(self, function: Callable[[*_Args], _T], *args: *_Args) -> _T:
        """Call ``function(*args)`` on one of the threads; return what it returns, raise what it raises.

        What it raises to end the program, as `sys.exit` does, ends only itself.

        The function sees the caller's context variables. If the caller is cancelled, this raises
        `trio.Cancelled` at once: a function that has begun runs on to its end, its result is dropped and
        its exception logged; one that has not begun never does.

        Raises:
            RuntimeError: the function raised something that is no `Exception`, which is the cause.
            trio.ClosedResourceError: outside of the ``async with`` block.
        """
        if not self._open:
            raise trio.ClosedResourceError("the workers are not running")
        await trio.lowlevel.checkpoint_if_cancelled()
        context = contextvars.copy_context()
        job = _Job(
            trio.lowlevel.current_task(),
            lambda: context.run(_unit_of_work, function, args),
            _name(function),
        )

        def abandon(_: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
            job.abandoned = True
            return trio.lowlevel.Abort.SUCCEEDED

        self._unfinished.add(job)
        (self._idle.pop() if self._idle else self._waiting).put(job)
        result: _T = await trio.lowlevel.wait_task_rescheduled(abandon)
        return result

    def statistics(self) -> WorkersStatistics:
        """How busy the threads are now."""
        unfinished = len(self._unfinished)
        running = min(unfinished, self._size)
        return WorkersStatistics(self._size, running, unfinished - running)

    def _work(self, inbox: _Inbox) -> None:
        """The life of one thread."""
        try:
            job = inbox.get()
            while job is not None:
                result = outcome.Value(None) if job.abandoned else outcome.capture(job.call)
                following = self._next_waiting()
                try:
                    self._token.run_sync_soon(self._finish, job, result, None if following else inbox)
                except trio.RunFinishedError:  # left behind at shutdown
                    _log_unheard(job, result)
                    if following is None:
                        break
                del job, result  # an idle thread must not keep a caller's objects alive
                job = following or inbox.get()
        finally:
            db.connections.close_all()
            try:
                self._token.run_sync_soon(self._ended)
            except trio.RunFinishedError:
                logger.info("a worker thread has ended after the server did")

    def _next_waiting(self) -> _Job | None:
        try:
            return self._waiting.get_nowait()
        except queue.Empty:
            return None

    def _finish(self, job: _Job, result: outcome.Value[Any] | outcome.Error, idle: _Inbox | None) -> None:
        """A thread is done with a job, and ``idle`` unless it goes on with another one."""
        if idle is not None:
            # While it had not said so, a job may have been left to wait.
            following = self._next_waiting()
            if following is not None or not self._open:
                idle.put(following)
            else:
                self._idle.append(idle)
        self._unfinished.discard(job)
        if job.abandoned:
            _log_unheard(job, result)
        else:
            trio.lowlevel.reschedule(job.task, result)

    def _ended(self) -> None:
        self._alive -= 1
        if not self._alive:
            self._all_ended.set()


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", None) or repr(function)


def _log_unheard(job: _Job, result: outcome.Value[Any] | outcome.Error) -> None:
    # What is meant for a client, who is not there any more, is nobody's trouble.
    if isinstance(result, outcome.Error) and as_meteor_error(result.error) is None:
        logger.error("%s failed after its caller was cancelled", job.name, exc_info=result.error)


def _unit_of_work(function: Callable[..., _T], args: tuple[Any, ...]) -> _T:
    """Do for the thread's connections what Django does around each request."""
    db.reset_queries()
    for connection in db.connections.all(initialized_only=True):
        if _has_unread_bytes(connection):
            connection.errors_occurred = True  # has the next line test it, and close it if it is dead
        connection.close_if_unusable_or_obsolete()
    try:
        return function(*args)
    except Exception:
        raise
    except BaseException as error:
        # SystemExit, KeyboardInterrupt, the cancellation of another event loop: on trio's thread it would
        # be taken for the server's own, and end it with all its clients.
        raise RuntimeError(f"{_name(function)} raised {type(error).__qualname__}") from error
    finally:
        for connection in db.connections.all(initialized_only=True):
            _keep_open(connection)
            connection.close_if_unusable_or_obsolete()


def _keep_open(connection: BaseDatabaseWrapper) -> None:
    """Undo ``CONN_MAX_AGE = 0``, which means "until the request ends"; our threads serve no requests.

    A pooled connection is left to go back: the pool may be smaller than the number of threads.
    """
    settings = connection.settings_dict
    if settings["CONN_MAX_AGE"] == 0 and not settings["OPTIONS"].get("pool"):
        connection.close_at = None


def _has_unread_bytes(connection: BaseDatabaseWrapper) -> bool:
    """Whether an idle PostgreSQL connection has something to say: nearly always that the server hung up.

    Costs no round trip, and spares the first query after a restart of the database its failure.
    """
    if connection.vendor != "postgresql" or connection.connection is None or connection.connection.closed:
        return False
    poll = select.poll()
    poll.register(connection.connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))
