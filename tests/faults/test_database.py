"""PostgreSQL restarts, crashes and fails over, while others write."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from django.db import connections

from tests import postgres
from tests.conftest import Database, point_django_at
from tests.faults.watching import PatientWriters, as_setting, fill, watching

LISTENER = "application_name = 'trigger_ddp listener'"
EVERYBODY = "pid <> pg_backend_pid()"


@pytest.mark.parametrize("who", [LISTENER, EVERYBODY], ids=["listener", "everybody"])
def test_backends_are_terminated(db: Database, who: str) -> None:
    fill(db)
    with watching(db) as watch:
        writers = PatientWriters(db.connect)
        try:
            for times in (1, 2, 3):
                writers.go_on()
                with watch.healing(f"backends terminated where {who}"):
                    ended = db.psql(
                        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                        f" WHERE datname = current_database() AND {who}"
                    )
                    assert int(ended) > 0
                writers.go_on()
                watch.server.wait_for_log(rf"(?s:(?:listening connection is up after.*?){{{times}}})")
        finally:
            writers.stop()
        watch.assert_all_equal()


def restart_postmaster(cluster: postgres.Cluster) -> None:
    cluster.stop()
    cluster.start()


def kill_postmaster(cluster: postgres.Cluster) -> None:
    """Its children end when they notice; until then it can't be started again."""
    cluster.stop(signal.SIGKILL)
    start_after_crash(cluster)


def start_after_crash(cluster: postgres.Cluster) -> None:
    for _ in range(100):
        try:
            return cluster.start()
        except RuntimeError as error:
            if "pre-existing shared memory block" not in str(error):
                raise
    raise AssertionError("the children of the killed postmaster do not end")


def kill_backend(cluster: postgres.Cluster) -> None:
    """The postmaster then ends all sessions, and recovers."""
    with cluster.connect() as connection:
        os.kill(connection.info.backend_pid, signal.SIGKILL)


@pytest.mark.parametrize("fault", [restart_postmaster, kill_postmaster, kill_backend])
def test_postgresql_ends_and_is_back(
    own_database: Database, fault: Callable[[postgres.Cluster], None]
) -> None:
    with watching(own_database) as watch:
        writers = PatientWriters(own_database.connect)
        try:
            writers.go_on()
            with watch.healing(fault.__name__):
                fault(own_database.cluster)
                writers.go_on()
            watch.server.wait_for_log("listening connection is up after")
            writers.go_on()
        finally:
            writers.stop()
        watch.assert_all_equal()


def make_standby(primary: postgres.Cluster) -> postgres.Cluster:
    """A cluster that follows ``primary``, caught up with it."""
    standby = postgres.Cluster.__new__(postgres.Cluster)
    standby.major, standby.bindir, standby.user = primary.major, primary.bindir, primary.user
    standby.directory = Path(tempfile.mkdtemp(prefix=f"tddp{primary.major}-standby-"))
    standby.data, standby.port, standby.process = standby.directory / "data", postgres.free_port(), None
    if standby.user:
        shutil.chown(standby.directory, standby.user)
    standby._run("pg_basebackup", "-d", primary.dsn("postgres"), "-D", str(standby.data), "-R", "-c", "fast")
    with (standby.data / "postgresql.conf").open("a") as conf:
        conf.write(f"unix_socket_directories='{standby.directory}'\nport={standby.port}\nhot_standby=on\n")
    standby.start()
    return standby


def test_a_standby_takes_over(own_database: Database) -> None:
    """What the primary had committed and not yet sent is lost; clients have what the new primary has."""
    primary = own_database.cluster
    standby = make_standby(primary)
    now = primary

    def connect() -> psycopg.Connection:
        return now.connect(own_database.name)

    hosts = f"{primary.host},{standby.host}"
    ports = f"{primary.port},{standby.port}"
    try:
        with watching(
            own_database,
            TDDP_TEST_HOST=hosts,
            TDDP_TEST_PORT=ports,
            TDDP_TEST_OPTIONS='{"target_session_attrs": "read-write"}',
            DDP_LISTEN_DSN=as_setting(
                f"host={hosts} port={ports} user=postgres dbname={own_database.name}"
                " target_session_attrs=read-write"
            ),
        ) as watch:
            writers = PatientWriters(connect)
            try:
                writers.go_on()
                with primary.connect(own_database.name) as connection:
                    [(position,)] = connection.execute("SELECT pg_current_wal_insert_lsn()").fetchall()
                    connection.execute("CHECKPOINT")  # commits here don't wait for the disk, but standbys do
                with standby.connect() as connection:
                    while connection.execute(
                        "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", [position]
                    ).fetchone() != (True,):
                        pass  # or it would lack the triggers that the server has just installed
                    # From here on the primary commits what the standby will never have.
                    while connection.execute("SELECT count(*) FROM pg_stat_wal_receiver").fetchone() != (1,):
                        pass
                    standby_pid = int(standby.psql("postgres", "SELECT pid FROM pg_stat_wal_receiver"))
                    os.kill(standby_pid, signal.SIGSTOP)
                with primary.connect(own_database.name) as connection:
                    connection.execute(
                        "INSERT INTO bookstore_author (id, name, email) VALUES (77, 'L', 'l@x')"
                    )
                    watch.clients[0].wait_until(
                        lambda: "77" in watch.clients[0].documents["bookstore.author"]
                    )
                writers.go_on()
                with watch.healing("failover", connect):
                    primary.stop(signal.SIGKILL)
                    os.kill(standby_pid, signal.SIGCONT)
                    standby.psql("postgres", "SELECT pg_promote(true, 60)")
                    now = standby
                    point_django_at(standby, own_database.name)
                    writers.go_on()
                watch.server.wait_for_log("listening connection is up after", 60)
                writers.go_on()
            finally:
                writers.stop()
            watch.assert_all_equal()
            # Nearly always it is lost, but what the stopped process had in its socket it may write at last.
            count = standby.psql(own_database.name, "SELECT count(*) FROM bookstore_author WHERE id = 77")
            assert ("77" in watch.clients[0].documents["bookstore.author"]) == (count.strip() == "1")
    finally:
        connections.close_all()
        standby.remove()
        start_after_crash(primary)
