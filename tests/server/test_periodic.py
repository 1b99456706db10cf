"""What `API.every` was told is called again and again, whatever it raises."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import trio

from trigger_ddp.api import API, this
from trigger_ddp.conf import Settings
from trigger_ddp.server.service import Service
from trigger_ddp.server.workers import Workers


class Source:
    async def run(self, deliver: Any, *, task_status: Any) -> None:
        task_status.started()
        await trio.sleep_forever()


async def serve_until(done: Callable[[], bool]) -> None:
    async with Workers(1) as workers, trio.open_nursery() as nursery:
        service = Service(Source(), workers, workers, Settings())  # type: ignore[arg-type]
        await nursery.start(service.run)
        with trio.fail_after(20):
            while not done():
                await trio.sleep(0.001)
        nursery.cancel_scope.cancel()


def test_it_is_called_on_a_worker_thread_and_survives_its_failures(caplog: pytest.LogCaptureFixture) -> None:
    threads: list[str] = []

    def sweep() -> None:
        threads.append(threading.current_thread().name)
        if len(threads) == 1:
            raise RuntimeError("the first time")

    with API.restored():
        API.every(0.001, sweep)
        trio.run(serve_until, lambda: len(threads) >= 3)
    assert all(name.startswith("trigger_ddp worker") for name in threads)
    assert "sweep" in caplog.text
    assert "the first time" in caplog.text


def test_an_async_function_runs_on_the_event_loop(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[tuple[str, str]] = []

    async def look() -> None:
        thread = await this.in_thread(lambda: threading.current_thread().name)
        seen.append((threading.current_thread().name, thread))
        if len(seen) == 1:
            raise RuntimeError("the first time")

    with API.restored():
        API.every(0.001, look)
        trio.run(serve_until, lambda: len(seen) >= 3)
    here = threading.current_thread().name
    assert all(loop == here and thread.startswith("trigger_ddp worker") for loop, thread in seen)
    assert "the first time" in caplog.text


def test_what_is_to_be_called_at_a_reload(caplog: pytest.LogCaptureFixture) -> None:
    called: list[str] = []

    async def there() -> None:
        called.append(await this.in_thread(lambda: "async"))

    def broken() -> None:
        called.append(threading.current_thread().name)
        raise RuntimeError("it is broken")

    async def main() -> None:
        async with Workers(1) as workers:
            service = Service(Source(), workers, workers, Settings())  # type: ignore[arg-type]
            await service.reload()
            assert API.off(broken)
            await service.reload()

    with API.restored():
        API.on_reload(broken)
        API.on_reload(there)
        trio.run(main)
    assert called == ["trigger_ddp worker 1", "async", "async"]
    assert "it is broken" in caplog.text
    assert there not in API.reload_hook.callbacks
