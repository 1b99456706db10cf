"""What methods are given and what becomes of their errors, as a client sees it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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


# -- errors ---------------------------------------------------------------------------------------

INVALID = [{"name": "name", "type": "blank", "message": "This field cannot be blank."}]
TOLD = [
    ("missing", 404, "Not found", None),
    ("404", 404, "Not found", None),
    ("denied", 403, "Access denied", None),
    ("invalid", "validation-error", "Validation failed", INVALID),
]


@pytest.mark.parametrize("method", ["raise/here", "raise/there"])
def test_djangos_errors_in_methods(db: Database, client: DDPClient, server: Server, method: str) -> None:
    for kind, code, reason, details in TOLD:
        error = client.call(method, kind)["error"]
        assert (error["error"], error["reason"], error.get("details")) == (code, reason, details)
        assert "secret" not in str(error)
    assert db.psql("SELECT count(*) FROM bookstore_tag").strip() == "0"
    assert "Traceback" not in server.log()
    server.errors_expected = True
    error = client.call(method, "several")["error"]
    assert (error["error"], error["reason"]) == (500, "Internal server error")
    assert "details" not in error
    server.wait_for_log("IntegrityError: duplicate key")


@pytest.mark.parametrize(
    ("name", "params"),
    [("RaisesDjangos", []), ("RaisesDjangosInAFunction", [False]), ("RaisesDjangosInAFunction", [True])],
)
def test_djangos_errors_in_publications(
    client: DDPClient, server: Server, name: str, params: list[Any]
) -> None:
    def refused(kind: str) -> dict[str, Any]:
        subscription = client.start_subscription(name, kind, *params)
        return client.wait_for(lambda m: m["msg"] == "nosub" and m["id"] == subscription)["error"]

    for kind, code, reason, details in TOLD:
        error = refused(kind)
        assert (error["error"], error["reason"], error.get("details")) == (code, reason, details)
        assert "secret" not in str(error)
    assert "Traceback" not in server.log()
    server.errors_expected = True
    assert refused("several")["reason"] == "Internal server error"
    server.wait_for_log("IntegrityError: duplicate key")


# -- decorators -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "decorators",
    ["tests.project.decorators.naming", "django.db.transaction.atomic tests.project.decorators.naming",
     "tests.project.decorators.wrapping"],
)  # fmt: skip
def test_decorators_of_every_endpoint(serve: Callable[..., Server], db: Database, decorators: str) -> None:
    server = serve(TDDP_TEST_DECORATORS=decorators)
    with DDPClient(server.url) as client:
        assert client.call("echo", 1)["result"] == 1
        assert client.call("slow_echo", 2)["result"] == 2
        assert call_with_seed(client, "7", "random/hire_in_threads", "a")[0] == "7"
        assert client.call("raise/there", "404")["error"]["error"] == 404
        assert client.call("write_then_fail")["error"]["error"] == 500
        # Hints are known of a function whose decorators say what they wrap.
        answer = client.call("add", "a", "b")
        assert answer.get("result") == (None if "wrapping" in decorators else "ab")
    server.errors_expected = True
    if "naming" in decorators:
        for name in ("echo", "slow_echo", "hire_in_threads"):
            server.wait_for_log(f"{name} was called")
