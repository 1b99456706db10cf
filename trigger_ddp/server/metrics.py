"""What the server counts while it works.

Where it works, a count is an addition to a plain number: no lock, no lookup by labels. What stands still
can be counted when somebody asks: `Metrics.read` has functions for that. `collect` makes both into the
families that Prometheus knows. docs/operations.md has the table of all of them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric

from trigger_ddp.changes.change import Change, Gap
from trigger_ddp.live.evaluation import Evaluation
from trigger_ddp.live.query import State
from trigger_ddp.protocol.ending import Ending
from trigger_ddp.protocol.frames import Wire

#: Upper bounds in seconds of what should take milliseconds.
LATENCY_BUCKETS = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0
)  # fmt: skip
#: The same for methods. Fewer, since there is one histogram for each.
METHOD_BUCKETS = (0.005, 0.025, 0.1, 0.25, 1.0, 5.0, 30.0)

_OPERATIONS = {"I": "insert", "U": "update", "D": "delete"}
_WHOLE_TABLE = frozenset({"bulk", "truncate"})

#: What clients are refused, by the label that counts it.
REFUSALS = (
    "bad_request",
    "message_too_complex",
    "method_rate",
    "origin",
    "request_timeout",
    "request_too_large",
    "sockjs_sessions",
    "subscription_rate",
    "subscriptions_too_large",
    "too_many_away",
    "too_many_connections",
    "too_many_of_address",
    "too_many_subscriptions",
)


class Histogram:
    """How often values were at most so large.

    Args:
        bounds: the upper bounds, ascending; what is larger counts, too.
    """

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float] = LATENCY_BUCKETS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def buckets(self) -> list[tuple[str, float]]:
        """Each bound and how many values were at most that, as Prometheus has them."""
        buckets, total = [], 0
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            total += count
            buckets.append((bound, float(total)))
        return buckets


class Metrics:
    """The counts of one process since it began.

    Attributes:
        read: each is called by `collect` and returns families of what there is at that moment.
        connections, disconnections: of clients, by wire and by why.
        sessions_opened, sessions_resumed: DDP sessions begun, and those that a client has come back to.
        refusals: of what `REFUSALS` names.
        responses: to HTTP requests, by the first digit of their status.
        changes: by kind.
        resyncs: changes unknown, so that everything of a table, or of all, was looked at again.
        evaluations, evaluation_failures, evaluation_seconds: by `kind_of`.
        change_to_socket: from hearing of a change to having written what it means to the sockets.
        method_seconds, method_errors: by method, of those that are declared.
    """

    def __init__(self) -> None:
        self.read: list[Callable[[], Iterable[Metric]]] = []
        self.connections = dict.fromkeys(Wire, 0)
        self.disconnections = dict.fromkeys(Ending, 0)
        self.sessions_opened = self.sessions_resumed = 0
        self.refusals = dict.fromkeys(REFUSALS, 0)
        self.responses = {f"{number}xx": 0 for number in range(1, 6)}
        self.changes = dict.fromkeys((*_OPERATIONS.values(), "bulk", "gap"), 0)
        self.resyncs = {"table": 0, "all": 0}
        self.evaluations = {"keys": 0, "whole": 0, "load": 0}
        self.evaluation_failures = dict.fromkeys(self.evaluations, 0)
        self.evaluation_seconds = {kind: Histogram() for kind in self.evaluations}
        self.change_to_socket = Histogram()
        self.method_seconds: dict[str, Histogram] = {}
        self.method_errors: dict[str, int] = {}

    def change(self, event: Change | Gap) -> None:
        """Count what a source has told."""
        if isinstance(event, Change):
            self.changes[_OPERATIONS[event.op]] += 1
            return
        self.changes["bulk" if event.reason in _WHOLE_TABLE else "gap"] += 1
        self.resyncs["all" if event.table is None else "table"] += 1

    def method(self, name: str, seconds: float, *, failed: bool) -> None:
        """Count a call of a method that is declared; names that clients make up don't belong here."""
        if name not in self.method_seconds:
            self.method_seconds[name] = Histogram(METHOD_BUCKETS)
            self.method_errors[name] = 0
        self.method_seconds[name].observe(seconds)
        self.method_errors[name] += failed

    def collect(self) -> list[Metric]:
        """All families as they are now."""
        families: list[Metric] = [
            _counter(
                "trigger_ddp_connections",
                "connections of DDP clients, by wire",
                "wire",
                {wire.name.lower(): count for wire, count in self.connections.items()},
            ),
            _counter(
                "trigger_ddp_disconnections",
                "connections of DDP clients that have ended, by why",
                "reason",
                {ending.value: count for ending, count in self.disconnections.items()},
            ),
            CounterMetricFamily(
                "trigger_ddp_sessions_opened", "DDP sessions that have begun", value=self.sessions_opened
            ),
            CounterMetricFamily(
                "trigger_ddp_sessions_resumed",
                "times that a client has come back to its session",
                value=self.sessions_resumed,
            ),
            _counter(
                "trigger_ddp_http_responses", "responses to HTTP requests, by class", "status", self.responses
            ),
            _counter("trigger_ddp_refusals", "what clients were refused, by why", "reason", self.refusals),
            _counter(
                "trigger_ddp_changes",
                "notifications of changes, by kind; 'bulk' and 'gap' are without keys",
                "kind",
                self.changes,
            ),
            _counter(
                "trigger_ddp_resyncs",
                "times that everything was looked at again, of one table or of all",
                "scope",
                self.resyncs,
            ),
            _counter(
                "trigger_ddp_evaluations",
                "looks at the database for a shape, by kind: at keys that changed, at live queries whole, "
                "first loads",
                "kind",
                self.evaluations,
            ),
            _counter(
                "trigger_ddp_evaluation_failures",
                "looks at the database that got no answer, by kind",
                "kind",
                self.evaluation_failures,
            ),
            _histogram(
                "trigger_ddp_evaluation_seconds",
                "seconds of a look at the database, those of waiting for a thread included",
                "kind",
                self.evaluation_seconds,
            ),
            HistogramMetricFamily(
                "trigger_ddp_change_to_socket_seconds",
                "seconds from reading the notification of a change that concerns some client "
                "to having written to the clients' sockets",
                buckets=self.change_to_socket.buckets(),
                sum_value=self.change_to_socket.sum,
            ),
            _histogram(
                "trigger_ddp_method_seconds",
                "seconds of a method's call, those of waiting for a thread included",
                "method",
                self.method_seconds,
            ),
            _counter(
                "trigger_ddp_method_errors",
                "calls of a method that raised",
                "method",
                self.method_errors,
            ),
        ]
        for read in self.read:
            families.extend(read())
        return families


def kind_of(evaluation: Evaluation) -> str:
    """What an evaluation that has not ended yet is counted as."""
    if not evaluation.queries:
        return "keys"
    return "load" if all(query.state is State.LOADING for query in evaluation.queries) else "whole"


def _counter(name: str, documentation: str, label: str, counts: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, documentation, labels=[label])
    for value, count in counts.items():
        family.add_metric([value], count)
    return family


def _histogram(name: str, documentation: str, label: str, histograms: Mapping[str, Histogram]) -> Metric:
    family = HistogramMetricFamily(name, documentation, labels=[label])
    for value, histogram in histograms.items():
        family.add_metric([value], histogram.buckets(), histogram.sum)
    return family
