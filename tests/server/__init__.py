"""Tests of the stage with async: real PostgreSQL, real sockets, faults switched on by the tests."""

from __future__ import annotations

from collections.abc import Callable

import trio

#: Seconds after which a state that should have come counts as never coming.
DEADLINE = 30


async def eventually(condition: Callable[[], object], what: str = "") -> None:
    """Return as soon as ``condition()`` is true; fail if it does not become so."""
    with trio.move_on_after(DEADLINE):
        while not condition():
            await trio.sleep(0.005)
        return
    raise AssertionError(f"did not come about within {DEADLINE} s: {what or condition}")
