"""How many connections there may be."""

from __future__ import annotations

import resource

import pytest
import trio

from tests.server.network import in_mock_time
from trigger_ddp.server import admission
from trigger_ddp.server.admission import MOST_TOLD, RESERVED_FILES, Admission, file_limit
from trigger_ddp.server.metrics import Metrics


@in_mock_time
async def test_connections_are_counted_while_they_last() -> None:
    metrics = Metrics()
    door = Admission(3, 2, metrics)
    with door.connection("1.1.1.1") as one, door.connection("1.1.1.1") as two:
        assert (one, two) == (None, None)
        with door.connection("1.1.1.1") as three:
            assert three is not None
            assert three.status == 429
        with door.connection("2.2.2.2") as other, door.connection("3.3.3.3") as too_many:
            assert other is None
            assert too_many is not None
            assert too_many.status == 503
        with door.connection("3.3.3.3") as again:
            assert again is None
    for _ in range(10):
        with door.connection("1.1.1.1") as one, door.connection("1.1.1.1") as two:
            assert (one, two) == (None, None)
    assert metrics.refusals["too_many_connections"] == metrics.refusals["too_many_of_address"] == 1
    assert not door._of_address


@in_mock_time
@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("::ffff:1.2.3.4", "1.2.3.4", True),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("not:an:address", "not:an:address", True),
        ("1.2.3.4", "1.2.3.5", False),
        ("unix", "unix", False),
        ("unknown", "unknown", False),
    ],
)
async def test_whose_address_it_is(first: str, second: str, same: bool) -> None:
    door = Admission(10, 1, Metrics())
    with door.connection(first) as one, door.connection(second) as two:
        assert one is None
        assert (two is not None) is same


@in_mock_time
async def test_a_warning_a_minute_is_enough(caplog: pytest.LogCaptureFixture) -> None:
    door = Admission(0, 1, Metrics())
    for _ in range(4):
        with door.connection("1.1.1.1") as refusal:
            assert refusal is not None
        await trio.sleep(25)
    assert [record.getMessage() for record in caplog.records] == [
        "connections are refused: DDP_MAX_CONNECTIONS are open"
    ] * 2


def test_not_more_connections_than_files(monkeypatch: pytest.MonkeyPatch) -> None:
    limit = resource.RLIM_INFINITY
    monkeypatch.setattr(admission.resource, "getrlimit", lambda _: (limit, limit))
    assert file_limit(10_000) == 10_000
    limit = 1024
    assert file_limit(10_000) == 1024 - RESERVED_FILES
    assert file_limit(100) == 100
    limit = 256
    assert file_limit(10_000) == 128


def test_who_is_one_too_many_to_be_told_is_not() -> None:
    door = Admission(0, 0, Metrics())
    told = [door.telling() for _ in range(MOST_TOLD + 1)]
    assert [one.__enter__() for one in told] == [True] * MOST_TOLD + [False]
    for one in told:
        one.__exit__(None, None, None)
    with door.telling() as may_tell:
        assert may_tell
