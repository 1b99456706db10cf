"""Who is to be told of which live query's changes."""

from __future__ import annotations

from collections.abc import Iterable

from trigger_ddp.live.query import Delta
from trigger_ddp.protocol.published import Layer
from trigger_ddp.protocol.session import Session
from trigger_ddp.protocol.views import Broadcast


class Fanout:
    """The sessions behind each live query, in the order in which they came."""

    def __init__(self) -> None:
        self._sessions: dict[Layer, dict[Session, None]] = {}

    def watch(self, query: Layer, session: Session) -> None:
        """From now on tell ``session`` of the changes of ``query``."""
        self._sessions.setdefault(query, {})[session] = None

    def unwatch(self, query: Layer, session: Session) -> None:
        """Tell ``session`` no more; it need not have been told before."""
        if sessions := self._sessions.get(query):
            sessions.pop(session, None)
            if not sessions:
                del self._sessions[query]

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
            collection = delta.query.collection
            for session in sessions:
                session.views[collection].apply(broadcast)
        return told
