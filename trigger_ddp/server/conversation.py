"""One client's DDP conversation: reads its messages, does what they ask, one at a time and in order."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from trigger_ddp.api import API
from trigger_ddp.errors import MeteorError
from trigger_ddp.protocol import messages
from trigger_ddp.protocol.heartbeat import Beat, Heartbeat
from trigger_ddp.protocol.requests import Call, Request, Subscribe, Unsubscribe
from trigger_ddp.server.client import Client
from trigger_ddp.server.hooks import Hooks
from trigger_ddp.server.identity import Identity
from trigger_ddp.server.limits import admit
from trigger_ddp.server.methods import run_method
from trigger_ddp.server.service import INTERNAL_ERROR, Service
from trigger_ddp.server.subscribing import Publications
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
        self._client: Client
        self._publications: Publications
        self._hooks: Hooks
        self._identity: Identity
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
                self._client = Client(self._session, self._connection, nursery)
                self._publications = Publications(
                    self._service, self._session, self._connection, self._client, nursery
                )
                self._hooks = Hooks(nursery, self._publications.context)
                self._session.on_message = lambda message: self._hooks.call(
                    API.message_hook, message, self._client
                )
                self._identity = Identity(
                    self._service, self._publications, nursery, lambda: self._work.set()
                )
                nursery.start_soon(self._do_requests)
                nursery.start_soon(self._tell_updated)
                await self._read(nursery)
                nursery.cancel_scope.cancel()
        finally:
            self._identity.end()
            self._service.close_session(self._session)
            self._client.ended()

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
        session = self._session
        while not session.version:
            await self._wait_for_work()
        await self._publications.start_universal()
        self._hooks.call(API.connection_hook, self._client)
        while True:
            await self._hooks.wait_for_room()
            if self._identity.stale:
                await self._refresh_user()
                continue
            request = session.next_request()
            self._room.set()
            if request is None:
                await self._wait_for_work()
            else:
                await self._do(request)

    async def _wait_for_work(self) -> None:
        self._work = trio.Event()
        await self._work.wait()

    async def _refresh_user(self) -> None:
        try:
            await self._identity.refresh()
        except Exception:
            # Who the client is can't be told, so that it must not go on seeing what it sees.
            logger.exception("session %s: its user can't be looked up", self._session.id)
            await self._connection.close(1011, "internal error")

    async def _do(self, request: Request) -> None:
        match request:
            case Subscribe():
                await self._publications.subscribe(request)
            case Unsubscribe(id=subscription_id):
                subscription = self._session.subscriptions.get(subscription_id)
                if subscription is None:
                    self._session.nosub(subscription_id)
                else:
                    self._service.end(self._session, subscription)
            case Call():
                with self._client.answering():
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

    async def _call(self, call: Call) -> None:
        service = self._service
        setter = self._identity.setter()
        context = {**self._publications.context(), "set_user_id": setter}
        admitted = partial(admit, self._session, self._client, "method")
        try:
            value = await run_method(call, service.workers, context, service.settings.database, admitted)
        except MeteorError as error:
            self._session.send(messages.result_error(call.id, error.as_dict()))
            if setter.used:
                self._identity.doubt()  # with its transaction, the user may have been rolled back
        except trio.Cancelled:
            self._identity.end()  # the connection is closed, though the method may run on, on its thread
            raise
        else:
            if setter.forgotten:
                logger.error("method %s has called this.set_user_id without awaiting it", call.method)
                self._session.send(messages.result_error(call.id, INTERNAL_ERROR.as_dict()))
            else:
                self._session.send(messages.result(call.id, value))
        finally:
            setter.end()
        self._finished.append(call.id)
        self._method_finished.set()

    async def _tell_updated(self) -> None:
        """Say `updated` of methods that finished, once all that they wrote is told."""
        while True:
            await self._method_finished.wait()
            self._method_finished = trio.Event()
            finished, self._finished = self._finished, []
            await self._everything_told()
            self._session.send(messages.updated(finished))

    async def _everything_told(self) -> None:
        if not any(self._session.running):
            return
        await self._service.everything_told(self._session)
        while not self._identity.current:
            # What was written was the user: the publications run again, and read what others read.
            await self._identity.wait_current()
            await self._service.everything_told(self._session)
