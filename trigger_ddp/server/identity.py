"""Who a session's client is: set by a method, and kept as the database has it."""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

import outcome
import trio

from trigger_ddp.api import this
from trigger_ddp.errors import MeteorError
from trigger_ddp.server import logcontext
from trigger_ddp.server.leases import Lease
from trigger_ddp.server.service import Service
from trigger_ddp.server.subscribing import Publications, Run, user_shown
from trigger_ddp.server.users import Watch, find_user, reload_user, snapshot

T = TypeVar("T")


class Identity:
    """The user of one session.

    Args:
        service: the process's service.
        publications: what is to be run again as another user.
        nursery: for switches that a method on a worker thread waits for.
        on_stale: called when the user has changed; call `refresh` at the session's next turn.
        on_gone: called when the row is gone that the login lasts as long as.
    """

    def __init__(
        self,
        service: Service,
        publications: Publications,
        nursery: trio.Nursery,
        on_stale: Callable[[], object],
        on_gone: Callable[[], object],
    ) -> None:
        self._service = service
        self._publications = publications
        self._nursery = nursery
        self._on_stale = on_stale
        self._on_gone = on_gone
        self._watch: Watch | None = None
        self._lease: Lease | None = None
        self._known: dict[str, Any] | None = None  # the user's columns as the publications saw them
        self._pk: Any = None
        self._memberships_changed = False
        self._switching = trio.Lock()
        self._refreshing = False
        self._refreshed: trio.Event | None = None  # while somebody waits for it
        #: Whether the user may have changed since the publications ran, so that `refresh` is to be called.
        self.stale = False
        self.ended = False

    def setter(self, allowed: Callable[[], None]) -> UserSetter:
        """``this.set_user_id`` for one method; ``allowed`` raises where it may not be called."""
        return UserSetter(self, self._nursery, allowed)

    def doubt(self, memberships: bool = True) -> None:
        """The user may have changed; ``memberships``: perhaps not in its row."""
        self.stale = True
        self._memberships_changed |= memberships
        self._on_stale()

    def end(self) -> None:
        """The session is over."""
        self.ended = True
        self._forget()
        self._replace_lease(None)

    @property
    def current(self) -> bool:
        """Whether the client sees what the user, as far as is known, may see."""
        return not self.stale and not self._refreshing

    def shown(self) -> dict[str, Any]:
        """What `this` shows of the user."""
        return user_shown(self._publications.user)

    async def wait_current(self) -> None:
        """Wait until `refresh` has dealt with what it is to deal with."""
        while not self.current:
            self._refreshed = self._refreshed or trio.Event()
            await self._refreshed.wait()

    def lease(self, row: Any) -> Lease | None:
        """What the login of the next `become` is to last as long as; for None as long as the session.

        Raises:
            TypeError: it is no row.
        """
        return None if row is None else Lease(row, self._on_gone)

    async def become(self, user_id: Any, run: Run, held: Lease | None = None) -> None:
        """Make the client this user, or nobody, and tell it what that changes.

        Args:
            user_id: a document id, a primary key, or None.
            run: runs blocking code where what the caller has written can be seen.
            held: what the login lasts as long as, perhaps a row of the caller's transaction; call
                `arm_lease` when that is over.

        Raises:
            MeteorError: 403, there is no such user, or it is not active, or its lease is gone. Nothing has
                changed then.
            TriggersMissing: the deletion of the lease would not be heard of.
            TypeError: it can't be an id.
        """
        async with self._switching:
            if user_id is None:
                self._replace_lease(None)
                await self._switch(None, None, run)
                return
            # Watched before it is read: no change comes between.
            with contextlib.ExitStack() as undo:
                watch = await self._service.patiently(lambda: self._service.users.watch(self.doubt))
                undo.callback(self._service.forget_user, watch)
                if held is not None:
                    await self._service.leases.hold(held)
                    undo.callback(self._service.let_go_lease, held)
                user = await run(partial(find_user, user_id))
                if held is not None and not await run(held.exists):
                    raise MeteorError(403, "The login is no longer valid")
                undo.pop_all()
            self._replace_lease(held)
            await self._switch(user, watch, run)

    def arm_lease(self, lease: Lease) -> None:
        """The transaction of whoever called `become` with this lease is over: is the row there?"""
        if lease is self._lease:
            self._service.leases.arm(lease)

    async def wait_switched(self) -> None:
        """Wait until no switch is going on, as where a method has not waited for its own."""
        async with self._switching:
            pass

    def _replace_lease(self, lease: Lease | None) -> None:
        if self._lease is not None:
            self._service.let_go_lease(self._lease)
        self._lease = lease

    async def refresh(self) -> None:
        """Look at the user again; if it has changed, so may have what the client sees."""
        async with self._switching:
            memberships, self.stale, self._memberships_changed = self._memberships_changed, False, False
            self._refreshing = True
            try:
                user = None
                if self._watch is not None:
                    user = await self._in_workers(partial(reload_user, self._pk))
                if memberships or (None if user is None else snapshot(user)) != self._known:
                    await self._switch(user, None if user is None else self._watch, self._in_workers)
            finally:
                self._refreshing = False
                if self._refreshed is not None:
                    self._refreshed.set()
                    self._refreshed = None

    async def _switch(self, user: Any, watch: Watch | None, run: Run) -> None:
        if watch is not self._watch:
            self._forget()
            self._watch = watch
        self._pk, self._known = (None, None) if user is None else (user.pk, snapshot(user))
        if watch is not None:
            self._service.users.watch_only(watch, self._pk)
        try:
            await self._publications.run_again(user, run)
        except BaseException:
            self.doubt()  # what the client sees may be another user's: run again at the next turn
            raise

    def _forget(self) -> None:
        if self._watch is not None:
            self._service.forget_user(self._watch)
            self._watch = None

    async def _in_workers(self, function: Callable[[], T]) -> T:
        return await self._service.patiently(lambda: self._service.workers.run(function))


class UserSetter:
    """``this.set_user_id`` of one running method.

    On a worker thread it returns when the switch is done; meanwhile it runs there what the switch asks for.
    No other thread is needed, of which there might be none, and what the method has written in its
    transaction is seen: a user just made, for instance.
    """

    def __init__(
        self, identity: Identity, nursery: trio.Nursery, allowed: Callable[[], None] = lambda: None
    ) -> None:
        self._identity = identity
        self._nursery = nursery
        self._allowed = allowed
        self._token = trio.lowlevel.current_trio_token()
        self._over = False
        self._leases: list[Lease] = []
        #: Whether it was called, and whether what it returned is still to be awaited.
        self.used = self.forgotten = False

    def end(self) -> None:
        """The method has ended."""
        self._over = True
        self._arm()

    def _arm(self) -> None:
        for lease in self._leases:
            self._identity.arm_lease(lease)

    def __call__(self, user_id: Any, lease: Any = None) -> Awaitable[None] | None:
        """Make the client another user, or nobody; see `Identity.become`.

        Returns:
            On a worker thread None, when the client has been told. On the event loop an awaitable.
        """
        if trio.lowlevel.in_trio_run():
            self.forgotten = True
            return self._on_event_loop(user_id, lease)
        jobs: _Jobs = queue.SimpleQueue()
        self._token.run_sync_soon(self._start, user_id, lease, jobs, logcontext.scope())
        while not isinstance(job := jobs.get(), outcome.Outcome):
            job()
        job.unwrap()
        this.rebind(**self._identity.shown())
        return None

    async def _on_event_loop(self, user_id: Any, lease: Any) -> None:
        self.forgotten = False
        self._begin()
        await self._become(user_id, self._identity._in_workers, lease)
        this.rebind(**self._identity.shown())

    async def _become(self, user_id: Any, run: Run, row: Any) -> None:
        lease = self._identity.lease(row)
        if lease is not None:
            self._leases.append(lease)
        try:
            await self._identity.become(user_id, run, lease)
        finally:
            if self._over:  # the method has not waited
                self._arm()

    def _begin(self) -> None:
        if self._identity.ended:
            raise _connection_closed()
        if self._over:
            raise RuntimeError("this.set_user_id was called after the end of its method")
        self._allowed()
        self.used = True

    def _start(self, user_id: Any, lease: Any, jobs: _Jobs, scope: logcontext.Scope) -> None:
        try:
            self._begin()
        except (RuntimeError, MeteorError) as error:
            jobs.put(outcome.Error(error))
        else:
            self._nursery.start_soon(self._serve, user_id, lease, jobs, scope)

    async def _serve(self, user_id: Any, lease: Any, jobs: _Jobs, scope: logcontext.Scope) -> None:
        logcontext.enter(scope)
        result: outcome.Outcome[None] = outcome.Error(_connection_closed())
        try:
            await self._become(user_id, partial(self._run_there, jobs), lease)
            result = outcome.Value(None)
        except Exception as error:  # noqa: BLE001 - it is the method's
            result = outcome.Error(error)
        finally:
            jobs.put(result)

    async def _run_there(self, jobs: _Jobs, function: Callable[[], T]) -> T:
        """Run a function on the thread that waits."""
        done = trio.Event()
        results: list[outcome.Outcome[T]] = []

        def job() -> None:
            results.append(_capture(function))
            self._token.run_sync_soon(done.set)

        jobs.put(job)
        await done.wait()
        return results[0].unwrap()


_Jobs = queue.SimpleQueue[Callable[[], None] | outcome.Outcome[None]]


def _connection_closed() -> MeteorError:
    """What a method is told that logs in a client who has gone: nobody's mistake, so nothing for the log."""
    return MeteorError("connection-closed", "The connection was closed")


def _capture(function: Callable[[], T]) -> outcome.Outcome[T]:
    try:
        return outcome.Value(function())
    except Exception as error:  # noqa: BLE001 - it is the caller's
        return outcome.Error(error)
    except BaseException as error:  # noqa: BLE001 - a sys.exit() must not reach the event loop
        return outcome.Error(RuntimeError(f"{type(error).__name__} was raised: {error}"))
