"""Of an exception inside the server a client learns nothing, whatever its text, with DEBUG as without."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from http.client import HTTPConnection
from typing import Any

import pytest

from tests.access.canaries import Recorder
from tests.conftest import Database
from tests.ddp import DDPClient
from tests.project.access import FAILURES, SECRET
from tests.serving import Server
from tests.test_users import people

__all__ = ["people"]

INTERNAL = (500, "Internal server error")
#: What is told of these, and nothing more.
TOLD = {"missing": (404, "Not found"), "404": (404, "Not found"), "denied": (403, "Access denied")}


@pytest.fixture(params=["", "1"], ids=["", "DEBUG"])
def failing(request: pytest.FixtureRequest, people: Database, serve: Callable[..., Server]) -> Server:
    people.psql(f"UPDATE auth_user SET password = '{SECRET}'")
    debug = {"TDDP_TEST_DEBUG": "1"} if request.param else {}
    server = serve(**debug)
    server.errors_expected = True
    return server


def told(error: dict[str, Any]) -> tuple[Any, Any]:
    assert error.get("errorType") == "Meteor.Error"
    assert set(error) == {"error", "errorType", "reason", "message", "isClientSafe"}, error
    return error["error"], error["reason"]


def test_nothing_of_an_exception_reaches_a_client(failing: Server, people: Database) -> None:
    recorder = Recorder()
    with DDPClient(failing.url, wire=recorder) as client:
        for kind in FAILURES:
            expected = TOLD.get(kind, INTERNAL)
            for method in ("access/fail", "access/fail_async"):
                assert told(client.call(method, kind)["error"]) == expected, (method, kind)
            for name in ("access/fails", "access/fails-in-a-function"):
                subscription = client.start_subscription(name, kind)
                answer = client.wait_for(lambda m: m["msg"] == "nosub" and m["id"] == subscription)  # noqa: B023
                assert told(answer["error"]) == expected, (name, kind)
        subscription = client.start_subscription("access/fails-in-the-query")
        answer = client.wait_for(lambda m: m["msg"] == "nosub" and m["id"] == subscription)
        assert told(answer["error"]) == INTERNAL
        assert told(client.call("access/result")["error"]) == INTERNAL
        strict = client.call("access/strict", {"code": "x"})["error"]
        assert (strict["error"], strict["details"]) == (400, "value: Invalid value")
        # An error while a query is live: what becomes of it is the service's business, but it tells nothing.
        client.subscribe("access/fails-later")
        people.psql("UPDATE bookstore_author SET name = 'bad' WHERE id = 97")
        failing.wait_for_log(rf"invalid input syntax for type integer: \"{SECRET}bad\"")
        people.psql("UPDATE bookstore_author SET name = 'good' WHERE id = 97")
        client.settle()
        # Likewise while a method logs in, and in the publications that run again then.
        for kind in FAILURES:
            assert told(client.call("access/login_and_fail", 1, kind)["error"]) == TOLD.get(kind, INTERNAL)
        client.settle()
    text = recorder.text()
    assert SECRET not in text
    for never in ("Traceback", "psycopg", "django", "SELECT", "bookstore_", "auth_user", ".py"):
        assert never not in text, never
    assert SECRET in failing.log(), "the log has the whole of it"


def test_nor_an_http_client(failing: Server) -> None:
    for path in ("/", "/no/such", "/sockjs/x/y/z", "/_ddp/nothing", "/sockjs/0/a/jsonp?c=%3Cscript%3E"):
        with contextlib.closing(HTTPConnection(failing.host, failing.port, timeout=30)) as connection:
            connection.request("GET", path)
            body = connection.getresponse().read().decode()
        assert not re.search(r"Traceback|SECRET_KEY|tests\.project\.settings|\.py\b", body), (
            path,
            body[:500],
        )
