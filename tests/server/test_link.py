"""Connections that are being opened when nobody wants them any more."""

from __future__ import annotations

import threading

import pytest
import trio

from trigger_ddp.server.link import opened


def test_what_was_made_is_returned() -> None:
    assert trio.run(opened, lambda: "it", lambda _: pytest.fail("it is wanted")) == "it"


def test_what_can_not_be_made_raises() -> None:
    def make() -> None:
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        trio.run(opened, make, lambda _: pytest.fail("there is nothing to close"))


def test_what_is_made_too_late_is_closed() -> None:
    begun, may_end, closed = threading.Event(), threading.Event(), threading.Event()
    taken_away: list[str] = []

    def make() -> str:
        begun.set()
        assert may_end.wait(10)
        return "it"

    def close(one: str) -> None:
        taken_away.append(one)
        closed.set()

    async def main() -> None:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(opened, make, close)
                await trio.to_thread.run_sync(begun.wait)
                scope.cancel()
        assert scope.cancelled_caught, "nobody waits for the thread"
        assert not taken_away
        may_end.set()
        assert await trio.to_thread.run_sync(closed.wait, 10)

    trio.run(main)
    assert taken_away == ["it"]
