"""Fixtures of the server's tests."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

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


@pytest.fixture
def tls() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's and a client's side, of a certificate made for these tests."""
    certificate = Path(__file__).with_name("localhost.pem")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(certificate)
    return server, client
