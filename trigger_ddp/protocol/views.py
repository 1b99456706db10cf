"""What one session's client has of one collection, without remembering it: the merge rule.

While one live query publishes the collection to the session, the client's view is that query's documents
and its changes are forwarded as they are, in frames shared with everybody. Only where several layers
publish it does the session compare, and it asks the layers themselves what each of them holds: per field,
the one that was told first decides; a document is gone when none holds it.

Live queries agree about a document's fields, or nearly so, and which of them came first is kept for the
whole of them. What a publication tells by hand agrees with nothing: where it meets another layer in
a document, the order is kept for each of that document's fields, for as long as two layers hold it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING

from trigger_ddp.live.document import Document, Fields, Transition, difference, difference_of, object_text
from trigger_ddp.protocol import messages
from trigger_ddp.protocol.frames import Wire, frame, joined_frames
from trigger_ddp.protocol.pieces import Documents, Pieces, Rest
from trigger_ddp.protocol.published import Group, Layer, Published

if TYPE_CHECKING:
    from trigger_ddp.protocol.session import Session


#: Bytes after which a client is given time to take in what it is told of a query's first documents.
MOST_TOLD_BYTES = 256 * 1024

_numbers = itertools.count()


class Broadcast:
    """What changed in one layer, and its messages, each encoded once and framed once per kind of wire."""

    def __init__(self, layer: Layer, transitions: Sequence[Transition]) -> None:
        self.layer = layer
        self.transitions = transitions
        self.count = len(transitions)
        self._frames: dict[Wire, list[bytes]] = {}
        self.ready: dict[Wire, bytes] = {}
        self._messages: list[bytes] | None = None
        self._fields: dict[bytes, Fields] = {}

    def fields(self, document: Document) -> Fields:
        """A document's fields, taken apart once for all clients that need them."""
        fields = self._fields.get(document.body)
        if fields is None:
            fields = self._fields[document.body] = document.fields
        return fields

    def frames(self, wire: Wire) -> list[bytes]:
        """One frame for each transition, in their order."""
        if wire not in self._frames:
            self._frames[wire] = [frame(wire, message) for message in self._told()]
        return self._frames[wire]

    def joined(self, wire: Wire) -> bytes:
        """All frames as one piece."""
        joined = self.ready[wire] = joined_frames(wire, self._told())
        return joined

    def _told(self) -> list[bytes]:
        if self._messages is None:
            collection = self.layer.collection
            self._messages = [_message(collection, step) for step in self.transitions]
        return self._messages


def _message(collection: str, step: Transition) -> bytes:
    if step.new is None:
        return messages.removed(collection, step.id)
    if step.old is None:
        return messages.added(collection, step.id, step.new.body)
    return messages.changed(collection, step.id, difference_of(step.old, step.new))


class CollectionView:
    """One collection as one session's client has it."""

    __slots__ = (
        "_collection", "_company", "_layers", "_orders", "_rest", "_session", "_untold",
    )  # fmt: skip

    def __init__(self, session: Session, collection: str) -> None:
        self._session = session
        self._collection = collection
        self._layers: dict[Layer, int] = {}  # in the order told, with the number of subscriptions
        self._company: _Company | None = None  # the same layers, once there have been several
        self._untold: dict[Layer, dict[str, None]] | None = None  # ids that are still to be told
        self._rest: Rest | Documents | None = None  # in place of these, while one layer has not changed
        self._orders: dict[str, _Order] = {}  # of documents in which something published by hand has company

    def __bool__(self) -> bool:
        return bool(self._layers)

    @property
    def layers(self) -> Iterable[Layer]:
        """What publishes the collection, the first told first."""
        return self._layers.keys()

    def attach(self, layer: Layer, pieces: Pieces | None = None) -> bool:
        """A subscription brings ``layer``; its documents are told by `tell_some`.

        Args:
            layer: the layer.
            pieces: its documents made ready, if they are.

        Returns:
            True if the view did not have it, and must from now on be told of its changes.
        """
        if not self.count(layer):
            return False
        if len(self._layers) == 1:
            self._rest = Rest(pieces) if pieces is not None else Documents(layer)
        elif layer.documents:
            self._leave(layer, dict.fromkeys(document.id for document in layer.documents.values()))
        return True

    def count(self, layer: Layer) -> bool:
        """As `attach`, but all that it holds counts as told."""
        self._layers[layer] = self._layers.get(layer, 0) + 1
        if self._layers[layer] > 1:
            return False
        self._spell_out()
        if self._company is not None:
            self._company.add(layer)
        elif len(self._layers) > 1:
            self._company = _Company(self._layers)
        return True

    def _spell_out(self) -> None:
        """From now on single documents count: note which of them are still to be told."""
        if self._rest is not None:
            layer = next(iter(self._layers))
            if ids := self._rest.ids():
                self._leave(layer, ids)
            self._rest = None

    def _leave(self, layer: Layer, ids: dict[str, None]) -> None:
        """These are still to be told."""
        if self._untold is None:
            self._untold = {}
        self._untold[layer] = ids

    def _left(self, layer: Layer) -> Collection[str]:
        """The ids that are still to be told of a layer."""
        return () if self._untold is None else self._untold.get(layer, ())

    def _forget_left(self, layer: Layer) -> None:
        if self._untold is not None:
            self._untold.pop(layer, None)
            self._untold = self._untold or None

    def tell_some(self, layer: Layer, most: int) -> bool:
        """Tell the client what up to ``most`` of the documents add that were not told yet; fewer large ones.

        Returns:
            Whether there are more.
        """
        if self._rest is not None:
            return self._tell_next(self._rest, most)
        if self._untold is None or layer not in self._untold:
            return False
        untold = self._untold[layer]
        enough = self._session.outgoing_size + MOST_TOLD_BYTES
        for document_id in [*itertools.islice(untold, most)]:
            if self._session.outgoing_size >= enough:
                break
            del untold[document_id]
            self._step(layer, Transition(document_id, None, layer.find(document_id)))
        if not untold:
            self._forget_left(layer)
        return bool(untold)

    def _tell_next(self, rest: Rest | Documents, most: int) -> bool:
        """Tell of the next documents as they are: no other layer has a say."""
        if rest:
            frames, count = rest.next(self._session.wire, most)
            if count:
                self._session.push(frames, count)
        if not rest:
            self._rest = None
        return bool(rest)

    def detach(self, layer: Layer) -> bool:
        """A subscription takes ``layer`` away: tell the client what goes with it.

        Returns:
            True if no other subscription of the session has it.
        """
        self._layers[layer] -= 1
        if self._layers[layer]:
            return False
        self._spell_out()
        untold = self._left(layer)
        self._forget_left(layer)
        for document in layer.documents.values():
            if document.id not in untold:
                self._step(layer, Transition(document.id, document, None))
        del self._layers[layer]
        if self._company is not None:
            self._company.remove(layer)
            if len(self._layers) == 1:
                self._company = None
        return True

    def apply(self, broadcast: Broadcast) -> None:
        """One of the view's layers has changed: tell the client as far as it makes a difference."""
        session = self._session
        if self._rest is not None:
            self._spell_out()
        # What a thousand clients are each looked at for is what it costs to tell them: nothing but slots of
        # the view and the session, so that little is fetched into the processor's cache.
        if self._company is None and self._untold is None:
            frames = broadcast.ready.get(session.wire) or broadcast.joined(session.wire)
            if session.outlet is None or session.outgoing_size:
                session.push(frames, broadcast.count)
            else:
                session.sent += broadcast.count
                session.outlet(frames)
            return
        untold = self._left(broadcast.layer)
        for step, ready_made in zip(broadcast.transitions, broadcast.frames(session.wire), strict=True):
            if step.id not in untold:  # else its turn comes, with what it is by then
                self._step(broadcast.layer, step, ready_made, broadcast.fields)

    # -- another user ---------------------------------------------------------------------------

    def agrees_with(self, other: CollectionView) -> bool:
        """Whether the layers are the same in the same order, so that the client has nothing to learn."""
        return other._untold is None and other._rest is None and [*self._layers] == [*other._layers]

    def adopt(self, before: CollectionView) -> None:
        """Be what ``before`` was; the two agree."""
        self._orders = before._orders

    def replace(self, before: CollectionView, most: int) -> int:
        """Lead the client from what it has by ``before`` to this view.

        Every layer was brought by `count`. What is gone or different is told at once, and up to
        ``most`` new documents; the others are left to `tell_some`.

        Returns:
            How many new documents were told.
        """
        before._spell_out()
        had = before._told()
        for document_id, fields in had.items():
            self._send(document_id, fields, self._merged(document_id))
        ids = (document.id for layer in self._layers for document in layer.documents.values())
        new = [document_id for document_id in dict.fromkeys(ids) if document_id not in had]
        for document_id in new[:most]:
            self._send(document_id, None, self._merged(document_id))
        for layer in self._layers:
            left = [document_id for document_id in new[most:] if layer.find(document_id) is not None]
            if left:
                self._leave(layer, dict.fromkeys(left))
        return min(len(new), most)

    def _told(self) -> dict[str, Fields]:
        """What the client has, by document id."""
        ids = (
            document.id
            for layer in self._layers
            for document in layer.documents.values()
            if document.id not in self._left(layer)
        )
        return {document_id: self._merged(document_id) or {} for document_id in dict.fromkeys(ids)}

    def _merged(self, document_id: str) -> Fields | None:
        """The document as the client has it, or None if it has not."""
        holding = {layer: document.fields for layer, document in self._holding(document_id)}
        if not holding:
            return None
        order = self._orders.get(document_id)
        return _united(holding.values()) if order is None else order.merged(holding)

    # -- the merge rule -------------------------------------------------------------------------

    def _holding(self, document_id: str) -> Iterator[tuple[Layer, Document]]:
        """The layers that have told of a document, and what they hold of it, the first told first."""
        for layer in self._layers if self._company is None else self._company.holders(document_id):
            document = layer.find(document_id)
            if document is not None and document_id not in self._left(layer):
                yield layer, document

    def _step(
        self,
        layer: Layer,
        step: Transition,
        ready_made: bytes | None = None,
        fields_of: Callable[[Document], Fields] = attrgetter("fields"),
    ) -> None:
        """Tell the client what a step of one layer means, given what the other layers hold.

        Args:
            layer: may hold the old or the new document: the step counts.
            step: the step.
            ready_made: its frames, for where the others hold nothing of the document.
            fields_of: takes a document apart.
        """
        held = [(other, document) for other, document in self._holding(step.id) if other is not layer]
        if not held and ready_made is not None:  # nothing need be taken apart
            self._session.push(ready_made)
            return
        old = None if step.old is None else fields_of(step.old)
        new = None if step.new is None else fields_of(step.new)
        if not held:
            self._send(step.id, old, new)
            return
        others = {other: fields_of(document) for other, document in held}
        before, after = self._with(others, layer, old), self._with(others, layer, new)
        order = self._orders.get(step.id)
        if order is None and any(isinstance(one, Published) for one in (layer, *others)):
            order = self._orders[step.id] = _Order(before)
        if order is None:
            self._send(step.id, _united(before.values()), _united(after.values()))
            return
        had = order.merged(before)
        order.step(layer, old or {}, new or {})
        self._send(step.id, had, order.merged(after))
        if len(after) == 1:
            del self._orders[step.id]

    def _with(
        self, others: Mapping[Layer, Fields], layer: Layer, fields: Fields | None
    ) -> dict[Layer, Fields]:
        """The layers that hold a document, in the order told, ``layer`` holding ``fields`` of it."""
        if fields is None:
            return dict(others)
        holding = {**others, layer: fields}
        return holding if self._company is None else self._company.in_order(holding)

    def _send(self, document_id: str, before: Fields | None, after: Fields | None) -> None:
        """Send what leads the client from one state of a document to the next."""
        send, collection = self._session.send, self._collection
        if after is None:
            if before is not None:
                send(messages.removed(collection, document_id))
        elif before is None:
            send(messages.added(collection, document_id, object_text(after)))
        elif differs := difference(before, after):
            send(messages.changed(collection, document_id, differs))


class _Company:
    """The layers of a view that has several. Most have one, and there may be very many views."""

    __slots__ = ("_groups", "_since")

    def __init__(self, layers: Iterable[Layer]) -> None:
        self._since: dict[Layer, int] = {}  # numbers in the order told
        self._groups: dict[Group, dict[Layer, None]] = {}
        for layer in layers:
            self.add(layer)

    def add(self, layer: Layer) -> None:
        """A further layer, told last."""
        self._since[layer] = next(_numbers)
        self._groups.setdefault(layer.group, {})[layer] = None

    def remove(self, layer: Layer) -> None:
        """A layer is gone."""
        del self._since[layer], self._groups[layer.group][layer]
        if not self._groups[layer.group]:
            del self._groups[layer.group]

    def holders(self, document_id: str) -> list[Layer]:
        """The layers that hold a document, and perhaps some that do not, the first told first."""
        found: list[Layer] = []
        for group, layers in self._groups.items():
            # A session may have thousands of live queries of one shape, and a document as many holders.
            holders = group.holders(document_id)
            fewer, more = (layers, holders) if len(layers) < len(holders) else (holders, layers)
            found += [one for one in fewer if one in more]
        return sorted(found, key=self._since.__getitem__)

    def in_order(self, holding: Mapping[Layer, Fields]) -> dict[Layer, Fields]:
        """The same, the first told first."""
        return {layer: holding[layer] for layer in sorted(holding, key=self._since.__getitem__)}


class _Order:
    """For each field of one document the layers that have it, in order of arrival."""

    def __init__(self, layers: Mapping[Layer, Fields]) -> None:
        self._layers: dict[str, list[Layer]] = {}
        for layer, fields in layers.items():
            self.step(layer, {}, fields)

    def step(self, layer: Layer, old: Fields, new: Fields) -> None:
        """A layer has other fields now."""
        for name in old.keys() - new.keys():
            self._layers[name].remove(layer)
            if not self._layers[name]:
                del self._layers[name]
        for name in new:
            if name not in old:
                self._layers.setdefault(name, []).append(layer)

    def merged(self, layers: Mapping[Layer, Fields]) -> Fields:
        """Each field with the value of the layer that was first."""
        return {name: layers[arrived[0]][name] for name, arrived in self._layers.items()}


def _united(layers: Iterable[Fields]) -> Fields:
    """The union of fields, the first one's value where they differ."""
    first, *others = layers
    if not others:
        return first
    united: dict[str, bytes] = {}
    for fields in reversed([first, *others]):
        united.update(fields)
    return united
