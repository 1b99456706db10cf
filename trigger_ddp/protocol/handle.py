"""The handle of a publication that is a function: what it tells becomes the session's documents."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterable, Mapping
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any

from trigger_ddp import ejson
from trigger_ddp.api import Handle
from trigger_ddp.api.failures import as_meteor_error
from trigger_ddp.api.ids import id_part
from trigger_ddp.errors import MeteorError
from trigger_ddp.live.document import Fields, Transition
from trigger_ddp.protocol.published import Published
from trigger_ddp.protocol.views import Broadcast

if TYPE_CHECKING:
    from trigger_ddp.protocol.session import Session, Subscription

logger = logging.getLogger("trigger_ddp.publications")


class RunningHandle(Handle):
    """A `Handle` of one subscription.

    While the session does not run the subscription yet, what is told is only collected; the session's
    `switch` tells it with the rest.

    Args:
        session: whose client is told.
        subscription: what is published belongs to it.
        context: ``user``, ``user_id`` and ``connection``.
        end: ends the subscription, with an error or without; calls `finish`.
    """

    def __init__(
        self,
        session: Session,
        subscription: Subscription,
        context: Mapping[str, Any],
        end: Callable[[MeteorError | None], None],
    ) -> None:
        self.user = context["user"]
        self.user_id = context["user_id"]
        self.connection = context["connection"]
        #: Whether the function has said so, or returned queries whose documents are told.
        self.is_ready = False
        #: Whether the subscription has ended; from then on nothing that is told is heard.
        self.over = False
        self._session = session
        self._subscription = subscription
        self._end = end
        self._published: dict[str, Published] = {}
        self._settled = False
        self._when_settled: list[Callable[[], None]] = []
        self._on_stop: list[Callable[[], object]] = []

    # -- for the function -----------------------------------------------------------------------

    def added(self, collection: str, document_id: Any, fields: Mapping[str, Any]) -> None:
        key, encoded = _document_id(document_id), _encoded(fields)
        if not self.over:
            published = self._published.get(_text("a collection", collection))
            if published is None:
                published = self._published[collection] = Published(collection)
                if self._session.runs(self._subscription):
                    self._session.show(self._subscription, published)
                else:
                    self._subscription.queries.append(published)
            self._tell(published, published.add(key, encoded))

    def changed(
        self,
        collection: str,
        document_id: Any,
        fields: Mapping[str, Any] | None = None,
        cleared: Iterable[str] = (),
    ) -> None:
        if isinstance(cleared, str):
            raise TypeError("cleared is a list of names, not one text")
        key, encoded = _document_id(document_id), _encoded(fields or {})
        if not self.over:
            # One that has nothing to say knows best how to say that it lacks the document.
            published = self._published.get(collection) or Published(collection)
            self._tell(published, published.change(key, encoded, cleared))

    def removed(self, collection: str, document_id: Any) -> None:
        key = _document_id(document_id)
        if not self.over:
            published = self._published.get(collection) or Published(collection)
            self._tell(published, published.remove(key))

    def _tell(self, published: Published, step: Transition | None) -> None:
        if step is not None and self._session.runs(self._subscription):
            self._session.views[published.collection].apply(Broadcast(published, (step,)))

    def ready(self) -> None:
        if not self.over and not self.is_ready:
            self.is_ready = True
            if self._session.runs(self._subscription):
                self._session.ready(self._subscription)
        self.settle()

    def unblock(self) -> None:
        self.settle()

    def stop(self) -> None:
        if not self.over:
            self._end(None)

    def error(self, error: BaseException) -> None:
        if self.over:
            return
        told = as_meteor_error(error)
        if told is None:
            logger.error("publication %s failed", self._subscription.name, exc_info=error)
            told = MeteorError(500, "Internal server error")
        self._end(told)

    def on_stop(self, callback: Callable[[], object]) -> None:
        if iscoroutinefunction(callback):
            raise TypeError("on_stop takes a plain function; put what has to be awaited into a `finally`")
        if self.over:
            self._call(callback)
        else:
            self._on_stop.append(callback)

    # -- for the server -------------------------------------------------------------------------

    def when_settled(self, callback: Callable[[], None]) -> None:
        """Call back once the client's next message may be dealt with; at once if it may."""
        if self._settled:
            callback()
        else:
            self._when_settled.append(callback)

    def settle(self) -> None:
        """The client's next message may be dealt with."""
        self._settled = True
        callbacks, self._when_settled = self._when_settled, []
        for callback in callbacks:
            callback()

    def finish(self) -> None:
        """The subscription has ended: nothing is heard any more, and those who wanted to know are told."""
        if not self.over:
            self.over = True
            callbacks, self._on_stop = self._on_stop, []
            for callback in callbacks:
                self._call(callback)
            self.settle()

    def _call(self, callback: Callable[[], object]) -> None:
        try:
            callback()
        except (Exception, SystemExit, KeyboardInterrupt):
            # A callback's sys.exit() must not end the server. Signals don't arrive as KeyboardInterrupt.
            logger.exception("an on_stop callback of publication %s failed", self._subscription.name)


def _document_id(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int, uuid.UUID)):
        raise TypeError(f"a document's id is a text, an int or a UUID, not {type(value).__name__}")
    return _text("a document's id", id_part(value))


def _encoded(fields: Mapping[str, Any]) -> Fields:
    return {_text("a field", name): ejson.encode(value) for name, value in fields.items() if name != "_id"}


def _text(what: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{what} is named by a text, not by {type(value).__name__}")
    value.encode()  # half a surrogate pair can't be sent; better it fails here than later
    return value
