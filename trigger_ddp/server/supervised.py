"""One worker process, as the supervisor sees it."""

from __future__ import annotations

import logging
import signal
from collections.abc import Awaitable, Callable

import trio
from prometheus_client.core import Metric

from trigger_ddp.server.channel import Ask, Channel, Collect, Hurry, Metrics, Ready, Replaced, Totals
from trigger_ddp.server.families import from_plain, to_plain
from trigger_ddp.server.worker import FAREWELL_SECONDS

logger = logging.getLogger(__name__)

#: Seconds that a worker has to end after SIGTERM; it drains for less than that.
END_SECONDS = 9.5
#: Seconds that a worker has to tell its metrics.
ANSWER_SECONDS = 1.0


class Process:
    """A worker as its supervisor sees it.

    Args:
        number: the worker's.
        process: the process.
        channel: to it.
        totals: gives the metrics of all workers, for one that asks.

    Attributes:
        ready: set once it serves, and also when it has ended without ever having.
        ended: set when it has.
        told_to_end: whether it was.
        families: its metrics, as it last told them.
    """

    def __init__(
        self,
        number: int,
        process: trio.Process,
        channel: Channel,
        totals: Callable[[], Awaitable[list[Metric]]],
    ) -> None:
        self.number = number
        self.told_to_end = False
        self.ended = trio.Event()
        self.ready = trio.Event()
        self.families: list[Metric] = []
        self._told = trio.Event()
        self._asked = False
        self._process = process
        self._channel = channel
        self._totals = totals

    def __str__(self) -> str:
        return f"worker {self.number} (process {self._process.pid})"

    @property
    def code(self) -> int | None:
        """Its exit code, once it has ended; negative: the signal that has killed it."""
        return self._process.returncode

    @property
    def serves(self) -> bool:
        """Whether it does, so far as is known."""
        return self.ready.is_set() and not self.ended.is_set()

    async def run(self) -> None:
        """Follow it to its end."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._channel.run)
            nursery.start_soon(self._listen)
            await self._process.wait()
            nursery.cancel_scope.deadline = trio.current_time() + FAREWELL_SECONDS  # to hear it out
        self._channel.close()
        self.ended.set()
        self.ready.set()

    async def _listen(self) -> None:
        async with trio.open_nursery() as nursery:
            async for message in self._channel.messages():
                match message:
                    case Ready():
                        self.ready.set()
                    case Metrics():
                        self.families = from_plain(message.families)
                        self._told.set()
                    case Ask():
                        nursery.start_soon(self._tell_totals)
            nursery.cancel_scope.cancel()

    async def _tell_totals(self) -> None:
        self._channel.put(Totals(to_plain(await self._totals())))

    async def collect(self) -> None:
        """Have it tell its metrics; they are in `families` then, the older ones if it does not answer."""
        if not self.serves or (self._asked and not self._told.is_set()):
            return  # it does not serve yet, or hangs; nobody is to wait for it each time
        self._asked = True
        self._told = trio.Event()
        self._channel.put(Collect())
        with trio.move_on_after(ANSWER_SECONDS):
            await self._told.wait()

    def terminate(self) -> None:
        """Tell it to end in good order."""
        self.told_to_end = True
        self._process.send_signal(signal.SIGTERM)

    def replace(self) -> None:
        """Tell it to end in good order, since its successor serves."""
        self._channel.put(Replaced())
        self.terminate()

    def hurry(self) -> None:
        """Tell it to end now, rather than in good order."""
        self._channel.put(Hurry())
        self.terminate()

    def kill(self) -> None:
        """End it."""
        self._process.kill()

    async def end(self) -> None:
        """Tell it to end in good order, and see to it that it does."""
        if not self.told_to_end:
            self.terminate()
        with trio.move_on_after(END_SECONDS):
            await self.ended.wait()
        if not self.ended.is_set():
            logger.error("%s did not end within %g s and is killed", self, END_SECONDS)
            self.kill()
            await self.ended.wait()
