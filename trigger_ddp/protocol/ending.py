"""Why connections end, in a few words that never change: labels of a metric, not texts for people."""

from __future__ import annotations

import enum


class Ending(enum.Enum):
    """Who or what has ended a connection."""

    #: The client closed it in good order, or said DDP's `disconnect`.
    CLIENT = "client"
    #: It broke, or the client went away without a word.
    LOST = "lost"
    #: The client did not take in what was sent to it.
    SLOW = "slow_client"
    #: The client did not answer a ping.
    HEARTBEAT = "heartbeat_timeout"
    #: The client opened a connection, and did not say `connect`.
    SILENT = "connect_timeout"
    #: The client sent more than a message may hold.
    TOO_LARGE = "message_too_large"
    #: The client did not keep to the protocol, or speaks no version of it that is spoken here.
    PROTOCOL = "protocol_error"
    #: The client has come back over another connection, and not to its session.
    REPLACED = "replaced"
    #: The application closed it.
    SERVER = "server"
    #: The server stops.
    SHUTDOWN = "shutdown"
    #: Something failed that should not; the log says what.
    ERROR = "internal_error"


_OURS = {
    1001: Ending.SHUTDOWN,
    1002: Ending.PROTOCOL,
    1003: Ending.PROTOCOL,
    1007: Ending.PROTOCOL,
    1009: Ending.TOO_LARGE,
    1011: Ending.ERROR,
    3000: Ending.PROTOCOL,
}


def of_our_code(code: int) -> Ending:
    """What it means when the server closes with this code."""
    return _OURS.get(code, Ending.SERVER)


def of_final_code(code: int) -> Ending:
    """What it means when a WebSocket has ended with this code, which the client or its mistakes chose."""
    if code == 1006:  # none was sent
        return Ending.LOST
    return _OURS[code] if code in (1002, 1003, 1007, 1009) else Ending.CLIENT
