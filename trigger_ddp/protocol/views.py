"""What one session's client has of one collection, without remembering it: the merge rule.

While one live query publishes the collection to the session, the client's view is that query's documents
and its changes are forwarded as they are, in frames shared with everybody. Only where several publish it
does the session compare, and it asks the live queries themselves what each of them holds: per field, the
query that was told first decides; a document is gone when none holds it.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from trigger_ddp.live.document import Document, Fields, Transition, difference
from trigger_ddp.live.shape import Delta, LiveQuery
from trigger_ddp.protocol import messages
from trigger_ddp.protocol.frames import Wire, frame

if TYPE_CHECKING:
    from trigger_ddp.protocol.session import Session


class Broadcast:
    """A delta and its messages, each encoded once and framed once per kind of wire."""

    def __init__(self, delta: Delta) -> None:
        self.delta = delta
        self._frames: dict[Wire, list[bytes]] = {}
        self._joined: dict[Wire, bytes] = {}
        self._messages: list[bytes] | None = None

    def frames(self, wire: Wire) -> list[bytes]:
        """One frame for each transition, in their order."""
        if wire not in self._frames:
            if self._messages is None:
                collection = self.delta.query.collection
                self._messages = [_message(collection, step) for step in self.delta.transitions]
            self._frames[wire] = [frame(wire, message) for message in self._messages]
        return self._frames[wire]

    def joined(self, wire: Wire) -> bytes:
        """All frames as one piece."""
        if wire not in self._joined:
            self._joined[wire] = b"".join(self.frames(wire))
        return self._joined[wire]


def _message(collection: str, step: Transition) -> bytes:
    if step.new is None:
        return messages.removed(collection, step.id)
    if step.old is None:
        return messages.added(collection, step.id, step.new.fields)
    return messages.changed(collection, step.id, difference(step.old.fields, step.new.fields))


class CollectionView:
    """One collection as one session's client has it."""

    def __init__(self, session: Session, collection: str) -> None:
        self._session = session
        self._collection = collection
        self._queries: dict[LiveQuery, int] = {}  # in the order told, with the number of subscriptions
        self._untold: dict[LiveQuery, dict[str, None]] = {}  # ids still to be told, while a query is attached

    def __bool__(self) -> bool:
        return bool(self._queries)

    def attach(self, query: LiveQuery) -> bool:
        """A subscription brings ``query``; its documents are told by `tell_some`.

        Returns:
            True if the view did not have it, and must from now on be told of its changes.
        """
        self._queries[query] = self._queries.get(query, 0) + 1
        if self._queries[query] > 1:
            return False
        self._untold[query] = dict.fromkeys(document.id for document in query.documents.values())
        return True

    def tell_some(self, query: LiveQuery, most: int) -> bool:
        """Tell the client what up to ``most`` of the documents add that were not told yet.

        Returns:
            Whether there are more.
        """
        untold = self._untold.get(query)
        if untold is None:
            return False
        for document_id in [*itertools.islice(untold, most)]:
            before = self._holding(document_id)
            del untold[document_id]
            self._tell(document_id, before, self._holding(document_id))
        if not untold:
            del self._untold[query]
        return bool(untold)

    def detach(self, query: LiveQuery) -> bool:
        """A subscription takes ``query`` away: tell the client what goes with it.

        Returns:
            True if no other subscription of the session has it.
        """
        self._queries[query] -= 1
        if self._queries[query]:
            return False
        for document in query.documents.values():
            before = self._holding(document.id)
            self._tell(document.id, before, self._holding(document.id, without=query))
        del self._queries[query]
        self._untold.pop(query, None)
        return True

    def apply(self, broadcast: Broadcast) -> None:
        """One of the view's queries has changed: tell the client as far as it makes a difference."""
        delta = broadcast.delta
        wire = self._session.wire
        if len(self._queries) == 1 and not self._untold:
            self._session.push(broadcast.joined(wire))
            return
        untold = self._untold.get(delta.query, ())
        for step, ready_made in zip(delta.transitions, broadcast.frames(wire), strict=True):
            if step.id in untold:
                continue  # its turn comes, with what it is by then
            if not self._holding(step.id, without=delta.query):
                self._session.push(ready_made)
            else:
                before = self._holding(step.id, instead=(delta.query, step.old))
                self._tell(step.id, before, self._holding(step.id))

    def _holding(
        self,
        document_id: str,
        *,
        without: LiveQuery | None = None,
        instead: tuple[LiveQuery, Document | None] | None = None,
    ) -> list[Fields]:
        """The fields that the view's queries have told of a document, the first told first."""
        documents = (
            instead[1] if instead and query is instead[0] else query.find(document_id)
            for query in self._queries
            if query is not without and document_id not in self._untold.get(query, ())
        )
        return [document.fields for document in documents if document is not None]

    def _tell(self, document_id: str, before: list[Fields], after: list[Fields]) -> None:
        """Send what leads the client from one state of a document to the next."""
        send, collection = self._session.send, self._collection
        if not after:
            if before:
                send(messages.removed(collection, document_id))
        elif not before:
            send(messages.added(collection, document_id, _merged(after)))
        elif differs := difference(_merged(before), _merged(after)):
            send(messages.changed(collection, document_id, differs))


def _merged(layers: list[Fields]) -> Fields:
    """The union of fields, the first one's value where they differ."""
    if len(layers) == 1:
        return layers[0]
    merged: dict[str, bytes] = {}
    for fields in reversed(layers):
        merged.update(fields)
    return merged
