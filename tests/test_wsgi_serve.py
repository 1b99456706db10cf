"""A Django project served by `trigger-ddp serve`: pages, uploads, streams, static files; on DDP's port."""

from __future__ import annotations

import hashlib
import http.client
import http.cookiejar
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from django.contrib.auth.models import User

from tests.conftest import Database
from tests.ddp import DDPClient
from tests.meteor import bundles
from tests.postgres import free_port
from tests.serving import ROOT, Server
from tests.test_cli import refused

PROJECT = "tests.website.settings"
Serve = Callable[..., Server]


@pytest.fixture
def site(serve: Serve) -> Server:
    return serve(DJANGO_SETTINGS_MODULE=PROJECT)


def get(server: Server, path: str) -> str:
    with urllib.request.urlopen(server.url + path, timeout=20) as answer:
        text: str = answer.read().decode()
        return text


def status_of(server: Server, path: str) -> int:
    try:
        get(server, path)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    return 200


def post(server: Server, path: str, **fields: str) -> str:
    body = urllib.parse.urlencode(fields).encode()
    with urllib.request.urlopen(server.url + path, data=body, timeout=20) as answer:
        text: str = answer.read().decode()
        return text


def test_pages_beside_ddp(site: Server, db: Database) -> None:
    assert get(site, "/") == "hello 127.0.0.1 by http"
    assert get(site, "/async/") == "hello from a coroutine"
    assert status_of(site, "/nothing/") == 404
    assert status_of(site, "/_ddp/nothing") == 404
    assert get(site, "/sockjs") == "Welcome to SockJS!\n"
    assert get(site, "/file/") == (ROOT / "tests/website/views.py").read_text()
    with DDPClient(site.url) as client:
        client.subscribe("AllBooks")
        assert post(site, "/authors/", name="ada") == "1"
        client.wait_until(lambda: "ada" in str(client.documents["bookstore.author"]))


def test_several_workers_serve_it(serve: Serve) -> None:
    server = serve("--workers", "2", DJANGO_SETTINGS_MODULE=PROJECT)
    assert get(server, "/processes/") == "True"
    assert get(serve(DJANGO_SETTINGS_MODULE=PROJECT), "/processes/") == "False"


def test_a_failing_view_takes_its_transaction_back(site: Server, db: Database) -> None:
    site.errors_expected = True
    with pytest.raises(urllib.error.HTTPError, match="500") as caught:
        post(site, "/authors/", name="eve", fail="yes")
    caught.value.close()
    assert post(site, "/authors/", name="ada") == "1"
    assert "after the insert" in site.log()


@pytest.mark.parametrize(("age", "kept"), [("0", False), ("60", True)])
def test_database_connections_live_as_long_as_the_settings_say(serve: Serve, age: str, kept: bool) -> None:
    server = serve(DJANGO_SETTINGS_MODULE=PROJECT, TDDP_TEST_CONN_MAX_AGE=age, DDP_WSGI_THREADS="1")
    assert (get(server, "/backend/") == get(server, "/backend/")) == kept


def test_a_large_upload_that_waits_to_be_asked_for(site: Server) -> None:
    body = random.Random(1).randbytes(20 * 1024 * 1024)
    head = f"POST /digest/ HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n"
    with socket.create_connection((site.host, site.port), timeout=20) as client:
        client.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
        assert client.recv(1000).startswith(b"HTTP/1.1 100 ")
        client.sendall(body)
        answer = http.client.HTTPResponse(client)
        answer.begin()
        told = json.loads(answer.read())
    assert told["digest"] == hashlib.sha256(body).hexdigest()
    assert told["parts"] >= 20 * 16


def test_forms_with_files_in_one_piece_and_in_chunks(site: Server) -> None:
    content = random.Random(2).randbytes(3_000_000)
    form = (
        b'--between-the-parts\r\nContent-Disposition: form-data; name="name"\r\n\r\nthe name\r\n'
        b'--between-the-parts\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
        + content
        + b"\r\n--between-the-parts--\r\n"
    )
    headers = {"Content-Type": "multipart/form-data; boundary=between-the-parts"}
    connection = http.client.HTTPConnection(site.host, site.port, timeout=20)
    for body, is_chunked in ((form, False), (iter([form[:100], form[100:]]), True)):
        connection.request("POST", "/upload/", body, headers, encode_chunked=is_chunked)
        with connection.getresponse() as answer:
            told = json.loads(answer.read())
        assert told == {"name": "the name", "size": 3_000_000, "digest": hashlib.sha256(content).hexdigest()}
    connection.close()


def test_uploads_that_are_refused(serve: Serve) -> None:
    server = serve(DJANGO_SETTINGS_MODULE=PROJECT, DDP_WSGI_MAX_BODY_BYTES="1000000")
    connection = http.client.HTTPConnection(server.host, server.port, timeout=20)
    connection.request("POST", "/refuse/", b"x" * 200_000)
    with connection.getresponse() as answer:
        assert answer.read() == b"nothing of that was read"
    connection.request("POST", "/digest/", b"x" * 1000)  # on the same connection
    with connection.getresponse() as answer:
        assert (answer.status, len(answer.read()) > 0) == (200, True)
    connection.putrequest("POST", "/digest/")
    connection.putheader("Content-Length", "1000001")
    connection.endheaders()
    with connection.getresponse() as answer:
        assert answer.status == 413
    connection.close()


def test_a_stream_is_seen_part_by_part_and_ends_with_its_client(site: Server) -> None:
    connection = http.client.HTTPConnection(site.host, site.port, timeout=20)
    connection.request("GET", "/stream/?parts=100")
    answer = connection.getresponse()
    for number in range(3):
        assert answer.readline() == b"part %d\n" % number
        get(site, "/go-on/")
    answer.close()
    connection.close()
    for _ in range(2):
        get(site, "/go-on/")
    assert get(site, "/closed/") == "True"


def test_a_running_request_is_finished_when_the_server_is_told_to_end(site: Server) -> None:
    streaming = http.client.HTTPConnection(site.host, site.port, timeout=20)
    other = http.client.HTTPConnection(site.host, site.port, timeout=20)
    other.request("GET", "/")
    other.getresponse().read()
    streaming.request("GET", "/stream/?parts=2")
    answer = streaming.getresponse()
    assert answer.readline() == b"part 0\n"
    site.process.send_signal(signal.SIGTERM)
    site.wait_for_log("closing 0 sessions")
    other.request("GET", "/go-on/")
    last = other.getresponse()
    last.read()
    assert last.getheader("Connection") == "close"
    assert answer.read() == b"part 1\n"
    streaming.close()
    other.close()
    site.process.wait(30)
    site.close_log()
    assert site.process.returncode == 0


def test_static_files_in_development_only(serve: Serve) -> None:
    css = "/static/admin/css/base.css"
    developing = serve(DJANGO_SETTINGS_MODULE=PROJECT, TDDP_TEST_DEBUG="1")
    assert "body" in get(developing, css)
    assert status_of(developing, "/static/nothing.css") == 404
    assert status_of(serve(DJANGO_SETTINGS_MODULE=PROJECT), css) == 404


def test_the_admin(serve: Serve, db: Database) -> None:
    environ = {**os.environ, **db.environ, "DJANGO_SETTINGS_MODULE": PROJECT}
    subprocess.run([sys.executable, "-m", "django", "migrate", "-v0"], env=environ, cwd=ROOT, check=True)
    User.objects.create_superuser("ada", password="a good password")
    server = serve(DJANGO_SETTINGS_MODULE=PROJECT)
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))
    with browser.open(f"{server.url}/admin/", timeout=20) as answer:
        page = answer.read().decode()
        assert "/admin/login/" in answer.url
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page)
    assert token is not None
    fields = {"username": "ada", "password": "a good password", "csrfmiddlewaretoken": token[1]}
    url = f"{server.url}/admin/login/?next=/admin/"
    with browser.open(url, urllib.parse.urlencode(fields).encode(), timeout=20) as answer:
        assert "Site administration" in answer.read().decode()


@pytest.mark.parametrize(
    ("settings", "arguments", "words"),
    [
        (PROJECT, ["--no-wsgi"], "404 Error: Page not found"),
        ("tests.project.settings", [], "404 Error: Page not found"),
        ("tests.project.settings", ["--wsgi"], "<h1>Not Found</h1>"),  # by Django
    ],
)
def test_whether_the_project_is_served(serve: Serve, settings: str, arguments: list[str], words: str) -> None:
    server = serve(*arguments, DJANGO_SETTINGS_MODULE=settings)
    with pytest.raises(urllib.error.HTTPError, match="404") as caught:
        get(server, "/")
    with caught.value:
        assert words in caught.value.read().decode()


def test_an_application_that_can_not_be_imported(db: Database, tmp_path: Path) -> None:
    (tmp_path / "nowhere.py").write_text(
        f"from {PROJECT} import *\nWSGI_APPLICATION = 'tests.website.no_wsgi.application'\n"
    )
    environ = {**db.environ, "DJANGO_SETTINGS_MODULE": "nowhere", "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    sentence = refused("--install-triggers", environ=environ)
    assert "WSGI_APPLICATION 'tests.website.no_wsgi.application' can't be imported" in sentence
    assert "No module named 'tests.website.no_wsgi'" in sentence
    assert "--no-wsgi" in sentence


def test_django_says_nothing_beside_the_log(serve: Serve) -> None:
    server = serve("--log-format", "json", DJANGO_SETTINGS_MODULE=PROJECT, TDDP_TEST_DEBUG="1")
    with pytest.raises(urllib.error.HTTPError, match="404") as answer:
        get(server, "/nothing/here")
    answer.value.close()
    server.wait_for_log("Not Found: /nothing/here")
    server.stop()
    lines = [json.loads(line) for line in server.log().splitlines()]
    assert sum("Not Found" in line["message"] for line in lines) == 1


def test_the_access_log(serve: Serve) -> None:
    server = serve("--access-log", "--log-format", "json", DJANGO_SETTINGS_MODULE=PROJECT)
    get(server, "/?a=b")
    server.wait_for_log("trigger_ddp.access")
    [line] = [line for line in server.log().splitlines() if "trigger_ddp.access" in line]
    told = json.loads(line)
    fields = ("http_method", "target", "status", "bytes")
    assert [told[name] for name in fields] == ["GET", "/?a=b", 200, len("hello 127.0.0.1 by http")]
    assert told["client"].startswith("127.0.0.1:")
    assert 0 < told["seconds"] < 20
    for arguments in ([], ["-v2", "--no-access-log"]):
        quiet = serve(*arguments, DJANGO_SETTINGS_MODULE=PROJECT)
        get(quiet, "/")
        quiet.stop()
        assert "trigger_ddp.access" not in quiet.log()
    talkative = serve("-v2", DJANGO_SETTINGS_MODULE=PROJECT)
    get(talkative, "/")
    talkative.wait_for_log(r'trigger_ddp.access: 127.0.0.1:\d+ "GET /" 200 ')


def test_a_meteor_bundle_and_its_websocket_on_one_port(serve: Serve, tmp_path: Path) -> None:
    server = serve(
        "--wsgi",
        DJANGO_SETTINGS_MODULE="tests.meteor.settings",
        TDDP_TEST_BUNDLE=str(bundles.write(tmp_path / "bundle")),
    )
    page = get(server, "/any/page")
    assert "__meteor_runtime_config__" in page
    [script] = re.findall(r'<script[^>]* src="([^"]+)"', page)[:1]
    assert get(server, script)
    with DDPClient(server.url) as client:
        client.subscribe("AllBooks")


# --reload


class Project:
    """A project in a directory of its own, with a view to edit."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "edited").mkdir()
        self.write("edited/__init__.py", "")
        self.write("edited/settings.py", f"from {PROJECT} import *\nROOT_URLCONF = 'edited.urls'\n")
        self.write("edited/urls.py", "from django.urls import path\nfrom edited import views\n"
                   "urlpatterns = [path('', views.page)]\n")  # fmt: skip
        self.write("manage.py", "import sys\nfrom django.core.management import execute_from_command_line\n"
                   "execute_from_command_line(sys.argv)\n")  # fmt: skip
        self.say("one")

    def write(self, name: str, text: str) -> None:
        (self.directory / name).write_text(text)

    def say(self, text: str) -> None:
        self.write("edited/views.py", "from django.http import HttpResponse\n\n\ndef page(request):\n"
                   f"    return HttpResponse({text!r})\n")  # fmt: skip


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def starts(number: int) -> str:
    return r"listening on [\s\S]*" * number


def test_reload(serve: Serve, db: Database, project: Project) -> None:
    port = free_port()
    server = serve(
        "--reload", "--bind", f"127.0.0.1:{port}",
        DJANGO_SETTINGS_MODULE="edited.settings", PYTHONPATH=f"{project.directory}:{ROOT}",
    )  # fmt: skip
    server.errors_expected = True  # the traceback of half a line
    server.port, server.url = port, f"http://127.0.0.1:{port}"
    assert get(server, "/") == "one"
    server.wait_for_log(r'trigger_ddp.access: \S+ "GET /" 200')
    with DDPClient(server.url) as client:
        client.subscribe("AllBooks")
        project.say("two")
        server.wait_for_log(starts(3))  # each start listens on two addresses
        client.wait_until(lambda: client.closed)
    assert get(server, "/") == "two"
    with DDPClient(server.url) as client:
        client.subscribe("AllBooks")
    project.write("edited/views.py", "def half(\n")
    server.wait_for_log("started again at the next change")
    project.say("three")
    server.wait_for_log(starts(5))
    assert get(server, "/") == "three"


def test_reload_by_manage_py(db: Database, project: Project) -> None:
    environ = {**os.environ, "PYTHONUNBUFFERED": "1", **db.environ, "PYTHONPATH": str(ROOT)}
    environ["DJANGO_SETTINGS_MODULE"] = "edited.settings"
    server = Server(
        "--reload", "--bind", f"127.0.0.1:{free_port()}", "--install-triggers",
        environ=environ, command=[str(project.directory / "manage.py"), "ddp_serve"],
    )  # fmt: skip
    try:
        server.errors_expected = True
        assert get(server, "/") == "one"
        project.write("edited/settings.py", "half a line = \n")
        server.wait_for_log("started again at the next change")
        project.say("two")
        project.write("edited/settings.py", f"from {PROJECT} import *\nROOT_URLCONF = 'edited.urls'\n")
        server.wait_for_log(starts(2))
        assert get(server, "/") == "two"
    except BaseException:
        server.kill()
        raise
    server.stop()


def test_reload_is_for_one_process() -> None:
    assert "leave out --workers" in refused("--reload", "--workers", "2", environ={})


def test_reload_of_what_can_not_start_ends(db: Database) -> None:
    assert "ddp_install_triggers" in refused("--reload", environ=db.environ)
