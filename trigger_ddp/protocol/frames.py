"""The exact bytes that carry a DDP message to a client, built once and shared by all who get it.

A server's WebSocket frames are not masked (RFC 6455, section 5.1), so the same message is the same
bytes for every client that speaks the same kind of wire. `frame()` makes them; everything else here
is the handful of frames that WebSocket and SockJS want besides.
"""

from __future__ import annotations

import enum

import msgspec

_FINAL_TEXT = 0x81  # FIN, opcode 1
_FINAL_CLOSE = 0x88  # FIN, opcode 8
_MAX_CONTROL_PAYLOAD = 125  # RFC 6455, section 5.5

_quote = msgspec.json.Encoder().encode


class Wire(enum.Enum):
    """How DDP messages are laid into WebSocket messages."""

    #: One DDP message is one WebSocket message, as at ``/websocket``.
    RAW = "raw"
    #: SockJS's framing, as at ``/sockjs/<server>/<session>/websocket``: ``a["…"]``.
    SOCKJS = "sockjs"


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
    """The WebSocket frame that carries one DDP message.

    Args:
        wire: what the client speaks.
        message: the DDP message, JSON in UTF-8.

    Raises:
        UnicodeDecodeError: `message` is not UTF-8 (noticed for SOCKJS only).
    """
    if wire is Wire.SOCKJS:
        message = b"a[" + _quote(message.decode()) + b"]"
    return _head(_FINAL_TEXT, len(message)) + message


def sockjs_close_frame(code: int, reason: str) -> bytes:
    """SockJS's ``c[code,"reason"]``: the session is over, a WebSocket close frame follows."""
    return text_frame(b"c[%d,%s]" % (code, _quote(reason)))


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
