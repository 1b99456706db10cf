"""Starts a server, serves until told to stop, and drains.

`serve` is what ``trigger-ddp serve``, ``manage.py ddp_serve`` and the demo call; it returns when the
server has ended in good order, and raises `ConfigurationError` with one sentence where it can't start.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import trio
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import connections
from django.db.utils import DatabaseError
from prometheus_client.core import Metric

from trigger_ddp.api import API
from trigger_ddp.capture import rights
from trigger_ddp.capture.install import status
from trigger_ddp.capture.tables import Table
from trigger_ddp.changes.decode import decode
from trigger_ddp.conf import Settings, settings
from trigger_ddp.errors import ConfigurationError, TriggersMissing
from trigger_ddp.server import debug, main_task, siblings, sockjs, wsgi_app
from trigger_ddp.server.admission import Admission, file_limit
from trigger_ddp.server.conversation import opener, take_over
from trigger_ddp.server.http import Application, Handler, Limits, serve_admitted, serve_stream
from trigger_ddp.server.listener import Listener
from trigger_ddp.server.metrics import Metrics
from trigger_ddp.server.operations import Operations
from trigger_ddp.server.readiness import checks_of
from trigger_ddp.server.readings import ProcessReadings, ServiceReadings
from trigger_ddp.server.service import Service
from trigger_ddp.server.sockets import Listener as ListeningSocket
from trigger_ddp.server.sockets import TCPAddress, accept_forever, open_listeners, url
from trigger_ddp.server.sockjs_registry import Sessions
from trigger_ddp.server.tls import Certificates
from trigger_ddp.server.worker import Worker
from trigger_ddp.server.workers import Workers
from trigger_ddp.server.wsgi import Gateway
from trigger_ddp.server.wsgi_response import WSGIApplication

logger = logging.getLogger("trigger_ddp.server")

#: Seconds from the first SIGINT or SIGTERM until sessions that don't close by themselves are cut …
DRAIN_SECONDS = 6.5
#: … and then until database work that is still running is abandoned: all of this again for the threads of
#: methods, half of it for those of queries and of the Django project. Together less than ten.
WORKERS_DRAIN_SECONDS = 1.5

#: The oldest major version of PostgreSQL that the triggers are tested on.
OLDEST_POSTGRESQL = 15


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """What a server is started with.

    Args:
        binds: addresses as ``--bind`` takes them.
        install_triggers: mend missing and outdated triggers instead of refusing to start.
        handler: answers HTTP requests that are not the server's own, where the Django project does not.
        wsgi: have the Django project answer them; None: if its settings name a WSGI_APPLICATION.
        certfile, keyfile, ca_certs: for TLS, as of `tls.Certificates`; without a certfile there is none.
        admin_binds: addresses where alone health, readiness and metrics are served; none: where clients are.
        console: where the debug console is; None: nowhere.
        worker: this process, if it is one of several, which has listening sockets and needs no ``binds``.
        on_ready: called with the URLs once the server accepts connections.
    """

    binds: Sequence[str]
    install_triggers: bool = False
    handler: Handler | None = None
    wsgi: bool | None = False
    certfile: str | None = None
    keyfile: str | None = None
    ca_certs: str | None = None
    admin_binds: Sequence[str] = ()
    console: TCPAddress | None = None
    worker: Worker | None = None
    on_ready: Callable[[list[str]], None] | None = None


def serve(options: Options) -> None:
    """Serve until SIGINT or SIGTERM.

    Raises:
        ConfigurationError: it can't start; ``str()`` of it says why, in one sentence.
    """
    alias = settings().database
    certificates = _certificates(options)
    check_database(alias)  # first: some of Django's checks ask the database
    check_project()
    application = wsgi_app.load() if _is_wsgi_wanted(options) else None
    check_rights(alias)
    check_triggers(alias, install=options.install_triggers)
    conninfo = settings().listen_dsn or connections[alias].get_connection_params()
    connections.close_all()  # from here on only worker threads use Django's connections
    main_task.run(_main, options, conninfo, settings(), certificates, application)


def _is_wsgi_wanted(options: Options) -> bool:
    return wsgi_app.is_named() if options.wsgi is None else options.wsgi


def _certificates(options: Options) -> Certificates | None:
    if options.certfile is not None:
        return Certificates(options.certfile, options.keyfile, options.ca_certs)
    for option in ("keyfile", "ca_certs"):
        if getattr(options, option) is not None:
            raise ConfigurationError(f"--{option.replace('_', '-')} needs a --certfile")
    return None


def check_project() -> None:
    """Refuse a project whose settings or declarations have errors.

    Raises:
        ConfigurationError: ``manage.py check`` would fail.
    """
    errors = [
        message for message in checks.run_checks() if message.is_serious() and not message.is_silenced()
    ]
    if errors:
        first = f"{errors[0].msg} ({errors[0].id})"
        more = f", and {len(errors) - 1} more" if len(errors) > 1 else ""
        raise ConfigurationError(f"the project has errors: {first}{more}; `manage.py check` explains them")


def check_database(alias: str) -> None:
    """Refuse a database that is away, unknown, misconfigured, not PostgreSQL or too old.

    Raises:
        ConfigurationError: it is one of these.
    """
    if alias not in connections.settings:
        raise ConfigurationError(f"DDP_DATABASE names {alias!r}, which is not in DATABASES")
    try:
        connection = connections[alias]
    except (ImproperlyConfigured, ImportError) as error:
        engine, reason = connections.settings[alias]["ENGINE"], error.__cause__ or error
        raise ConfigurationError(
            f"the ENGINE of database {alias!r}, {engine!r}, can't be imported: {_one_line(reason)}"
        ) from error
    if connection.vendor != "postgresql":
        raise ConfigurationError(
            f"database {alias!r} is {connection.display_name}, but it is PostgreSQL's triggers that tell "
            "changes: set its ENGINE to django.db.backends.postgresql"
        )
    try:
        connection.ensure_connection()
        version = connection.pg_version  # type: ignore[attr-defined]  # only PostgreSQL's wrapper has it
    except ImproperlyConfigured as error:
        raise ConfigurationError(f"database {alias!r} can't be used: {_one_line(error)}") from error
    except DatabaseError as error:
        raise ConfigurationError(f"database {alias!r} can't be reached: {_one_line(error)}") from error
    if version < OLDEST_POSTGRESQL * 10000:
        raise ConfigurationError(
            f"database {alias!r} is PostgreSQL {version // 10000}; {OLDEST_POSTGRESQL} or newer is needed"
        )


def check_rights(alias: str) -> None:
    """Refuse a role that may not even see the tables; log the tables that it may not read.

    Raises:
        ConfigurationError: there is a schema that it may not use.
    """
    needs = rights.serving()
    found = rights.relations(connections[alias], needs)
    hint = "`manage.py ddp_grants --serve ROLE` prints the rights that it takes"
    if schemas := sorted({relation.schema for relation in found if not relation.schema_usable}):
        names = ", ".join(schemas)
        raise ConfigurationError(f"the role may not use schema {names} of database {alias!r}; {hint}")
    if tables := [relation.name for relation in found if not relation.below and not relation.readable]:
        logger.error(
            "the role may not read %s, so what is read from there will fail; %s", ", ".join(tables), hint
        )


def check_triggers(alias: str, *, install: bool) -> None:
    """Refuse to serve tables whose changes would go unnoticed.

    Args:
        alias: the database.
        install: mend what is missing or out of date.

    Raises:
        TriggersMissing: some table has no current trigger, and DDP_ALLOW_STALE is not set.
    """
    stale = stale_tables(alias)
    if stale and install:
        said = io.StringIO()
        try:
            call_command("ddp_install_triggers", database=alias, stdout=said)
        except CommandError as error:
            raise ConfigurationError(f"the triggers can't be installed: {_one_line(error)}") from error
        finally:
            for line in said.getvalue().splitlines():
                logger.info("triggers: %s", line.strip())  # as the log has it, in JSON for instance
        stale = stale_tables(alias)
    if stale and not settings().allow_stale:
        raise TriggersMissing(stale)
    if stale:
        logger.warning("%s; DDP_ALLOW_STALE serves them, but not live", TriggersMissing(stale))


def stale_tables(alias: str) -> list[str]:
    """Tables that are to be live and have no current trigger."""
    tables = [Table.from_model(model) for model in API.watched_models()]
    report = status(connections[alias], tables)
    return sorted(table.name for table in tables if not report.is_current(table))


@dataclasses.dataclass(frozen=True, slots=True)
class _Listeners:
    """Everything that the server listens on."""

    public: Sequence[ListeningSocket]
    admin: Sequence[ListeningSocket]
    debug: Sequence[ListeningSocket]


async def _listen(options: Options) -> _Listeners:
    if options.worker is not None:
        worker = options.worker
        return _Listeners(worker.listeners(), worker.admin_listeners(), worker.console_listeners())
    return _Listeners(
        await open_listeners(options.binds),
        await open_listeners(options.admin_binds),
        await open_listeners([str(options.console)] if options.console is not None else []),
    )


async def _main(
    options: Options,
    conninfo: str | dict[str, Any],
    conf: Settings,
    certificates: Certificates | None,
    wsgi: WSGIApplication | None,
) -> None:
    with (
        trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals,
        trio.open_signal_receiver(signal.SIGHUP) as reloads,
    ):
        async with (
            Workers(conf.threads, drain_seconds=WORKERS_DRAIN_SECONDS) as workers,
            Workers(
                conf.evaluation_threads, drain_seconds=WORKERS_DRAIN_SECONDS / 2, name="evaluator"
            ) as evaluators,
            _gateway(wsgi, conf, multiprocess=options.worker is not None) as web,
            trio.open_nursery() as nursery,
        ):
            worker = options.worker
            others = siblings.Siblings(worker.number, worker.sibling_paths) if worker else None
            metrics = Metrics()
            service = Service(Listener(conninfo, decode), workers, evaluators, conf, others, metrics)
            metrics.read += [ProcessReadings(), ServiceReadings(service)]
            accepting = trio.CancelScope()
            nursery.start_soon(_stop_at_signal, signals, service, web, accepting, nursery.cancel_scope)
            await nursery.start(service.run)
            listeners = await _listen(options)
            limits = Limits(
                max_message_bytes=conf.max_message_bytes,
                outbox_bytes=conf.outbox_bytes,
                outbox_seconds=conf.outbox_seconds,
                sockjs_disconnect_delay=conf.sockjs_disconnect_delay,
                sockjs_sessions=conf.sockjs_sessions,
                sockjs_sessions_per_address=conf.sockjs_sessions_per_address,
            )
            admission = Admission(file_limit(conf.max_connections), conf.max_connections_per_address, metrics)
            sessions = Sessions(opener(service), limits, metrics)
            await nursery.start(sessions.run)
            operations = Operations(
                checks_of(service), worker.collect if worker else _collector(metrics)
            ).respond
            application = Application(
                on_connection=opener(service),
                handler=options.handler,
                limits=limits,
                sockjs=sockjs.Options(conf.sockjs_url, conf.sockjs_cookie),
                sessions=sessions,
                web=web,
                forwarded_count=conf.forwarded_count,
                operations=None if options.admin_binds else operations,
                metrics=metrics,
                siblings=others,
                admission=admission,
            )
            # These two go on while the server drains, and end with it.
            if listeners.admin:
                administration = Application(None, operations=operations)
                for listener in listeners.admin if worker is None else ():
                    logger.info("health and metrics on %s", url(listener))
                nursery.start_soon(accept_forever, listeners.admin, partial(serve_stream, app=administration))
            if listeners.debug:
                nursery.start_soon(debug.serve, listeners.debug, service, metrics)
            nursery.start_soon(_reload_at_signal, reloads, certificates, service)
            urls = [url(listener, tls=certificates is not None) for listener in listeners.public]
            if worker:
                here = dataclasses.replace(
                    application,
                    siblings=None,
                    forwarded_count=0,
                    head_at_once=True,
                    web=None,
                    log_access=False,
                )
                asked = partial(
                    siblings.serve,
                    answer=partial(serve_stream, app=here),
                    take_over=partial(take_over, service, limits),
                )
                nursery.start_soon(accept_forever, [worker.sibling_listener()], asked)
                nursery.start_soon(worker.run, metrics.collect)
            else:
                for address in urls:
                    logger.info("listening on %s", address)
            if options.on_ready is not None:
                options.on_ready(urls)
            async with trio.open_nursery() as clients:
                with accepting:
                    serve_client: Callable[[Any], Awaitable[object]] = partial(serve_stream, app=application)
                    if certificates is not None:
                        serve_client = partial(certificates.serve, handler=serve_client)
                    serve_client = partial(
                        serve_admitted,
                        handler=serve_client,
                        admission=admission,
                        forwarded_count=conf.forwarded_count,
                        tls=certificates is not None,
                    )
                    shares = worker.shares if worker else None
                    await accept_forever(
                        listeners.public, serve_client, handler_nursery=clients, shares=shares
                    )
    logger.info("stopped")


@contextlib.asynccontextmanager
async def _gateway(
    application: WSGIApplication | None, conf: Settings, *, multiprocess: bool
) -> AsyncIterator[Gateway | None]:
    """The way to the Django project, with threads of its own; None if it is not served."""
    if application is None:
        yield None
        return
    async with Workers(conf.wsgi_threads, drain_seconds=WORKERS_DRAIN_SECONDS / 2, name="web") as workers:
        yield Gateway(
            application,
            workers,
            max_waiting=conf.wsgi_max_waiting,
            max_body_bytes=conf.wsgi_max_body_bytes,
            forwarded_count=conf.forwarded_count,
            multiprocess=multiprocess,
        )


def _collector(metrics: Metrics) -> Callable[[], Awaitable[list[Metric]]]:
    async def collect() -> list[Metric]:
        return metrics.collect()

    return collect


async def _reload_at_signal(
    reloads: AsyncIterator[int], certificates: Certificates | None, service: Service
) -> None:
    async for _ in reloads:
        if certificates is not None:
            certificates.reload()
        await service.reload()


async def _stop_at_signal(
    signals: AsyncIterator[int],
    service: Service,
    web: Gateway | None,
    accepting: trio.CancelScope,
    everything: trio.CancelScope,
) -> None:
    """Drain at the first signal; give up draining at the second, or when it takes too long."""
    signum = await anext(signals)
    service.draining = True
    logger.info("%s: closing %d sessions", signal.Signals(signum).name, len(service.connections))
    accepting.cancel()
    with trio.move_on_after(DRAIN_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_at_signal, signals, nursery.cancel_scope)
            async with trio.open_nursery() as closing:
                if web is not None:
                    closing.start_soon(web.drained)
                for connection in (*service.connections.values(), *service.passed_on):
                    closing.start_soon(connection.close, 1001, "the server is shutting down")
            nursery.cancel_scope.cancel()
    everything.cancel()


async def _cancel_at_signal(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    await anext(signals)
    scope.cancel()


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
