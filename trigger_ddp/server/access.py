"""The access log: one line for each HTTP request, the handshakes of WebSockets included.

Its logger is ``trigger_ddp.access``. What the line says is on the record, too, for logs that machines read:
client, http_method, target, status, bytes (of the body) and seconds (from the request's head to the end of
the response; of a WebSocket, to its handshake).
"""

from __future__ import annotations

import logging
import time

from trigger_ddp.server.exchange import Request

logger = logging.getLogger("trigger_ddp.access")


class Entry:
    """What is known of one request so far.

    Args:
        client: whose it is, until `begin` knows better.

    Attributes:
        upgraded: set it where the connection becomes a WebSocket.
    """

    def __init__(self, client: str) -> None:
        self._client = client
        self._method = self._target = "-"
        self._begun: float | None = None
        self.upgraded = False

    def begin(self, request: Request) -> None:
        """The request's head is there."""
        self._client, self._method, self._target = request.client, request.method, request.target
        self._begun = time.monotonic()

    def write(self, status: int, body_bytes: int) -> None:
        """Write the line, unless there was neither a request nor an answer.

        Args:
            status: of the response; 0: there was none.
            body_bytes: how much of its body was sent.
        """
        if self.upgraded:
            status = 101
        if not logger.isEnabledFor(logging.INFO) or not (status or self._begun):
            return
        seconds = 0.0 if self._begun is None else time.monotonic() - self._begun
        fields = {
            "client": _one_line(self._client),
            "http_method": self._method,  # "method" on a record is DDP's, see `logcontext`
            "target": _one_line(self._target),
            "status": status,
            "bytes": body_bytes,
            "seconds": round(seconds, 6),
        }
        logger.info(
            '%s "%s %s" %d %d %.3fs',
            *(fields[name] for name in ("client", "http_method", "target", "status", "bytes", "seconds")),
            extra=fields,
        )


def _one_line(text: str) -> str:
    """Text from a client, which must not look like the end of the field or of the line."""
    return "".join(
        character if character.isprintable() and character not in '"\\' else f"\\x{ord(character):02x}"
        for character in text
    )
