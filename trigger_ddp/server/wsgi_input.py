"""The body of a request as the file that a WSGI application reads; runs on the application's thread."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_BUFFER_BYTES = 65536
#: A body of unknown length is kept in memory up to this size, and beyond it in a temporary file.
SPOOL_BYTES = 1024 * 1024


class Incoming(io.RawIOBase):
    """What a client sends, each part taken from the connection when it is asked for.

    Args:
        first: what has been taken already.
        more: the next part, waited for; empty at the end. What it raises, reading raises.
    """

    def __init__(self, first: bytes, more: Callable[[], bytes]) -> None:
        self._rest = memoryview(first)
        self._more = more

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """As of `io.RawIOBase`."""
        if not self._rest:
            self._rest = memoryview(self._more())
        into = memoryview(buffer).cast("B")
        count = min(len(into), len(self._rest))
        into[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def buffered(incoming: Incoming) -> io.BufferedReader:
    """The file, with all the ways to read that PEP 3333 asks for."""
    return io.BufferedReader(incoming, _BUFFER_BYTES)


def spooled(incoming: Incoming) -> tuple[IO[bytes], int]:
    """The file after all of it has come, and its length.

    Django reads no more than CONTENT_LENGTH says, which a chunked body does not tell before its end.
    """
    file: IO[bytes] = tempfile.SpooledTemporaryFile(SPOOL_BYTES)  # noqa: SIM115  it is the caller's
    try:
        part = bytearray(_BUFFER_BYTES)
        while count := incoming.readinto(part):
            file.write(memoryview(part)[:count])
        length = file.tell()
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file, length
