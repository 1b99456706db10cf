"""Metric families: of several processes as one, as plain values for a pipe, and as text to be scraped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from prometheus_client import generate_latest
from prometheus_client.core import Metric
from prometheus_client.samples import Sample

#: The Content-Type of what `render` returns.
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

#: Gauges that are no amounts: of several processes the largest value stands, not the sum.
LARGEST = frozenset(
    {
        "process_max_fds",
        "process_start_time_seconds",
        "python_info",
        "trigger_ddp_info",
        "trigger_ddp_notification_queue_usage",
        "trigger_ddp_oldest_change_seconds",
        "trigger_ddp_outbox_max_bytes",
        "trigger_ddp_stale_tables",
    }
)

#: What only grows while its process lives, and must not shrink when it ends.
_LASTING = frozenset({"counter", "histogram"})

#: A family as JSON can hold it: name, documentation, type, samples of (name, labels, value).
Plain: TypeAlias = list[Any]


class _Family:
    """What a registry is to `generate_latest`."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def render(families: Iterable[Metric]) -> bytes:
    """The families in Prometheus's text format; `CONTENT_TYPE` is its type."""
    return generate_latest(_Family(families))


def to_plain(families: Iterable[Metric]) -> list[Plain]:
    """The families as values that JSON can hold; `from_plain` takes them."""
    return [
        [
            family.name,
            family.documentation,
            family.type,
            [[sample.name, sample.labels, sample.value] for sample in family.samples],
        ]
        for family in families
    ]


def from_plain(plain: Iterable[Plain]) -> list[Metric]:
    """The families that `to_plain` was given.

    Raises:
        ValueError: they are no families.
    """
    families = []
    for name, documentation, kind, samples in plain:
        family = Metric(name, documentation, kind)
        for sample_name, labels, value in samples:
            family.add_sample(sample_name, labels, value)
        families.append(family)
    return families


def merge(live: Sequence[Iterable[Metric]], ended: Sequence[Iterable[Metric]] = ()) -> list[Metric]:
    """The families of several processes as those of one.

    Counters and histograms are summed, of processes that have ended too; gauges only of those that live,
    where of `LARGEST` the largest stands. What only some have is kept.

    Args:
        live: the families of each process that lives.
        ended: what each process that has ended last had.
    """
    merged: dict[str, Metric] = {}
    values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    for families, lives in (*((one, True) for one in live), *((one, False) for one in ended)):
        for family in families:
            if not lives and family.type not in _LASTING:
                continue
            if family.name not in merged:
                merged[family.name] = Metric(family.name, family.documentation, family.type)
                values[family.name] = {}
            _add(values[family.name], family.samples, largest=family.name in LARGEST)
    for name, samples in values.items():
        for (sample_name, labels), value in samples.items():
            merged[name].add_sample(sample_name, dict(labels), value)
    return list(merged.values())


def _add(
    values: dict[tuple[str, tuple[tuple[str, str], ...]], float], samples: Iterable[Sample], *, largest: bool
) -> None:
    for sample in samples:
        key = sample.name, tuple(sorted(sample.labels.items()))
        if key not in values:
            values[key] = sample.value
        elif largest:
            values[key] = max(values[key], sample.value)
        else:
            values[key] += sample.value
