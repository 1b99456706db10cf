"""How long the server takes to start: ``python -m benchmarks.start``.

From the start of ``trigger-ddp serve`` until a client, which tries again and again, has been told
``ready``, against ``manage.py check`` of the same project: what anything that loads it takes. The triggers
are installed. They take turns; printed are the medians.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import statistics
import subprocess
import sys
import time

from benchmarks import report, streams
from benchmarks.bookstore import Bookstore
from benchmarks.connects import ASKING, DOCUMENTS, READY
from benchmarks.fanout import UPGRADE
from benchmarks.fleet import Wrong
from tests import postgres
from tests.serving import Server

TRY_AGAIN = 0.005
PATIENCE = 60.0


def serve(environ: dict[str, str]) -> float:
    """Seconds until a client is ready."""
    port = postgres.free_port()
    begun = time.perf_counter()
    command = [sys.executable, "-m", "trigger_ddp", "serve", "--bind", f"{streams.HOST}:{port}"]
    with subprocess.Popen(command, env=environ, stderr=subprocess.DEVNULL) as process:
        try:
            while True:
                if time.perf_counter() > begun + PATIENCE or process.poll() is not None:
                    raise Wrong("the server does not start")
                with contextlib.suppress(OSError), socket.create_connection((streams.HOST, port)) as sock:
                    sock.sendall(UPGRADE + ASKING)
                    received = b""
                    while data := sock.recv(65536):
                        received += data
                        if received.endswith(READY):
                            if (told := received.count(b'"msg":"added"')) != DOCUMENTS:
                                raise Wrong(f"the first client was told of {told} documents")
                            return time.perf_counter() - begun
                time.sleep(TRY_AGAIN)
        finally:
            process.terminate()


def check(environ: dict[str, str]) -> float:
    """Seconds of ``manage.py check``."""
    begun = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "django", "check"], env=environ, check=True, stdout=subprocess.DEVNULL
    )
    return time.perf_counter() - begun


def main() -> None:
    parser = report.parser(__doc__)
    options = parser.parse_args()
    rounds = 1 if options.quick else 10
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that processes and files are removed
    found = report.Report("start", str(options.major))
    taken: dict[str, list[float]] = {"manage.py check": [], "serve, to ready": []}
    try:
        with contextlib.ExitStack() as stack:
            cluster = postgres.Cluster(options.major, postgres.binaries()[options.major])
            stack.callback(cluster.remove)
            database = Bookstore(1, DOCUMENTS).create(cluster, "start")
            environ = {**os.environ, **database.environ, "DJANGO_SETTINGS_MODULE": "tests.project.settings"}
            Server("--bind", f"{streams.HOST}:0", "--install-triggers", environ=environ).stop()
            for number in range(rounds + 1):
                for name, one in zip(taken, (check, serve), strict=True):
                    seconds = one(environ)
                    if number or options.quick:  # the first fills the disk's cache
                        taken[name].append(seconds)
    except Wrong as error:
        sys.exit(f"benchmarks.start: {error}")
    floor, ours = (statistics.median(seconds) for seconds in taken.values())
    rows = [(name, statistics.median(one), statistics.median(one) / floor) for name, one in taken.items()]
    found.table(f"median of {rounds}", ("", "s", "times check"), rows)
    found.number("serve, to ready", ours, "s")
    found.target("serve, to ready, to manage.py check", ours / floor, 1.5)
    found.write(options.json)


if __name__ == "__main__":
    main()
