"""``--debug-port``: a console for looking into the running server, with nothing to change it by.

It is on the loopback interface only and asks nobody who he is: everyone who may run programs on this
machine may look. What it shows are ids, addresses, SQL and places in the code; no documents, no parameters of
clients, no tokens. A page in a browser on this machine can be made to connect, too. What such a one sends
first is an HTTP request, at which the connection is closed.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence

import trio

from trigger_ddp.server.debug_commands import Commands
from trigger_ddp.server.metrics import Metrics
from trigger_ddp.server.service import Service
from trigger_ddp.server.sockets import Listener, accept_forever, describe

logger = logging.getLogger(__name__)

#: Consoles open at a time.
MOST_CONSOLES = 4
#: Bytes of one line.
MOST_LINE_BYTES = 1000
#: Seconds without a command after which a console is closed.
IDLE_SECONDS = 600.0
#: Seconds that a console may take to take in an answer.
SEND_SECONDS = 30.0

PROMPT = b"ddp> "
GREETING = b"trigger_ddp's debug console. 'help' lists its commands.\n"

#: How HTTP, or TLS, begins, and what follows it. No command looks like that.
_FOREIGN = re.compile(rb"[A-Z]+ \S+ HTTP/|[A-Za-z-]+:|\x16\x03|PRI \*")


async def serve(listeners: Sequence[Listener], service: Service, metrics: Metrics) -> None:
    """Serve consoles until cancelled."""
    for listener in listeners:
        logger.info("debug console on %s", describe(listener))
    consoles = _Consoles(Commands(service, metrics))
    await accept_forever(listeners, consoles.converse)


class _Consoles:
    """The consoles that are open."""

    def __init__(self, commands: Commands) -> None:
        self._commands = commands
        self._open = 0

    async def converse(self, stream: trio.abc.Stream) -> None:
        """Serve one until it is closed. Raises nothing but `trio.Cancelled`."""
        self._open += 1
        try:
            if self._open > MOST_CONSOLES:
                await _send(stream, b"too many consoles are open\n")
                return
            logger.info("a debug console was opened")
            await self._answer(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            logger.debug("a debug console went away")
        finally:
            self._open -= 1

    async def _answer(self, stream: trio.abc.Stream) -> None:
        buffer = bytearray()
        await _send(stream, GREETING + PROMPT)
        while True:
            line = await _read_line(stream, buffer)
            if line is None:
                return
            if _FOREIGN.match(line):
                logger.warning("a debug console was closed: its client is none, but speaks HTTP or TLS")
                return
            words = line.decode("utf-8", "replace").split()
            if words[:1] in (["quit"], ["exit"]):
                return
            await _send(stream, self._run(words) + PROMPT)

    def _run(self, words: list[str]) -> bytes:
        try:
            text = self._commands.run(words)
        except Exception as error:
            logger.exception("the debug console's %r failed", words[0])
            text = f"failed: {type(error).__name__}; the log has the whole of it"
        return f"{text}\n".encode("utf-8", "backslashreplace") if text else b""


async def _read_line(stream: trio.abc.Stream, buffer: bytearray) -> bytes | None:
    """The next line; None at the end of the connection, of the patience, and of what a line may hold."""
    with trio.move_on_after(IDLE_SECONDS):
        while True:
            line, newline, rest = buffer.partition(b"\n")
            if len(line) > MOST_LINE_BYTES:
                await _send(stream, b"the line is too long\n")
                return None
            if newline:
                buffer[:] = rest
                return bytes(line).rstrip(b"\r")
            data = await stream.receive_some(4096)
            if not data:
                return None
            buffer += data
    return None


async def _send(stream: trio.abc.Stream, data: bytes) -> None:
    with trio.move_on_after(SEND_SECONDS) as patience:
        await stream.send_all(data)
    if patience.cancelled_caught:
        raise trio.BrokenResourceError("the console does not take in its answer")
