"""What operators ask a running server: health, readiness, metrics, logs."""

from __future__ import annotations

import json
import re
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests import postgres
from tests.conftest import Database, point_django_at
from tests.ddp import WAIT_SECONDS, DDPClient
from tests.serving import ROOT, Server

UPGRADE = (
    b"GET /websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
ADMIN = r"health and metrics on (http://\S+)/"


def get(url: str, method: str = "GET") -> tuple[int, Any, bytes]:
    """Status, headers and body."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=20) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


def metrics(url: str) -> dict[str, float]:
    """The samples, by name and labels as they are written: ``name{label="value"}``."""
    status, headers, body = get(f"{url}/_ddp/metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
    samples = {}
    for family in text_string_to_metric_families(body.decode()):
        assert family.documentation
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            samples[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return samples


def eventually(condition: Callable[[], object], what: Callable[[], object] = lambda: "") -> None:
    until = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < until, what()
        time.sleep(0.02)


def difference(url: str, before: dict[str, float]) -> dict[str, float]:
    """What has changed since."""
    return {name: value - before.get(name, 0.0) for name, value in metrics(url).items()}


# -- metrics -------------------------------------------------------------------------------------------------


def test_sessions_subscriptions_and_live_queries(db: Database, server: Server) -> None:
    db.psql("INSERT INTO bookstore_author (name, email) VALUES ('a', 'a@x'), ('b', 'b@x')")
    with DDPClient(server.url) as one, DDPClient(server.url) as two:
        with DDPClient(server.url, handshake=False):
            eventually(lambda: metrics(server.url)['trigger_ddp_sessions{state="connecting"}'] == 1)
            assert metrics(server.url)['trigger_ddp_sessions{state="connected"}'] == 2
        for client in (one, two):
            client.subscribe("Authors")
        one.subscribe("BooksOfAuthor", 1)
        two.subscribe("BooksOfAuthor", 2)
        eventually(lambda: metrics(server.url)['trigger_ddp_sessions{state="connecting"}'] == 0)
        seen = metrics(server.url)
        universal = seen["trigger_ddp_subscriptions"] - 4
        assert universal % 2 == 0
        assert seen['trigger_ddp_sessions{state="connected"}'] == 2
        assert seen['trigger_ddp_sessions{state="away"}'] == 0
        assert seen["trigger_ddp_live_queries"] == 3
        assert seen["trigger_ddp_shapes"] == 2
        assert seen["trigger_ddp_documents"] == 2
        assert seen['trigger_ddp_connections_total{wire="raw"}'] == 3
        assert seen["trigger_ddp_sessions_opened_total"] == 2
        assert seen["trigger_ddp_listener_connected"] == 1
        assert seen["trigger_ddp_processes"] == 1
        assert seen["trigger_ddp_outbox_bytes"] == 0
        assert seen['trigger_ddp_evaluations_total{kind="load"}'] >= 2
        one.unsubscribe("c1")
        assert metrics(server.url)["trigger_ddp_subscriptions"] == 3 + universal


def test_changes_evaluations_and_their_way_to_the_socket(db: Database, server: Server) -> None:
    with DDPClient(server.url) as client:
        client.subscribe("Authors")
        before = metrics(server.url)
        db.psql("INSERT INTO bookstore_author (id, name, email) VALUES (1, 'a', 'a@x')")
        client.wait_until(lambda: "1" in client.documents["bookstore.author"] or client.documents)
        client.settle()
        db.psql("UPDATE bookstore_author SET name = 'b'")
        client.settle()
        db.psql("DELETE FROM bookstore_author")
        client.settle()
        db.psql("TRUNCATE bookstore_author CASCADE")
        client.settle()
        told = difference(server.url, before)
        for kind in ("insert", "update", "delete"):
            assert told[f'trigger_ddp_changes_total{{kind="{kind}"}}'] == 1, kind
        assert told['trigger_ddp_changes_total{kind="bulk"}'] == 1
        assert told['trigger_ddp_changes_total{kind="gap"}'] == 0
        assert told['trigger_ddp_resyncs_total{scope="table"}'] == 1
        assert told['trigger_ddp_evaluations_total{kind="keys"}'] == 3
        assert told['trigger_ddp_evaluations_total{kind="whole"}'] == 1
        assert told['trigger_ddp_evaluation_seconds_count{kind="keys"}'] == 3
        assert 0 < told['trigger_ddp_evaluation_seconds_sum{kind="keys"}'] < WAIT_SECONDS
        assert told["trigger_ddp_change_to_socket_seconds_count"] == 3, "the last one found nothing new"
        assert 0 < told["trigger_ddp_change_to_socket_seconds_sum"] < WAIT_SECONDS
        assert told['trigger_ddp_change_to_socket_seconds_bucket{le="+Inf"}'] == 3
        assert told["trigger_ddp_oldest_change_seconds"] == 0
        assert told["trigger_ddp_notifications_total"] >= 4


def test_a_change_that_concerns_nobody_has_no_way_to_the_socket(db: Database, server: Server) -> None:
    with DDPClient(server.url) as client:
        client.subscribe("BooksOfAuthor", 1)
        before = metrics(server.url)
        db.psql(
            "INSERT INTO bookstore_author (id, name, email) VALUES (2, 'a', 'a@x');"
            "INSERT INTO bookstore_book (title, author_id, price, published, in_stock) "
            "VALUES ('t', 2, 1, '2020-01-01', true)"
        )
        client.settle()
        told = difference(server.url, before)
        assert told['trigger_ddp_evaluations_total{kind="keys"}'] == 1
        assert told["trigger_ddp_change_to_socket_seconds_count"] == 0


def test_methods_by_name_but_not_by_names_that_clients_make_up(server: Server) -> None:
    server.errors_expected = True
    with DDPClient(server.url) as client:
        client.call("echo", 1)
        client.call("echo", 2)
        client.call("fail")
        client.call("broken")
        client.call("made-up")
        seen = metrics(server.url)
    assert seen['trigger_ddp_method_seconds_count{method="echo"}'] == 2
    assert seen['trigger_ddp_method_errors_total{method="echo"}'] == 0
    assert seen['trigger_ddp_method_errors_total{method="fail"}'] == 1
    assert seen['trigger_ddp_method_errors_total{method="broken"}'] == 1
    assert not any("made-up" in name for name in seen)


def ends(serve: Callable[..., Server], end: Callable[[Server], None], **settings: str) -> dict[str, float]:
    """Which reasons are counted, and how often."""
    server = serve(DDP_DISCONNECT_GRACE_PERIOD="0", **settings)
    end(server)
    prefix = 'trigger_ddp_disconnections_total{reason="'

    def counted() -> dict[str, float]:
        seen = metrics(server.url).items()
        return {name.removeprefix(prefix)[:-2]: count for name, count in seen if name.startswith(prefix)}

    eventually(lambda: any(counted().values()))
    return {reason: count for reason, count in counted().items() if count}


def close_well(server: Server) -> None:
    DDPClient(server.url).close()


def say_disconnect(server: Server) -> None:
    with DDPClient(server.url) as client:
        client.send(msg="disconnect")
        client.wait_until(lambda: client.closed)


def vanish(server: Server) -> None:
    client = DDPClient(server.url)
    client.socket.socket.shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]
    client.close()


def say_nothing(server: Server) -> None:
    with DDPClient(server.url, answer_pings=False) as client:
        client.wait_until(lambda: client.closed)


def say_too_much(server: Server) -> None:
    with DDPClient(server.url) as client:
        client.send(msg="method", id="a", method="echo", params=["x" * 5000])
        client.wait_until(lambda: client.closed)


def speak_no_version(server: Server) -> None:
    with DDPClient(server.url, handshake=False) as client:
        client.send(msg="connect", version="9", support=["9"])
        client.wait_until(lambda: client.closed)


def send_bytes(server: Server) -> None:
    with DDPClient(server.url) as client:
        client.socket.send(b"\x00")
        client.wait_until(lambda: client.closed)


def have_it_closed(server: Server) -> None:
    with DDPClient(server.url) as client:
        client.send(msg="method", id="a", method="connections/close", params=[])
        client.wait_until(lambda: client.closed)


@pytest.mark.parametrize(
    ("end", "reason", "settings"),
    [
        (close_well, "client", {}),
        (say_disconnect, "client", {}),
        (vanish, "lost", {}),
        (
            say_nothing,
            "heartbeat_timeout",
            {"DDP_HEARTBEAT_INTERVAL": "0.2", "DDP_HEARTBEAT_TIMEOUT": "0.2"},
        ),
        (say_too_much, "message_too_large", {"DDP_MAX_MESSAGE_BYTES": "2000"}),
        (speak_no_version, "protocol_error", {}),
        (send_bytes, "protocol_error", {}),
        (have_it_closed, "server", {}),
    ],
)
def test_why_connections_end(
    serve: Callable[..., Server], end: Callable[[Server], None], reason: str, settings: dict[str, str]
) -> None:
    assert ends(serve, end, **settings) == {reason: 1}


def test_a_client_that_does_not_read(db: Database, serve: Callable[..., Server]) -> None:
    server = serve(DDP_OUTBOX_BYTES="2000000", DDP_DISCONNECT_GRACE_PERIOD="0")
    with DDPClient(server.url) as reading, DDPClient(server.url, handshake=False) as client:
        raw = client.socket.socket  # type: ignore[union-attr]
        client.socket.close_timeout = 0  # type: ignore[union-attr]
        assert reading.call("echo", 1)["result"] == 1
        with socket.create_connection((server.host, server.port)) as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.sendall(UPGRADE)
            assert deaf.recv(12) == b"HTTP/1.1 101"
            deaf.sendall(frame({"msg": "connect", "version": "1", "support": ["1"]}))
            wanted = 'trigger_ddp_disconnections_total{reason="slow_client"}'
            for number in range(200):
                message = {"msg": "method", "id": str(number), "method": "echo", "params": ["x" * 100_000]}
                try:
                    deaf.sendall(frame(message))
                except OSError:
                    break
            eventually(lambda: metrics(server.url)[wanted] == 1)
        assert raw is not None


def frame(message: dict[str, Any]) -> bytes:
    """A client's frame, with a mask of zeros."""
    payload = json.dumps(message).encode()
    length = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xff" + len(payload).to_bytes(8, "big")
    return b"\x81" + length + bytes(4) + payload


def test_what_is_refused(serve: Callable[..., Server]) -> None:
    server = serve(DDP_MAX_SUBSCRIPTIONS="1")
    with DDPClient(server.url) as client:
        client.subscribe("Authors")
        client.start_subscription("AllBooks")
        client.wait_for(lambda message: message["msg"] == "nosub")
    with socket.create_connection((server.host, server.port)) as wild:
        wild.sendall(b"this is no HTTP\r\n\r\n")
        assert wild.recv(100).startswith(b"HTTP/1.1 400")
    with socket.create_connection((server.host, server.port)) as large:
        large.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n" + b"x" * 1_100_000)
        assert large.recv(100).startswith(b"HTTP/1.1 413")
    seen = metrics(server.url)
    assert seen['trigger_ddp_refusals_total{reason="too_many_subscriptions"}'] == 1
    assert seen['trigger_ddp_refusals_total{reason="bad_request"}'] == 1
    assert seen['trigger_ddp_http_responses_total{status="4xx"}'] >= 2
    assert seen['trigger_ddp_http_responses_total{status="1xx"}'] >= 1
    assert seen['trigger_ddp_refusals_total{reason="request_too_large"}'] == 1


def test_who_is_away_and_comes_back(server: Server) -> None:
    client = DDPClient(server.url)
    session = client.wait_for(lambda message: message["msg"] == "connected")["session"]
    client.socket.socket.shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]
    client.close()
    eventually(lambda: metrics(server.url)['trigger_ddp_sessions{state="away"}'] == 1)
    assert metrics(server.url)['trigger_ddp_sessions{state="connected"}'] == 0
    with DDPClient(server.url, handshake=False) as again:
        again.send(msg="connect", version="1", support=["1"], session=session, receivedCount=1)
        again.wait_for(lambda message: message.get("msg") == "connected")
        seen = metrics(server.url)
        if seen["trigger_ddp_sessions_resumed_total"]:
            assert seen['trigger_ddp_sessions{state="away"}'] == 0


def documented(*, several: bool = False) -> set[str]:
    """The names in the tables of docs/operations.md, those of several processes only if asked for."""
    text = (ROOT / "docs/operations.md").read_text()
    if not several:
        text, _, _ = text.partition("Only with `--workers`:")
    return set(re.findall(r"^\| `((?:trigger_ddp|process|python)_\w+)`", text, re.MULTILINE))


def names_of(body: bytes) -> set[str]:
    """The families in what was scraped."""
    return set(re.findall(r"^# TYPE (\S+)", body.decode(), re.MULTILINE))


def test_the_table_of_metrics_is_complete(server: Server) -> None:
    with DDPClient(server.url) as client:
        client.call("echo", 1)
        _, _, body = get(f"{server.url}/_ddp/metrics")
    assert names_of(body) == documented()


# -- health and readiness ------------------------------------------------------------------------------------


def test_health_and_readiness(server: Server) -> None:
    status, headers, body = get(f"{server.url}/_ddp/health")
    assert status == 200
    assert headers["Cache-Control"] == "no-store"
    assert headers["Content-Type"] == "application/json"
    assert json.loads(body)["status"] == "ok"
    status, _, body = get(f"{server.url}/_ddp/ready")
    assert status == 200
    checks = json.loads(body)["checks"]
    assert checks == dict.fromkeys(("accepting", "listener", "database", "evaluations", "triggers"), "ok")


def test_other_methods_and_paths(server: Server) -> None:
    for name in ("health", "ready", "metrics"):
        status, headers, body = get(f"{server.url}/_ddp/{name}", "HEAD")
        assert (status, body) == (200, b"")
        assert int(headers["Content-Length"]) > 0
        status, headers, _ = get(f"{server.url}/_ddp/{name}", "POST")
        assert status == 405
        assert headers["Allow"] == "GET, HEAD"
    assert get(f"{server.url}/_ddp/")[0] == 404
    assert get(f"{server.url}/_ddp/healthy")[0] == 404
    assert get(f"{server.url}/_ddp/health/")[0] == 404


@pytest.fixture
def own(cluster: postgres.Cluster) -> Iterator[Database]:
    """A database on a PostgreSQL of the test's own, which it may stop."""
    from django.core.management import call_command
    from django.db import connections

    mine = postgres.Cluster(cluster.major, cluster.bindir)
    try:
        with mine.connect() as connection:
            connection.execute("CREATE DATABASE template_tddp")
        point_django_at(mine, "template_tddp")
        call_command("migrate", verbosity=0, run_syncdb=True)
        connections.close_all()
        yield Database(mine, "template_tddp")
    finally:
        connections.close_all()
        mine.remove()


def test_not_ready_while_postgresql_is_away(own: Database, serve: Callable[..., Server]) -> None:
    server = serve(**own.environ)
    with DDPClient(server.url) as client:
        client.subscribe("Authors")
        assert get(f"{server.url}/_ddp/ready")[0] == 200
        own.cluster.stop()

        def answer() -> tuple[int, dict[str, str]]:
            status, _, body = get(f"{server.url}/_ddp/ready")
            return status, json.loads(body)["checks"]

        eventually(lambda: answer()[1]["database"] != "ok" and answer()[1]["listener"] != "ok", answer)
        assert answer()[0] == 503
        assert get(f"{server.url}/_ddp/health")[0] == 200
        assert metrics(server.url)["trigger_ddp_listener_connected"] == 0
        own.cluster.start()
        eventually(lambda: answer()[0] == 200, answer)
        with own.connect() as connection:
            connection.execute("INSERT INTO bookstore_author (name, email) VALUES ('a', 'a@x')")
        client.wait_until(lambda: client.documents)
        seen = metrics(server.url)
        assert seen["trigger_ddp_listener_reconnects_total"] >= 1
        assert seen['trigger_ddp_resyncs_total{scope="all"}'] == seen["trigger_ddp_listener_reconnects_total"]
        assert seen["trigger_ddp_listener_connected"] == 1


def test_on_addresses_of_their_own(serve: Callable[..., Server], tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    server = serve("--admin-bind", "127.0.0.1:0", "--admin-bind", f"unix:{path}")
    admin = server.wait_for_log(ADMIN)[1]
    assert admin != server.url
    for name in ("health", "ready", "metrics"):
        assert get(f"{admin}/_ddp/{name}")[0] == 200
        assert get(f"{server.url}/_ddp/{name}")[0] == 404
    for other in ("/", "/websocket", "/sockjs", "/sockjs/info", "/sockjs/000/a/xhr"):
        assert get(f"{admin}{other}")[0] == 404, other
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        client.sendall(b"GET /_ddp/health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 200")


def test_alive_but_not_ready_while_it_drains(serve: Callable[..., Server]) -> None:
    server = serve("--admin-bind", "127.0.0.1:0")
    admin = server.wait_for_log(ADMIN)[1]
    with socket.create_connection((server.host, server.port)) as silent:
        silent.sendall(UPGRADE)
        connect = b'{"msg":"connect","version":"1","support":["1"]}'
        silent.sendall(bytes((0x81, 0x80 | len(connect))) + bytes(4) + connect)
        answer = b""
        while b'"connected"' not in answer:
            answer += silent.recv(1000)
        # It does not answer the close frame, which the server waits for.
        server.process.send_signal(signal.SIGTERM)
        server.wait_for_log("SIGTERM: closing 1 sessions")
        status, _, body = get(f"{admin}/_ddp/ready")
        assert status == 503
        assert json.loads(body)["checks"]["accepting"] == "the server is shutting down"
        assert get(f"{admin}/_ddp/health")[0] == 200
    server.stop()


# -- logs ----------------------------------------------------------------------------------------------------


def entries(server: Server) -> list[dict[str, Any]]:
    """The log, each line of which is to be an object."""
    return [json.loads(line) for line in server.log().splitlines()]


ABOUT = ("session", "user", "subscription", "publication", "method")


def test_log_lines_say_whose_work_they_are_about(db: Database, serve: Callable[..., Server]) -> None:
    db.psql(
        "INSERT INTO auth_user (id, username, password, first_name, last_name, email, is_superuser, is_staff,"
        " is_active, date_joined) VALUES (7, 'ann', '', '', '', '', false, false, true, now());"
        "INSERT INTO zoo_keeper (id, aid, name) VALUES (1, 'aaaaaaaaaaaaaaaaa', 'a')"
    )
    server = serve("--log-format", "json")

    def about(message: str, number: int = 0) -> dict[str, Any]:
        """What the log says of a line with this message, or of a later one."""

        def found() -> list[dict[str, Any]]:
            return [entry for entry in entries(server) if entry["message"] == message]

        eventually(lambda: len(found()) > number, server.log)
        return {name: value for name, value in found()[number].items() if name in ABOUT}

    with DDPClient(server.url) as client, DDPClient(server.url) as other:
        session = client.wait_for(lambda message: message["msg"] == "connected")["session"]
        noted = client.subscribe("noted")
        assert about("asked") == {"session": session, "subscription": noted, "publication": "noted"}
        assert about("serialized") == {}, "the documents are everybody's, whoever came first"
        function = client.subscribe("noted function")
        published = {"session": session, "subscription": function, "publication": "noted function"}
        assert about("published") == published

        client.call("notes/write", "hello")
        assert about("hello") == {"session": session, "method": "notes/write"}
        assert about("Django: hello") == {"session": session, "method": "notes/write"}
        client.call("notes/write_async", "good morning")
        assert about("good morning") == {
            "session": session, "method": "notes/write_async", "user": "another"
        }, "what the application says itself stays"  # fmt: skip

        client.call("notes/login", 7)
        assert about("before") == {"session": session, "method": "notes/login"}
        assert about("after") == {"session": session, "method": "notes/login", "user": 7}
        assert about("asked", 1) == {
            "session": session, "user": 7, "subscription": noted, "publication": "noted",
            "method": "notes/login",
        }  # fmt: skip
        assert about("published", 1) == {**published, "user": 7}
        client.call("notes/write", "as Ann")
        assert about("as Ann") == {"session": session, "user": 7, "method": "notes/write"}

        theirs = other.wait_for(lambda message: message["msg"] == "connected")["session"]
        other.call("notes/write", "and you")
        assert about("and you") == {"session": theirs, "method": "notes/write"}
        db.psql("UPDATE zoo_keeper SET name = 'b'")
        client.settle()
        assert about("serialized", 1) == {}
    server.process.send_signal(signal.SIGHUP)
    assert about("reloaded") == {}


def test_text_lines_say_it_at_their_end_and_in_one_line(server: Server) -> None:
    with DDPClient(server.url) as client:
        client.send(msg="sub", id='1]\nERROR forged [session="x"', name="noted", params=[])
        client.wait_for(lambda message: message["msg"] == "ready")
        line = server.wait_for_log(r"^.* asked .*$")[0]
    assert re.search(r"asked \[session=\w{17} subscription='1\]\\nERROR forged \[session=\"x\"' publ", line)


def test_of_several_processes_it_says_which(serve: Callable[..., Server]) -> None:
    server = serve("--workers", "2", "--log-format", "json")
    with DDPClient(server.url) as client:
        client.call("notes/write", "hello")
        server.wait_for_log("hello")
    [entry] = [entry for entry in entries(server) if entry["message"] == "hello"]
    assert entry["worker"] in (1, 2)
    assert {name for name in ABOUT if name in entry} == {"session", "method"}
    assert any("worker" not in entry for entry in entries(server)), "the supervisor is none"


def test_a_long_id_of_a_client_is_cut(serve: Callable[..., Server]) -> None:
    server = serve("--log-format", "json")
    with DDPClient(server.url) as client:
        client.send(msg="sub", id="x" * 1000, name="noted", params=[])
        client.wait_for(lambda message: message["msg"] == "ready")
        server.wait_for_log(r"asked")
    [entry] = [entry for entry in entries(server) if entry["message"] == "asked"]
    assert entry["subscription"] == "x" * 100
