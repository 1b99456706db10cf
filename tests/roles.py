"""The roles of docs/database-roles.md, with the rights that `manage.py ddp_grants` prints and no more."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path

from django.core.management import call_command
from django.db import connections

from tests import postgres

INSTALLING, SERVING, LISTENING, WRITING = "tddp_installs", "tddp_serves", "tddp_listens", "tddp_writes"

#: What the methods of tests.project write.
WRITTEN = ("bookstore", "zoo", "auth.User")

#: Of a database: nobody may connect but these.
CONNECT = (
    f"REVOKE ALL ON DATABASE {{name}} FROM PUBLIC;"
    f"GRANT CONNECT ON DATABASE {{name}} TO {INSTALLING}, {SERVING}, {LISTENING}, {WRITING}"
)
_ROOT = Path(__file__).resolve().parent.parent
_made: set[tuple[int, str]] = set()


def make(cluster: postgres.Cluster) -> None:
    """Make the roles, which have no rights yet."""
    if (cluster.port, "") not in _made:
        _made.add((cluster.port, ""))
        with cluster.connect() as connection:
            for role in (INSTALLING, SERVING, LISTENING, WRITING):
                connection.execute(f"CREATE ROLE {role} LOGIN")


def grants(*roles: str, writes: tuple[str, ...] = WRITTEN) -> str:
    """What the command prints for the database that Django is pointed at."""
    out = StringIO()
    call_command(
        "ddp_grants", stdout=out, writes=list(writes),
        install=INSTALLING if INSTALLING in roles else None, serve=SERVING if SERVING in roles else None,
    )  # fmt: skip
    return out.getvalue()


def install(environ: dict[str, str], *labels: str) -> None:
    """Have the installing role install the triggers of the project that the variables describe."""
    done = subprocess.run(
        [sys.executable, "-m", "django", "ddp_install_triggers", "-v0", *labels],
        env={**os.environ, **environ, "TDDP_TEST_USER": INSTALLING}, cwd=_ROOT,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def template(cluster: postgres.Cluster, point_django_at: Callable[[postgres.Cluster, str], None]) -> str:
    """The name of a template database in which the roles have their rights and triggers are installed."""
    name = "template_tddp_roles"
    if (cluster.port, name) not in _made:
        make(cluster)
        with cluster.connect() as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE template_tddp")
        point_django_at(cluster, name)
        cluster.psql(name, "REVOKE ALL ON SCHEMA public FROM PUBLIC;" + CONNECT.format(name=name))
        cluster.psql(name, grants(INSTALLING, SERVING))
        connections.close_all()
        install(
            {
                "DJANGO_SETTINGS_MODULE": "tests.project.settings",
                "TDDP_TEST_DB": name,
                "TDDP_TEST_HOST": str(cluster.directory),
                "TDDP_TEST_PORT": str(cluster.port),
            }
        )
        _made.add((cluster.port, name))
    return name
