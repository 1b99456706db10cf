"""One DDP connection without its socket: what came in, what is to be done, what goes out.

session.receive(text)           a message arrived; some are answered at once (ping, errors)
session.connecting              set once the client has asked to connect, until `open` or another session
                                that it asks for takes it
session.next_request()          the next thing to do, one at a time, in the order the client asked
session.send(message)           put a message into the outgoing frames
session.take()                  the frames to write now
session.closing                 set once the connection is to be closed, after the outgoing frames
session.keep(most, too_much)    the connection is lost: what is sent is kept, until `resume`
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from trigger_ddp.api import Publication
from trigger_ddp.errors import MeteorError
from trigger_ddp.live.query import LiveQuery
from trigger_ddp.protocol import messages
from trigger_ddp.protocol.ending import Ending
from trigger_ddp.protocol.frames import Wire, frame
from trigger_ddp.protocol.handle import RunningHandle
from trigger_ddp.protocol.pieces import MOST_DOCUMENTS, Pieces
from trigger_ddp.protocol.published import Layer
from trigger_ddp.protocol.requests import (
    PARSE_ERROR,
    BadRequest,
    Call,
    Message,
    Request,
    agreed_version,
    decode_values,
    head,
    head_only,
    parse,
    request_of,
    values_in,
)
from trigger_ddp.protocol.views import CollectionView


@dataclasses.dataclass(slots=True, eq=False)
class Subscription:
    """One running publication of one client.

    Args:
        id: the client's id for it; of a universal one any text, which no client sees.
        name: the publication's name.
        queries: the live queries, and what is published by hand, whose documents the client has been told.
        held: the live queries acquired for it, told or still loading.
        publication: what is run.
        params: the client's parameters.
        size: characters of the message that asked for it.
        handle: of a publication that is a function, what that tells of.
        error: why it can't go on, where it ended before it began.
    """

    id: str
    name: str
    queries: list[Layer] = dataclasses.field(default_factory=list)
    held: list[LiveQuery] = dataclasses.field(default_factory=list)
    publication: Publication | None = None
    params: Sequence[Any] = ()
    size: int = 0
    handle: RunningHandle | None = None
    error: MeteorError | None = None

    @property
    def universal(self) -> bool:
        """Whether no client asked for it, nor is told of its beginning and end."""
        return self.publication is not None and self.publication.name is None

    def again(self) -> Subscription:
        """The same from its beginning."""
        return Subscription(
            self.id, self.name, publication=self.publication, params=self.params, size=self.size
        )

    def release(self) -> list[LiveQuery]:
        """End what runs for it. Returns the live queries that it held."""
        if self.handle is not None:
            self.handle.finish()
        held, self.held = self.held, []
        return held


@dataclasses.dataclass(frozen=True, slots=True)
class Closing:
    """How the connection is to be closed: a WebSocket close code, its reason, and whose doing it is."""

    code: int
    reason: str
    ending: Ending


@dataclasses.dataclass(frozen=True, slots=True)
class Connecting:
    """What a client asks for that connects.

    Args:
        version: the DDP version agreed on.
        session: the id of the session that it had; empty if it had none.
        received: how many messages of that one it has received; -1 if it does not say, and can't resume.
    """

    version: str
    session: str
    received: int

    @property
    def resumes(self) -> bool:
        """Whether it asks to go on with a session that it had."""
        return bool(self.session) and self.received >= 0


class Session:
    """The protocol state of one client, over one connection or, if it is lost and regained, several.

    Args:
        wire: how messages are framed for this client.
        on_outgoing: called when the first frame after a `take` is put in.
        most_values: values that one message may hold.

    Attributes:
        id: the session's id, once the client has connected.
        sent: number of messages that were taken to be sent, pings and pongs not counted.
        version: the DDP version agreed on; empty before that.
        user: the client's user, or None.
        subscriptions: the client's subscriptions by id, in the order in which they were made.
        universal: the universal subscriptions by id.
        coming: subscriptions that are being made ready to replace others, see `switch`.
        views: the collections that are published to this session, by name.
        outgoing: the frames that wait for `take`; read it only.
        outgoing_size: their bytes; likewise.
        outlet: sends frames at once, while there is a connection and if nothing is in ``outgoing``. Whoever
            uses it counts in ``sent`` what it sends.
        on_message: called with every message whose turn it is, decoded, before it is looked at.
        on_refusal: called when a message is refused unread because of what it would cost.
    """

    __slots__ = (
        "__weakref__",
        "_answered",
        "_inbox",
        "_inbox_size",
        "_most_outgoing",
        "_most_values",
        "_on_outgoing",
        "_on_too_much",
        "_outgoing_count",
        "_repeats",
        "_unanswered",
        "closing",
        "coming",
        "connecting",
        "id",
        "on_message",
        "on_refusal",
        "outgoing",
        "outgoing_size",
        "outlet",
        "sent",
        "subscriptions",
        "universal",
        "user",
        "version",
        "views",
        "wire",
    )  # fmt: skip

    def __init__(
        self, wire: Wire, on_outgoing: Callable[[Session], None], most_values: float = math.inf
    ) -> None:
        self.wire = wire
        self.id = ""
        self.version = ""
        self.user: Any = None
        self.subscriptions: dict[str, Subscription] = {}
        self.universal: dict[str, Subscription] = {}
        self.coming: list[Subscription] = []
        self.views: dict[str, CollectionView] = {}
        self.connecting: Connecting | None = None
        self.closing: Closing | None = None
        self.on_message: Callable[[Message], object] = lambda message: None
        self.on_refusal: Callable[[], object] = lambda: None
        self.sent = 0
        self.outlet: Callable[[bytes], None] | None = None
        self._on_outgoing = on_outgoing
        self._most_values = most_values
        self.outgoing: list[bytes] = []
        self._outgoing_count = 0  # messages in there, without pings and pongs
        self.outgoing_size = 0
        self._most_outgoing: float = math.inf
        self._on_too_much: Callable[[], object] | None = None
        # As text: decoded, a message may be many times as large. Bounded by who fills it, and mostly empty:
        # a deque would be a large part of an idle session.
        self._inbox: list[str] = []
        self._inbox_size = 0
        self._unanswered: set[str] = set()  # ids of methods that have begun, until their results are taken
        self._answered: list[str] = []  # of those, whose results are among the outgoing frames
        self._repeats: set[str] = set()  # ids that a client which has come back may repeat

    # -- out ------------------------------------------------------------------------------------

    def send(self, message: bytes) -> None:
        """Put one message, as JSON, behind the others."""
        self.push(frame(self.wire, message))

    def answer(self, call_id: str, message: bytes) -> None:
        """Send the result of a method."""
        self._answered.append(call_id)
        self.send(message)

    def push(self, frames: bytes, count: int = 1) -> None:
        """Put frames that are ready for this session's wire behind the others.

        Args:
            frames: the frames.
            count: number of messages in them that count, which pings and pongs do not.
        """
        if not self.outgoing:
            self._on_outgoing(self)
        self.outgoing.append(frames)
        self._outgoing_count += count
        self.outgoing_size += len(frames)
        if self.outgoing_size > self._most_outgoing and self._on_too_much is not None:
            self._on_too_much()

    def ping(self) -> None:
        """Ask the client whether it is there."""
        self.push(frame(self.wire, messages.PING), 0)

    def take(self) -> bytes:
        """All outgoing frames, which are then no longer here, and count as sent."""
        outgoing, self.outgoing = self.outgoing, []
        if self._answered:
            self._unanswered.difference_update(self._answered)
            self._answered.clear()
        self.sent += self._outgoing_count
        self._outgoing_count = self.outgoing_size = 0
        return outgoing[0] if len(outgoing) == 1 else b"".join(outgoing)

    # -- lost and regained ----------------------------------------------------------------------

    def keep(self, most_bytes: int, on_too_much: Callable[[], object]) -> None:
        """The connection is lost: keep what is sent until `resume`, and call back where that is too much."""
        self._most_outgoing, self._on_too_much = most_bytes, on_too_much
        if self.outgoing_size > most_bytes:
            on_too_much()

    def can_resume(self, wire: Wire, connecting: Connecting) -> bool:
        """Whether the client can go on where it was: it has received just what was sent."""
        return (
            self.closing is None
            and self._on_too_much is not None
            and (wire, connecting.version, connecting.received) == (self.wire, self.version, self.sent)
        )

    def resume(self) -> None:
        """A connection again: what was kept goes out, behind the news that it is the same session."""
        self._most_outgoing, self._on_too_much = math.inf, None
        waiting = [message["id"] for message in map(head, self._inbox) if _is_call(message)]
        self._repeats = {*self._unanswered, *waiting}
        connected = frame(self.wire, messages.connected(self.id))
        self.outgoing.insert(0, connected)
        self.outgoing_size += len(connected)
        self._outgoing_count += 1
        self._on_outgoing(self)

    def close(self, code: int, reason: str, ending: Ending = Ending.SERVER) -> None:
        """Ask for the connection to be closed; the first reason stands."""
        if self.closing is None:
            self.closing = Closing(code, reason, ending)
            self._inbox.clear()
            self._inbox_size = 0

    # -- in -------------------------------------------------------------------------------------

    @property
    def pending(self) -> int:
        """Number of messages that wait for their turn."""
        return len(self._inbox)

    @property
    def pending_size(self) -> int:
        """Characters of the messages that wait for their turn."""
        return self._inbox_size

    def receive(self, text: str) -> None:
        """A message arrived. Afterwards look at `next_request`, the outgoing frames and `closing`."""
        if self.closing is not None:
            return
        if len(text) > self._most_values and values_in(text, int(self._most_values)) > self._most_values:
            self._refuse(text)
            return
        try:
            message = head(text)
            if message["msg"] == "connect":
                self._connect(message)
                return
            if not self.id:
                raise BadRequest("Must connect first", message)
            if message["msg"] == "disconnect":
                self.close(1000, "the client disconnects", Ending.CLIENT)
                return
            if message["msg"] == "ping" and self.version != "pre1":
                self.push(frame(self.wire, messages.pong(message)), 0)
            elif message["msg"] == "pong" and self.version != "pre1":
                pass  # hearing it was all: whoever received the text told the heartbeat
            elif _is_call(message) and message["id"] in self._repeats:
                # Meteor's client calls again what had no result yet. It is to run once, and a second
                # `updated` of one method is an error to that client.
                self._repeats.discard(message["id"])
            else:
                self._inbox.append(text)
                self._inbox_size += len(text)
        except BadRequest as bad:
            self.send(messages.error(bad.reason, bad.offending))

    def _refuse(self, text: str) -> None:
        """Answer a message that would take too long to decode, so that the client does not wait for it."""
        message = head_only(text)
        if not message.get("msg"):
            self.send(messages.error("Bad request"))
            return
        self.on_refusal()
        error = MeteorError(413, "The message holds too many values")
        kind, message_id = message["msg"], message.get("id")
        if not self.id or not isinstance(message_id, str) or kind not in ("method", "sub"):
            self.send(messages.error("The message holds too many values"))
        elif kind == "method":
            self.send(messages.result_error(message_id, error.as_dict()))
            self.send(messages.updated([message_id]))
        else:
            self.nosub(message_id, error)

    def _connect(self, message: Message) -> None:
        if self.connecting is not None or self.id:
            raise BadRequest("Already connected", message)
        version, asked_for = agreed_version(message)
        if not asked_for:
            self.send(messages.failed(version))
            self.close(1000, "no DDP version in common", Ending.PROTOCOL)
            return
        session, received = message.get("session"), message.get("receivedCount")
        self.connecting = Connecting(
            version,
            session if isinstance(session, str) else "",
            received if type(received) is int else -1,
        )

    def open(self, session_id: str) -> None:
        """The client that is connecting gets this session, which is a new one, of this id."""
        assert self.connecting is not None
        self.version = self.connecting.version
        self.connecting = None
        self.id = session_id
        self.send(messages.connected(self.id))

    def next_request(self) -> Request | None:
        """The next thing the client asked for, or None while there is none. Bad ones are answered here,
        at their turn."""
        while self._inbox:
            text = self._inbox.pop(0)
            self._inbox_size -= len(text)
            try:
                message = parse(text)
            except BadRequest as bad:  # of a long one only the head was looked at
                self.send(messages.error(bad.reason, bad.offending))
                continue
            try:
                decoded = decode_values(message)
                self.on_message(decoded)
                request = request_of(decoded, len(text))
                if isinstance(request, Call):
                    self._unanswered.add(request.id)
                return request
            except BadRequest as bad:
                offending = None if bad.reason == PARSE_ERROR else message
                self.send(messages.error(bad.reason, offending))
        return None

    # -- subscriptions --------------------------------------------------------------------------

    @property
    def running(self) -> Iterator[Subscription]:
        """The client's subscriptions, then the universal ones."""
        yield from self.subscriptions.values()
        yield from self.universal.values()

    @property
    def subscribed_size(self) -> int:
        """Characters of the messages that asked for the client's subscriptions."""
        return sum(subscription.size for subscription in self.subscriptions.values())

    @property
    def queries(self) -> Iterator[LiveQuery]:
        """The live queries that the session's subscriptions hold; some perhaps more than once."""
        for subscription in (*self.running, *self.coming):
            yield from subscription.held

    def runs(self, subscription: Subscription) -> bool:
        """Whether it has begun and not ended."""
        return self._among(subscription).get(subscription.id) is subscription

    def begin(self, subscription: Subscription) -> None:
        """The session has it from now on."""
        self._among(subscription)[subscription.id] = subscription

    def _among(self, subscription: Subscription) -> dict[str, Subscription]:
        return self.universal if subscription.universal else self.subscriptions

    def show(self, subscription: Subscription, query: Layer, pieces: Pieces | None = None) -> bool:
        """Add a loaded live query to a subscription; then call `tell_some` until there is no more to tell.

        Args:
            subscription: the subscription.
            query: the live query.
            pieces: its documents made ready, if they are. Then it must be given all changes, as below.

        Returns:
            True if changes of ``query`` must from now on be given to the session's view of its collection.
        """
        subscription.queries.append(query)
        view = self.views.get(query.collection)
        if view is None:
            view = self.views[query.collection] = CollectionView(self, query.collection)
        return view.attach(query, pieces)

    def tell_some(self, query: Layer, most: int = MOST_DOCUMENTS) -> bool:
        """Tell the client up to ``most`` documents of a query that is shown. Returns whether there are more.

        Telling them in pieces lets others have their turn, and the client read, in between; what
        changes meanwhile is told in its right place.
        """
        view = self.views.get(query.collection)
        return view is not None and view.tell_some(query, most)

    def ready(self, *subscriptions: Subscription) -> None:
        """All initial documents of these subscriptions are told."""
        asked_for = [subscription.id for subscription in subscriptions if not subscription.universal]
        if asked_for:
            self.send(messages.ready(asked_for))

    def stop(self, subscription: Subscription, error: MeteorError | None = None) -> list[Layer]:
        """End a subscription: the client is told what goes with it, then that it is over.

        Returns:
            What no other subscription of this session has of what it published.
        """
        left = []
        for query in subscription.queries:
            view = self.views[query.collection]
            if view.detach(query):
                left.append(query)
            if not view:
                del self.views[query.collection]
        subscription.queries = []
        self._among(subscription).pop(subscription.id, None)
        if not subscription.universal:
            self.nosub(subscription.id, error)
        return left

    def switch(self, subscriptions: Sequence[Subscription], most: int = 500) -> None:
        """Replace everything that runs, and tell the client just what differs.

        What they publish is loaded; of the new documents up to ``most`` are told, and the others left to
        `tell_some`. In the order of Meteor's server: the collections that the client has, in each what
        is gone or different, then what is new; then the new collections. Nothing is asked or told
        about a collection that the same live queries publish as before.

        Args:
            subscriptions: what runs from now on, the client's own first.
        """
        before, after = self.views, dict[str, CollectionView]()
        for subscription in subscriptions:
            for query in subscription.queries:
                view = after.setdefault(query.collection, CollectionView(self, query.collection))
                view.count(query)
        for collection in dict.fromkeys((*before, *after)):
            old = before.get(collection) or CollectionView(self, collection)
            new = after.get(collection) or CollectionView(self, collection)
            if new.agrees_with(old):
                new.adopt(old)
            else:
                most -= new.replace(old, most)
        self.views = after
        self.subscriptions, self.universal = {}, {}
        for subscription in subscriptions:
            self.begin(subscription)

    def nosub(self, subscription_id: str, error: MeteorError | None = None) -> None:
        """Tell the client that it has no subscription with this id."""
        self.send(messages.nosub(subscription_id, None if error is None else error.as_dict()))


def _is_call(message: Message) -> bool:
    return message["msg"] == "method" and isinstance(message.get("id"), str)
