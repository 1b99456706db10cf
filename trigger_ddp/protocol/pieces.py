"""The documents of a layer as frames that are ready for whoever subscribes next.

After a reconnect storm's first client all others are told the same: the frames are joined in pieces, made
once and kept for a while, so that a further session costs a few writes and nothing for each document.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

from trigger_ddp.live.document import Document, Transition
from trigger_ddp.protocol import messages
from trigger_ddp.protocol.frames import Wire, joined_frames
from trigger_ddp.protocol.published import Layer

#: A piece ends when it has so many documents, or so many bytes of fields: it is told in one go, and is to
#: find room in a client's outbox.
MOST_DOCUMENTS, MOST_BYTES = 500, 64 * 1024


class Piece:
    """Some documents of a layer.

    Attributes:
        ids: their ids, in the order in which they are told.
    """

    __slots__ = ("_frames", "_layer", "ids")

    def __init__(self, layer: Layer, ids: Iterable[str]) -> None:
        self.ids = dict.fromkeys(ids)
        self._layer = layer
        self._frames: dict[Wire, bytes] = {}

    def frames(self, wire: Wire) -> bytes:
        """What adds them, each a frame of its own."""
        joined = self._frames.get(wire)
        if joined is None:
            told = messages.all_added(self._layer.collection, self._documents())
            joined = self._frames[wire] = joined_frames(wire, told)
        return joined

    def _documents(self) -> Iterator[Document]:
        for document_id in self.ids:
            document = self._layer.find(document_id)
            assert document is not None, document_id
            yield document

    def changed(self) -> None:
        """One of them has, or has gone."""
        self._frames.clear()


class Pieces:
    """All documents of a layer, in pieces.

    Args:
        layer: whose.

    Attributes:
        all: the pieces, the first one first. Each document is in one.
        used_at: when somebody was last told, on any steady clock.
    """

    __slots__ = ("_layer", "_of", "all", "used_at")

    def __init__(self, layer: Layer) -> None:
        self._layer = layer
        self.used_at = 0.0
        self.all: list[Piece] = []
        self._of: dict[str, Piece] = {}
        for ids in _partitioned(layer.documents.values()):
            self._append(ids)

    def _append(self, ids: list[str]) -> None:
        piece = Piece(self._layer, ids)
        self.all.append(piece)
        self._of.update(dict.fromkeys(ids, piece))

    def update(self, transitions: Iterable[Transition]) -> None:
        """The layer has changed, and everybody was told: nobody is half way through these pieces."""
        for step in transitions:
            piece = self._of.get(step.id)
            if piece is None and step.new is not None:
                if not self.all or len(self.all[-1].ids) >= MOST_DOCUMENTS:
                    self._append([])
                piece = self._of[step.id] = self.all[-1]
                piece.ids[step.id] = None
            elif piece is not None and step.new is None:
                del piece.ids[step.id], self._of[step.id]
            if piece is not None:
                piece.changed()


class Rest:
    """The pieces that a session is still to be told."""

    __slots__ = ("_pieces", "_position")

    def __init__(self, pieces: Pieces) -> None:
        self._pieces = pieces.all
        self._position = 0

    def __bool__(self) -> bool:
        return self._position < len(self._pieces)

    def next(self, wire: Wire, _: int) -> tuple[bytes, int]:
        """The frames of the next piece, which then is no longer in the rest; and of how many documents."""
        self._position += 1
        piece = self._pieces[self._position - 1]
        return piece.frames(wire), len(piece.ids)

    def ids(self) -> dict[str, None]:
        """The ids of all its documents, in their order."""
        rest = self._pieces[self._position :]
        return dict.fromkeys(itertools.chain.from_iterable(piece.ids for piece in rest))


class Documents:
    """A layer's documents that a session is still to be told, which has them to itself: nothing is kept.

    As a `Rest`, for as long as the layer does not change.
    """

    __slots__ = ("_collection", "_documents", "_position")

    def __init__(self, layer: Layer) -> None:
        self._collection = layer.collection
        self._documents = list(layer.documents.values())
        self._position = 0

    def __bool__(self) -> bool:
        return self._position < len(self._documents)

    def next(self, wire: Wire, most: int) -> tuple[bytes, int]:
        """The frames of the next documents, at most so many, and how many these are."""
        begin, size = self._position, 0
        while self and self._position < begin + most and size < MOST_BYTES:
            size += len(self._documents[self._position].body)
            self._position += 1
        told = messages.all_added(self._collection, self._documents[begin : self._position])
        return joined_frames(wire, told), len(told)

    def ids(self) -> dict[str, None]:
        """The ids of all of them, in their order."""
        return dict.fromkeys(document.id for document in self._documents[self._position :])


def _partitioned(documents: Iterable[Document]) -> Iterator[list[str]]:
    ids: list[str] = []
    size = 0
    for document in documents:
        ids.append(document.id)
        size += len(document.body)
        if len(ids) == MOST_DOCUMENTS or size >= MOST_BYTES:
            yield ids
            ids, size = [], 0
    if ids:
        yield ids
