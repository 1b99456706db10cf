"""Which of a shape's live queries hold a row."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

from trigger_ddp.live.document import Document, Name

if TYPE_CHECKING:
    from trigger_ddp.live.query import LiveQuery

#: Live queries of a shape that are asked, each time. With more of them, a change would cost ever more.
FEW = 200


class Holders:
    """Tells for whom a row has to be looked at.

    The first few live queries are asked. Of those that come when there are so many it is noted what they
    hold: that takes up a seventh more than the documents do.
    """

    def __init__(self) -> None:
        self._asked: dict[LiveQuery, None] = {}
        self._by_name: _Noted = {}
        self._by_id: _Noted = {}  # of documents whose id is not what they are held under

    def begin(self, query: LiveQuery) -> None:
        """There is a further live query, which holds nothing yet."""
        if len(self._asked) < FEW:
            self._asked[query] = None

    def end(self, query: LiveQuery) -> None:
        """There is one less."""
        for name, document in query.documents.items():
            self.drop(query, name, document)
        self._asked.pop(query, None)

    def note(self, query: LiveQuery, name: Name, document: Document) -> None:
        """A live query holds a document now."""
        if query not in self._asked:
            _add(self._by_name, name, query)
            if document.id != name:
                _add(self._by_id, document.id, query)

    def note_all(self, query: LiveQuery, documents: Mapping[Name, Document]) -> None:
        """The same of many documents."""
        if query not in self._asked:
            for name, document in documents.items():
                self.note(query, name, document)

    def drop(self, query: LiveQuery, name: Name, document: Document) -> None:
        """A live query does not hold a document any more."""
        if query not in self._asked:
            _remove(self._by_name, name, query)
            if document.id != name:
                _remove(self._by_id, document.id, query)

    def of_row(self, name: Name) -> Iterable[LiveQuery]:
        """The live queries that hold a row, and perhaps some that do not."""
        return itertools.chain(self._asked, _of(self._by_name, name))

    def of_document(self, document_id: str) -> Collection[LiveQuery]:
        """The live queries that hold a document with this id, and perhaps some that do not."""
        noted = (*_of(self._by_name, document_id), *_of(self._by_id, document_id))
        return {*self._asked, *noted} if noted else self._asked.keys()


#: By a row's name or a document's id: mostly one live query, which needs no dictionary.
_Noted = dict[Name, "LiveQuery | dict[LiveQuery, None]"]


def _add(noted: _Noted, name: Name, query: LiveQuery) -> None:
    held = noted.setdefault(name, query)
    if isinstance(held, dict):
        held[query] = None
    elif held is not query:
        noted[name] = {held: None, query: None}


def _remove(noted: _Noted, name: Name, query: LiveQuery) -> None:
    held = noted[name]
    if held is query:
        del noted[name]
    elif isinstance(held, dict):
        del held[query]
        if len(held) == 1:
            (noted[name],) = held


def _of(noted: _Noted, name: Name) -> Iterable[LiveQuery]:
    held = noted.get(name, ())
    return held if isinstance(held, (dict, tuple)) else (held,)
