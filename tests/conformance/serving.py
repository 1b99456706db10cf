"""A server of the reference application, on a database of its own."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
from collections.abc import Iterator

from tests import postgres
from tests.conftest import Database
from tests.serving import ROOT, Server, start_server

SETTINGS = {"DJANGO_SETTINGS_MODULE": "tests.conformance.settings"}
TEMPLATE = "template_conformance"

_migrated: set[int] = set()
_numbers = itertools.count(1)


@contextlib.contextmanager
def reference_server(cluster: postgres.Cluster, **environ: str) -> Iterator[Server]:
    """Serve the reference application; keywords are added to the environment."""
    if cluster.major not in _migrated:
        with cluster.connect() as conn:
            conn.execute(f"CREATE DATABASE {TEMPLATE}")
        subprocess.run(
            [sys.executable, "-m", "django", "migrate", "--run-syncdb", "--verbosity", "0"],
            env={**os.environ, **Database(cluster, TEMPLATE).environ, **SETTINGS}, cwd=ROOT, check=True,
        )  # fmt: skip
        _migrated.add(cluster.major)
    name = f"conformance{next(_numbers)}"
    with cluster.connect() as conn:
        conn.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
    server = start_server(Database(cluster, name), **SETTINGS, **environ)
    try:
        yield server
        server.stop()
    finally:
        if server.process.returncode is None:
            server.kill()
        with cluster.connect() as conn:
            conn.execute(f"DROP DATABASE {name} WITH (FORCE)")
