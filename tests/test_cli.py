"""`trigger-ddp` as its users meet it: what it refuses and in which words, how it starts, how it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect, unix_connect

from tests.ddp import DDPClient
from tests.postgres import free_port
from tests.serving import ROOT


def run(
    *arguments: str, environ: dict[str, str], module: str = "trigger_ddp", cwd: Path = ROOT
) -> tuple[int, str]:
    """Run to the end. Returns the exit code and what was printed on standard error."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("TDDP_", "DJANGO_"))}
    path = os.pathsep.join([str(ROOT), *filter(None, [clean.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env={**clean, "PYTHONPATH": path, **environ}, cwd=cwd, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    return done.returncode, done.stderr


def refused(*arguments: str, environ: dict[str, str], **kwargs: Path) -> str:
    """The one sentence with which ``serve`` refuses to start."""
    code, stderr = run("serve", "--bind", "127.0.0.1:0", *arguments, environ=environ, **kwargs)
    assert code == 2, stderr
    lines = stderr.splitlines()
    assert len(lines) == 1, stderr
    assert lines[0].startswith("trigger-ddp: ")
    return lines[0]


def test_no_settings():
    assert "pass --settings mysite.settings or set DJANGO_SETTINGS_MODULE" in refused(environ={})


def test_settings_that_are_not_there():
    assert "'no.such.settings' can't be imported" in refused("--settings", "no.such.settings", environ={})


def test_settings_without_trigger_ddp(tmp_path):
    (tmp_path / "bare.py").write_text("SECRET_KEY = 'x'\nINSTALLED_APPS = []\n")
    assert "add 'trigger_ddp' to INSTALLED_APPS" in refused("--settings", "bare", environ={}, cwd=tmp_path)


def test_a_settings_module_that_fails_shows_its_own_traceback(tmp_path):
    (tmp_path / "broken.py").write_text("import nothing_of_the_kind\n")
    code, stderr = run("serve", "--settings", "broken", environ={}, cwd=tmp_path)
    assert code == 1
    assert "broken.py" in stderr


def test_a_database_that_is_away():
    environ = {"TDDP_TEST_HOST": "127.0.0.1", "TDDP_TEST_PORT": str(free_port())}
    sentence = refused("--settings", "tests.project.settings", environ=environ)
    assert "database 'default' can't be reached" in sentence
    assert "refused" in sentence


def test_a_database_that_is_not_there(db):
    assert "does not exist" in refused(environ={**db.environ, "TDDP_TEST_DB": "nobody_made_it"})


def test_a_database_that_is_not_postgresql(tmp_path):
    (tmp_path / "lite.py").write_text(
        "SECRET_KEY = 'x'\n"
        "INSTALLED_APPS = ['django.contrib.contenttypes', 'django.contrib.auth', 'trigger_ddp']\n"
        "DATABASES = {'default': {'ENGINE': 'django.db.backends.sqlite3', 'NAME': ':memory:'}}\n"
    )
    sentence = refused("--settings", "lite", environ={}, cwd=tmp_path)
    assert "is SQLite" in sentence
    assert "django.db.backends.postgresql" in sentence


def unusable(directory: Path, databases: str, database: str = "default") -> str:
    """The one sentence with which ``serve`` refuses a project with these databases."""
    (directory / "unusable.py").write_text(
        "SECRET_KEY = 'x'\n"
        "INSTALLED_APPS = ['django.contrib.contenttypes', 'django.contrib.auth', 'trigger_ddp']\n"
        f"DATABASES = {databases}\n"
        f"DDP_DATABASE = {database!r}\n"
    )
    return refused("--settings", "unusable", environ={}, cwd=directory)


@pytest.mark.parametrize(
    ("database", "words"),
    [
        (
            {"ENGINE": "django.db.backends.postgresql"},
            "database 'default' can't be used: settings.DATABASES is",
        ),
        (
            {"ENGINE": "django.db.backends.postgresqll", "NAME": "x"},
            "'django.db.backends.postgresqll' isn't an",
        ),
        ({"NAME": "x"}, "set its ENGINE to django.db.backends.postgresql"),
        ({}, "set its ENGINE to django.db.backends.postgresql"),
    ],
    ids=["no name", "misspelt engine", "no engine", "nothing"],
)
def test_a_database_that_is_not_configured(tmp_path, database, words):
    assert words in unusable(tmp_path, f"{{'default': {database}}}")


def test_an_engine_of_a_second_database(tmp_path):
    databases = {"default": {"ENGINE": "django.db.backends.postgresql"}, "live": {"ENGINE": "no.such.engine"}}
    sentence = unusable(tmp_path, repr(databases), "live")
    assert (
        "the ENGINE of database 'live', 'no.such.engine', can't be imported: No module named 'no'" in sentence
    )


def test_a_default_database_that_is_not_there(tmp_path):
    assert "You must define a 'default' database" in unusable(tmp_path, "{'other': {}}")


def test_missing_triggers_name_the_command(db):
    sentence = refused(environ=db.environ)
    assert "triggers are missing or out of date on" in sentence
    assert "manage.py ddp_install_triggers" in sentence


def test_outdated_triggers_are_refused_and_can_be_installed_on_the_spot(db, serve):
    serve().stop()
    db.psql(
        "DO $$ DECLARE name text; BEGIN SELECT tgname INTO name FROM pg_trigger"
        " WHERE tgrelid = 'bookstore_book'::regclass AND NOT tgisinternal AND tgtype & 16 <> 0 LIMIT 1;"
        " EXECUTE format('DROP TRIGGER %I ON bookstore_book', name); END $$"
    )
    assert "bookstore_book" in refused(environ=db.environ)
    server = serve()  # with --install-triggers
    with DDPClient(server.url) as client:
        client.subscribe("AllBooks")


def test_a_port_that_is_taken(db, serve):
    serve().stop()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        sentence = refused("--bind", f"127.0.0.1:{port}", environ=db.environ)
        assert f"127.0.0.1:{port} is already in use" in sentence


def test_an_address_that_is_none(db, serve):
    serve().stop()
    assert "is not an address to listen on" in refused("--bind", "nonsense", environ=db.environ)


def test_a_wrong_setting_is_named(db):
    sentence = refused(environ={**db.environ, "DDP_THREADS": "0"})
    assert "DDP_THREADS must be at least 1" in sentence


@pytest.mark.parametrize("command", [["--help"], ["serve", "--help"], ["demo", "--help"], ["--version"]])
def test_help_needs_no_settings(command):
    assert run(*command, environ={}) == (0, "")


def test_an_unknown_option_is_exit_code_2():
    assert run("serve", "--nonsense", environ={})[0] == 2


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains(serve, signum):
    server = serve()
    with (
        DDPClient(server.url) as client,
        connect(server.url.replace("http", "ws") + "/websocket") as unconnected,
    ):
        client.subscribe("AllBooks")
        server.process.send_signal(signum)
        client.wait_until(lambda: client.closed)
        assert client.socket.close_code == 1001
        with pytest.raises(ConnectionClosed) as closed:
            unconnected.recv(timeout=20)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001
    assert server.process.wait(10) == 0
    with pytest.raises(ConnectionRefusedError):
        connect(server.url.replace("http", "ws") + "/websocket")


def test_a_client_that_does_not_answer_the_close_cannot_keep_the_server(serve):
    server = serve()
    with socket.create_connection((server.host, server.port)) as deaf:
        deaf.sendall(
            b"GET /websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        assert deaf.recv(12) == b"HTTP/1.1 101"
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(10) == 0


def test_several_addresses_one_of_them_a_unix_socket(serve, tmp_path):
    path = tmp_path / "ddp.sock"
    server = serve("--bind", f"unix:{path}")
    server.wait_for_log(f"listening on unix:{path}")
    with unix_connect(str(path), "ws://localhost/websocket") as client:
        client.send('{"msg":"connect","version":"1","support":["1"]}')
        assert json.loads(client.recv(timeout=20))["msg"] == "connected"
    with DDPClient(server.url) as client:
        assert client.call("echo", 1)["result"] == 1
    server.stop()
    assert not path.exists()


def test_json_logs(serve):
    server = serve("--log-format", "json")
    lines = [json.loads(line) for line in server.log().splitlines() if line.startswith("{")]
    listening = next(line for line in lines if "listening on" in line["message"])
    assert listening["level"] == "info"
    assert listening["logger"].startswith("trigger_ddp")
    assert listening["time"].endswith("+00:00")


def test_manage_py_ddp_serve_is_the_same(db):
    code, stderr = run("ddp_serve", "--bind", "127.0.0.1:0", environ=db.environ, module="django")
    assert code == 2
    assert "manage.py ddp_install_triggers" in stderr
