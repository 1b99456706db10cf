"""The listener against real PostgreSQL: refusals, limits, its end, and TLS."""

from __future__ import annotations

import gc
import os
import select
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests import postgres
from tests.conftest import Database
from tests.proxy import Proxy
from tests.server import eventually
from tests.server.listening import (
    BOOKS,
    activity,
    change,
    decode,
    listening,
    notify,
    pass_fence,
    tcp,
)
from trigger_ddp.errors import ConfigurationError
from trigger_ddp.server import listener
from trigger_ddp.server.listener import Listener
from trigger_ddp.server.source import Event

# -- refusals and limits -------------------------------------------------------------------------------------


def test_a_full_queue_is_warned_of_and_outlived(
    own_cluster: postgres.Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    if own_cluster.major < 17:
        pytest.skip("before PostgreSQL 17 the queue's size is fixed at 8 GB")
    own_cluster.stop()
    with (own_cluster.data / "postgresql.conf").open("a") as conf:
        conf.write("max_notify_queue_pages = 64\n")
    own_cluster.start()

    def fill(conn: psycopg.Connection, pages: int) -> None:
        for number in range(pages):
            conn.execute("SELECT pg_notify('other', %s)", [f"{number:07900}"])

    async def main() -> None:
        options = {"heartbeat_interval": 0.02}
        with own_cluster.connect() as idle, own_cluster.connect() as writer:
            async with listening(own_cluster.dsn("postgres"), **options) as (source, events):
                await source.subscribe([BOOKS])
                idle.execute("LISTEN other")
                idle.execute("BEGIN; SELECT 1")  # keeps the queue's tail
                fill(writer, 8)
                await eventually(lambda: "notification queue is 1" in caplog.text)
                fill(writer, 32)
                await eventually(lambda: source.statistics().queue_usage > 0.5)
                assert "notification queue is 6" in caplog.text
                with pytest.raises(psycopg.OperationalError, match="too many notifications"):
                    fill(writer, 100)
                await eventually(lambda: "refuses our own notification" in caplog.text)
                owed = source.fence()
                assert source.connected
                idle.execute("COMMIT; UNLISTEN *")
                await eventually(lambda: owed in events)
                await eventually(lambda: "nearly empty again" in caplog.text)
                assert source.statistics().queue_usage < 0.05
                assert source.statistics().reconnects == 0
                own_cluster.psql("postgres", "NOTIFY \"tddp:book\", 'fine'")
                await pass_fence(source, events)
                assert change("fine") in events

    trio.run(main)
    levels = [record.message for record in caplog.records if "% full" in record.message]
    assert 2 <= len(levels) <= 4


def test_fences_outlive_a_refusal(
    db: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listener, "REFUSED_PAUSE", 0.01)
    db.psql("CREATE ROLE nobody LOGIN; REVOKE EXECUTE ON FUNCTION pg_notify FROM PUBLIC")

    async def main() -> None:
        async with listening(db.dsn + " user=nobody") as (source, events):
            owed = source.fence()
            await eventually(lambda: "permission denied for function pg_notify" in caplog.text)
            await source.subscribe([BOOKS])
            await eventually(lambda: [owed] in source._sent.values())  # about to be refused
            db.psql("GRANT EXECUTE ON FUNCTION pg_notify TO PUBLIC")
            await eventually(lambda: owed in events)
            await pass_fence(source, events)
            assert source.statistics().reconnects == 0

    try:
        trio.run(main)
    finally:
        db.psql("DROP ROLE nobody")
    assert len(caplog.records) == 1


def test_limits_meant_for_queries_do_not_end_the_connection(db: Database) -> None:
    db.psql(
        f"ALTER DATABASE {db.name} SET idle_session_timeout = '100ms';"
        f"ALTER DATABASE {db.name} SET statement_timeout = '5s';"
        f"ALTER DATABASE {db.name} SET application_name = 'renamed'"
    )

    async def main() -> None:
        async with listening(db.dsn) as (source, events):
            await source.subscribe([BOOKS])
            await pass_fence(source, events)
            with db.cluster.connect() as conn:
                conn.execute("SET idle_session_timeout = 0")
                idle = (
                    "SELECT now() - state_change > '300 ms' FROM pg_stat_activity"
                    " WHERE datname = %s AND query LIKE '%%pg_notify%%' AND pid <> pg_backend_pid()"
                )
                await eventually(lambda: conn.execute(idle, [db.name]).fetchall() == [(True,)])
            await pass_fence(source, events)
            assert source.statistics().reconnects == 0

    trio.run(main)


def test_the_users_conninfo_wins(db: Database) -> None:
    async def main() -> None:
        params = {
            **psycopg.conninfo.conninfo_to_dict(db.dsn),
            "application_name": "mine",
            "cursor_factory": psycopg.ClientCursor,
            "prepare_threshold": None,
            "context": None,
            "client_encoding": "LATIN1",
            "password": None,
        }
        async with listening(params) as (source, events):
            await source.subscribe([BOOKS])
            notify(db, "żółw")
            await pass_fence(source, events)
            assert events[0] == change("żółw")
            names = db.psql(
                "SELECT application_name FROM pg_stat_activity WHERE datname = current_database()"
            )
            assert "mine" in names.splitlines()

    trio.run(main)
    source = Listener("keepalives_idle=7 connect_timeout=3", decode)
    assert "keepalives_idle=7" in source._conninfo
    assert "connect_timeout=3" in source._conninfo
    assert "tcp_user_timeout=30000" in source._conninfo


def test_libpqs_environment_wins_over_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "PGCONNECT_TIMEOUT", "4")
    assert "connect_timeout" not in Listener("", decode)._conninfo


@pytest.mark.parametrize("conninfo", ["no such=thing", {"colour": "red"}, "host"])
def test_a_conninfo_that_libpq_does_not_understand(conninfo: Any) -> None:
    with pytest.raises(ConfigurationError, match="the listening connection can't be made: ") as caught:
        Listener(conninfo, decode)
    assert "\n" not in str(caught.value)


def test_a_first_connection_that_fails_is_one_sentence(db: Database) -> None:
    async def main() -> None:
        for conninfo, reason in [
            (f"host=127.0.0.1 port={postgres.free_port()}", "refused"),
            (f"{db.dsn} dbname=nowhere", 'database "nowhere" does not exist'),
            (f"host={db.cluster.directory} port=1", "No such file"),
        ]:
            source = Listener(conninfo, decode)
            with pytest.raises(
                ConfigurationError, match=f"^can't listen to PostgreSQL: .*{reason}"
            ) as caught:
                await source.run([].extend)
            assert "\n" not in str(caught.value)

    trio.run(main)


def test_a_first_connection_may_be_waited_for(
    db: Database, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    proxy.refuse()

    async def main() -> None:
        async with trio.open_nursery() as nursery:

            async def let_in() -> None:
                await eventually(lambda: "can't be made yet" in caplog.text)
                proxy.accept()

            nursery.start_soon(let_in)
            async with listening(tcp(db, proxy), retry_first=True) as (source, events):
                await pass_fence(source, events)
                assert len(events) == 1  # no Gap: nobody can have missed anything
                assert source.statistics().reconnects == 0

    trio.run(main)
    assert "is up after" in caplog.text


# -- the end -------------------------------------------------------------------------------------------------


def test_the_end_of_the_listener_closes_its_connection(db: Database) -> None:
    async def main() -> None:
        async with listening(db.dsn) as (source, _):
            await source.subscribe([BOOKS])
            assert activity(db) != ""
        await eventually(lambda: activity(db) == "")

    trio.run(main)
    gc.collect()  # a connection left open would warn here


def test_what_deliver_raises_ends_the_run(db: Database) -> None:
    def deliver(events: list[Event]) -> None:
        raise ZeroDivisionError

    async def main() -> None:
        source = Listener(db.dsn, decode)
        source.fence()
        with pytest.raises(ZeroDivisionError):
            await source.run(deliver)
        await eventually(lambda: activity(db) == "")

    trio.run(main)


def test_cancelled_while_connecting(db: Database, proxy: Proxy) -> None:
    async def main() -> None:
        proxy.stall()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Listener(tcp(db, proxy), decode).run, [].extend)
            await wait_all_tasks_blocked(0.05)
            nursery.cancel_scope.cancel()
        # The thread was left to itself; it closes the connection that it gets in the end.
        proxy.resume()
        await eventually(lambda: proxy.accepted == 1)
        await eventually(lambda: proxy.connections == 0)
        await eventually(lambda: activity(db) == "")

    trio.run(main)
    gc.collect()


# -- TLS -----------------------------------------------------------------------------------------------------


RECORD = 16384  # bytes that one TLS record carries at most


@contextmanager
def tls_in_front_of(cluster: postgres.Cluster, directory: Path) -> Iterator[int]:
    """A TLS end as load balancers have it, whose records are as large as TLS allows; its port."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-subj", "/CN=localhost", "-keyout", directory / "key.pem", "-out", directory / "cert.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "cert.pem", directory / "key.pem")

    def serve(listening: socket.socket) -> None:
        raw, _ = listening.accept()
        assert len(raw.recv(8)) == 8  # SSLRequest
        raw.sendall(b"S")
        with (
            context.wrap_socket(raw, server_side=True) as client,
            socket.create_connection((cluster.host, cluster.port)) as server,
        ):
            held = b""
            while True:
                readable, _, _ = select.select([client, server], [], [])
                if client in readable:
                    # A whole record, so that none of it stays in OpenSSL, where select does not see it.
                    if not (data := client.recv(RECORD)):
                        return
                    server.sendall(data)
                if server in readable:
                    if not (chunk := server.recv(65536)):
                        return
                    held += chunk
                    if b"first" in held and b"last" not in held:
                        continue
                    for part in [held[:100], held[100:]] if b"last" in held else [held]:
                        client.sendall(part)  # one record, if it is not longer than RECORD
                    held = b""

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        thread = threading.Thread(target=serve, args=[listening])
        thread.start()
        yield listening.getsockname()[1]
        thread.join()


def test_what_tls_has_decrypted_is_not_left_lying(db: Database, tmp_path: Path) -> None:
    """A whole record does not fit behind the beginning of a message: its end stays in OpenSSL.

    Everything must arrive nevertheless, without another byte that would make the socket readable. A recent
    libpq sees to it by itself: PSYCOPG_IMPL=python takes the system's, which may be older.
    """
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    around = len(BOOKS.channel) + 11  # bytes of a NotificationResponse besides its payload
    payloads = ["first", *(f"{number:0{1000 - around}}" for number in range(16)), ""]
    payloads[-1] = "last".rjust(100 + RECORD - sum(len(payload) + around for payload in payloads))

    async def main(port: int) -> None:
        conninfo = (
            f"host=127.0.0.1 port={port} user=postgres dbname={db.name} sslmode=require gssencmode=disable"
        )
        async with listening(conninfo, heartbeat_interval=3600) as (source, events):
            await source.subscribe([BOOKS])
            await pass_fence(source, events)
            with db.connect() as conn, conn.transaction():
                for payload in payloads:
                    conn.execute("SELECT pg_notify(%s, %s)", [BOOKS.channel, payload])
            await eventually(lambda: len(events) == 1 + len(payloads))
            assert events[1:] == [change(payload) for payload in payloads]

    with tls_in_front_of(db.cluster, tmp_path) as port:
        trio.run(main, port)
