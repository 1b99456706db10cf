"""One client's DDP conversation: reads its messages, does what they ask, one at a time and in order."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import trio

from trigger_ddp.api import API
from trigger_ddp.errors import MeteorError
from trigger_ddp.live.shape import LiveQuery
from trigger_ddp.protocol import messages
from trigger_ddp.protocol.heartbeat import Beat, Heartbeat
from trigger_ddp.protocol.requests import Call, Request, Subscribe, Unsubscribe
from trigger_ddp.protocol.session import Subscription
from trigger_ddp.server.methods import run_method
from trigger_ddp.server.publishing import compile_publication
from trigger_ddp.server.service import INTERNAL_ERROR, Service
from trigger_ddp.server.websocket import Connection, ConnectionClosed

logger = logging.getLogger("trigger_ddp.session")


class Conversation:
    """A connection, its session, and the tasks that serve it.

    Args:
        service: the process's service.
        connection: an open connection.
    """

    def __init__(self, service: Service, connection: Connection) -> None:
        self._service = service
        self._connection = connection
        self._session = service.open_session(connection)
        self._heartbeat: Heartbeat | None = None
        self._reading_paused = False
        self._work = trio.Event()
        self._room = trio.Event()
        self._finished: list[str] = []  # ids of methods whose `updated` is still to be sent
        self._method_finished = trio.Event()

    @classmethod
    def opener(cls, service: Service) -> Callable[[Connection], Awaitable[None]]:
        """What to call with every new connection."""
        return lambda connection: cls(service, connection).run()

    async def run(self) -> None:
        """Converse until either side closes."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._do_requests)
                nursery.start_soon(self._tell_updated)
                await self._read(nursery)
                nursery.cancel_scope.cancel()
        finally:
            self._service.close_session(self._session)

    # -- in -------------------------------------------------------------------------------------

    async def _read(self, nursery: trio.Nursery) -> None:
        session, settings = self._session, self._service.settings
        while session.closing is None:
            while (
                session.pending >= settings.max_pending_messages
                or session.pending_size >= settings.max_message_bytes
            ):
                self._reading_paused = True
                self._room = trio.Event()
                await self._room.wait()
            self._reading_paused = False
            try:
                text = await self._connection.receive()
            except ConnectionClosed:
                return
            if self._heartbeat is not None:
                self._heartbeat.heard()
            session.receive(text)
            self._work.set()
            if session.version and self._heartbeat is None:
                self._start_heartbeat(nursery)
        self._service.flush(session)
        await self._connection.close(session.closing.code, session.closing.reason)

    async def _do_requests(self) -> None:
        while True:
            request = self._session.next_request()
            self._room.set()
            if request is None:
                self._work = trio.Event()
                await self._work.wait()
                continue
            await self._do(request)

    async def _do(self, request: Request) -> None:
        match request:
            case Subscribe():
                await self._subscribe(request)
            case Unsubscribe(id=subscription_id):
                subscription = self._session.subscriptions.get(subscription_id)
                if subscription is None:
                    self._session.nosub(subscription_id)
                else:
                    self._service.end(self._session, subscription)
            case Call():
                await self._call(request)

    # -- heartbeat ------------------------------------------------------------------------------

    def _start_heartbeat(self, nursery: trio.Nursery) -> None:
        settings = self._service.settings
        interval = settings.heartbeat_interval if self._session.version != "pre1" else 0
        self._heartbeat = Heartbeat(interval or math.inf, settings.heartbeat_timeout, trio.current_time())
        if interval:
            nursery.start_soon(self._beat, self._heartbeat)

    async def _beat(self, heartbeat: Heartbeat) -> None:
        while True:
            await trio.sleep_until(heartbeat.next)
            if self._reading_paused:
                heartbeat.heard()  # it may have answered; we are the ones who do not read
            match heartbeat.beat(trio.current_time()):
                case Beat.PING:
                    self._session.send(messages.PING)
                case Beat.GONE:
                    logger.info(
                        "session %s of %s: no answer to a ping",
                        self._session.id,
                        self._connection.client_address,
                    )
                    self._connection.abort("no answer to a ping")
                    return

    # -- requests -------------------------------------------------------------------------------

    def _context(self) -> dict[str, Any]:
        return {
            "user": None,
            "user_id": None,
            "connection": self._connection,
            "in_thread": self._service.workers.run,
        }

    async def _subscribe(self, request: Subscribe) -> None:
        session, service = self._session, self._service
        try:
            publication = API.get_pub_by_name(request.name)
        except KeyError:
            session.nosub(request.id, MeteorError(404, f"Subscription '{request.name}' not found"))
            return
        if request.id in session.subscriptions:
            return  # a client that reconnects may repeat itself
        if len(session.subscriptions) >= service.settings.max_subscriptions:
            session.nosub(
                request.id, MeteorError("too-many-subscriptions", "This session has too many subscriptions")
            )
            return
        subscription = Subscription(request.id, request.name)
        session.subscriptions[request.id] = subscription
        try:
            compiled = await service.patiently(
                lambda: service.workers.run(compile_publication, publication, request.params, self._context())
            )
            for query in compiled:
                subscription.held.append(await service.patiently(partial(service.hold, query)))
            for held in subscription.held:
                await service.loaded(held)
                if not self._runs(subscription):
                    return
                await self._show(subscription, held)
            if self._runs(subscription):
                session.ready(subscription)
        except MeteorError as error:
            service.end(session, subscription, error)
        except Exception:
            logger.exception("publication %s failed for session %s", request.name, session.id)
            service.end(session, subscription, INTERNAL_ERROR)

    def _runs(self, subscription: Subscription) -> bool:
        """Whether no query of the subscription has failed meanwhile and ended it."""
        return self._session.subscriptions.get(subscription.id) is subscription

    async def _show(self, subscription: Subscription, query: LiveQuery) -> None:
        """Tell the client a query's documents, no faster than it reads them."""
        if self._session.show(subscription, query):
            self._service.fanout.watch(query, self._session)
        while self._session.tell_some(query):
            self._service.flush(self._session)
            await self._connection.wait_at_most(self._service.settings.outbox_bytes // 4)
            await trio.lowlevel.checkpoint()

    async def _call(self, call: Call) -> None:
        service = self._service
        try:
            value = await run_method(call, service.workers, self._context(), service.settings.database)
        except MeteorError as error:
            self._session.send(messages.result_error(call.id, error.as_dict()))
        else:
            self._session.send(messages.result(call.id, value))
        self._finished.append(call.id)
        self._method_finished.set()

    async def _tell_updated(self) -> None:
        """Say `updated` of methods that finished, once all that they wrote is told."""
        while True:
            await self._method_finished.wait()
            self._method_finished = trio.Event()
            finished, self._finished = self._finished, []
            if self._session.subscriptions:
                await self._service.everything_told(self._session)
            self._session.send(messages.updated(finished))
