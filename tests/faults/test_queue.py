"""Another session listens and does not read, so that PostgreSQL keeps everything, until nobody can write."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import postgres
from tests.conftest import Database
from tests.faults.watching import PatientWriters, watching
from tests.test_operations import metrics

USAGE = "trigger_ddp_notification_queue_usage"


@pytest.fixture
def short_queue(own_cluster: postgres.Cluster) -> Iterator[None]:
    """A queue of 8 MB, which is otherwise of 8 GB."""
    if own_cluster.major < 17:
        pytest.skip("before PostgreSQL 17 the queue's size is fixed at 8 GB")
    conf = own_cluster.data / "postgresql.conf"
    before = conf.read_text()
    own_cluster.stop()
    conf.write_text(before + "max_notify_queue_pages = 1024\n")
    own_cluster.start()
    yield
    own_cluster.stop()
    conf.write_text(before)
    own_cluster.start()


@pytest.mark.usefixtures("short_queue")
def test_a_queue_that_fills_is_warned_of_long_before_it_is_full(own_database: Database) -> None:
    with own_database.connect() as stuck:
        stuck.execute("LISTEN others")
        stuck.execute("BEGIN; SELECT 1")
        own_database.psql("SELECT count(pg_notify('x', lpad(n::text, 7900))) FROM generate_series(1, 110) n")
        with watching(own_database) as watch:  # a server looks at once, and then every 15 seconds
            watch.server.wait_for_log(r"WARNING .*notification queue is 1\d % full: some session listens")
            assert 0.1 < metrics(watch.server.url)[USAGE] < 0.25
            writers = PatientWriters(own_database.connect)
            try:
                writers.go_on()
                watch.clients[0].settle()
                stuck.execute("COMMIT")
                writers.go_on()
            finally:
                writers.stop()
            watch.assert_all_equal()
