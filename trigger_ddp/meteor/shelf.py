"""The bundles that this process has read, each read again when it has changed on disk."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable
from pathlib import Path

from trigger_ddp.meteor.bundle import Bundle, BundleError, read, star_path

logger = logging.getLogger(__name__)

_Signature = tuple[tuple[int, int, int] | None, ...]


class _Slot:
    """One bundle: as it was read last, and what its files looked like then."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.bundle: Bundle | None = None
        self.signature: _Signature = ()
        self.failed: _Signature | None = None


_slots: dict[str, _Slot] = {}
_slots_lock = threading.Lock()


def current(path: str | os.PathLike[str], *, anew: bool = False) -> Bundle:
    """The bundle at ``path`` as it is on disk now. A few `stat` calls where it has not changed.

    A bundle that can't be read, for instance because it is being written, does not replace the one that
    was read before; that is logged, and it is read again once its files look different.

    Args:
        path: of its star.json, or of the directory that has it.
        anew: read it, even where its files look as they did.

    Raises:
        BundleError: it can't be read, and never could.
    """
    with _slots_lock:
        slot = _slots.setdefault(os.fspath(path), _Slot())
    with slot.lock:
        seen = _sign(slot.bundle.sources if slot.bundle else [star_path(path)])
        if slot.bundle is not None and not anew and seen in (slot.signature, slot.failed):
            return slot.bundle
        try:
            found = read(path)
            signature = _sign(
                found.sources
            )  # before the second look: it must not be newer than what was read
            if read(path) != found:
                raise BundleError(f"{path} is being written")
        except BundleError as error:
            if slot.bundle is None:
                raise
            slot.failed = seen
            logger.warning("the bundle that was read before is served on, since %s", error)
            return slot.bundle
        if slot.bundle is not None:
            logger.info("%s has changed", found.path)
        slot.bundle, slot.signature, slot.failed = found, signature, None
        return found


def _sign(paths: Iterable[str]) -> _Signature:
    """What tells whether one of the files was replaced or written to."""
    return tuple(map(_sign_one, paths))


def _sign_one(path: str) -> tuple[int, int, int] | None:
    try:
        stat = Path(path).stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size
