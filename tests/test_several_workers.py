"""`--workers`: several processes behind one port, from outside."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme

from tests.conftest import Database
from tests.ddp import DDPClient, RawWire, SockJSHTTPWire, SockJSWire
from tests.serving import ROOT, Server
from tests.sockjs import TRANSPORTS, SockJSSocket
from tests.test_cli import refused, run
from tests.test_operations import documented, get, metrics, names_of
from tests.test_resume import come_back, session_of
from tests.test_tls import write

AUTHORS = "bookstore.author"


@pytest.fixture
def server(serve: Callable[..., Server]) -> Server:
    return serve("--workers", "3")


def children(parent: int) -> list[int]:
    """The processes that a process has started, from whichever of its threads."""
    found = [path.read_text() for path in Path(f"/proc/{parent}/task").glob("*/children")]
    return [int(pid) for pid in " ".join(found).split()]


def wait_until(state: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not state():
        assert time.monotonic() < deadline, "it does not come about"
        time.sleep(0.05)


def insert(db: Database, name: str) -> None:
    db.psql(f"INSERT INTO bookstore_author (name, email) VALUES ('{name}', '{name}@x')")


def names(client: DDPClient) -> set[str]:
    return {fields["name"] for fields in client.documents[AUTHORS].values()}


@contextlib.contextmanager
def clients(server: Server, count: int) -> Iterator[list[DDPClient]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(DDPClient(server.url)) for _ in range(count)]


def test_all_workers_serve_one_port(db: Database, server: Server) -> None:
    insert(db, "a")
    with clients(server, 40) as several:
        for client in several:
            client.subscribe("Authors")
        insert(db, "b")
        for client in several:
            client.wait_until(lambda client=client: names(client) == {"a", "b"})
        found = {client.call("process")["result"] for client in several}
        assert found == set(children(server.process.pid))


def test_a_worker_that_crashes_is_replaced(db: Database, server: Server) -> None:
    server.errors_expected = True
    with clients(server, 20) as several:
        pid_of = {client: client.call("process")["result"] for client in several}
        victim = pid_of[several[0]]
        survivors = [client for client in several if pid_of[client] != victim]
        assert survivors
        for client in survivors:
            client.subscribe("Authors")
        os.kill(victim, signal.SIGKILL)
        server.wait_for_log(rf"ERROR .*worker \d \(process {victim}\) was ended by SIGKILL")
        several[0].wait_until(lambda: several[0].closed)
        insert(db, "a")
        for client in survivors:
            client.wait_until(lambda client=client: names(client) == {"a"})
    wait_until(lambda: len(children(server.process.pid)) == 3)
    replaced = set(children(server.process.pid))
    assert victim not in replaced

    def all_serve() -> bool:
        with clients(server, 20) as several:
            return {client.call("process")["result"] for client in several} == replaced

    wait_until(all_serve)


def test_sighup_replaces_one_after_the_other(db: Database, server: Server) -> None:
    before = set(children(server.process.pid))
    insert(db, "a")
    with clients(server, 10) as several:
        for client in several:
            client.subscribe("Authors")
        server.process.send_signal(signal.SIGHUP)
        for number in (1, 2, 3):  # whoever comes meanwhile is served
            server.wait_for_log(rf"worker {number} \(process \d+\) has taken the place of worker {number}")
            with DDPClient(server.url) as client:
                client.subscribe("Authors")
                assert names(client) == {"a"}
        for client in several:
            client.wait_until(lambda client=client: client.closed)
            assert client.socket.close_code == 1001
    after = set(children(server.process.pid))
    assert len(after) == 3
    assert not before & after


def test_a_successor_that_can_not_start_leaves_things_as_they_are(
    serve: Callable[..., Server], tmp_path: Path
) -> None:
    certificate, key = write(tmp_path, trustme.CA())
    server = serve("--workers", "2", "--certfile", certificate, "--keyfile", key)
    server.errors_expected = True
    before = children(server.process.pid)
    Path(certificate).write_text("no certificate")
    server.process.send_signal(signal.SIGHUP)
    server.wait_for_log(r"no worker can take the place of worker 1 \(process \d+\), which stays")
    assert children(server.process.pid) == before
    certificate, key = write(tmp_path, trustme.CA())
    server.process.send_signal(signal.SIGHUP)
    server.wait_for_log("worker 2 .* has taken the place of worker 2")
    assert not set(children(server.process.pid)) & set(before)


def test_metrics_are_those_of_all(db: Database, server: Server) -> None:
    server.errors_expected = True
    calls = 'trigger_ddp_method_seconds_count{method="echo"}'
    with clients(server, 12) as several:
        for client in several:
            client.subscribe("Authors")
            client.call("echo", 1)
        pids = [client.call("process")["result"] for client in several]
        processes = set(pids)
        assert len(processes) > 1
        for _ in range(6):  # whichever worker answers
            told = metrics(server.url)
            assert told['trigger_ddp_sessions{state="connected"}'] == 12
            assert told["trigger_ddp_subscriptions"] == 12
            assert told["trigger_ddp_live_queries"] == len(processes)
            assert told[calls] == 12
            assert told["trigger_ddp_workers"] == 3
            assert told["trigger_ddp_worker_crashes_total"] == 0
        assert names_of(get(f"{server.url}/_ddp/metrics")[2]) == documented(several=True)
        os.kill(pids[0], signal.SIGKILL)
        server.wait_for_log("was ended by SIGKILL")
    left = len(pids) - pids.count(pids[0])
    wait_until(lambda: metrics(server.url)["trigger_ddp_workers"] == 3)
    told = metrics(server.url)
    assert told['trigger_ddp_sessions{state="connected"}'] == 0
    assert told["trigger_ddp_worker_crashes_total"] == 1
    before = told[calls]
    assert before >= 12
    server.process.send_signal(signal.SIGHUP)
    server.wait_for_log("worker 3 .* has taken the place of worker 3")
    told = metrics(server.url)
    assert told[calls] == before
    assert told['trigger_ddp_disconnections_total{reason="client"}'] == left


def test_health_and_metrics_apart_and_consoles(serve: Callable[..., Server]) -> None:
    server = serve("--workers", "2", "--admin-bind", "127.0.0.1:0", "--debug-port", "0")
    admin = server.wait_for_log(r"health and metrics on (http://\S+:\d+)/")[1]
    assert get(f"{admin}/_ddp/health")[0] == get(f"{admin}/_ddp/ready")[0] == 200
    assert metrics(admin)["trigger_ddp_workers"] == 2
    assert get(f"{server.url}/_ddp/health")[0] == 404
    assert get(f"{admin}/sockjs/info")[0] == 404
    server.wait_for_log(r"(?s)debug console on.*debug console on")
    ports = {int(port) for port in re.findall(r"debug console on 127\.0\.0\.1:(\d+)", server.log())}
    assert len(ports) == 2
    for port in ports:
        with socket.create_connection(("127.0.0.1", port)) as console, console.makefile() as lines:
            console.sendall(b"threads\nquit\n")
            assert "worker" in lines.read()


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_sockjs_finds_its_session(db: Database, server: Server, transport: str) -> None:
    """A session's requests come over connections that any worker may accept."""
    insert(db, "a")
    with contextlib.ExitStack() as stack:
        several: list[DDPClient] = []
        processes: set[int] = set()
        while len(several) < 9 or len(processes) < 2:  # which worker accepts is the kernel's choice
            assert len(several) < 60, "one worker has all"
            client = stack.enter_context(DDPClient(server.url, wire=SockJSHTTPWire(transport)))
            processes.add(client.call("process")["result"])
            several.append(client)
        for client in several:
            client.subscribe("Authors")
        insert(db, "b")
        for client in several:
            client.wait_until(lambda client=client: names(client) == {"a", "b"})
            assert client.call("address")["result"] == "127.0.0.1"
        assert several[0].call("echo", "x" * 2_000_000)["result"] == "x" * 2_000_000


def test_a_sockjs_client_that_goes_is_noticed(server: Server) -> None:
    """… by the worker that has its session, though it was another that the client was connected with."""
    for number in range(6):
        with SockJSSocket(server.url, "xhr_streaming") as client:
            hello = {"msg": "connect", "version": "1", "support": ["1"]}
            client.send(json.dumps([json.dumps(hello)]))
            frames = iter(client)
            while "connected" not in next(frames):
                pass
            call = {"msg": "method", "id": "1", "method": "gates/watch_close", "params": [f"watch{number}"]}
            client.send(json.dumps([json.dumps(call)]))
            while "result" not in next(frames):
                pass
    for number in range(6):
        server.wait_for_log(f"watch{number}: closed")


@pytest.mark.parametrize(
    "wire", [RawWire, SockJSWire, lambda: SockJSHTTPWire("xhr"), lambda: SockJSHTTPWire("xhr_streaming")]
)
def test_a_session_is_resumed_wherever_its_client_comes_back(
    db: Database, server: Server, wire: Callable[[], RawWire]
) -> None:
    insert(db, "a")
    processes = set()
    for number in range(6):
        before = DDPClient(server.url, wire=wire())
        before.subscribe("Authors")
        process = before.call("process")["result"]
        processes.add(process)
        if isinstance(before.wire, SockJSHTTPWire):
            time.sleep(0.2)  # a request must wait, so that the server notices at once that it is gone
        before.close()
        insert(db, f"meanwhile{number}")
        with come_back(server, before, wire=wire()) as again:
            assert session_of(again) == session_of(before)
            insert(db, f"after{number}")
            again.wait_until(lambda number=number: f"after{number}" in names(again))
            assert f"meanwhile{number}" in names(again)
            assert again.call("process")["result"] == process
            assert again.call("echo", "x" * 300_000)["result"] == "x" * 300_000
            assert again.violations == []
    assert len(processes) > 1


def test_a_resumed_session_ends_when_its_worker_does(server: Server) -> None:
    server.errors_expected = True
    for _ in range(4):
        before = DDPClient(server.url)
        process = before.call("process")["result"]
        before.close()
        with come_back(server, before) as again:
            os.kill(process, signal.SIGKILL)
            again.wait_until(lambda again=again: again.closed)
        server.wait_for_log(rf"worker \d \(process {process}\) was ended by SIGKILL")


def test_a_session_of_nobody_is_a_new_one(server: Server) -> None:
    with clients(server, 6) as several:
        for client in several:
            client.close()
    ids = [session_of(client) for client in several]
    server.process.send_signal(signal.SIGHUP)
    server.wait_for_log("worker 3 .* has taken the place of worker 3")
    for client in several:
        with come_back(server, client) as again:
            assert session_of(again) not in ids


def test_the_server_stops(server: Server) -> None:
    pids = children(server.process.pid)
    with clients(server, 6) as several:
        before = DDPClient(server.url)
        before.close()
        with come_back(server, before) as again:
            server.process.send_signal(signal.SIGTERM)
            for client in [*several, again]:
                client.wait_until(lambda client=client: client.closed)
                assert client.socket.close_code == 1001
    assert server.process.wait(30) == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert "ERROR" not in server.log()


@pytest.mark.parametrize("transport", ["xhr", "xhr_streaming"])
def test_the_server_stops_under_sockjs(server: Server, transport: str) -> None:
    with contextlib.ExitStack() as stack:
        several = [
            stack.enter_context(DDPClient(server.url, wire=SockJSHTTPWire(transport))) for _ in range(6)
        ]
        server.process.send_signal(signal.SIGTERM)
        for client in several:
            client.wait_until(lambda client=client: client.closed)
            assert (client.socket.close_code, client.socket.close_reason) == (
                1001,
                "the server is shutting down",
            )
    assert server.process.wait(30) == 0


def stopped_in_order(server: Server, pids: list[int]) -> None:
    assert server.process.wait(30) == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert "Traceback" not in server.log()
    assert "ERROR" not in server.log()


def test_the_server_stops_while_it_replaces_a_worker(server: Server) -> None:
    with clients(server, 6) as several:
        server.process.send_signal(signal.SIGHUP)
        server.wait_for_log(r"worker 1 \(process \d+\) has taken the place of worker 1")
        wait_until(lambda: len(children(server.process.pid)) == 4)
        pids = children(server.process.pid)
        server.process.send_signal(signal.SIGTERM)
        for client in several:
            client.wait_until(lambda client=client: client.closed)
    stopped_in_order(server, pids)


@pytest.mark.parametrize("count", [1, 3])
def test_the_server_stops_while_it_starts(db: Database, count: int) -> None:
    command = [sys.executable, "-m", "trigger_ddp", "serve", "--bind", "127.0.0.1:0", "--workers", "3"]
    with subprocess.Popen(
        [*command, "--install-triggers"], env={**os.environ, **db.environ}, cwd=ROOT,
        stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        wait_until(lambda: len(children(process.pid)) == count)
        pids = children(process.pid)
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=30)
    assert process.returncode == 0, log
    assert "Traceback" not in log
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_a_signal_for_every_process_is_one_order(server: Server) -> None:
    """As systemd sends it: workers still drain, and are not started anew."""
    pids = children(server.process.pid)
    with clients(server, 6) as several:
        for pid in [*pids, server.process.pid, *pids]:
            os.kill(pid, signal.SIGTERM)
        for client in several:
            client.wait_until(lambda client=client: client.closed)
            assert client.socket.close_code == 1001
    stopped_in_order(server, pids)


def test_a_worker_that_hangs_holds_up_nobody_else(server: Server) -> None:
    server.errors_expected = True
    metrics(server.url)
    hanging, *_ = children(server.process.pid)
    os.kill(hanging, signal.SIGSTOP)
    try:
        for _ in range(6):
            with DDPClient(server.url) as client:
                assert client.call("process")["result"] != hanging
        assert "can't be asked" not in server.log()  # new clients ask for no session of another worker
        for _ in range(3):
            assert metrics(server.url)["trigger_ddp_workers"] == 3
        of_each = {zlib.crc32(b"%d" % number) % 3: number for number in range(50)}
        answers = [get(f"{server.url}/sockjs/0/{number}/xhr", "POST")[0] for number in of_each.values()]
        assert sorted(answers) == [200, 200, 503]
    finally:
        os.kill(hanging, signal.SIGCONT)
    assert get(f"{server.url}/_ddp/metrics")[0] == 200


@pytest.mark.parametrize(("code", "name"), [(signal.SIGTERM, "exit code 0"), (40, "signal 40")])
def test_however_a_worker_ends(server: Server, code: int, name: str) -> None:
    server.errors_expected = True
    victim, *_ = children(server.process.pid)
    os.kill(victim, code)
    server.wait_for_log(rf"process {victim}\) .* {name}")
    wait_until(lambda: len(children(server.process.pid)) == 3)


def test_a_request_without_a_host(server: Server) -> None:
    for number in range(6):
        with socket.create_connection((server.host, server.port)) as plain, plain.makefile("rb") as answer:
            plain.sendall(b"POST /sockjs/000/%d/xhr HTTP/1.0\r\n\r\n" % number)
            assert answer.readline().startswith(b"HTTP/1.1 200")
            assert b"o\n" in answer.read()


def test_ctrl_c_is_for_all(server: Server) -> None:
    pids = children(server.process.pid)
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(30) == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_workers_do_not_outlive_their_supervisor(server: Server) -> None:
    pids = children(server.process.pid)
    server.process.kill()
    server.process.wait()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((server.host, server.port))


def test_it_leaves_nothing_behind(serve: Callable[..., Server], tmp_path: Path) -> None:
    path = tmp_path / "ddp.sock"
    server = serve("--workers", "2", "--bind", f"unix:{path}", TMPDIR=str(tmp_path))
    assert path.is_socket()
    [private] = tmp_path.glob("trigger-ddp-*")
    assert private.stat().st_mode & 0o077 == 0
    server.stop()
    assert list(tmp_path.iterdir()) == []


def test_what_is_wrong_is_said_once(db: Database) -> None:
    environ = {**db.environ, "TDDP_TEST_DB": "no_such_database"}
    assert "no_such_database" in refused("--workers", "3", environ=environ)


@pytest.mark.parametrize("number", ["0", "-1", "two"])
def test_a_number_of_workers(number: str) -> None:
    code, stderr = run("serve", "--workers", number, environ={})
    assert code == 2
    assert "--workers" in stderr
