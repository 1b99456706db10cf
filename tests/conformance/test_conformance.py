"""Every conversation, over every wire, with `trigger-ddp serve`."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator

import pytest

from tests import postgres
from tests.conformance.conversation import Conversation, Failed, Run
from tests.conformance.serving import reference_server
from tests.conformance.suite import CONVERSATIONS, FEATURES
from tests.serving import ROOT, Server

#: Meteor's intervals are 15 seconds; nobody wants to wait that long for each of several pings.
HURRIED = {"DDP_HEARTBEAT_INTERVAL": "1.0", "DDP_HEARTBEAT_TIMEOUT": "1.0"}

#: The wires that are spoken here; tests/test_sockjs.py has SockJS's other transports, too.
HELD = ("raw", "sockjs", "xhr", "xhr_streaming")


class Held:
    """A conversation that is being held in the background. `complaint` waits for its end."""

    def __init__(self, server: Server, wire: str, conversation: Conversation) -> None:
        self._run = Run(server.url, wire, conversation, patience=20)
        self._complaint = f"{conversation} broke off"
        self._thread = threading.Thread(target=self._hold, daemon=True, name=str(conversation))
        self._thread.start()

    def _hold(self) -> None:
        self._complaint = hold(self._run)

    def complaint(self) -> str:
        """What was wrong; empty if nothing was."""
        self._thread.join()
        return self._complaint


def hold(run: Run) -> str:
    """Hold a conversation. Returns what was wrong; empty if nothing was."""
    try:
        run.hold()
    except Failed as wrong:
        return str(wrong)
    return ""


def hurries(conversation: Conversation) -> bool:
    """Whether it takes less time with `HURRIED`."""
    return bool(conversation.slow) and "fact_14" in conversation.name


@pytest.fixture(scope="module")
def reference(cluster: postgres.Cluster) -> Iterator[tuple[Server, dict[tuple[str, str], Held]]]:
    """The reference application, and the slow conversations, which begin at once."""
    with reference_server(cluster) as server:
        server.errors_expected = True  # by the facts about what fails
        slow = [one for one in CONVERSATIONS if one.slow and not hurries(one)]
        yield (
            server,
            {(wire, one.name): Held(server, wire, one) for one in slow for wire in HELD if wire in one.wires},
        )


@pytest.fixture(scope="module")
def hurried(cluster: postgres.Cluster) -> Iterator[Server]:
    """The same, which pings its clients sooner."""
    with reference_server(cluster, **HURRIED) as server:
        server.errors_expected = True
        yield server


@pytest.mark.parametrize(
    ("wire", "conversation"),
    [
        pytest.param(wire, conversation, id=f"{wire}-{conversation}")
        for wire in HELD
        for conversation in sorted(CONVERSATIONS, key=lambda one: one.slow)  # the slow ones last
        if wire in conversation.wires
    ],
)
def test_fact(
    wire: str, conversation: Conversation, cluster: postgres.Cluster, request: pytest.FixtureRequest
) -> None:
    # By name, so that each server starts only where it is wanted.
    if hurries(conversation):
        server, held = request.getfixturevalue("hurried"), {}
    else:
        server, held = request.getfixturevalue("reference")
    early = held.get((wire, conversation.name))
    run = Run(server.url, wire, conversation, patience=20)
    if complaint := early.complaint() if early else hold(run):
        pytest.fail(complaint, pytrace=False)


def test_the_documentation_names_every_conversation() -> None:
    page = (ROOT / "docs" / "conformance.md").read_text("utf-8")
    rows = re.findall(r"^\| (\d\d) \|.*\| (.*) \|$", page, re.MULTILINE)
    named = [f"fact_{number}_{name}" for number, names in rows for name in re.findall(r"`(\w+)`", names)]
    assert sorted(named) == sorted(conversation.name for conversation in CONVERSATIONS)


def test_names_are_unique_and_tell_the_fact() -> None:
    names = [conversation.name for conversation in CONVERSATIONS]
    assert len(names) == len(set(names))
    facts = {int(name.split("_")[1]) for name in names}
    # 18 needs an undefined value, which Django does not have; 41 to 48 are about Meteor's web bundles.
    assert sorted({*range(1, 41), 49} - facts) == [18]
    assert {need for conversation in CONVERSATIONS for need in conversation.needs} == set(FEATURES)
