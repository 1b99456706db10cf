"""`trigger-ddp demo`: a database of its own, the bookstore in it, and a web page that follows it live."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import sys
import tempfile
from pathlib import Path

from trigger_ddp.demo.embedded import TEMPORARY_PREFIX, Postgres, find_programs, running
from trigger_ddp.demo.stop import StopRequested, StopSignals
from trigger_ddp.errors import ConfigurationError

DESCRIPTION = """\
See it work: starts a PostgreSQL of its own, creates a bookstore in it, and serves a web page that follows
every change to its tables, whoever makes it. Needs nothing but Python: pip install 'trigger-ddp[demo]'

Ctrl-C ends it, and leaves no process and no file behind."""

#: Exit code for what the user can mend.
EXIT_USAGE = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=_port, default=8000, help="its port; 0: any (default: %(default)s)")
    parser.add_argument(
        "--keep",
        metavar="DIR",
        type=Path,
        help="keep the database in this directory, to use it again next time",
    )


def run(options: argparse.Namespace) -> int:
    """Run the demo until SIGINT, SIGTERM or SIGHUP.

    Returns the exit code: 0 after a stop, also one during the start; 2, with a sentence on standard error, if
    it could not start.
    """
    with StopSignals() as stop:
        try:
            _check_address(options.host, options.port)
            with contextlib.ExitStack() as stack:
                postgres = _start_postgres(options.keep, stack, stop)
                _prepare(postgres, stop)
                _serve(postgres, options, stop)
                _say("\nstopping …")
            _say(f"the database is kept in {options.keep}" if options.keep else "nothing is left behind")
        except StopRequested:
            _say("\nstopped before it was up")
        except ConfigurationError as error:
            print(f"trigger-ddp demo: {error}", file=sys.stderr)  # noqa: T201  the answer to whoever typed it
            return EXIT_USAGE
    return 0


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 0 to 65535")
    return int(text)


def _check_address(host: str, port: int) -> None:
    """Find out before any work whether the address is free. Raises ConfigurationError if it is not."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigurationError(
            f"can't listen on {host} port {port}: {reason}; choose another with --port or --host"
        ) from error


def _start_postgres(keep: Path | None, stack: contextlib.ExitStack, stop: StopSignals) -> Postgres:
    programs = find_programs(keep)
    stop.check()
    if keep is None:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=TEMPORARY_PREFIX)))
    else:
        data = _kept_directory(keep)
    _say(f"starting PostgreSQL {programs.major} …")
    return stack.enter_context(running(programs, data, durable=keep is not None, check=stop.check))


def _kept_directory(keep: Path) -> Path:
    """The directory, made if it is not there. Raises ConfigurationError if it can't hold our data."""
    data = keep.expanduser().resolve()
    try:
        data.mkdir(parents=True, exist_ok=True)
        contents = {entry.name for entry in data.iterdir()}
    except OSError as error:
        raise ConfigurationError(f"can't keep data in {data}: {error.strerror}") from error
    if contents and "PG_VERSION" not in contents:
        raise ConfigurationError(
            f"{data} has other things in it; --keep wants an empty directory, or its own"
        )
    return data


def _prepare(postgres: Postgres, stop: StopSignals) -> None:
    """Create the database, load Django's settings for it, and fill it."""
    from trigger_ddp.demo.oneliners import DATABASE

    postgres.create_database(DATABASE)
    os.environ["TRIGGER_DDP_DEMO"] = str(postgres.socket_directory)
    os.environ["DJANGO_SETTINGS_MODULE"] = "trigger_ddp.demo.settings"
    import django

    django.setup()
    from django.core.management import call_command
    from django.db import connections

    from trigger_ddp.demo.bookstore import data

    with contextlib.ExitStack() as stack:
        stack.callback(connections.close_all)  # else they would delay the server's stop
        stop.check()
        _say("creating the bookstore …")
        call_command("migrate", verbosity=0, interactive=False)
        if not data.fill_if_empty():
            _say("  with the books of last time")
        stop.check()
        _say("installing triggers …")
        call_command("ddp_install_triggers", verbosity=0)
        stop.check()


def _serve(postgres: Postgres, options: argparse.Namespace, stop: StopSignals) -> None:
    """Serve until a stop signal; the server itself receives them while it runs."""
    from trigger_ddp.demo.oneliners import one_liners
    from trigger_ddp.demo.page import pages
    from trigger_ddp.server import logs, run
    from trigger_ddp.server.pages import fixed

    commands = one_liners(postgres)

    def announce(urls: list[str]) -> None:
        _say(f"\n    {urls[0]}\n\nOpen it, and change its tables from another terminal:\n")
        for command in commands:
            _say(f"# {command.title}\n{command.text}\n")
        _say(f"Ctrl-C ends the demo{'' if options.keep else ' and removes its database'}.")
        if stop.requested:  # before the server looked out for signals
            signal.raise_signal(signal.SIGTERM)

    logs.configure(0, "text")
    host = f"[{options.host}]" if ":" in options.host else options.host
    handler = fixed(
        pages(
            commands,
            postgres=postgres.programs.major,
            socket_directory=str(postgres.socket_directory),
        )
    )
    run.serve(run.Options([f"{host}:{options.port}"], handler=handler, on_ready=announce))


def _say(line: str) -> None:
    """Tell whoever typed the command. A terminal or pipe that is gone is no reason to stop."""
    try:
        print(line, flush=True)  # noqa: T201
    except OSError:
        # What is still in the buffer has to go somewhere, or Python complains of it at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
