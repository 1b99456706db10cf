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
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import trio

from trigger_ddp.server import main_task
from trigger_ddp.server.backoff import Backoff
from trigger_ddp.server.shares import Shares
from trigger_ddp.server.sockets import Listener, open_listeners, url
from trigger_ddp.server.worker import ENVIRONMENT, Assignment, Channel, Ready

logger = logging.getLogger(__name__)

#: Seconds that workers have to end after SIGTERM; they drain for less than ten.
END_SECONDS = 12.0
#: Seconds that a successor has to begin to serve.
START_SECONDS = 120.0


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """What a supervisor is started with.

    Args:
        workers: how many processes serve.
        binds: addresses as ``--bind`` takes them.
        tls: whether the workers speak TLS there; for the log.
    """

    workers: int
    binds: Sequence[str]
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
        shares = str(Path(directory, "shares"))
        Shares.create(shares, options.workers)
        paths = [str(Path(directory, f"{number}.sock")) for number in range(1, options.workers + 1)]
        async with (
            _listening(options.binds) as listeners,
            _listening([f"unix:{path}" for path in paths]) as sibling_listeners,
            trio.open_nursery() as nursery,
        ):
            supervisor = Supervisor(nursery, listeners, sibling_listeners, paths, shares)
            nursery.start_soon(_stop_at_signal, stops, supervisor)
            code = await supervisor.start()
            if code is None:
                for listener in listeners:
                    address = url(listener, tls=options.tls)
                    logger.info("listening on %s with %d workers", address, options.workers)
                nursery.start_soon(_replace_at_signal, reloads, supervisor)
                await supervisor.stopped.wait()
                logger.info("stopped")
            nursery.cancel_scope.cancel()
    return code or 0


@asynccontextmanager
async def _listening(binds: Iterable[str]) -> AsyncIterator[Sequence[Listener]]:
    listeners = await open_listeners(binds)
    try:
        yield listeners
    finally:
        for listener in listeners:
            await trio.aclose_forcefully(listener)


async def _stop_at_signal(signals: AsyncIterator[int], supervisor: Supervisor) -> None:
    logger.info("%s: ending %d workers", signal.Signals(await anext(signals)).name, len(supervisor.processes))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervisor.stop)
        async for _ in signals:  # whoever has no patience
            supervisor.terminate()


async def _replace_at_signal(signals: AsyncIterator[int], supervisor: Supervisor) -> None:
    async for _ in signals:
        await supervisor.replace_all()


class _Process:
    """A worker as its supervisor sees it."""

    def __init__(self, number: int, process: trio.Process, channel: Channel) -> None:
        self.number = number
        self.told_to_end = False
        self.ended = trio.Event()
        self.ready = trio.Event()  # set as well when it has ended without ever being so
        self._process = process
        self._channel = channel

    def __str__(self) -> str:
        return f"worker {self.number} (process {self._process.pid})"

    @property
    def code(self) -> int | None:
        """Its exit code, once it has ended; negative: the signal that has killed it."""
        return self._process.returncode

    async def run(self) -> None:
        """Follow it to its end."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._listen)
            await self._process.wait()
            nursery.cancel_scope.cancel()
        self._channel.close()
        self.ended.set()
        self.ready.set()

    async def _listen(self) -> None:
        async for message in self._channel.messages():
            match message:
                case Ready():
                    self.ready.set()

    def terminate(self) -> None:
        """Tell it to end in good order, or if it was told already, to end now."""
        self.told_to_end = True
        self._process.send_signal(signal.SIGTERM)

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


class Supervisor:
    """The workers of one server.

    Args:
        nursery: where they are watched.
        listeners: what they accept clients from.
        sibling_listeners: what each accepts the others from; one for each worker.
        sibling_paths: where these are.
        shares: path of the file of `Shares`.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        listeners: Sequence[Listener],
        sibling_listeners: Sequence[Listener],
        sibling_paths: list[str],
        shares: str,
    ) -> None:
        self.stopped = trio.Event()
        self.processes: set[_Process] = set()  # all that run
        self._nursery = nursery
        self._listeners = listeners
        self._sibling_listeners = sibling_listeners
        self._sibling_paths = sibling_paths
        self._shares = shares
        self._current: dict[int, _Process] = {}  # the youngest of each number
        self._stopping = False

    async def start(self) -> int | None:
        """Start the workers; the first one alone, so that what is wrong with the project is said once.

        Returns:
            None once all are started, or the exit code if the first one can't.
        """
        for number in range(1, len(self._sibling_paths) + 1):
            process = await self._start(number)
            if number == 1:
                await process.ready.wait()
                if self._stopping:
                    return 0
                if process.ended.is_set():
                    return process.code if process.code and process.code > 0 else 1
            self._adopt(process)
        for process in list(self._current.values()):
            await process.ready.wait()
        return None

    async def _start(self, number: int) -> _Process:
        ours, theirs = socket.socketpair()
        with theirs:
            listeners = [listener.socket.fileno() for listener in self._listeners]
            for_siblings = self._sibling_listeners[number - 1].socket.fileno()
            assignment = Assignment(
                number, theirs.fileno(), listeners, for_siblings, self._sibling_paths, self._shares
            )
            started = await trio.lowlevel.open_process(
                [sys.executable, *sys.orig_argv[1:]],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno(), for_siblings, *listeners],
                process_group=0,  # Ctrl-C is for the supervisor alone, which tells the workers
                env={**os.environ, ENVIRONMENT: msgspec.json.encode(assignment).decode()},
            )
        process = _Process(number, started, Channel(ours))
        self.processes.add(process)
        self._nursery.start_soon(self._follow, process)
        if self._stopping:
            process.terminate()
        return process

    async def _follow(self, process: _Process) -> None:
        await process.run()
        self.processes.discard(process)

    def _adopt(self, process: _Process) -> None:
        self._current[process.number] = process
        self._nursery.start_soon(self._keep, process)

    async def _keep(self, process: _Process) -> None:
        """Start another when the worker has ended without being told to, and again when that one has."""
        backoff = Backoff(least=0.2)
        while True:
            await process.ready.wait()
            if not process.ended.is_set():
                backoff.succeeded(trio.current_time())
            await process.ended.wait()
            if process.told_to_end:
                return
            Shares(self._shares, process.number).put(None)
            delay = backoff.failed(trio.current_time())
            logger.error("%s %s; another one follows in %.1f s", process, _ending(process.code), delay)
            await trio.sleep(delay)
            if process.told_to_end or self._stopping:  # `replace_all` has started another
                return
            process = self._current[process.number] = await self._start(process.number)

    async def replace_all(self) -> None:
        """Replace one worker after the other; leave the others as they are if a successor can't start."""
        logger.info("replacing %d workers, one after the other", len(self._current))
        for number in self._current:
            successor = await self._start(number)
            with trio.move_on_after(START_SECONDS):
                await successor.ready.wait()
            if self._stopping:
                return
            if not successor.ready.is_set():
                logger.error("%s is not ready after %g s: it is killed", successor, START_SECONDS)
                successor.kill()
            if not successor.ready.is_set() or successor.ended.is_set():
                logger.error("no worker can take the place of %s, which stays", self._current[number])
                return
            predecessor = self._current[number]
            self._adopt(successor)
            await predecessor.end()
            logger.info("%s has taken the place of %s", successor, predecessor)

    def terminate(self) -> None:
        """Tell all workers to end; those told already end at once."""
        for process in self.processes:
            process.terminate()

    async def stop(self) -> None:
        """End all workers in good order; `stopped` is set then."""
        self._stopping = True
        for listener in self._listeners:
            listener.socket.close()  # or clients would wait in a queue that nobody serves
        while self.processes:
            async with trio.open_nursery() as nursery:
                for process in self.processes:
                    nursery.start_soon(process.end)
        self.stopped.set()


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"has ended with exit code {code}"
