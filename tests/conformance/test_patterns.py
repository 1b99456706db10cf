"""What the conversations stand on: patterns refuse whatever is otherwise, and so does a strict client."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.conversation import Failed, Run, added, connected, conversation, expect
from tests.conformance.patterns import ID, Capture, Has, Mismatch, OneOf, Ordered, Var, filled, match
from tests.ddp import SockJSWire
from tests.serving import Server

GOOD: list[tuple[Any, Any]] = [
    ({"a": 1, "b": [1, {}]}, {"b": [1, {}], "a": 1}),
    (Has({"a": 1}), {"a": 1, "b": 2}),
    (Ordered({"a": 1, "b": 2}), {"a": 1, "b": 2}),
    (OneOf(1, 2), 2),
    (Var("known"), "value"),
    (ID, "23456789ABCDEFGHJ"),
    ([Capture("x", OneOf("y", "z")), Var("x")], ["z", "z"]),
]
BAD: list[tuple[Any, Any]] = [
    ({"a": 1}, {"a": 1, "b": 2}),
    ({"a": 1, "b": 2}, {"a": 1}),
    ({"a": {"b": 1}}, {"a": {"b": 2}}),
    ([1, 2], [2, 1]),
    ([1], [1, 1]),
    ({}, []),
    (1, True),
    (False, 0),
    (Has({"a": 1}), {"a": 2}),
    (Has({"a": 1}), "a"),
    (Ordered({"a": 1, "b": 2}), {"b": 2, "a": 1}),
    (OneOf(1, 2), 3),
    (Var("known"), "other"),
    (ID, "0123456789ABCDEFG"),
    (ID, "2345"),
    ([Capture("x", OneOf("y", "z")), Var("x")], ["z", "y"]),
]


@pytest.mark.parametrize(("pattern", "value"), GOOD)
def test_what_fits(pattern: Any, value: Any) -> None:
    match(pattern, value, {"known": "value"})


@pytest.mark.parametrize(("pattern", "value"), BAD)
def test_what_does_not_fit(pattern: Any, value: Any) -> None:
    with pytest.raises(Mismatch):
        match(pattern, value, {"known": "value"})


def test_variables_are_filled_in() -> None:
    assert filled({"a": [Var("x"), {"b": Var("x")}]}, {"x": 1}) == {"a": [1, {"b": 1}]}


def test_sockjs_frames_in_another_order() -> None:
    wire = SockJSWire()
    with pytest.raises(AssertionError):
        wire.unpack('a["{}"]')
    assert wire.unpack("o") == []
    assert wire.unpack('a["1","2"]') == ["1", "2"]
    assert wire.unpack("h") == wire.unpack('c[3000,"Go away!"]') == []
    with pytest.raises(AssertionError):
        wire.unpack("h")


def test_what_does_not_come(server: Server) -> None:
    run = Run(
        server.url, "raw", conversation("wrong", connected(), expect(added("things", "a"))), patience=0.2
    )
    with pytest.raises(Failed, match="nothing came") as caught:
        run.hold()
    assert '→ {"msg": "connect"' in str(caught.value)


@pytest.mark.parametrize("msg", ["added", "changed", "removed"])
def test_what_a_strict_client_refuses_and_a_browser_would_not(server: Server, msg: str) -> None:
    run = Run(server.url, "raw", conversation("strict", connected()))
    run.hold()
    client = run._speakers["me"].client
    if msg == "added":
        client._note({"msg": "added", "collection": "things", "id": "a"})
    assert client.violations == []
    client._note({"msg": msg, "collection": "things", "id": "a"})
    with pytest.raises(Mismatch, match="strict client refuses"):
        run._end()
