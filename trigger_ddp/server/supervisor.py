"""Several processes behind one port: started, replaced when they crash or at SIGHUP, and ended together.

The supervisor opens the listening sockets and serves nothing itself. Each worker is this same command once
more, so that it loads the project anew: at SIGHUP one after the other is replaced by a successor, which runs
before its predecessor is told to end. A worker's number says which SockJS sessions are its own (`siblings`).
"""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec
import trio
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from trigger_ddp.server import main_task
from trigger_ddp.server.backoff import Backoff
from trigger_ddp.server.channel import Channel
from trigger_ddp.server.families import merge
from trigger_ddp.server.shares import Shares
from trigger_ddp.server.sockets import Listener, TCPAddress, open_listeners, url
from trigger_ddp.server.supervised import Process
from trigger_ddp.server.worker import ENVIRONMENT, Assignment

logger = logging.getLogger(__name__)

#: Seconds that a successor has to begin to serve.
START_SECONDS = 120.0


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """What a supervisor is started with.

    Args:
        workers: how many processes serve.
        binds: addresses as ``--bind`` takes them.
        admin_binds: where alone health and metrics are served; none: where clients are.
        console: where the first worker's debug console is; those of the others are at the next ports. None:
            there are none.
        tls: whether the workers speak TLS there; for the log.
    """

    workers: int
    binds: Sequence[str]
    admin_binds: Sequence[str] = ()
    console: TCPAddress | None = None
    tls: bool = False


def supervise(options: Options) -> int:
    """Serve by several processes until SIGINT or SIGTERM.

    Returns:
        The exit code: 0, or that of the first worker, if that can't start and has said why.

    Raises:
        ConfigurationError: an address can't be listened on.
    """
    return main_task.run(_main, options)


async def _main(options: Options) -> int:
    with (
        trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as stops,
        trio.open_signal_receiver(signal.SIGHUP) as reloads,
        tempfile.TemporaryDirectory(prefix="trigger-ddp-") as directory,  # which nobody else may enter
    ):
        async with _open(options, directory) as sockets, trio.open_nursery() as nursery:
            supervisor = Supervisor(nursery, options.workers, sockets)
            nursery.start_soon(_stop_at_signal, stops, supervisor)
            code = await supervisor.start()
            if supervisor.stopping.is_set():
                await supervisor.stopped.wait()
                logger.info("stopped")
            elif code is None:
                for listener in sockets.public:
                    address = url(listener, tls=options.tls)
                    logger.info("listening on %s with %d workers", address, options.workers)
                for listener in sockets.admin:
                    logger.info("health and metrics on %s", url(listener))
                nursery.start_soon(_replace_at_signal, reloads, supervisor)
                await supervisor.stopped.wait()
                logger.info("stopped")
            nursery.cancel_scope.cancel()
    return code or 0


@dataclasses.dataclass(frozen=True, slots=True)
class _Sockets:
    """What the workers listen on: all of them on `public` and `admin`, and each on its own of the others."""

    public: Sequence[Listener]
    admin: Sequence[Listener]
    consoles: Sequence[Sequence[Listener]]
    siblings: Sequence[Listener]
    sibling_paths: list[str]
    shares: int


@asynccontextmanager
async def _open(options: Options, directory: str) -> AsyncIterator[_Sockets]:
    paths = [str(Path(directory, f"{number}.sock")) for number in range(1, options.workers + 1)]
    async with AsyncExitStack() as stack:
        shares = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - the stack closes it
        Shares.create(shares, options.workers)

        async def listen(binds: Iterable[str]) -> Sequence[Listener]:
            listeners = await open_listeners(binds)
            for listener in listeners:
                stack.push_async_callback(trio.aclose_forcefully, listener)
            return listeners

        yield _Sockets(
            await listen(options.binds),
            await listen(options.admin_binds),
            [await listen(_console(options.console, number)) for number in range(options.workers)],
            await listen(f"unix:{path}" for path in paths),
            paths,
            shares.fileno(),
        )


def _console(first: TCPAddress | None, offset: int) -> list[str]:
    if first is None:
        return []
    return [str(TCPAddress(first.host, first.port + offset if first.port else 0))]


async def _stop_at_signal(signals: AsyncIterator[int], supervisor: Supervisor) -> None:
    logger.info("%s: ending %d workers", signal.Signals(await anext(signals)).name, len(supervisor.processes))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervisor.stop)
        async for _ in signals:  # whoever has no patience
            supervisor.hurry()


async def _replace_at_signal(signals: AsyncIterator[int], supervisor: Supervisor) -> None:
    async for _ in signals:
        await supervisor.replace_all()


class Supervisor:
    """The workers of one server.

    Args:
        nursery: where they are watched.
        workers: how many there are.
        sockets: what they listen on.
    """

    def __init__(self, nursery: trio.Nursery, workers: int, sockets: _Sockets) -> None:
        self.stopping = trio.Event()
        self.stopped = trio.Event()
        self.processes: set[Process] = set()  # all that run
        self._nursery = nursery
        self._numbers = range(1, workers + 1)
        self._sockets = sockets
        self._shares = {number: Shares(sockets.shares, number) for number in self._numbers}
        self._current: dict[int, Process | None] = dict.fromkeys(self._numbers)  # who serves, or did last
        self._turns = {number: trio.Lock() for number in self._numbers}  # to change who that is
        self._crashes = 0
        self._ended: list[Metric] = []  # what those have counted that have ended
        self._collecting = trio.Lock()

    async def start(self) -> int | None:
        """Start the workers; the first one alone, so that what is wrong with the project is said once.

        Returns:
            None once all have been started, or the exit code if the first one can't.
        """
        first = await self._start(1)
        if first is None:
            return 1
        await first.ready.wait()
        if self.stopping.is_set():
            return 0
        if not first.serves:
            return first.code if first.code and first.code > 0 else 1
        self._adopt(1, first)
        async with trio.open_nursery() as nursery:
            for number in self._numbers[1:]:
                nursery.start_soon(self._start_further, number)
        return None

    async def _start_further(self, number: int) -> None:
        self._adopt(number, await self._start_until_ready(number))

    async def _start_until_ready(self, number: int) -> Process | None:
        """A worker that serves, or None; what is wrong is logged then."""
        process = await self._start(number)
        if process is None:
            return None
        with trio.move_on_after(START_SECONDS):
            await process.ready.wait()
        if not process.ready.is_set():
            logger.error("%s is not ready after %g s, and is killed", process, START_SECONDS)
            process.kill()
            await process.ended.wait()
        elif not process.serves and not self.stopping.is_set():
            logger.error("%s %s before it served", process, _ending(process.code))
        return process if process.serves else None

    async def _start(self, number: int) -> Process | None:
        if self.stopping.is_set():
            return None
        ours, theirs = socket.socketpair()
        sockets = self._sockets
        with theirs:
            assignment = Assignment(
                number=number,
                channel=theirs.fileno(),
                listeners=_descriptors(sockets.public),
                admin_listeners=_descriptors(sockets.admin),
                console_listeners=_descriptors(sockets.consoles[number - 1]),
                sibling_listener=sockets.siblings[number - 1].socket.fileno(),
                sibling_paths=sockets.sibling_paths,
                shares=sockets.shares,
            )
            try:
                started = await trio.lowlevel.open_process(
                    [sys.executable, *sys.orig_argv[1:]],
                    stdin=subprocess.DEVNULL,
                    pass_fds=assignment.descriptors,
                    process_group=0,  # Ctrl-C is for the supervisor alone, which tells the workers
                    env={**os.environ, ENVIRONMENT: msgspec.json.encode(assignment).decode()},
                )
            except OSError as error:
                logger.error("worker %d can't be started: %s", number, error)
                ours.close()
                return None
        process = Process(number, started, Channel(ours), self._totals)
        self.processes.add(process)
        self._nursery.start_soon(self._follow, process)
        if self.stopping.is_set():
            process.terminate()
        return process

    async def _follow(self, process: Process) -> None:
        await process.run()
        self.processes.discard(process)
        self._ended = merge([], [self._ended, process.families])
        if self.stopping.is_set():
            # Who asks it now is to be told at once that it is gone, not to wait in a queue for a successor.
            self._sockets.siblings[process.number - 1].socket.close()

    def _adopt(self, number: int, process: Process | None) -> None:
        self._current[number] = process
        self._nursery.start_soon(self._keep, number, process)

    async def _keep(self, number: int, process: Process | None) -> None:
        """See to it that a worker of this number serves: start another when it has ended unasked."""
        backoff = Backoff(least=0.2)
        while True:
            if process is not None:
                backoff.succeeded(trio.current_time())
                await process.ended.wait()
                if process.told_to_end or self.stopping.is_set():
                    return
                self._crashes += 1
                self._shares[number].put(None)
                logger.error("%s %s", process, _ending(process.code))
            delay = backoff.failed(trio.current_time())
            logger.info("another worker %d follows in %.1f s", number, delay)
            await trio.sleep(delay)
            async with self._turns[number]:
                if self.stopping.is_set() or self._current[number] is not process:
                    return
                process = self._current[number] = await self._start_until_ready(number)

    async def replace_all(self) -> None:
        """Replace one worker after the other; leave the others as they are if a successor can't start."""
        logger.info("replacing %d workers, one after the other", len(self._numbers))
        for number in self._numbers:
            async with self._turns[number]:
                successor = await self._start_until_ready(number)
                predecessor = self._current[number]
                if self.stopping.is_set():
                    return
                if successor is None:
                    logger.error("no worker can take the place of %s, which stays", predecessor)
                    return
                self._adopt(number, successor)
            if predecessor is not None:
                predecessor.replace()
                await predecessor.end()
                logger.info("%s has taken the place of %s", successor, predecessor)

    async def _totals(self) -> list[Metric]:
        """The metrics of all workers together."""
        async with self._collecting:
            async with trio.open_nursery() as nursery:
                for process in self.processes:
                    nursery.start_soon(process.collect)
            crashes = CounterMetricFamily(
                "trigger_ddp_worker_crashes", "workers that have ended without being told to", self._crashes
            )
            running = GaugeMetricFamily("trigger_ddp_workers", "workers that run", len(self.processes))
            return [*merge([process.families for process in self.processes], [self._ended]), crashes, running]

    def hurry(self) -> None:
        """Tell all workers to end at once."""
        for process in self.processes:
            process.hurry()

    async def stop(self) -> None:
        """End all workers in good order; `stopped` is set then."""
        self.stopping.set()
        for listener in self._sockets.public:
            listener.socket.close()  # or clients would wait in a queue that nobody serves
        while self.processes:
            async with trio.open_nursery() as nursery:
                for process in self.processes:
                    nursery.start_soon(process.end)
        self.stopped.set()


def _descriptors(listeners: Sequence[Listener]) -> list[int]:
    return [listener.socket.fileno() for listener in listeners]


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        names = {number.value: number.name for number in signal.Signals}
        return f"was ended by {names.get(-code, f'signal {-code}')}"
    return f"has ended with exit code {code}"
