"""What clients do, put before `API.rate_limiter`."""

from __future__ import annotations

from trigger_ddp.api import API, get_meteor_id
from trigger_ddp.api.ratelimit import Attempt
from trigger_ddp.errors import MeteorError
from trigger_ddp.protocol.session import Session
from trigger_ddp.server.client import Client
from trigger_ddp.server.metrics import Metrics


def admit(session: Session, client: Client, metrics: Metrics, kind: str, name: str) -> None:
    """Count that a client wants to call a method or to subscribe.

    Args:
        session: the client's session.
        client: its connection.
        metrics: where a refusal is counted.
        kind: "method" or "subscription".
        name: of the method or publication.

    Raises:
        MeteorError: too-many-requests, for the client.
    """
    attempt = Attempt(kind, name, get_meteor_id(session.user), client.id, client.client_address)
    try:
        API.rate_limiter.admit(attempt)
    except MeteorError:
        metrics.refusals[f"{kind}_rate"] += 1
        raise
