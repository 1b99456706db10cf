"""The nginx configuration of docs/deployment.md, for real: nginx before a server on a Unix socket."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from websockets.sync.client import connect

from tests import postgres
from tests.ddp import DDPClient, SockJSHTTPWire
from tests.serving import ROOT, Server
from tests.sockjs import TRANSPORTS

NGINX = shutil.which("nginx") or ("/usr/sbin/nginx" if Path("/usr/sbin/nginx").exists() else None)


@pytest.fixture
def server_of_proxy(serve: Callable[..., Server], tmp_path: Path) -> Server:
    return serve(
        "--bind", f"unix:{tmp_path / 'ddp.sock'}", DDP_FORWARDED_COUNT="1", DDP_DISCONNECT_GRACE_PERIOD="0.2"
    )


@pytest.fixture
def proxy(server_of_proxy: Server, tmp_path: Path) -> Iterator[str]:
    """The address of nginx, which forwards as the documentation has it."""
    if NGINX is None:
        if os.environ.get("TDDP_REQUIRE_NGINX") == "1":
            pytest.fail("nginx is needed, and not here")
        pytest.skip("nginx is not here")
    path = tmp_path / "ddp.sock"
    [configuration] = re.findall(r"```nginx\n(.*?)```", (ROOT / "docs/deployment.md").read_text(), re.DOTALL)
    port = postgres.free_port()
    configuration = configuration.replace("/run/trigger-ddp.sock", str(path)).replace(
        "listen 8080;", f"listen 127.0.0.1:{port};"
    )
    user = "user root;" if os.geteuid() == 0 else ""
    (tmp_path / "nginx.conf").write_text(
        f"{user} daemon off; pid {tmp_path}/pid; error_log {tmp_path}/error.log; events {{}}\n"
        f"http {{ access_log off; client_body_temp_path {tmp_path}; proxy_temp_path {tmp_path};"
        f" fastcgi_temp_path {tmp_path}; uwsgi_temp_path {tmp_path}; scgi_temp_path {tmp_path};\n"
        f"{configuration} }}\n"
    )
    with (tmp_path / "said").open("w") as said:
        process = subprocess.Popen(
            [NGINX, "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")],
            stdout=said, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            if process.poll() is not None:
                pytest.fail((tmp_path / "said").read_text())
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGQUIT)
        process.wait(20)


def test_web_sockets_requests_and_addresses(proxy: str) -> None:
    with DDPClient(proxy) as client:
        assert client.call("connections/known")["result"][1] == "127.0.0.1"
    for path in ("/_ddp/metrics", "//_ddp/metrics", "/a/../_ddp/metrics", "/%5fddp/metrics"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{proxy}{path}")
    with urllib.request.urlopen(f"{proxy}/sockjs/info") as answer:
        assert json.load(answer)["websocket"] is True
    # What a client claims stands left of what nginx has seen.
    forged = {"X-Forwarded-For": "6.6.6.6"}
    with connect(proxy.replace("http", "ws") + "/websocket", additional_headers=forged) as socket_:
        socket_.send('{"msg":"connect","version":"1","support":["1"]}')
        socket_.recv()
        socket_.send('{"msg":"method","id":"a","method":"connections/known","params":[]}')
        answers = [json.loads(socket_.recv()) for _ in range(2)]
        assert [a["result"][1] for a in answers if a["msg"] == "result"] == ["127.0.0.1"]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_sockjs_without_a_websocket(proxy: str, server_of_proxy: Server, transport: str) -> None:
    """What is streamed is not held back, and who goes away is noticed."""
    client = DDPClient(proxy, wire=SockJSHTTPWire(transport))
    assert client.call("connections/known")["result"][1] == "127.0.0.1"
    client.call("gates/watch_close", "proxied")
    time.sleep(0.2)  # a request that waits
    client.close()
    server_of_proxy.wait_for_log("proxied: closed", 10)
    assert client.violations == []
