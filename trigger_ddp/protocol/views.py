"""What one session's client has of one collection, without remembering it: the merge rule.

While one live query publishes the collection to the session, the client's view is that query's documents
and its changes are forwarded as they are, in frames shared with everybody. Only where several publish it
does the session compare, and it asks the live queries themselves what each of them holds: per field, the
query that was told first decides; a document is gone when none holds it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from trigger_ddp.live.document import Document, Fields, Key, Transition, difference
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
        assert step.old is not None
        return messages.removed(collection, step.old.id)
    if step.old is None:
        return messages.added(collection, step.new.id, step.new.fields)
    return messages.changed(collection, step.new.id, difference(step.old.fields, step.new.fields))


class CollectionView:
    """One collection as one session's client has it."""

    def __init__(self, session: Session, collection: str) -> None:
        self._session = session
        self._collection = collection
        self._queries: dict[LiveQuery, int] = {}  # in the order told, with the number of subscriptions

    def __bool__(self) -> bool:
        return bool(self._queries)

    def attach(self, query: LiveQuery) -> bool:
        """A subscription brings ``query``: tell the client what it adds.

        Returns:
            True if the view did not have it and must now be told of its changes.
        """
        if query in self._queries:
            self._queries[query] += 1
            return False
        for key, document in query.documents.items():
            before = self._holding(key)
            self._tell(before, [*before, document])
        self._queries[query] = 1
        return True

    def detach(self, query: LiveQuery) -> bool:
        """A subscription takes ``query`` away: tell the client what goes with it.

        Returns:
            True if no other subscription of the session has it.
        """
        self._queries[query] -= 1
        if self._queries[query]:
            return False
        for key in query.documents:
            self._tell(self._holding(key), self._holding(key, without=query))
        del self._queries[query]
        return True

    def apply(self, broadcast: Broadcast) -> None:
        """One of the view's queries has changed: tell the client as far as it makes a difference."""
        delta = broadcast.delta
        wire = self._session.wire
        if len(self._queries) == 1:
            self._session.push(broadcast.joined(wire))
            return
        for step, ready_made in zip(delta.transitions, broadcast.frames(wire), strict=True):
            if not self._holding(step.key, without=delta.query):
                self._session.push(ready_made)
            else:
                self._tell(
                    self._holding(step.key, instead=(delta.query, step.old)),
                    self._holding(step.key, instead=(delta.query, step.new)),
                )

    def _holding(
        self,
        key: Key,
        *,
        without: LiveQuery | None = None,
        instead: tuple[LiveQuery, Document | None] | None = None,
    ) -> list[Document]:
        """What the view's queries have for ``key``, the first told first."""
        documents = (
            instead[1] if instead and query is instead[0] else query.documents.get(key)
            for query in self._queries
            if query is not without
        )
        return [document for document in documents if document is not None]

    def _tell(self, before: list[Document], after: list[Document]) -> None:
        """Send what leads from one state of a row to the next; its document id may differ between the two."""
        send, collection = self._session.send, self._collection
        for document_id in dict.fromkeys(document.id for document in (*before, *after)):
            old = _merged(document for document in before if document.id == document_id)
            new = _merged(document for document in after if document.id == document_id)
            if new is None:
                send(messages.removed(collection, document_id))
            elif old is None:
                send(messages.added(collection, document_id, new))
            elif differs := difference(old, new):
                send(messages.changed(collection, document_id, differs))


def _merged(documents: Iterable[Document]) -> Fields | None:
    """The union of the documents' fields, the first one's value where they differ; None without documents."""
    merged: dict[str, bytes] | None = None
    for document in documents:
        merged = {**document.fields, **merged} if merged is not None else dict(document.fields)
    return merged
