"""Every conversation, over every wire, with `trigger-ddp serve`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import postgres
from tests.conformance.conversation import Conversation, Failed, Run
from tests.conformance.serving import reference_server
from tests.conformance.suite import CONVERSATIONS, FEATURES
from tests.serving import Server

#: Meteor's intervals are 15 seconds; nobody wants to wait that long for each of several pings.
HURRIED = {"DDP_HEARTBEAT_INTERVAL": "1.0", "DDP_HEARTBEAT_TIMEOUT": "1.0"}


@pytest.fixture(scope="module")
def reference(cluster: postgres.Cluster) -> Iterator[Server]:
    """The reference application."""
    with reference_server(cluster) as server:
        server.errors_expected = True  # by the facts about what fails
        yield server


@pytest.fixture(scope="module")
def hurried(cluster: postgres.Cluster) -> Iterator[Server]:
    """The same, which pings its clients sooner."""
    with reference_server(cluster, **HURRIED) as server:
        server.errors_expected = True
        yield server


#: What the server has.
OFFERED = frozenset(FEATURES)


#: The wires whose sessions are made differently; tests/test_sockjs.py holds SockJS's other transports.
HELD = ("raw", "sockjs", "xhr", "xhr_streaming")


@pytest.mark.parametrize(
    ("wire", "conversation"),
    [
        pytest.param(wire, conversation, id=f"{wire}-{conversation}")
        for wire in HELD
        for conversation in CONVERSATIONS
        if wire in conversation.wires and conversation.needs <= OFFERED
        if wire in ("raw", "sockjs") or not conversation.slow
    ],
)
def test_fact(
    wire: str, conversation: Conversation, cluster: postgres.Cluster, request: pytest.FixtureRequest
) -> None:
    # By name, so that the hurried server starts only where it is wanted.
    in_a_hurry = conversation.slow and "fact_14" in conversation.name
    server: Server = request.getfixturevalue("hurried" if in_a_hurry else "reference")
    complaint = ""
    try:
        Run(server.url, wire, conversation, patience=20).hold()
    except Failed as wrong:
        complaint = str(wrong)
    if complaint:
        pytest.fail(complaint, pytrace=False)


def test_names_are_unique_and_tell_the_fact() -> None:
    names = [conversation.name for conversation in CONVERSATIONS]
    assert len(names) == len(set(names))
    facts = {int(name.split("_")[1]) for name in names}
    # 18 needs an undefined value, which Django does not have; 41 to 48 are about Meteor's web bundles.
    assert sorted({*range(1, 41), 49} - facts) == [18]
    assert {need for conversation in CONVERSATIONS for need in conversation.needs} == set(FEATURES)
