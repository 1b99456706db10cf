"""What there is in a process at the moment somebody asks for its metrics."""

from __future__ import annotations

from collections.abc import Iterator

import trio
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from trigger_ddp import __version__
from trigger_ddp.server.service import Service
from trigger_ddp.server.workers import Workers


class ProcessReadings:
    """Memory, file descriptors, processor time and garbage collection. Costs a look at ``/proc``."""

    def __init__(self) -> None:
        unused = CollectorRegistry()  # or the library puts them into one of its own, for everyone
        kinds = (ProcessCollector, GCCollector, PlatformCollector)
        self._collectors = [kind(registry=unused) for kind in kinds]

    def __call__(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("trigger_ddp_processes", "server processes that have answered", value=1)
        info = GaugeMetricFamily("trigger_ddp_info", "1, by the version that runs", labels=["version"])
        info.add_metric([__version__], 1)
        yield info
        for collector in self._collectors:
            yield from collector.collect()


class ServiceReadings:
    """Sessions, live queries, the source of changes, and threads.

    Args:
        service: the process's service.
    """

    def __init__(self, service: Service) -> None:
        self._service = service

    def __call__(self) -> Iterator[Metric]:
        yield from self._sessions()
        yield from self._live()
        yield from self._source()
        tasks = trio.lowlevel.current_statistics().tasks_living
        yield GaugeMetricFamily("trigger_ddp_tasks", "tasks of the event loop", value=tasks)
        yield from self._threads(self._service.pools)

    def _sessions(self) -> Iterator[Metric]:
        service = self._service
        connecting = sum(not session.id for session in service.connections)
        states = {
            "connecting": connecting,
            "connected": len(service.connections) - connecting,
            "away": service.away,
        }
        sessions = GaugeMetricFamily(
            "trigger_ddp_sessions",
            "DDP sessions, by whether the client has not yet said who it is, is connected, or may come back",
            labels=["state"],
        )
        for state, count in states.items():
            sessions.add_metric([state], count)
        yield sessions
        yield GaugeMetricFamily(
            "trigger_ddp_subscriptions",
            "running subscriptions of all sessions, universal ones included",
            value=sum(
                len(conversation.session.subscriptions) + len(conversation.session.universal)
                for conversation in service.conversations.values()
            ),
        )
        waiting = [connection.statistics().bytes_waiting for connection in service.connections.values()]
        yield GaugeMetricFamily(
            "trigger_ddp_outbox_bytes", "bytes that wait for clients to take them in", value=sum(waiting)
        )
        yield GaugeMetricFamily(
            "trigger_ddp_outbox_max_bytes",
            "bytes that wait for the client for whom the most do",
            value=max(waiting, default=0),
        )

    def _live(self) -> Iterator[Metric]:
        statistics = self._service.engine.statistics()
        for name, documentation, value in (
            ("live_queries", "live queries that are kept current", statistics.live_queries),
            ("shapes", "live queries that differ in constants only count as one shape", statistics.shapes),
            ("documents", "documents of all live queries", statistics.documents),
            (
                "waiting_shapes",
                "shapes with something to look at that is not begun",
                statistics.waiting_shapes,
            ),
        ):
            yield GaugeMetricFamily(f"trigger_ddp_{name}", documentation, value=value)
        yield GaugeMetricFamily(
            "trigger_ddp_oldest_change_seconds",
            "seconds since the oldest change was read that is not evaluated; 0 if all are",
            value=self._service.lag(),
        )
        yield GaugeMetricFamily(
            "trigger_ddp_stale_tables",
            "tables in use that have no current trigger, so that their changes may go unnoticed",
            value=len(self._service.stale_tables),
        )

    def _source(self) -> Iterator[Metric]:
        source = self._service.source.statistics()
        yield GaugeMetricFamily(
            "trigger_ddp_listener_connected",
            "listening connections to PostgreSQL that are up, one for each process",
            value=source.connected,
        )
        yield GaugeMetricFamily(
            "trigger_ddp_notification_queue_usage",
            "how full PostgreSQL's notification queue is, 0 to 1, looked at every 15 seconds",
            value=source.queue_usage,
        )
        for name, documentation, value in (
            ("listener_reconnects", "times that the listening connection was regained", source.reconnects),
            ("notifications", "notifications received, our own included", source.notifications),
            ("undecodable", "notifications of changes that could not be read", source.undecodable),
            ("ignored_notifications", "notifications that concern nobody", source.ignored),
        ):
            yield CounterMetricFamily(f"trigger_ddp_{name}", documentation, value=value)

    def _threads(self, pools: dict[str, Workers]) -> Iterator[Metric]:
        size = GaugeMetricFamily("trigger_ddp_threads", "threads of a pool", labels=["pool"])
        busy = GaugeMetricFamily("trigger_ddp_threads_busy", "threads that are at work", labels=["pool"])
        waiting = GaugeMetricFamily(
            "trigger_ddp_threads_waiting", "jobs that wait for a thread", labels=["pool"]
        )
        for name, workers in pools.items():
            statistics = workers.statistics()
            size.add_metric([name], statistics.size)
            busy.add_metric([name], statistics.running)
            waiting.add_metric([name], statistics.waiting)
        yield from (size, busy, waiting)
