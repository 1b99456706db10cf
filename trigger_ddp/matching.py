"""`msgspec.convert` for many threads.

msgspec puts together what it needs to know of a Struct when that is first asked for, and two threads that ask
at a time may end the process: "Segmentation fault", with msgspec 0.22 on Python 3.11 and 3.13, where the
interpreter switches threads in between. So the first time is one thread's. Decoders that are made when a
module is loaded do not need this.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

_lock = threading.RLock()
_known: set[Any] = set()  # kinds that were converted to


def convert(value: Any, kind: type[T], *, dec_hook: Callable[[type, Any], Any] | None = None) -> T:
    """``value`` as a ``kind``.

    Args:
        value: plain data.
        kind: a type or type hint.
        dec_hook: see msgspec.

    Raises:
        msgspec.ValidationError: it is none.
        TypeError: it is no kind that msgspec has rules for.
    """
    try:
        known = kind in _known
    except TypeError:  # metadata of an Annotated that has no hash
        known = False
    if known:
        return msgspec.convert(value, kind, dec_hook=dec_hook)
    with _lock:
        try:
            return msgspec.convert(value, kind, dec_hook=dec_hook)
        finally:
            _remember(kind)


def _remember(kind: Any) -> None:
    with contextlib.suppress(TypeError):
        _known.add(kind)
