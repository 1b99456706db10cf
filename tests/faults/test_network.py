"""The network between the server and PostgreSQL fails, while others write on the other side of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from tests.conftest import Database
from tests.ddp import DDPClient
from tests.faults.watching import PATIENCE, PatientWriters, fill, watching
from tests.proxy import Proxy
from tests.serving import Server
from trigger_ddp.server.stalled import NETWORK_DEFAULTS

#: How long a network may be silent without a word: longer than every limit of ours.
SILENCE = 31


@pytest.fixture
def proxy(db: Database) -> Iterator[Proxy]:
    fill(db)
    with Proxy(db.cluster.host, db.cluster.port) as new:
        yield new


def test_threads_connections_are_found_dead_by_the_kernel(server: Server) -> None:
    """A network that drops packets can't be had here; that libpq is told to look after it can."""
    with DDPClient(server.url) as client:
        parameters = client.call("connection_parameters")["result"]
    assert NETWORK_DEFAULTS.items() <= parameters.items()


def test_connections_are_reset(db: Database, proxy: Proxy) -> None:
    with watching(db, proxy=proxy) as watch:
        writers = PatientWriters(db.connect)
        try:
            for _ in range(3):
                writers.go_on()
                with watch.healing("connections reset"):
                    proxy.cut()
        finally:
            writers.stop()
        watch.assert_all_equal()


def test_nobody_is_there_for_some_time(db: Database, proxy: Proxy) -> None:
    with watching(db, proxy=proxy) as watch:
        writers = PatientWriters(db.connect)
        try:
            writers.go_on()
            with watch.healing("nobody there for a moment"):
                proxy.refuse()
                proxy.cut()
                watch.server.wait_for_log("the listening connection is lost")
                writers.go_on(200)
                proxy.accept()
        finally:
            writers.stop()
        watch.assert_all_equal()


def test_the_network_is_slow(db: Database, proxy: Proxy) -> None:
    with watching(db, proxy=proxy) as watch:
        proxy.slow(60_000)
        writers = PatientWriters(db.connect)
        try:
            with watch.healing("slow network"):
                writers.go_on(200)
        finally:
            writers.stop()
        watch.assert_all_equal()
        assert "lost" not in watch.server.log()


def test_a_short_stall_is_none_of_our_business(db: Database, proxy: Proxy) -> None:
    with watching(db, proxy=proxy) as watch:
        writers = PatientWriters(db.connect)
        try:
            writers.go_on()
            with watch.healing("short stall"):
                proxy.stall()
                writers.go_on(200)
                proxy.resume()
        finally:
            writers.stop()
        watch.assert_all_equal()
        assert "lost" not in watch.server.log()


def test_silence(db: Database, proxy: Proxy) -> None:
    """Two servers, so that it takes half the time: to one the network comes back, and to the other one the
    connections that there were stay dead, as behind a router that has forgotten them."""
    with (
        Proxy(db.cluster.host, db.cluster.port) as other,
        watching(db, proxy=proxy) as watch,
        watching(db, proxy=other) as forgotten,
    ):
        forgotten.server.errors_expected = True  # methods whose answers are lost fail
        writers = PatientWriters(db.connect)
        try:
            writers.go_on()
            silent = threading.Event()
            end = threading.Timer(SILENCE, silent.set)
            end.start()
            with watch.healing(f"silence of {SILENCE} s"):
                proxy.stall()
                with forgotten.healing("connections forgotten"):
                    other.forget()
                    calls = [client.start_call("rename", "1", "by a method") for client in forgotten.clients]
                for client, call in zip(forgotten.clients, calls, strict=True):
                    client.wait_until(
                        lambda client=client, call=call: any(  # type: ignore[misc]
                            m["msg"] == "updated" and call in m["methods"] for m in client.messages
                        ),
                        PATIENCE,
                    )
                forgotten.server.wait_for_log("answers were lost on the way")
                assert silent.wait(PATIENCE)
                watch.server.wait_for_log("PostgreSQL has been silent for 10 s", PATIENCE)
                proxy.resume()
        finally:
            writers.stop()
        watch.assert_all_equal()
        forgotten.assert_all_equal()
