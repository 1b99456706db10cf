"""The exact bytes that carry a DDP message to a client, built once and shared by all who get it.

A server's WebSocket frames are not masked (RFC 6455, section 5.1), so the same message is the same
bytes for every client that speaks the same kind of wire. `frame()` makes them; everything else here
is the handful of frames that WebSocket and SockJS want besides.

SockJS over HTTP has no such frames: each of its responses may hold many messages. What is shared there is
each message as a JSON string with a comma behind it; `sockjs_array()` makes one response's frame of them.
"""

from __future__ import annotations

import enum
import itertools
import re
from collections.abc import Sequence
from functools import lru_cache

import msgspec

_FINAL_TEXT = 0x81  # FIN, opcode 1
_FINAL_CLOSE = 0x88  # FIN, opcode 8
_MAX_CONTROL_PAYLOAD = 125  # RFC 6455, section 5.5

#: Characters that browsers mangle, or take for something else in a script; sockjs-node escapes the same ones.
_FRAGILE = re.compile("[\u200c-\u200f\u2028-\u202f\u2060-\u206f\ufff0-\uffff]")

_quote = msgspec.json.Encoder().encode


class Wire(enum.Enum):
    """How DDP messages are laid into WebSocket messages."""

    __hash__ = object.__hash__  # enum's own is Python, and this is looked up for every client

    #: One DDP message is one WebSocket message, as at ``/websocket``.
    RAW = "raw"
    #: SockJS's framing, as at ``/sockjs/<server>/<session>/websocket``: ``a["…"]``.
    SOCKJS = "sockjs"
    #: SockJS's framing in HTTP responses, as at ``/sockjs/<server>/<session>/xhr``.
    SOCKJS_HTTP = "sockjs over http"


def _head(first: int, length: int) -> bytes:
    if length < 126:
        return bytes((first, length))
    if length < 1 << 16:
        return bytes((first, 126)) + length.to_bytes(2, "big")
    return bytes((first, 127)) + length.to_bytes(8, "big")


def text_frame(payload: bytes) -> bytes:
    """One whole WebSocket text message as an unmasked frame, its length encoded in the fewest bytes.

    Args:
        payload: UTF-8 text. Not checked: a client answers anything else by closing with 1007.
    """
    return _head(_FINAL_TEXT, len(payload)) + payload


def frame(wire: Wire, message: bytes) -> bytes:
    """The WebSocket frame that carries one DDP message; for SOCKJS_HTTP what `sockjs_array` takes.

    Args:
        wire: what the client speaks.
        message: the DDP message, JSON in UTF-8.

    Raises:
        UnicodeDecodeError: `message` is not UTF-8 (not noticed for RAW).
    """
    if wire is Wire.SOCKJS_HTTP:
        text = message.decode()
        quoted = _quote(text)
        if not text.isascii():
            quoted = _FRAGILE.sub(_escape, quoted.decode()).encode()
        return quoted + b","
    if wire is Wire.SOCKJS:
        message = b"a[" + _quote(message.decode()) + b"]"
    return _head(_FINAL_TEXT, len(message)) + message


def joined_frames(wire: Wire, messages: Sequence[bytes]) -> bytes:
    """The `frame`s of DDP messages, one behind the other."""
    if wire is Wire.RAW:  # mostly, and thousands of documents at once: no call of ours for each
        heads = map(_text_head, map(len, messages))
        return b"".join(itertools.chain.from_iterable(zip(heads, messages, strict=True)))
    return b"".join([frame(wire, message) for message in messages])


@lru_cache(maxsize=1024)
def _text_head(length: int) -> bytes:
    return _head(_FINAL_TEXT, length)


def _escape(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


def sockjs_array(messages: bytes) -> bytes:
    """SockJS's ``a["…","…"]``.

    Args:
        messages: one or more frames of `Wire.SOCKJS_HTTP`, one behind the other.
    """
    return b"a[" + messages[:-1] + b"]"


def sockjs_close(code: int, reason: str) -> bytes:
    """SockJS's ``c[code,"reason"]``: the session is over."""
    return b"c[%d,%s]" % (code, _FRAGILE.sub(_escape, _quote(reason).decode()).encode())


def sockjs_close_frame(code: int, reason: str) -> bytes:
    """`sockjs_close` for a WebSocket; a WebSocket close frame follows."""
    return text_frame(sockjs_close(code, reason))


def close_frame(code: int, reason: str = "") -> bytes:
    """A WebSocket close frame; nothing may be sent after it.

    Args:
        code: 1000 to 4999 without 1005, 1006 and 1015, which stand for closes without a frame.
        reason: shortened to the 123 bytes of UTF-8 that a control frame has room for.
    """
    room = _MAX_CONTROL_PAYLOAD - 2
    text = reason.encode()[:room].decode(errors="ignore").encode()
    return bytes((_FINAL_CLOSE, 2 + len(text))) + code.to_bytes(2, "big") + text


#: SockJS: the session is open. The first frame a SockJS client gets.
SOCKJS_OPEN = text_frame(b"o")
#: SockJS: the server is alive. A client that sees neither this nor a message for a while reconnects.
SOCKJS_HEARTBEAT = text_frame(b"h")
