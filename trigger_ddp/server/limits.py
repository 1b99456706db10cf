"""What clients do, put before `API.rate_limiter`."""

from __future__ import annotations

from trigger_ddp.api import API, get_meteor_id
from trigger_ddp.api.ratelimit import Attempt
from trigger_ddp.protocol.session import Session
from trigger_ddp.server.client import Client


def admit(session: Session, client: Client, kind: str, name: str) -> None:
    """Count that a client wants to call a method or to subscribe.

    Args:
        session: the client's session.
        client: its connection.
        kind: "method" or "subscription".
        name: of the method or publication.

    Raises:
        MeteorError: too-many-requests, for the client.
    """
    API.rate_limiter.admit(Attempt(kind, name, get_meteor_id(session.user), client.id, client.client_address))
