"""One client's DDP conversation: reads its messages, does what they ask, one at a time and in order."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from trigger_ddp.api import API
from trigger_ddp.errors import MeteorError
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

    @classmethod
    def opener(cls, service: Service) -> Callable[[Connection], Awaitable[None]]:
        """What to call with every new connection."""
        return lambda connection: cls(service, connection).run()

    async def run(self) -> None:
        """Converse until either side closes."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._do_requests, nursery)
                await self._read(nursery)
                nursery.cancel_scope.cancel()
        finally:
            self._service.close_session(self._session)

    # -- in -------------------------------------------------------------------------------------

    async def _read(self, nursery: trio.Nursery) -> None:
        session, limit = self._session, self._service.settings.max_pending_messages
        while session.closing is None:
            while session.pending >= limit:
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

    async def _do_requests(self, nursery: trio.Nursery) -> None:
        while True:
            request = self._session.next_request()
            self._room.set()
            if request is None:
                self._work = trio.Event()
                await self._work.wait()
                continue
            await self._do(request, nursery)

    async def _do(self, request: Request, nursery: trio.Nursery) -> None:
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
                await self._call(request, nursery)

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
        return {"user": None, "user_id": None, "connection": self._connection}

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
        subscription = Subscription(request.id, request.name, request.params)
        session.subscriptions[request.id] = subscription
        try:
            for compiled in await service.workers.run(
                compile_publication, publication, request.params, self._context()
            ):
                subscription.held.append(await service.hold(compiled))
            for query in subscription.held:
                await service.loaded(query)
                if session.subscriptions.get(request.id) is not subscription:
                    return  # one of its queries failed meanwhile, and ended it
                if session.show(subscription, query):
                    service.fanout.watch(query, session)
            session.ready(subscription)
        except MeteorError as error:
            service.end(session, subscription, error)
        except Exception:
            logger.exception("publication %s failed for session %s", request.name, session.id)
            service.end(session, subscription, INTERNAL_ERROR)

    async def _call(self, call: Call, nursery: trio.Nursery) -> None:
        service = self._service
        try:
            value = await run_method(call, service.workers, self._context(), service.settings.database)
        except MeteorError as error:
            self._session.send(messages.result_error(call.id, error.as_dict()))
        else:
            self._session.send(messages.result(call.id, value))
        nursery.start_soon(self._updated, call.id)

    async def _updated(self, method_id: str) -> None:
        if self._session.subscriptions:
            await self._service.everything_told()
        self._session.send(messages.updated([method_id]))
