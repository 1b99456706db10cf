"""TLS on the server's own port: browsers' https and wss, certificates read again, and what is refused."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme
from websockets.sync.client import connect

from tests.conftest import Database
from tests.server.network import TEXT, masked, upgrade
from tests.serving import Server
from tests.sockjs import SockJSSocket

ALL = "127.0.0.1"


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


def write(directory: Path, authority: trustme.CA) -> tuple[str, str]:
    """Paths of a certificate and its key."""
    issued = authority.issue_cert(ALL)
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    certificate.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    return str(certificate), str(key)


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def serial(server: Server, authority: trustme.CA) -> str:
    with (
        socket.create_connection((server.host, server.port)) as plain,
        trusting(authority).wrap_socket(plain, server_hostname=ALL) as tls,
    ):
        certificate = tls.getpeercert()
        assert certificate is not None
        return str(certificate["serialNumber"])


def test_a_client_that_breaks_the_protocol_is_told_so_inside_of_tls(
    db: Database, serve: Callable[..., Server], tmp_path: Path, authority: trustme.CA
) -> None:
    """What is said last still waits when the connection is closed: there is no writing to TLS at once."""
    certificate, key = write(tmp_path, authority)
    server = serve("--certfile", certificate, "--keyfile", key)
    with (
        socket.create_connection((server.host, server.port), 20) as plain,
        trusting(authority).wrap_socket(plain, server_hostname=ALL) as tls,
    ):
        tls.sendall(upgrade() + masked(TEXT, b"\xff"))
        received = b""
        while data := tls.recv(4096):
            received += data
    _, _, frames = received.partition(b"\r\n\r\n")
    assert frames[:1] == b"\x88"
    assert frames[2:4] == (1007).to_bytes(2)


def test_web_sockets_and_requests_inside_of_tls(
    db: Database, serve: Callable[..., Server], tmp_path: Path, authority: trustme.CA
) -> None:
    certificate, key = write(tmp_path, authority)
    server = serve("--certfile", certificate, "--keyfile", key)
    assert server.url.startswith("https://")
    context = trusting(authority)
    with connect(server.url.replace("https", "wss") + "/websocket", ssl=context) as client:
        client.send('{"msg":"connect","version":"1","support":["1"]}')
        assert '"connected"' in str(client.recv())
        client.send('{"msg":"sub","id":"a","name":"AllBooks","params":[]}')
        db.psql("INSERT INTO bookstore_author (name, email) VALUES ('a', 'a@x')")
        client.send('{"msg":"method","id":"b","method":"echo","params":[' + '"x",' * 50_000 + '"x"]}')
    with urllib.request.urlopen(f"{server.url}/sockjs", context=context) as answer:
        assert answer.read() == b"Welcome to SockJS!\n"
    with (
        socket.create_connection((server.host, server.port)) as plain,
        context.wrap_socket(plain, server_hostname=ALL) as tls,
    ):
        assert tls.version() in ("TLSv1.2", "TLSv1.3")


@pytest.mark.parametrize("transport", ["xhr", "xhr_streaming"])
def test_sockjs_without_a_websocket_inside_of_tls(
    serve: Callable[..., Server], tmp_path: Path, authority: trustme.CA, transport: str
) -> None:
    certificate, key = write(tmp_path, authority)
    server = serve("--certfile", certificate, "--keyfile", key, DDP_DISCONNECT_GRACE_PERIOD="0.2")
    with SockJSSocket(server.url, transport, context=trusting(authority)) as client:
        frames = iter(client)
        assert next(frames) == "o"
        client.send(json.dumps(['{"msg":"connect","version":"1","support":["1"]}']))
        assert "connected" in next(frames)
        watch = {"msg": "method", "id": "a", "method": "gates/watch_close", "params": ["inside"]}
        client.send(json.dumps([json.dumps(watch)]))
        assert any("updated" in frame for frame in frames)
        threading.Thread(target=list, args=(frames,), daemon=True).start()
        time.sleep(0.2)
    server.wait_for_log("inside: closed", 10)


def test_the_certificate_is_read_again_at_sighup(
    db: Database, serve: Callable[..., Server], tmp_path: Path, authority: trustme.CA
) -> None:
    certificate, key = write(tmp_path, authority)
    server = serve("--certfile", certificate, "--keyfile", key)
    server.errors_expected = True
    first = serial(server, authority)
    with connect(server.url.replace("https", "wss") + "/websocket", ssl=trusting(authority)) as client:
        write(tmp_path, authority)
        assert serial(server, authority) == first, "not before it is told"
        server.process.send_signal(signal.SIGHUP)
        server.wait_for_log("read again")
        second = serial(server, authority)
        assert second != first
        Path(certificate).write_text("nothing of use")
        server.process.send_signal(signal.SIGHUP)
        server.wait_for_log("the certificate stays as it was: no certificate and key can be read from")
        assert serial(server, authority) == second
        client.send('{"msg":"connect","version":"1","support":["1"]}')
        assert '"connected"' in str(client.recv()), "who is connected stays so"


def test_old_versions_plain_text_and_silence(
    db: Database, serve: Callable[..., Server], tmp_path: Path, authority: trustme.CA
) -> None:
    certificate, key = write(tmp_path, authority)
    server = serve("--certfile", certificate, "--keyfile", key)
    old = trusting(authority)
    with warnings.catch_warnings(action="ignore"):
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    with (
        socket.create_connection((server.host, server.port)) as plain,
        pytest.raises((ssl.SSLError, OSError)),
    ):
        old.wrap_socket(plain, server_hostname=ALL)
    with socket.create_connection((server.host, server.port)) as plain:
        plain.sendall(b"GET /sockjs HTTP/1.1\r\nHost: x\r\n\r\n")
        plain.settimeout(10)
        answer = b""
        while data := plain.recv(1000):
            answer += data
        assert b"Welcome" not in answer
    assert serial(server, authority)


def test_clients_may_have_to_show_a_certificate(
    db: Database, serve: Callable[..., Server], tmp_path: Path, authority: trustme.CA
) -> None:
    certificate, key = write(tmp_path, authority)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    server = serve("--certfile", certificate, "--keyfile", key, "--ca-certs", str(tmp_path / "ca.pem"))
    context = trusting(authority)
    with pytest.raises((ssl.SSLError, OSError)):
        urllib.request.urlopen(f"{server.url}/sockjs", context=context)
    authority.issue_cert("client@x.org").configure_cert(context)
    with urllib.request.urlopen(f"{server.url}/sockjs", context=context) as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--certfile", "/nonexistent"], "no certificate and key can be read from /nonexistent"),
        (["--keyfile", "x"], "--keyfile needs a --certfile"),
        (["--ca-certs", "x"], "--ca-certs needs a --certfile"),
    ],
)
def test_mistakes_are_one_sentence(db: Database, arguments: list[str], sentence: str) -> None:
    import os

    done = subprocess.run(
        [sys.executable, "-m", "trigger_ddp", "serve", *arguments],
        env={**os.environ, **db.environ}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith(f"trigger-ddp: {sentence}"), done.stderr
    assert "Traceback" not in done.stderr


def test_an_encrypted_key_is_refused_and_asks_nobody(tmp_path: Path, db: Database) -> None:
    import os

    from cryptography.hazmat.primitives import serialization

    certificate, key = write(tmp_path, trustme.CA())
    loaded = serialization.load_pem_private_key(Path(key).read_bytes(), None)
    Path(key).write_bytes(
        loaded.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    done = subprocess.run(
        [sys.executable, "-m", "trigger_ddp", "serve", "--certfile", certificate, "--keyfile", key],
        env={**os.environ, **db.environ}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert "no certificate and key can be read from" in done.stderr
