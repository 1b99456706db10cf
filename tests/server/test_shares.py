"""Workers that leave connections to each other."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from trigger_ddp.server import shares
from trigger_ddp.server.shares import Shares


@pytest.fixture
def workers(tmp_path: Path) -> list[Shares]:
    with (tmp_path / "shares").open("w+b") as file:
        Shares.create(file, 3)
        return [Shares(file.fileno(), number) for number in (1, 2, 3)]


def waits(worker: Shares, count: int) -> float:
    """Seconds that a worker waits before it accepts once it has so many connections."""

    async def main() -> float:
        before = trio.current_time()
        await worker.wait_for_others(count)
        return round(trio.current_time() - before, 6)

    return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_whoever_has_clearly_more_waits_a_moment(workers: list[Shares]) -> None:
    first, second, third = workers
    for worker in workers:
        assert waits(worker, 100) == 0
    assert waits(first, 100 + 12 + shares.SLACK) == 0
    assert waits(first, 100 + 12 + shares.SLACK + 1) == shares.COURTESY_SECONDS
    second.put(150)
    assert waits(first, 117) == shares.COURTESY_SECONDS
    third.put(150)
    assert waits(first, 117) == 0


def test_nobody_waits_for_workers_that_do_not_run(workers: list[Shares]) -> None:
    first, second, _ = workers
    assert waits(first, 1000) == 0
    second.put(0)
    assert waits(first, 1000) == shares.COURTESY_SECONDS
    second.put(None)
    assert waits(first, 1000) == 0


def test_connections_that_have_gone_are_noticed(workers: list[Shares]) -> None:
    first, second, _ = workers

    async def main() -> None:
        async with trio.open_nursery() as connections, trio.open_nursery() as nursery:
            for _ in range(50):
                connections.start_soon(trio.sleep, 3 * shares.REFRESH_SECONDS)
            nursery.start_soon(first.refresh, connections)
            await trio.sleep(1.5 * shares.REFRESH_SECONDS)
            before = trio.current_time()
            await second.wait_for_others(60)
            assert trio.current_time() == before
            await trio.sleep(3 * shares.REFRESH_SECONDS)
            before = trio.current_time()
            await second.wait_for_others(shares.SLACK + 1)
            assert trio.current_time() == pytest.approx(before + shares.COURTESY_SECONDS)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
