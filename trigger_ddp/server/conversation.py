"""One client's DDP session: does what its messages ask for, one at a time and in order.

A session outlives a connection that is lost: for some seconds the client may come back and go on where
it was. So the tasks of a session belong to the service, and a connection only brings it messages.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from trigger_ddp.api import API
from trigger_ddp.errors import MeteorError
from trigger_ddp.protocol import messages
from trigger_ddp.protocol.ending import Ending
from trigger_ddp.protocol.frames import Wire
from trigger_ddp.protocol.heartbeat import Beat, Heartbeat
from trigger_ddp.protocol.requests import Call, Message, Request, Subscribe, Unsubscribe
from trigger_ddp.protocol.session import Closing, Session
from trigger_ddp.server import handover, logcontext
from trigger_ddp.server.client import Client
from trigger_ddp.server.connection import SHUTTING_DOWN, Connection, ConnectionClosed, Limits
from trigger_ddp.server.exchange import Request as HTTPRequest
from trigger_ddp.server.fairness import REQUEST, Share, cost
from trigger_ddp.server.hooks import Hooks
from trigger_ddp.server.identity import Identity
from trigger_ddp.server.limits import admit
from trigger_ddp.server.methods import Invocation, run_method
from trigger_ddp.server.service import INTERNAL_ERROR, Service
from trigger_ddp.server.subscribing import Publications

logger = logging.getLogger("trigger_ddp.session")


async def converse(service: Service, connection: Connection) -> None:
    """Serve a connection from its beginning to its end: find its client a session, and bring it messages."""
    if service.draining:
        await connection.close(*SHUTTING_DOWN)
        return
    session = service.open_session(connection)
    logcontext.enter_session(session)
    elsewhere = None
    try:
        with trio.move_on_after(service.settings.connect_timeout) as patience:
            text = await _connecting(service, session, connection)
        if patience.cancelled_caught:
            await connection.close(1008, "no `connect` in time", Ending.SILENT)
            service.close_session(session)
            return
        assert session.connecting is not None
        conversation = _lost(service, session)
        if conversation is None and service.siblings is not None and session.connecting.resumes:
            elsewhere = await service.siblings.hand_over(connection, session.connecting.session, text)
    except BaseException:  # ConnectionClosed, most often
        service.close_session(session)
        raise
    if elsewhere is not None:
        connection.push(session.take())
        service.close_session(session)
        with service.passing_on(connection):
            await handover.pass_on(connection, elsewhere)
        return
    if conversation is not None:
        preceding = session.take()  # what was said to it before it connected
        service.close_session(session)
        conversation.resume(connection, preceding)
    else:
        session.open(service.new_session_id())
        service.metrics.sessions_opened += 1
        conversation = Conversation(service, session, connection)
        service.start(conversation.run)
    logcontext.enter_session(conversation.session)
    await conversation.serve(connection)


async def _connecting(service: Service, session: Session, connection: Connection) -> str:
    """Answer what a client says until it connects. Returns the message that does."""
    share = Share(service.settings.max_session_share)
    while True:
        text = await connection.receive()
        with share.spending(cost(text)):
            session.receive(text)
        if session.connecting is not None:
            return text
        if session.closing is not None:
            service.flush(session)
            await _close(connection, session.closing)
        await share.rest()


async def take_over(
    service: Service, limits: Limits, stream: trio.abc.Stream, wire: Wire, request: HTTPRequest, connect: str
) -> None:
    """Serve the connection of a client that another worker passes on, if its session can be resumed here.

    Args:
        service: the process's service.
        limits: what the client may take up.
        stream: to the other worker.
        wire, request: the client's.
        connect: its message that asks for its session.
    """
    async with trio.open_nursery() as nursery:
        connection = handover.CarriedConnection(stream, nursery, wire, request, limits)
        session = service.open_session(connection)
        session.receive(connect)
        session.take()  # what the other worker has said to it already
        conversation = None if service.draining else _lost(service, session)
        service.close_session(session)
        if conversation is None:
            await connection.refuse()
        else:
            connection.accept()
            logcontext.enter_session(conversation.session)
            conversation.resume(connection, b"")
            await conversation.serve(connection)
        nursery.cancel_scope.cancel()


def _lost(service: Service, session: Session) -> Conversation | None:
    """The conversation that the client of a new session asks to go on with, if it can; else it is ended."""
    assert session.connecting is not None
    conversation = service.conversations.get(session.connecting.session)
    if conversation is not None and not conversation.can_resume(session):
        conversation.end("its client has come back without it", Ending.REPLACED)
        return None
    return conversation


async def _close(connection: Connection, closing: Closing) -> None:
    await connection.close(closing.code, closing.reason, closing.ending)


class Conversation:
    """A session, and the tasks that serve it.

    Args:
        service: the process's service.
        session: a session that is open.
        connection: what carries it.

    Attributes:
        session: the session.
    """

    def __init__(self, service: Service, session: Session, connection: Connection) -> None:
        self.session = session
        self._service = service
        self._connection: Connection | None = connection
        self._over = False
        # Of all its tasks. The deadline is when to give up a client that is away.
        self._scope = trio.CancelScope()
        self._back: trio.Event | None = None  # while it is away
        self._reading_paused = False
        self._share = Share(service.settings.max_session_share)
        self._client = Client(session, connection, self.close)
        self._publications: Publications
        self._hooks: Hooks
        self._identity: Identity
        self._work = trio.Event()
        self._room: trio.Event | None = None  # while reading waits for it
        self._running = 0  # methods
        self._finished: list[str] = []  # ids of methods whose `updated` is still to be sent
        self._telling_updated = False
        service.conversations[session.id] = self

    # -- life -----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Do what the client asks for until the session ends."""
        session = self.session
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    self._nursery = nursery
                    self._publications = Publications(
                        self._service, session, self._client, nursery, self._wait_for_room, self._share.charge
                    )
                    self._hooks = Hooks(nursery, self._publications.context)
                    session.on_message = self._on_message
                    self._identity = Identity(
                        self._service, self._publications, nursery, lambda: self._work.set(), self.close
                    )
                    await self._do_requests()
            if not self._over:
                self.end("its client did not come back")
        except* Exception:
            logger.exception("session %s failed", session.id)
            if self._connection is not None:
                self._service.start(partial(self._connection.close, 1011, "Internal server error"))
        finally:
            self._over = True
            self._identity.end()
            del self._service.conversations[session.id]
            self._service.close_session(session)
            self._client.ended()

    def _on_message(self, message: Message) -> None:
        self._hooks.call(API.message_hook, message, self._client)

    def end(self, why: str, ending: Ending = Ending.SERVER) -> None:
        """End the session without waiting; a connection that it has is cut.

        Args:
            why: for the log.
            ending: the same in one word, for the connection.
        """
        if not self._over:
            logger.debug("session %s ends: %s", self.session.id, why)
            self._stop()
            if self._connection is not None:
                self._connection.abort(why, ending)

    def _stop(self) -> None:
        self._over = True
        self._scope.cancel()

    def close(self) -> None:
        """Close the session and its connection, soon; what was sent to the client before still goes out."""
        if self._over:
            return
        if self._connection is None:
            self.end("closed by the server")
        else:
            # Also where the connection is just being lost: nobody is to come back.
            self.session.close(1000, "closed by the server")
            self._service.flush(self.session)
            self._service.start(partial(self._connection.close, 1000, "closed by the server"))

    def can_resume(self, new: Session) -> bool:
        """Whether the client that connects with a new session can go on with this one."""
        assert new.connecting is not None
        return not self._scope.cancel_called and self.session.can_resume(new.wire, new.connecting)

    def resume(self, connection: Connection, preceding: bytes) -> None:
        """Go on over another connection; `can_resume` has said that that is possible.

        Args:
            connection: what carries the session from now on.
            preceding: frames that were sent over it before.
        """
        logger.debug("session %s resumed by %s", self.session.id, connection.client_address)
        self._service.metrics.sessions_resumed += 1
        connection.push(preceding)
        self._connection = self._client.connection = connection
        self._scope.deadline = math.inf
        self._service.carry(self.session, connection)
        self.session.resume()
        self._service.flush(self.session)
        if self._back is not None:
            self._back.set()

    def _suspend(self) -> None:
        """The connection is lost: the client may come back for a while."""
        settings = self._service.settings
        self._connection = None
        self._service.carry(self.session, None)
        self._scope.deadline = trio.current_time() + settings.disconnect_grace_period
        self._back = trio.Event()
        self.session.keep(settings.resume_bytes, lambda: self.end("too much was kept for its client"))

    async def _wait_for_room(self, most: int) -> None:
        """Wait until the client has taken in all but ``most`` bytes of what was sent."""
        while self._connection is None:
            assert self._back is not None
            await self._back.wait()
        await self._connection.wait_at_most(most)

    # -- in -------------------------------------------------------------------------------------

    async def serve(self, connection: Connection) -> None:
        """Bring the session what comes over a connection, until that ends."""
        session, settings = self.session, self._service.settings
        interval = settings.heartbeat_interval if session.version != "pre1" else 0
        heartbeat = Heartbeat(interval or math.inf, settings.heartbeat_timeout, trio.current_time())
        self._reading_paused = False
        if interval:
            self._service.heartbeats.add(heartbeat, partial(self._beat, connection, heartbeat))
        try:
            await self._read(connection, heartbeat)
        except BaseException:
            self._stop()
            raise
        finally:
            self._service.heartbeats.remove(heartbeat)
        if session.closing is not None:
            self._service.flush(session)
            await _close(connection, session.closing)
        if session.closing or connection.closed_here or self._over or not settings.disconnect_grace_period:
            self._stop()
        else:
            self._suspend()

    async def _read(self, connection: Connection, heartbeat: Heartbeat) -> None:
        session, settings = self.session, self._service.settings
        while session.closing is None and not self._over:
            while not connection.closed and (
                session.pending >= settings.max_pending_messages
                or session.pending_size >= settings.max_message_bytes
            ):
                self._reading_paused = True
                await self._wait_for_turn(connection)
            self._reading_paused = False
            try:
                text = await connection.receive()
            except ConnectionClosed:
                return
            heartbeat.heard()
            with self._share.spending(cost(text)):
                session.receive(text)
            self._work.set()
            await self._share.rest()

    async def _wait_for_turn(self, connection: Connection) -> None:
        """Wait until a message that was read is dealt with, or the connection has ended."""
        self._room = trio.Event()
        room = self._room.wait
        async with trio.open_nursery() as nursery:

            async def until(wait: Callable[[], Awaitable[None]]) -> None:
                await wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(until, room)
            nursery.start_soon(until, connection.wait_closed)

    def _beat(self, connection: Connection, heartbeat: Heartbeat, beat: Beat) -> None:
        if self._reading_paused:
            heartbeat.heard()  # it may have answered; we are the ones who do not read
            self.session.ping()  # so that the socket notices if it has gone
        elif beat is Beat.PING:
            self.session.ping()
        elif beat is Beat.GONE:
            logger.info("session %s of %s: no answer to a ping", self.session.id, connection.client_address)
            connection.abort("no answer to a ping", Ending.HEARTBEAT)
            self._service.heartbeats.remove(heartbeat)

    async def _do_requests(self) -> None:
        await self._publications.start_universal()
        self._hooks.call(API.connection_hook, self._client)
        while True:
            await self._hooks.wait_for_room()
            await self._identity.wait_switched()
            if self._identity.stale:
                await self._refresh_user()
                continue
            with self._share.spending():
                request = self.session.next_request()
            if self._room is not None:
                self._room.set()
            if request is None:
                self._work = trio.Event()
                await self._work.wait()
            else:
                self._share.charge(REQUEST)
                await self._do(request)
                await self._share.rest()

    async def _refresh_user(self) -> None:
        try:
            await self._identity.refresh()
        except Exception:
            # Who the client is can't be told, so that it must not go on seeing what it sees.
            logger.exception("session %s: its user can't be looked up", self.session.id)
            if self._connection is not None:
                await self._connection.close(1011, "internal error")
            self.end("its user can't be looked up", Ending.ERROR)

    async def _do(self, request: Request) -> None:
        match request:
            case Subscribe():
                await self._publications.subscribe(request)
            case Unsubscribe(id=subscription_id):
                subscription = self.session.subscriptions.get(subscription_id)
                if subscription is None:
                    self.session.nosub(subscription_id)
                else:
                    self._service.end(self.session, subscription)
            case Call():
                settings = self._service.settings
                while (
                    self._running >= settings.max_running_methods
                    or len(self._finished) >= settings.max_pending_messages
                ):
                    self._work = trio.Event()
                    await self._work.wait()
                invocation = Invocation(request)
                self._nursery.start_soon(self._answer, invocation)
                await invocation.unblocked.wait()

    # -- methods --------------------------------------------------------------------------------

    async def _answer(self, invocation: Invocation) -> None:
        logcontext.enter_method(invocation.call.method)
        with self._client.answering():
            await self._call(invocation)

    async def _call(self, invocation: Invocation) -> None:
        service, call = self._service, invocation.call
        setter = self._identity.setter(invocation.may_set_user)
        context = {**self._publications.context(), "set_user_id": setter}
        admitted = partial(admit, self.session, self._client, service.metrics, "method")
        self._running += 1
        try:
            value = await run_method(
                invocation, service.workers, context, service.settings, admitted, service.metrics
            )
        except MeteorError as error:
            self.session.answer(call.id, messages.result_error(call.id, error.as_dict()))
            if setter.used:
                self._identity.doubt()  # with its transaction, the user may have been rolled back
        except trio.Cancelled:
            self._identity.end()  # the session is over, though the method may run on, on its thread
            raise
        else:
            if setter.forgotten:
                logger.error("method %s has called this.set_user_id without awaiting it", call.method)
                self.session.answer(call.id, messages.result_error(call.id, INTERNAL_ERROR.as_dict()))
            else:
                self.session.answer(call.id, messages.result(call.id, value))
        finally:
            setter.end()
            self._running -= 1
            self._work.set()
            invocation.unblock()
        self._finished.append(call.id)
        if not self._telling_updated:
            self._telling_updated = True
            self._nursery.start_soon(self._tell_updated)

    async def _tell_updated(self) -> None:
        """Say `updated` of methods that finished, once all that they wrote is told; as long as more do."""
        try:
            while self._finished:
                finished, self._finished = self._finished, []
                self._work.set()
                await self._everything_told()
                self.session.send(messages.updated(finished))
        finally:
            self._telling_updated = False

    async def _everything_told(self) -> None:
        if self.session.user is None and next(self.session.queries, None) is None:
            return  # there is nothing that the client could be told
        await self._service.everything_told(self.session)
        while not self._identity.current:
            # What was written was the user: the publications run again, and read what others read.
            await self._identity.wait_current()
            await self._service.everything_told(self.session)


def opener(service: Service) -> Callable[[Connection], Awaitable[None]]:
    """What to call with every new connection."""
    return lambda connection: converse(service, connection)
