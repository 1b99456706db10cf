"""Facts 34 to 36: a method says who the client is."""

from __future__ import annotations

from typing import Any

from tests.conformance.conversation import (
    Nothing,
    Step,
    added,
    called,
    changed,
    connected,
    conversation,
    driven,
    expect,
    failed,
    in_any_order,
    interleaved,
    meteor_error,
    method,
    nosub,
    ready,
    removed,
    result,
    script,
    sub,
    updated,
)
from tests.conformance.patterns import ID, TEXT, Capture, Has, OneOf, Var, Which

RUN, ANN, BOB = Var("run"), Var("ann"), Var("bob")
ITEMS = "conformance.items"
OWN_DOCUMENT = Has(
    {"msg": "added", "collection": "users", "id": Var("ann's id"), "fields": Has({"username": Var("ann")})}
)
INTERNAL = meteor_error(500, "Internal server error")


def people() -> list[Step]:
    """Two users with an item each, and one that is nobody's."""
    return [
        *called("p1", "person", ANN, gives=TEXT),
        *called("p2", "person", BOB, gives=TEXT),
        *called("i1", "insert", RUN, "Ann's", ANN, gives=Capture("of ann", ID)),
        *called("i2", "insert", RUN, "Bob's", BOB, gives=Capture("of bob", ID)),
        *called("i3", "insert", RUN, "nobody's", gives=ID),
    ]


def item(owner: str, text: str) -> Any:
    return added(ITEMS, Var(f"of {owner}"), group=RUN, text=text)


def login(call: str, user: Any, *told: Any) -> list[Step]:
    """Become someone: all that differs is told before the result."""
    return [method(call, "loginAs", user), interleaved([*told, result(call)], [updated(call)])]


def either(*subscriptions: str) -> Any:
    """`ready` of just these, in any order."""
    wanted = sorted(subscriptions)
    return {"msg": "ready", "subs": Which(f"in any order {wanted}", lambda subs: sorted(subs) == wanted)}


CONVERSATIONS = [
    conversation(
        "fact_34_differences_before_the_result",
        connected(),
        people(),
        sub("s", "mine", RUN),
        expect(ready("s")),
        login("m1", ANN, item("ann", "Ann's"), ready("s")),
        called("m2", "whoami", gives=ANN),
        Nothing(),
    ),
    conversation(
        "fact_34_without_subscriptions",
        connected(),
        people(),
        login("m1", ANN),
        called("m2", "whoami", gives=ANN),
        Nothing(),
    ),
    conversation(
        "fact_34_the_users_own_document_before_the_result",
        connected(),
        called("p", "person", ANN, gives=Capture("ann's id", TEXT)),
        login("m1", ANN, OWN_DOCUMENT),
        Nothing(),
        login("m2", None, removed("users", Var("ann's id"))),
        Nothing(),
        ignoring=frozenset({"conformance.universal"}),
        needs="accounts",
    ),
    conversation(
        "fact_35_only_the_difference_and_one_ready",
        connected(),
        people(),
        sub("a", "mine", RUN),
        sub("b", "items", "a group without items"),
        expect(ready("a"), ready("b")),
        login("m1", ANN, item("ann", "Ann's"), either("a", "b")),
        login("m2", BOB, removed(ITEMS, Var("of ann")), item("bob", "Bob's"), either("a", "b")),
        login("m3", BOB, either("a", "b")),
        login("m4", None, removed(ITEMS, Var("of bob")), either("a", "b")),
        Nothing(),
    ),
    conversation(
        "fact_35_what_stays_the_same_is_not_told",
        connected(),
        called("p", "person", ANN, gives=TEXT),
        script("s", ["added", "things", "a", {"x": 1}], ["ready"]),
        expect(added("things", "a", x=1), ready("s")),
        login("m1", ANN, ready("s")),
        driven("m2", ["changed", "things", "a", {"x": 2}], changed("things", "a", x=2)),
        login("m3", None, changed("things", "a", x=1), ready("s")),
        Nothing(),
    ),
    conversation(
        "fact_35_order_of_the_difference",
        connected(),
        called("p", "person", ANN, gives=TEXT),
        sub(
            "s",
            "byUser",
            {
                "nobody": [
                    ["first", "a", {"x": 1}],
                    ["first", "b", {"x": 1}],
                    ["first", "c", {"x": 1}],
                    ["second", "a", {}],
                ],
                "somebody": [
                    ["third", "a", {}],
                    ["second", "b", {}],
                    ["first", "d", {}],
                    ["first", "c", {"x": 2}],
                    ["first", "b", {"x": 1}],
                ],
            },
        ),
        expect(
            added("first", "a", x=1),
            added("first", "b", x=1),
            added("first", "c", x=1),
            added("second", "a"),
            ready("s"),
        ),
        login(
            "m",
            ANN,
            removed("first", "a"),
            changed("first", "c", x=2),
            added("first", "d"),
            removed("second", "a"),
            added("second", "b"),
            added("third", "a"),
            ready("s"),
        ),
        Nothing(),
    ),
    conversation(
        "fact_35_a_rerun_that_errors",
        connected(),
        called("p", "person", ANN, gives=TEXT),
        login("m1", ANN),
        sub("s", "members"),
        script("t", ["added", "things", "a", {}], ["ready"]),
        expect(ready("s"), added("things", "a"), ready("t")),
        method("m2", "loginAs", None),
        interleaved(
            [nosub("s", error=meteor_error("members-only", "Members only")), result("m2")],
            [ready("t")],
            [updated("m2")],
        ),
        Nothing(),
        # Gone for good, also when somebody is there again.
        login("m3", ANN, ready("t")),
        Nothing(),
    ),
    conversation(
        "fact_35_universal_publications_run_again",
        connected(),
        expect(added("conformance.universal", "motd", text="hello")),
        called("p", "person", ANN, gives=TEXT),
        login("m", ANN),
        Nothing(),
        ignoring=frozenset({"users"}),
    ),
    conversation(
        "fact_35_never_ready_stays_so",
        connected(),
        called("p", "person", ANN, gives=TEXT),
        script("s", ["unblock"], ["added", "things", "a", {}]),
        expect(added("things", "a")),
        login("m", ANN),
        driven("n", ["ready"], ready("s")),
        Nothing(),
    ),
    conversation(
        "fact_36_no_user_id",
        connected(),
        called("p", "person", ANN, gives=TEXT),
        login("m1", ANN),
        method("m2", "setUserId", ["x"]),
        failed("m2", INTERNAL),
        method("m3", "setUserId", {"x": 1}),
        failed("m3", INTERNAL),
        method("m4", "setUserId", True),
        failed("m4", INTERNAL),
        called("m5", "whoami", gives=ANN),
        Nothing(),
    ),
    conversation(
        "fact_36_no_login_after_unblock",
        connected(),
        called("p", "person", ANN, gives=TEXT),
        method("m1", "unblockAndLogin", ANN),
        failed("m1", INTERNAL),
        method("m2", "whoami"),
        in_any_order(OneOf(result("m2"), result("m2", None)), updated("m2")),
        Nothing(),
        needs="unblock",
    ),
]
