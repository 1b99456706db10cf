"""Fixtures of the server's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import postgres
from tests.conftest import Database
from tests.proxy import Proxy


@pytest.fixture
def proxy(db: Database) -> Iterator[Proxy]:
    with Proxy(db.cluster.host, db.cluster.port) as new:
        yield new


@pytest.fixture
def own_cluster(cluster: postgres.Cluster) -> Iterator[postgres.Cluster]:
    """A server that a test may stop."""
    own = postgres.Cluster(cluster.major, cluster.bindir)
    yield own
    own.remove()
