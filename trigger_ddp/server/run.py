"""Starts a server, serves until told to stop, and drains.

`serve` is what ``trigger-ddp serve``, ``manage.py ddp_serve`` and the demo call; it returns when the
server has ended in good order, and raises `ConfigurationError` with one sentence where it can't start.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import trio
from django.db import connections
from prometheus_client.core import Metric

from trigger_ddp.changes.decode import decode
from trigger_ddp.conf import Settings, settings
from trigger_ddp.errors import ConfigurationError
from trigger_ddp.server import debug, logs, main_task, preconditions, siblings, sockjs, wsgi_app
from trigger_ddp.server.admission import Admission, file_limit
from trigger_ddp.server.answering import Answering
from trigger_ddp.server.conversation import opener, take_over
from trigger_ddp.server.http import Application, Handler, Limits, serve_admitted, serve_stream
from trigger_ddp.server.listener import Listener
from trigger_ddp.server.metrics import Metrics
from trigger_ddp.server.operations import Operations
from trigger_ddp.server.origins import Origins
from trigger_ddp.server.readiness import checks_of
from trigger_ddp.server.readings import ProcessReadings, ServiceReadings
from trigger_ddp.server.service import Service
from trigger_ddp.server.sockets import Listener as ListeningSocket
from trigger_ddp.server.sockets import TCPAddress, accept_forever, open_listeners, url
from trigger_ddp.server.sockjs_registry import Sessions
from trigger_ddp.server.stalled import StalledWatch, set_network_defaults
from trigger_ddp.server.stopping import stop_at_signal
from trigger_ddp.server.tls import Certificates
from trigger_ddp.server.worker import Worker
from trigger_ddp.server.workers import Workers
from trigger_ddp.server.wsgi import Gateway
from trigger_ddp.server.wsgi_response import WSGIApplication

logger = logging.getLogger("trigger_ddp.server")

#: Seconds after `stopping.DRAIN_SECONDS` until work that still runs on threads is abandoned: all of this for
#: those of methods, half of it for those of queries and of the Django project. With those less than ten.
WORKERS_DRAIN_SECONDS = 1.5


#: As of `gc.set_threshold`. Python's first is 700, to which a query's documents come a dozen times. With its
#: others, 10 and 10, all would be looked through once in 2 million objects; till then 15 000 sessions that
#: have ended would stay, each a cycle of some 130 objects.
GARBAGE_THRESHOLDS = (20_000, 5, 2)


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
    set_network_defaults()
    preconditions.check_database(alias)  # first: some of Django's checks ask the database
    preconditions.check_project()
    application = wsgi_app.load() if _is_wsgi_wanted(options) else None
    preconditions.check_rights(alias)
    preconditions.check_triggers(alias, install=options.install_triggers)
    conninfo = settings().listen_dsn or connections[alias].get_connection_params()
    connections.close_all()  # from here on only worker threads use Django's connections
    logs.replace_djangos_console()  # not before: the WSGI application sets Django up once more
    # What the project consists of stays: the collector need not look through it again and again, nor through
    # what clients are told each time that a thousand small things were made.
    gc.freeze()
    gc.set_threshold(*GARBAGE_THRESHOLDS)
    gc.enable()
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
    worker = options.worker
    others = siblings.Siblings(worker.number, worker.sibling_paths) if worker else None
    metrics = Metrics()
    answering = Answering()
    query_seconds = WORKERS_DRAIN_SECONDS / 2
    with (
        trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals,
        trio.open_signal_receiver(signal.SIGHUP) as reloads,
    ):
        async with (
            Workers(conf.threads, drain_seconds=WORKERS_DRAIN_SECONDS) as workers,
            Workers(conf.evaluation_threads, drain_seconds=query_seconds, name="evaluator") as evaluators,
            _gateway(wsgi, conf, answering, multiprocess=worker is not None) as web,
            trio.open_nursery() as nursery,
        ):
            service = Service(Listener(conninfo, decode), workers, evaluators, conf, others, metrics)
            if web:
                service.pools["web"] = web.workers
            metrics.read += [ProcessReadings(), ServiceReadings(service)]
            accepting = trio.CancelScope()
            # A worker may get the same signal from several sides; its supervisor has another way to hurry it.
            hurry = worker.hurried.wait if worker else partial(anext, signals)
            stop = partial(stop_at_signal, signals, hurry, service, answering, accepting)
            nursery.start_soon(stop, nursery.cancel_scope)
            nursery.start_soon(StalledWatch(conf.database).run)
            await nursery.start(service.run)
            nursery.start_soon(service.pipeline.run)
            listeners = await _listen(options)
            sessions = Sessions(opener(service), _limits(conf), metrics)
            await nursery.start(sessions.run)
            collect = worker.collect if worker else _collector(metrics)
            operations = Operations(checks_of(service), collect).respond
            application = Application(
                on_connection=opener(service),
                handler=options.handler,
                limits=sessions.limits,
                sockjs=sockjs.Options(conf.sockjs_url, conf.sockjs_cookie, conf.sockjs_websocket),
                sessions=sessions,
                web=web,
                forwarded_count=conf.forwarded_count,
                operations=None if options.admin_binds else operations,
                metrics=metrics,
                siblings=others,
                admission=Admission(
                    file_limit(conf.max_connections), conf.max_connections_per_address, metrics
                ),
                answering=answering,
                origins=Origins(conf.allowed_origins),
            )
            if listeners.admin:
                administration = Application(None, operations=operations)
                nursery.start_soon(accept_forever, listeners.admin, partial(serve_stream, app=administration))
            if listeners.debug:
                nursery.start_soon(debug.serve, listeners.debug, service, metrics)
            if worker:
                nursery.start_soon(_serve_siblings, worker, service, application)
                nursery.start_soon(worker.run, metrics.collect)
            nursery.start_soon(_reload_at_signal, reloads, certificates, service)
            _announce(options, listeners)
            async with trio.open_nursery() as clients:  # who stay when accepting ends
                with accepting:
                    await accept_forever(
                        listeners.public,
                        _client_server(application, certificates),
                        handler_nursery=clients,
                        shares=worker.shares if worker else None,
                    )
    logger.info("stopped")


def _limits(conf: Settings) -> Limits:
    return Limits(
        max_message_bytes=conf.max_message_bytes,
        outbox_bytes=conf.outbox_bytes,
        outbox_seconds=conf.outbox_seconds,
        sockjs_disconnect_delay=conf.sockjs_disconnect_delay,
        sockjs_sessions=conf.sockjs_sessions,
        sockjs_sessions_per_address=conf.sockjs_sessions_per_address,
    )


def _announce(options: Options, listeners: _Listeners) -> None:
    urls = [url(listener, tls=options.certfile is not None) for listener in listeners.public]
    if options.worker is None:  # else the supervisor says it
        for listener in listeners.admin:
            logger.info("health and metrics on %s", url(listener))
        for address in urls:
            logger.info("listening on %s", address)
    if options.on_ready is not None:
        options.on_ready(urls)


def _client_server(
    application: Application, certificates: Certificates | None
) -> Callable[[trio.SocketStream], Awaitable[object]]:
    serve: Callable[[Any], Awaitable[object]] = partial(serve_stream, app=application)
    if certificates is not None:
        serve = partial(certificates.serve, handler=serve)
    return partial(serve_admitted, handler=serve, app=application, tls=certificates is not None)


async def _serve_siblings(worker: Worker, service: Service, application: Application) -> None:
    """Answer for clients of the other workers, which have told the access log of them."""
    here = dataclasses.replace(
        application, siblings=None, forwarded_count=0, head_at_once=True, web=None, log_access=False
    )
    serve = partial(
        siblings.serve,
        answer=partial(serve_stream, app=here),
        take_over=partial(take_over, service, application.limits),
    )
    async with trio.open_nursery() as others:
        with trio.CancelScope() as accepting:
            others.start_soon(_cancel_when, worker.replaced, accepting)
            await accept_forever([worker.sibling_listener()], serve, handler_nursery=others)


async def _cancel_when(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


@contextlib.asynccontextmanager
async def _gateway(
    application: WSGIApplication | None, conf: Settings, answering: Answering, *, multiprocess: bool
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
            answering=answering,
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
