"""What whole Meteor clients do beyond DDP: stubs, overlapping subscriptions, logins, lost connections.

Meteor's own client is that of 1.3.5, the last one to be had without Meteor's build tool; see meteor.mjs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests import postgres
from tests.clients.conftest import Client, Refused
from tests.conformance.serving import reference_server
from tests.serving import Server

ITEMS = "conformance.items"
METEOR, METEORRN = "meteor.mjs", "meteorrn.mjs"


@pytest.fixture
def server(cluster: postgres.Cluster) -> Iterator[Server]:
    """One that serves tests/conformance/app."""
    with reference_server(cluster) as server:
        yield server


@pytest.fixture
def start(run_client: Callable[..., Client], server: Server) -> Callable[[str], Client]:
    """Starts a program, connected to the test's server."""

    def start(program: str) -> Client:
        client = run_client(program, server)
        client.connect()
        return client

    return start


@pytest.fixture
def meteor(start: Callable[[str], Client]) -> Client:
    return start(METEOR)


both = pytest.mark.parametrize("program", [METEOR, METEORRN])


# -- stubs ----------------------------------------------------------------------------------------


def test_a_stub_that_updates_is_told_once(meteor: Client) -> None:
    item = meteor.call("conformance.insert", "group", "one")
    meteor.subscribe("conformance.items", "group")
    meteor.command("observe", ITEMS)
    outcome = meteor.command("callAndLook", "conformance.update", item, "two")
    assert outcome["byStub"] == [["changed", item, {"text": "two"}]]
    assert meteor.command("observed", ITEMS) == [
        ["added", item, {"group": "group", "text": "one"}],
        ["changed", item, {"text": "two"}],
    ]
    meteor.close()


def test_a_stub_that_removes_is_told_once(meteor: Client) -> None:
    item = meteor.call("conformance.insert", "group", "one")
    meteor.subscribe("conformance.items", "group")
    meteor.command("observe", ITEMS)
    outcome = meteor.command("callAndLook", "conformance.remove", item)
    assert outcome["byStub"] == [["removed", item]]
    assert meteor.command("observed", ITEMS)[1:] == [["removed", item]]
    meteor.close()


def test_a_stub_that_inserts_foretells_the_id(meteor: Client) -> None:
    meteor.subscribe("conformance.items", "group")
    meteor.command("observe", ITEMS)
    outcome = meteor.command("callAndLook", "conformance.insert", "group", "one")
    ((_, item, _),) = outcome["byStub"]
    assert outcome["result"] == item
    # Never removed nor added again, not for a moment: nothing flickers.
    assert meteor.command("observed", ITEMS) == [["added", item, {"group": "group", "text": "one"}]]
    meteor.close()


def test_a_stub_is_undone_where_the_server_refuses(meteor: Client, server: Server) -> None:
    server.errors_expected = True
    meteor.subscribe("conformance.items", "group")
    meteor.command("observe", ITEMS)
    with pytest.raises(Refused):
        meteor.command("callAndLook", "conformance.insert", "group", "x" * 200)  # longer than the column
    assert [event[0] for event in meteor.command("observed", ITEMS)] == ["added", "removed"]
    meteor.close()


# -- subscriptions --------------------------------------------------------------------------------


@both
def test_subscriptions_that_overlap(start: Callable[[str], Client], program: str) -> None:
    client = start(program)
    item = client.call("conformance.insert", "group", "one")
    first = client.subscribe("conformance.items", "group")
    second = client.subscribe("conformance.script", "a", [["added", ITEMS, item, {"text": "a"}], ["ready"]])
    script = [["added", ITEMS, item, {"text": "mine", "more": 1}], ["added", ITEMS, "x", {}], ["ready"]]
    third = client.subscribe("conformance.script", "b", script)
    whole = {item: {"group": "group", "text": "one", "more": 1}, "x": {}}
    assert client.documents(ITEMS) == whole
    client.unsubscribe(second)
    assert client.documents(ITEMS) == whole
    client.unsubscribe(first)
    left = client.documents(ITEMS)[item]
    # @meteorrn/core keeps a cleared field as null.
    assert {name: value for name, value in left.items() if value is not None} == {"text": "mine", "more": 1}
    client.unsubscribe(third)
    assert client.documents(ITEMS) == {}
    client.close()


# -- connections ----------------------------------------------------------------------------------


@both
def test_a_lost_connection(start: Callable[[str], Client], program: str) -> None:
    client, other = start(program), start(METEOR)
    item = other.call("conformance.insert", "group", "one")
    client.subscribe("conformance.items", "group")
    client.messages.clear()
    client.command("lose")
    client.wait_for(msg="added", id=item)  # it subscribes again by itself
    assert client.documents(ITEMS) == {item: {"group": "group", "text": "one"}}
    other.call("conformance.update", item, "two")
    client.wait_for(msg="changed", id=item)
    assert client.documents(ITEMS) == {item: {"group": "group", "text": "two"}}
    other.close()
    client.close()


# -- accounts -------------------------------------------------------------------------------------


@both
def test_logins(start: Callable[[str], Client], program: str) -> None:
    client, other = start(program), start(METEOR)
    other.command("signUp", {"username": "ann", "password": "secret"})
    nobody = {"id": None, "username": None}
    assert client.command("user") == nobody
    with pytest.raises(Refused) as caught:
        client.command("login", "ann", "wrong")
    assert caught.value.error["error"] == 403
    client.command("login", "ann", "secret")
    ann = client.command("user")
    assert ann == other.command("user")
    assert ann["username"] == "ann"
    assert client.call("conformance.whoami") == "ann"
    client.command("lose")
    assert client.command("user") == ann  # by its token
    assert client.call("conformance.whoami") == "ann"
    client.command("logout")
    assert client.command("user") == nobody
    other.close()
    client.close()


def test_a_login_brings_what_is_the_users(meteor: Client) -> None:
    meteor.command("signUp", {"username": "ann", "password": "secret"})
    item = meteor.call("conformance.insert", "group", "hers", "ann")
    meteor.subscribe("conformance.mine", "group")
    assert list(meteor.documents(ITEMS)) == [item]
    meteor.command("observe", ITEMS)
    meteor.command("logout")
    assert meteor.documents(ITEMS) == {}
    meteor.command("login", "ann", "secret")
    assert list(meteor.documents(ITEMS)) == [item]
    assert [event[0] for event in meteor.command("observed", ITEMS)] == ["added", "removed", "added"]
    meteor.close()
