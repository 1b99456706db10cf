"""What methods are given and what becomes of their errors, as a client sees it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import Database
from tests.ddp import DDPClient
from tests.serving import Server
from trigger_ddp.alea import RandomStream


@pytest.fixture
def client(db: Database, server: Server) -> Iterator[DDPClient]:
    with DDPClient(server.url) as client:
        yield client
        assert client.call("echo", "alive")["result"] == "alive"
        assert client.violations == []


# -- random streams -------------------------------------------------------------------------------


def call_with_seed(client: DDPClient, seed: str, method: str, *params: Any) -> Any:
    client.send(msg="method", id=f"{method} {seed}", method=method, params=params, randomSeed=seed)
    return client.finish_call(f"{method} {seed}")["result"]


def test_the_client_foretells_a_methods_random_values(client: DDPClient) -> None:
    for seed in ("5d1f", "5d1e"):
        stub = RandomStream(seed)
        expected = [seed, stub("/collection/zoo.keeper").id(), stub("dice").fraction()]
        assert call_with_seed(client, seed, "random/hire", "a") == expected
    seed, *ids = call_with_seed(client, "77", "random/hire_in_threads", "a", "b")
    stub = RandomStream("77")
    assert ids == [stub("/collection/zoo.keeper").id() for _ in range(3)]


def test_without_a_seed_nobody_does(client: DDPClient) -> None:
    answers = [client.call("random/hire", "a")["result"] for _ in range(2)]
    assert [seed for seed, *_ in answers] == [None, None]
    assert len({aid for _, aid, _ in answers}) == len({number for *_, number in answers}) == 2
