"""Counting, reading and putting together metrics, without a server."""

from __future__ import annotations

import json
import math

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families

from trigger_ddp.changes.change import Change, Gap
from trigger_ddp.protocol.ending import Ending, of_final_code, of_our_code
from trigger_ddp.server.families import LARGEST, from_plain, merge, render, to_plain
from trigger_ddp.server.metrics import Histogram, Metrics
from trigger_ddp.server.readings import ProcessReadings


def values(families: list[Metric]) -> dict[str, float]:
    return {
        sample.name + "".join(f" {name}={value}" for name, value in sample.labels.items()): sample.value
        for family in families
        for sample in family.samples
    }


def test_a_bucket_holds_what_is_at_most_its_bound():
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 99.0):
        histogram.observe(value)
    assert histogram.buckets() == [("1.0", 2.0), ("2.0", 4.0), ("+Inf", 5.0)]
    assert histogram.sum == 104.0


def test_what_a_source_tells_is_counted_by_kind():
    metrics = Metrics()
    for op in ("I", "U", "U", "D"):
        metrics.change(Change("t", op, (("1",),)))  # type: ignore[arg-type]
    metrics.change(Gap("t", "bulk"))
    metrics.change(Gap("t", "truncate"))
    metrics.change(Gap("t", "undecodable"))
    metrics.change(Gap(None, "reconnected"))
    assert metrics.changes == {"insert": 1, "update": 2, "delete": 1, "bulk": 2, "gap": 2}
    assert metrics.resyncs == {"table": 3, "all": 1}


def test_methods_have_a_histogram_each():
    metrics = Metrics()
    metrics.method("a", 0.01, failed=False)
    metrics.method("a", 9.0, failed=True)
    seen = values(metrics.collect())
    assert seen["trigger_ddp_method_seconds_count method=a"] == 2
    assert seen["trigger_ddp_method_seconds_bucket method=a le=0.025"] == 1
    assert seen["trigger_ddp_method_errors_total method=a"] == 1


def test_what_is_read_follows_what_is_counted():
    metrics = Metrics()
    metrics.read.append(lambda: [GaugeMetricFamily("now", "now", value=3)])
    assert values(metrics.collect())["now"] == 3


def test_every_reason_is_there_from_the_beginning():
    """A counter that appears with its first event has no rate for that event."""
    seen = values(Metrics().collect())
    assert {f"trigger_ddp_disconnections_total reason={ending.value}" for ending in Ending} <= seen.keys()
    assert not any(seen.values())


def test_codes_that_clients_choose_stay_few_reasons():
    reasons = {of_final_code(code) for code in range(1000, 5000)}
    assert reasons == {Ending.CLIENT, Ending.LOST, Ending.PROTOCOL, Ending.TOO_LARGE}
    assert of_final_code(1000) is of_final_code(1001) is of_final_code(3000) is Ending.CLIENT


def test_codes_of_ours():
    assert of_our_code(1000) is Ending.SERVER
    assert of_our_code(1001) is Ending.SHUTDOWN
    assert of_our_code(1009) is Ending.TOO_LARGE
    assert of_our_code(3000) is Ending.PROTOCOL
    assert of_our_code(1011) is Ending.ERROR


# -- several processes ---------------------------------------------------------------------------------------


def process(count: int, *, gauge: float, usage: float, method: str = "a") -> list[Metric]:
    counter = CounterMetricFamily("calls", "calls", labels=["method"])
    counter.add_metric([method], count)
    histogram = HistogramMetricFamily(
        "seconds", "seconds", buckets=[("1.0", count), ("+Inf", count + 1)], sum_value=count / 2
    )
    return [
        counter,
        histogram,
        GaugeMetricFamily("sessions", "sessions", value=gauge),
        GaugeMetricFamily("trigger_ddp_notification_queue_usage", "0 to 1", value=usage),
    ]


def test_counters_add_up_over_all_and_gauges_over_those_that_live():
    merged = merge(
        [process(1, gauge=10, usage=0.2), process(2, gauge=20, usage=0.1)], [process(4, gauge=40, usage=0.9)]
    )
    assert values(merged) == {
        "calls_total method=a": 7,
        "seconds_bucket le=1.0": 7,
        "seconds_bucket le=+Inf": 10,
        "seconds_count": 10,
        "seconds_sum": 3.5,
        "sessions": 30,
        "trigger_ddp_notification_queue_usage": 0.2,
    }
    assert [family.type for family in merged] == ["counter", "histogram", "gauge", "gauge"]
    assert merged[0].documentation == "calls"


def test_what_only_some_have_is_kept():
    merged = merge([process(1, gauge=1, usage=0), []], [process(2, gauge=1, usage=0, method="b")])
    assert values(merged)["calls_total method=a"] == 1
    assert values(merged)["calls_total method=b"] == 2
    only_ended = merge([], [process(2, gauge=1, usage=0)])
    assert {family.name for family in only_ended} == {"calls", "seconds"}
    assert merge([]) == []


def test_merging_step_by_step_is_merging_at_once():
    one, two, three = (process(number, gauge=number, usage=number / 10) for number in (1, 2, 3))
    assert merge([one], [merge([], [two]), three]) == merge([one], [two, three])
    assert merge([merge([one, two]), three]) == merge([one, two, three])


def test_merging_changes_nothing_that_it_is_given():
    one, two = process(1, gauge=1, usage=0), process(2, gauge=2, usage=0)
    before = values(one)
    merge([one, two])
    assert values(one) == before


def test_through_a_pipe_and_back():
    families = [*Metrics().collect(), *ProcessReadings()(), *process(3, gauge=1.5, usage=0.25)]
    plain = json.loads(json.dumps(to_plain(families)))
    assert render(from_plain(plain)) == render(families)
    assert merge([from_plain(plain)]) == merge([families])


def test_what_is_rendered_can_be_parsed():
    families = list(text_string_to_metric_families(render(process(3, gauge=1, usage=0.5)).decode()))
    assert [family.type for family in families] == ["counter", "histogram", "gauge", "gauge"]


def test_the_process_is_read():
    seen = values(list(ProcessReadings()()))
    assert seen["process_resident_memory_bytes"] > 1e6
    assert seen["process_open_fds"] > 2
    assert seen["trigger_ddp_processes"] == 1
    assert not any(map(math.isnan, seen.values()))


def test_gauges_that_are_no_amounts_exist():
    """The names are written twice: here is that they are the same."""
    import trigger_ddp.server.readings as readings

    with open(readings.__file__) as source:  # noqa: PTH123
        text = source.read()
    known = {family.name for family in ProcessReadings()()}
    assert {name for name in LARGEST if name not in known and name not in text} == set()
