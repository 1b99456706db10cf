"""A session's share of the event loop."""

from __future__ import annotations

import trio

from tests.server.network import in_mock_time
from trigger_ddp.server.fairness import BURST, MESSAGE, Share, cost


@in_mock_time
async def test_a_burst_passes_and_a_flood_is_slowed() -> None:
    share = Share(0.2)
    work = 20 * MESSAGE
    messages = int(BURST / work) // 2
    for _ in range(messages):
        with share.spending(work):
            pass
        await share.rest()
    assert trio.current_time() < BURST
    for _ in range(10 * messages):
        with share.spending(work):
            pass
        await share.rest()
    # Five seconds for each second of work, what is decoded not counted, and the burst and a half for nothing.
    assert trio.current_time() >= (11 * messages * work - BURST) / 0.2 - 0.01


@in_mock_time
async def test_who_is_quiet_has_a_burst_again() -> None:
    share = Share(0.2)
    with share.spending(2 * BURST):
        pass
    await share.rest()
    await trio.sleep(1000)
    resting = trio.current_time()
    with share.spending(BURST / 2):
        pass
    await share.rest()
    assert trio.current_time() == resting
    with share.spending(BURST):  # more than one burst is not saved up
        pass
    await share.rest()
    assert trio.current_time() > resting


@in_mock_time
async def test_the_whole_is_no_limit() -> None:
    share = Share(1.0)
    for _ in range(100):
        with share.spending(BURST):
            pass
        await share.rest()
    assert trio.current_time() == 0


def test_long_messages_cost_more() -> None:
    assert cost("x" * 8_000_000) > 100 * cost("x")
