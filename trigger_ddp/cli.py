"""The ``trigger-ddp`` command: ``serve`` a Django project, or see the ``demo``."""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Callable, Sequence

import django
from django.core.exceptions import ImproperlyConfigured

from trigger_ddp import __version__
from trigger_ddp.errors import ConfigurationError

DEFAULT_BIND = "127.0.0.1:8000"

#: Exit code for what the user can mend: arguments, settings, database, port.
EXIT_USAGE = 2

SERVE_DESCRIPTION = """\
Serve DDP to Meteor clients: every row that PostgreSQL commits reaches the clients whose
subscriptions it touches. The Django project's own pages are served on the same port, if the settings name
a WSGI_APPLICATION, as those that startproject makes do.

Before the first start, install the triggers: manage.py ddp_install_triggers (or pass --install-triggers).
Clients connect to ws://HOST:PORT/websocket, Meteor clients by DDP.connect("http://HOST:PORT")."""

SERVE_EPILOG = """\
examples:
  trigger-ddp serve --settings mysite.settings
  trigger-ddp serve --settings mysite.settings --reload
  trigger-ddp serve --settings mysite.settings --bind 0.0.0.0:8000 --bind unix:/run/ddp.sock --log-format json

SIGINT and SIGTERM end the server within ten seconds: it stops accepting, closes every session with code
1001 (clients reconnect by themselves), and exits with 0. Exit code 2: it could not start, and said why."""


def add_serve_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that ``trigger-ddp serve`` and ``manage.py ddp_serve`` share."""
    parser.add_argument(
        "--bind",
        action="append",
        metavar="HOST:PORT",
        help=f"address to listen on, or unix:/path/of/socket; may be repeated (default: {DEFAULT_BIND})",
    )
    parser.add_argument(
        "--install-triggers",
        action="store_true",
        help="install triggers that are missing or out of date instead of refusing to start",
    )
    parser.add_argument(
        "--certfile",
        metavar="PEM",
        help="serve TLS (https:, wss:) with this certificate and those above it; read again at SIGHUP",
    )
    parser.add_argument("--keyfile", metavar="PEM", help="its private key, if that is in another file")
    parser.add_argument(
        "--ca-certs", metavar="PEM", help="refuse clients without a certificate that one of these has signed"
    )
    parser.add_argument(
        "--admin-bind",
        action="append",
        metavar="HOST:PORT",
        help="serve /_ddp/health, /_ddp/ready and /_ddp/metrics here, and not where clients connect; "
        "takes what --bind does, and may be repeated",
    )
    parser.add_argument(
        "--debug-port",
        metavar="PORT",
        help="open a console for looking into the running server on this port of the loopback interface: "
        "nc 127.0.0.1 PORT; each further one of several workers has the next port",
    )
    parser.add_argument(
        "--workers",
        type=_workers,
        default=1,
        metavar="N",
        help="processes that share the addresses, one for each core (default: 1); at SIGHUP one after the "
        "other is replaced, and so loads the project anew",
    )
    parser.add_argument(
        "--wsgi",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="serve the Django project, too: all paths but /websocket, /sockjs/ and /_ddp/; with DEBUG "
        "also its static files (default: if the settings name a WSGI_APPLICATION)",
    )
    parser.add_argument(
        "--reload",
        action="store_true",
        help="for development: start again whenever a file of the project has changed",
    )
    parser.add_argument(
        "--access-log",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="a line in the log for each HTTP request (default: with --reload, and from -v 2 on)",
    )
    parser.add_argument(
        "--log-format",
        choices=("text", "json"),
        default="text",
        help="log lines for people or machines (default: text)",
    )


def _workers(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def serve(options: argparse.Namespace, *, set_up: Callable[[], None] = lambda: None) -> int:
    """Serve a Django project. Returns the exit code.

    Args:
        options: those of `add_serve_arguments`.
        set_up: loads the project; what serves by several processes calls it in each of them only.
    """
    gc.disable()  # nothing that loading a project makes is garbage; `run.serve` has it collected again
    try:
        return _serve(options, set_up)
    finally:
        gc.enable()


def _serve(options: argparse.Namespace, set_up: Callable[[], None]) -> int:
    from trigger_ddp.server import debug_port, logs, reload, supervisor
    from trigger_ddp.server.worker import Worker

    access_log = options.access_log
    if access_log is None:
        access_log = options.reload or options.verbosity >= 2
    worker = Worker.from_environment()
    number = worker.number if worker else None
    logs.configure(options.verbosity, options.log_format, number, access_log=access_log)
    binds = options.bind or [DEFAULT_BIND]
    admin_binds = options.admin_bind or []
    try:
        if options.reload and options.workers > 1:
            raise ConfigurationError("--reload is for development, with one process: leave out --workers")
        if options.reload and not reload.is_child():
            gc.enable()
            return reload.restart_on_changes(EXIT_USAGE)
        console = debug_port.parse(options.debug_port) if options.debug_port is not None else None
        if console is not None and console.port + options.workers - 1 > 65535:
            raise ConfigurationError(
                f"--debug-port {options.debug_port} leaves too few ports for {options.workers} workers"
            )
        if worker is None and options.workers > 1:
            gc.enable()
            tls = options.certfile is not None
            return supervisor.supervise(
                supervisor.Options(options.workers, binds, admin_binds, console, tls=tls)
            )
        changes = reload.Changes() if options.reload else None
        set_up()
        from trigger_ddp.server import run

        run.serve(
            run.Options(
                binds,
                install_triggers=options.install_triggers,
                wsgi=options.wsgi,
                certfile=options.certfile,
                keyfile=options.keyfile,
                ca_certs=options.ca_certs,
                admin_binds=admin_binds,
                console=console,
                worker=worker,
            )
        )
        if changes is not None and changes.noticed:
            return reload.EXIT_CHANGED
    except ConfigurationError as error:
        return fail(str(error))
    return 0


def fail(sentence: str) -> int:
    """Say what is wrong, in one sentence. Returns the exit code."""
    print(f"trigger-ddp: {sentence}", file=sys.stderr)  # noqa: T201  the answer to whoever typed the command
    return EXIT_USAGE


def set_up_django(settings: str | None) -> None:
    """Load the project.

    Args:
        settings: dotted path of its settings module, or None for the environment's.

    Raises:
        ConfigurationError: there is none, or it can't be loaded.
    """
    if settings:
        os.environ["DJANGO_SETTINGS_MODULE"] = settings
    name = os.environ.get("DJANGO_SETTINGS_MODULE")
    if not name:
        raise ConfigurationError(
            "no Django settings: pass --settings mysite.settings or set DJANGO_SETTINGS_MODULE"
        )
    sys.path.insert(0, os.getcwd())  # noqa: PTH109  as manage.py and django-admin do
    try:
        django.setup()
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            raise
        raise ConfigurationError(
            f"settings module {name!r} can't be imported from {os.getcwd()}; "  # noqa: PTH109
            "run in the project's directory or check --settings"
        ) from error
    except ImproperlyConfigured as error:
        reason = " ".join(str(error).split())
        raise ConfigurationError(f"the settings {name!r} are not usable: {reason}") from error
    from django.apps import apps

    if not apps.is_installed("trigger_ddp"):
        raise ConfigurationError(f"add 'trigger_ddp' to INSTALLED_APPS of {name!r}")


def _serve_command(options: argparse.Namespace) -> int:
    return serve(options, set_up=lambda: set_up_django(options.settings))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="trigger-ddp",
        description="Live data for Meteor clients from Django models and PostgreSQL triggers.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(title="commands", dest="command", required=True)

    serve_parser = commands.add_parser(
        "serve",
        help="serve a Django project's publications and methods",
        description=SERVE_DESCRIPTION,
        epilog=SERVE_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    serve_parser.add_argument(
        "--settings",
        metavar="MODULE",
        help="settings module, as mysite.settings (default: $DJANGO_SETTINGS_MODULE)",
    )
    add_serve_arguments(serve_parser)
    serve_parser.add_argument(
        "-v", "--verbosity", type=int, choices=range(4), default=1,
        help="0: warnings, 1: start, stop and trouble, 2: every session, 3: everything (default: 1)",
    )  # fmt: skip
    serve_parser.set_defaults(run=_serve_command)

    from trigger_ddp.demo import command as demo

    demo_parser = commands.add_parser(
        "demo",
        help="see it work: a bookstore with its own PostgreSQL and a live web page",
        description=demo.DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    demo.add_arguments(demo_parser)
    demo_parser.set_defaults(run=demo.run)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the console script. Returns the exit code."""
    options = _parser().parse_args(arguments)
    code: int = options.run(options)
    return code
