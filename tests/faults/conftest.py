"""Clusters that a test may kill."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.core.management import call_command
from django.db import connections

from tests import postgres
from tests.clients.conftest import node, run_client  # noqa: F401  fixtures
from tests.conftest import Database, point_django_at
from tests.faults.watching import fill


@pytest.fixture(scope="module")
def own_cluster(cluster: postgres.Cluster) -> Iterator[postgres.Cluster]:
    """A server that a test may stop, if it starts it again; with a migrated database `faults`."""
    own = postgres.Cluster(cluster.major, cluster.bindir)
    with own.connect() as connection:
        connection.execute("CREATE DATABASE faults")
    point_django_at(own, "faults")
    call_command("migrate", verbosity=0, run_syncdb=True)
    yield own
    connections.close_all()
    own.remove()


@pytest.fixture
def own_database(own_cluster: postgres.Cluster) -> Iterator[Database]:
    """Its database, with rows to write to."""
    point_django_at(own_cluster, "faults")
    db = Database(own_cluster, "faults")
    db.psql("TRUNCATE zoo_keeper, auth_user CASCADE")
    fill(db)
    yield db
    connections.close_all()
