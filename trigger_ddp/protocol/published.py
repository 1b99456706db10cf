"""Documents that an application publishes by hand, in the form in which live queries hold theirs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Protocol

from trigger_ddp.live.document import Document, Fields, Name, Transition


class Group(Protocol):
    """Layers that are asked together who of them holds a document."""

    def holders(self, document_id: str) -> Collection[Layer]:
        """Those that hold it, and perhaps some that do not."""


class Layer(Protocol):
    """What a collection's view is made of: a live query, or a `Published`."""

    @property
    def group(self) -> Group:
        """The group it belongs to."""

    @property
    def collection(self) -> str:
        """The name of the collection it publishes."""

    @property
    def documents(self) -> Mapping[Name, Document]:
        """What it holds now."""

    def find(self, document_id: str) -> Document | None:
        """The document with this id, if it holds it."""


class Published:
    """What one subscription has published by hand to one collection.

    Every change returns the step it makes, for the session's view, or None where it makes none.
    """

    def __init__(self, collection: str) -> None:
        self.collection = collection
        self.documents: dict[Name, Document] = {}

    @property
    def group(self) -> Published:
        """Itself: it has nothing in common with others."""
        return self

    def holders(self, document_id: str) -> Collection[Published]:
        """Itself."""
        return (self,)

    def find(self, document_id: str) -> Document | None:
        """The document with this id, if it is published."""
        return self.documents.get(document_id)

    def add(self, document_id: str, fields: Fields) -> Transition | None:
        """A new document, or fields that a known one lacks; those it has keep their values, as in Meteor."""
        old = self.find(document_id)
        return self._replace(document_id, old, fields if old is None else {**fields, **old.fields})

    def change(self, document_id: str, fields: Fields, cleared: Iterable[str]) -> Transition | None:
        """Other values for fields of a document, some of which may be cleared.

        Raises:
            LookupError: it is not published.
        """
        old = self._known(document_id)
        gone = set(cleared)
        merged = {name: value for name, value in {**old.fields, **fields}.items() if name not in gone}
        return self._replace(document_id, old, merged)

    def remove(self, document_id: str) -> Transition:
        """The document is no longer published.

        Raises:
            LookupError: it was not.
        """
        old = self._known(document_id)
        del self.documents[document_id]
        return Transition(document_id, old, None)

    def _known(self, document_id: str) -> Document:
        document = self.find(document_id)
        if document is None:
            raise LookupError(
                f"this publication shows no document {document_id!r} of collection {self.collection!r}"
            )
        return document

    def _replace(self, document_id: str, old: Document | None, fields: Fields) -> Transition | None:
        if old is not None and old.fields == fields:
            return None
        new = Document.of(document_id, fields)
        self.documents[document_id] = new
        return Transition(document_id, old, new)
