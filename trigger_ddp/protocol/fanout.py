"""Who is to be told of which live query's changes."""

from __future__ import annotations

from collections.abc import Iterable

from trigger_ddp.live.query import Delta
from trigger_ddp.protocol.pieces import Pieces
from trigger_ddp.protocol.published import Layer
from trigger_ddp.protocol.session import Session
from trigger_ddp.protocol.views import Broadcast, CollectionView


class Fanout:
    """The sessions behind each live query, in the order in which they came."""

    def __init__(self) -> None:
        self._sessions: dict[Layer, dict[Session, CollectionView]] = {}
        self._pieces: dict[Layer, Pieces] = {}  # of layers that sessions are behind

    def watch(self, query: Layer, session: Session) -> None:
        """From now on tell ``session`` of the changes of ``query``, by the view that it has of it now."""
        self._sessions.setdefault(query, {})[session] = session.views[query.collection]

    def unwatch(self, query: Layer, session: Session) -> None:
        """Tell ``session`` no more; it need not have been told before."""
        if sessions := self._sessions.get(query):
            sessions.pop(session, None)
            if not sessions:
                del self._sessions[query]
                self._pieces.pop(query, None)

    def pieces(self, query: Layer, now: float) -> Pieces | None:
        """The documents of a query made ready; None for the first who subscribes, who may be the only one.

        Args:
            query: the live query.
            now: on the clock of `drop_pieces`.
        """
        pieces = self._pieces.get(query)
        if pieces is None:
            if not self._sessions.get(query):
                return None
            pieces = self._pieces[query] = Pieces(query)
        pieces.used_at = now
        return pieces

    def drop_pieces(self, unused_since: float) -> None:
        """Forget what nobody was told since then: it takes as much memory as the documents."""
        for query in [query for query, pieces in self._pieces.items() if pieces.used_at < unused_since]:
            del self._pieces[query]

    def sessions(self, query: Layer) -> list[Session]:
        """Who is told of ``query``."""
        return list(self._sessions.get(query, ()))

    def tell(self, deltas: Iterable[Delta]) -> bool:
        """Give each delta to the sessions behind its live query, one delta after the other.

        Returns:
            Whether there was anything to tell to anybody.
        """
        told = False
        for delta in deltas:
            sessions = self._sessions.get(delta.query)
            if not sessions:
                continue
            told = True
            broadcast = Broadcast(delta.query, delta.transitions)
            for view in sessions.values():
                view.apply(broadcast)
            if (pieces := self._pieces.get(delta.query)) is not None:
                pieces.update(delta.transitions)
        return told
