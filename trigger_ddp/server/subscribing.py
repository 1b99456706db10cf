"""One session's publications: started, run as tasks where they are functions, run again as another user."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any, Protocol, TypeVar, TypeVarTuple

import trio

from trigger_ddp.api import API, get_meteor_id, this
from trigger_ddp.api.arguments import bind
from trigger_ddp.api.failures import as_meteor_error
from trigger_ddp.errors import MeteorError
from trigger_ddp.live.compiled import CompiledQuery
from trigger_ddp.live.query import LiveQuery, State
from trigger_ddp.protocol.handle import RunningHandle
from trigger_ddp.protocol.requests import Subscribe
from trigger_ddp.protocol.session import Session, Subscription
from trigger_ddp.server import logcontext
from trigger_ddp.server.client import Client
from trigger_ddp.server.fairness import LOAD
from trigger_ddp.server.limits import admit
from trigger_ddp.server.publishing import compile_all, compile_publication, compile_returned
from trigger_ddp.server.service import INTERNAL_ERROR, Service

logger = logging.getLogger("trigger_ddp.session")

T = TypeVar("T")
_Args = TypeVarTuple("_Args")

#: Seconds that a session waits for functions that nobody asked for just now, and that say neither that they
#: are ready nor that they need not be waited for: universal ones, and all when the user changes.
PATIENCE = 5.0

#: Bytes of a subscription's first documents that may wait for a client before it is told of more. No more,
#: so that one on a slow line that takes in all that it can is not DDP_OUTBOX_SECONDS behind.
MOST_AHEAD = 256 * 1024


class Run(Protocol):
    """Runs blocking code on some thread that may use the database."""

    async def __call__(self, function: Callable[[], T], /) -> T:
        """Return what it returns, raise what it raises."""


class Publications:
    """What a session publishes to its client.

    Args:
        service: the process's service.
        session: the session.
        client: as publications see it.
        nursery: for the functions; its cancellation ends them.
        wait_for_room: waits until the client has taken in all but so many bytes of what was sent.
        charge: counts seconds of work against the session's share.
    """

    def __init__(
        self,
        service: Service,
        session: Session,
        client: Client,
        nursery: trio.Nursery,
        wait_for_room: Callable[[int], Awaitable[None]],
        charge: Callable[[float], None],
    ) -> None:
        self._service = service
        self._session = session
        self._client = client
        self._nursery = nursery
        self._wait_for_room = wait_for_room
        self._charge = charge

    @property
    def user(self) -> Any:
        """The session's user, or None."""
        return self._session.user

    def context(self) -> dict[str, Any]:
        """What `this` shows to the session's publications and methods."""
        return {
            **user_shown(self.user),
            "connection": self._client,
            "in_thread": self._service.workers.run,
        }

    # -- starting -------------------------------------------------------------------------------

    async def subscribe(self, request: Subscribe) -> None:
        """Do what the client asks for; returns when its next request may be dealt with."""
        session = self._session
        try:
            publication = API.get_pub_by_name(request.name)
        except KeyError:
            session.nosub(request.id, MeteorError(404, f"Subscription '{request.name}' not found"))
            return
        if request.id in session.subscriptions:
            return  # a client that reconnects may repeat itself
        try:
            admit(session, self._client, self._service.metrics, "subscription", request.name)
        except MeteorError as error:
            session.nosub(request.id, error)
            return
        if len(session.subscriptions) >= self._service.settings.max_subscriptions:
            self._service.metrics.refusals["too_many_subscriptions"] += 1
            session.nosub(
                request.id, MeteorError("too-many-subscriptions", "This session has too many subscriptions")
            )
            return
        if session.subscribed_size + request.size > self._service.settings.max_subscription_bytes:
            self._service.metrics.refusals["subscriptions_too_large"] += 1
            session.nosub(
                request.id,
                MeteorError("subscriptions-too-large", "The parameters of subscriptions are too large"),
            )
            return
        subscription = Subscription(
            request.id,
            request.name,
            publication=publication,
            params=tuple(request.params),
            size=request.size,
        )
        session.begin(subscription)
        await self._start(subscription)

    async def start_universal(self) -> None:
        """Start what every session has."""
        for subscription in _universal():
            self._session.begin(subscription)
            await self._start(subscription, PATIENCE)

    async def _start(self, subscription: Subscription, patience: float = math.inf) -> None:
        publication = subscription.publication
        assert publication is not None
        if publication.publish is not None:
            handle = self._launch(subscription)
            with trio.move_on_after(patience):
                await _settled(handle)
            return
        service, session, context = self._service, self._session, self.context()
        with self._errors_of(subscription):
            compiled = await self._compile(compile_publication, publication, subscription.params, context)
            caught_up = await self._hold(subscription, compiled)
            await caught_up()
            await self._present(subscription)
            if session.runs(subscription):
                session.ready(subscription)
        if subscription.error is not None:
            service.end(session, subscription, subscription.error)

    async def _compile(
        self, function: Callable[[*_Args], list[CompiledQuery]], *args: *_Args
    ) -> list[CompiledQuery]:
        """Run one of `publishing` on a thread; the time that takes counts against the session's share."""

        def compile_and_measure() -> tuple[list[CompiledQuery], float]:
            begun = time.thread_time()
            return function(*args), time.thread_time() - begun

        service = self._service
        compiled, seconds = await service.patiently(lambda: service.workers.run(compile_and_measure))
        self._charge(seconds)
        return compiled

    @contextlib.contextmanager
    def _errors_of(self, subscription: Subscription) -> Iterator[None]:
        """A block whose exceptions are the subscription's error."""
        with logcontext.subscription_of(subscription):
            try:
                yield
            except Exception as error:
                subscription.error = as_meteor_error(error)
                if subscription.error is None:
                    logger.exception(
                        "publication %s failed for session %s", subscription.name, self._session.id
                    )
                    subscription.error = INTERNAL_ERROR

    def _lives(self, subscription: Subscription) -> bool:
        """Whether it has not ended: it runs, or is made ready to."""
        return self._session.runs(subscription) or subscription in self._session.coming

    async def _hold(
        self, subscription: Subscription, compiled: list[CompiledQuery]
    ) -> Callable[[], Awaitable[None]]:
        """Hold the live queries. What is returned waits until they have what was committed by now.

        Nothing of them may be told before that: queries that others have loaded, or just load, may still hold
        what was taken from this user before it subscribed.
        """
        begun: list[LiveQuery] = []
        for one in compiled:
            query = await self._service.patiently(partial(self._service.hold, one, begun))
            if self._lives(subscription):
                subscription.held.append(query)
                if query.state is State.LOADING:
                    self._charge(LOAD)
            else:
                self._service.let_go(query)
        return self._service.catching_up(begun).wait if begun else trio.lowlevel.checkpoint

    async def _present(self, subscription: Subscription) -> None:
        """Tell the client of the queries that the subscription holds, or leave it to the switch."""
        for query in list(subscription.held):
            await self._service.loaded(query)
            if self._session.runs(subscription):
                fanout = self._service.fanout
                if self._session.show(subscription, query, fanout.pieces(query, trio.current_time())):
                    fanout.watch(query, self._session)
                await self._tell_all_of(query)
            elif self._lives(subscription):
                subscription.queries.append(query)

    async def _tell_all_of(self, query: Any) -> None:
        """Tell the client a query's documents, no faster than it reads them."""
        ahead = min(self._service.settings.outbox_bytes // 4, MOST_AHEAD)
        while self._session.tell_some(query):
            self._service.flush(self._session)
            await self._wait_for_room(ahead)  # a checkpoint, too, at which others have their turn

    # -- functions ------------------------------------------------------------------------------

    def _launch(self, subscription: Subscription) -> RunningHandle:
        scope, context = trio.CancelScope(), self.context()
        handle = RunningHandle(self._session, subscription, context, partial(self._end, subscription))
        subscription.handle = handle
        handle.on_stop(scope.cancel)
        self._nursery.start_soon(self._run, subscription, handle, scope, context)
        return handle

    def _end(self, subscription: Subscription, error: MeteorError | None) -> None:
        """A function has ended its own subscription."""
        if self._session.runs(subscription):
            self._service.end(self._session, subscription, error)
        elif subscription.handle is not None:
            subscription.error = error
            subscription.handle.finish()

    async def _run(
        self,
        subscription: Subscription,
        handle: RunningHandle,
        scope: trio.CancelScope,
        context: dict[str, Any],
    ) -> None:
        """The life of one publication function."""
        logcontext.enter_subscription(subscription)
        publication = subscription.publication
        assert publication is not None
        assert publication.publish is not None
        with scope:
            try:
                arguments = bind(publication.publish, [handle, *subscription.params])
                with this.bound(**context):
                    returned = await publication.publish(*arguments)
                if returned is not None:
                    compiled = await self._compile(compile_returned, publication, returned, context)
                    caught_up = await self._hold(subscription, compiled)
                    await caught_up()
                    await self._present(subscription)
                    handle.ready()
            except BaseExceptionGroup as group:
                _, failure = group.split(trio.Cancelled)
                if failure is None:
                    raise
                _fail(handle, subscription, failure)
            except (Exception, SystemExit, KeyboardInterrupt) as error:  # noqa: BLE001 - `_fail` logs it
                # A function's sys.exit() must not end the server. Signals don't arrive as KeyboardInterrupt.
                _fail(handle, subscription, error)
            finally:
                handle.settle()

    # -- another user ---------------------------------------------------------------------------

    async def run_again(self, user: Any, run: Run) -> None:
        """Run everything as ``user``, or as nobody, and tell the client the difference in one step.

        Until then it is told of changes as before. One call at a time.

        Args:
            user: the session's user from now on.
            run: runs the publications that return querysets.
        """
        session = self._session
        session.user = user
        pairs: list[tuple[Subscription | None, Subscription]] = [
            (old, old.again()) for old in session.subscriptions.values()
        ]
        pairs += [(session.universal.get(new.id), new) for new in _universal()]
        for old in session.running:
            if old.handle is not None:
                old.handle.finish()
        session.coming = [new for _, new in pairs]
        try:
            await self._make_ready(session.coming, run)
            ready = self._switch(pairs)
        finally:
            for new in session.coming:  # unless they have come
                self._let_go(new)
            session.coming = []
        for view in list(session.views.values()):
            for layer in list(view.layers):
                await self._tell_all_of(layer)
        session.ready(*filter(session.runs, ready))

    async def _make_ready(self, subscriptions: list[Subscription], run: Run) -> None:
        """Load everything that the subscriptions are going to publish, or note why that can't be."""
        functions = [one for one in subscriptions if one.publication and one.publication.publish]
        handles = [self._launch(one) for one in functions]
        others = [one for one in subscriptions if one not in functions]
        if others:
            job = partial(compile_all, others, self.context(), self._service.settings.database)
            answers = dict(zip(others, await run(job), strict=True))
            held = {}
            for subscription, answer in answers.items():
                with self._errors_of(subscription):
                    if isinstance(answer, Exception):
                        raise answer
                    held[subscription] = await self._hold(subscription, answer)
            for subscription, caught_up in held.items():
                with self._errors_of(subscription):
                    await caught_up()
                    await self._present(subscription)
        with trio.move_on_after(PATIENCE):
            for handle in handles:
                await _settled(handle)

    def _switch(self, pairs: list[tuple[Subscription | None, Subscription]]) -> list[Subscription]:
        """Put the new subscriptions in place of the old. Returns those that are ready."""
        session, service = self._session, self._service
        going, failed, ended = [], [], []
        for old, new in pairs:
            if any(query.error is not None for query in new.held):
                new.error = INTERNAL_ERROR
            if old is not None and not session.runs(old):
                ended.append(new)  # the client knows
            elif new.error is not None or (new.handle is not None and new.handle.over):
                failed.append(new)
            else:
                going.append(new)
        ready = [new for new in going if new.handle is None or new.handle.is_ready]
        old_queries = _live_queries(session)
        session.switch(going)
        session.coming = []
        queries = _live_queries(session)
        for query in old_queries.keys() - queries.keys():
            service.fanout.unwatch(query, session)
        for query in queries:  # also of those that stay: the views are others
            service.fanout.watch(query, session)
        for new in failed:
            if not new.universal:
                session.nosub(new.id, new.error)
        for done in (*(old for old, _ in pairs if old is not None), *failed, *ended):
            self._let_go(done)
        return ready

    def _let_go(self, subscription: Subscription) -> None:
        for query in subscription.release():
            self._service.let_go(query)


def user_shown(user: Any) -> dict[str, Any]:
    """What `this` shows of a user, or of nobody."""
    return {
        "user": user,
        "user_id": None if user is None else user.pk,
        "user_ddp_id": get_meteor_id(user),
    }


def _universal() -> list[Subscription]:
    return [
        Subscription(str(number), publication.label, publication=publication)
        for number, publication in enumerate(API.universal_publications)
    ]


def _live_queries(session: Session) -> dict[LiveQuery, None]:
    layers = (layer for view in session.views.values() for layer in view.layers)
    return {layer: None for layer in layers if isinstance(layer, LiveQuery)}


async def _settled(handle: RunningHandle) -> None:
    settled = trio.Event()
    handle.when_settled(settled.set)
    await settled.wait()


def _fail(handle: RunningHandle, subscription: Subscription, error: BaseException) -> None:
    if handle.over and as_meteor_error(error) is None:
        logger.error("publication %s failed after its end", subscription.name, exc_info=error)
    handle.error(error)
