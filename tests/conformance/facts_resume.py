"""Facts 4 to 7: a connection is lost, and its session lives on for a while (Meteor 3.5)."""

from __future__ import annotations

from typing import Any

from tests.conformance.conversation import (
    Closed,
    Leave,
    Nothing,
    Open,
    Step,
    added,
    called,
    changed,
    connected,
    conversation,
    driven,
    expect,
    in_any_order,
    interleaved,
    method,
    nosub,
    ready,
    removed,
    result,
    say,
    script,
    sub,
    telling,
    unsub,
    updated,
)
from tests.conformance.patterns import ANYTHING, ID, Capture, Has, Mismatch, Pattern, Var, Variables

RUN, SESSION, RECEIVED = Var("run"), Var("session"), Var("received")
ITEMS = "conformance.items"


class NewSession(Pattern):
    """The id of a session that is not the one before."""

    def match(self, value: Any, variables: Variables, where: str) -> None:
        ID.match(value, variables, where)
        if value == variables["session"]:
            raise Mismatch(f"{where} is the old session's")

    def __repr__(self) -> str:
        return "<another session's id>"


def begin() -> list[Step]:
    """Two clients; to "me" a script shows a document. With the universal one that makes four messages."""
    return [
        *connected(),
        *connected("other"),
        script("s", ["added", "things", "a", {"x": 1}], ["ready"]),
        expect(added("things", "a", x=1), ready("s")),
    ]


def lose() -> list[Step]:
    """The connection goes, and the server knows it."""
    return [Leave(), *called("lost", "slow", 200, 0, by="other", gives=0)]


def ask(session: Any = SESSION, received: Any = RECEIVED, *, resuming: bool = False) -> list[Step]:
    """Come back, and ask for a session. Args: resuming: whether the documents are still there."""
    return [
        Open(resuming=resuming),
        say("connect", version="1", support=["1", "pre2", "pre1"], session=session, receivedCount=received),
    ]


def resume() -> list[Step]:
    """Come back to the same session."""
    return [*ask(resuming=True), expect({"msg": "connected", "session": SESSION})]


def anew(session: Any = SESSION, received: Any = RECEIVED) -> list[Step]:
    """Ask for the session, and get a new one."""
    return [*ask(session, received), expect({"msg": "connected", "session": NewSession()})]


def meanwhile(call: str, *step: Any) -> list[Step]:
    """The script of the client that is away does a step."""
    return called(call, "drive", RUN, list(step), by="other")


def forgotten() -> list[Step]:
    """The old session's subscriptions are not there: what they were told comes again."""
    return [
        Nothing(),
        unsub("s"),
        expect(nosub("s")),
        script("s", ["added", "things", "a", {"x": 1}], ["ready"]),
        expect(added("things", "a", x=1), ready("s")),
        Nothing(),
    ]


CONVERSATIONS = [
    conversation(
        "fact_04_the_same_session_and_nothing_again",
        begin(),
        lose(),
        resume(),
        Nothing(),
        driven("m", ["changed", "things", "a", {"x": 2}], changed("things", "a", x=2)),
        unsub("s"),
        expect(removed("things", "a"), nosub("s")),
        Nothing(),
        needs="resume",
    ),
    conversation(
        "fact_04_what_was_told_meanwhile_in_its_order",
        begin(),
        lose(),
        meanwhile("w1", "added", "things", "b", {"x": 1}),
        meanwhile("w2", "changed", "things", "a", {"x": 2}),
        meanwhile("w3", "removed", "things", "b"),
        meanwhile("w4", "added", "others", "c", {}),
        resume(),
        expect(
            added("things", "b", x=1),
            changed("things", "a", x=2),
            removed("things", "b"),
            added("others", "c"),
        ),
        Nothing(),
        needs="resume",
    ),
    conversation(
        "fact_04_rows_that_changed_meanwhile",
        begin(),
        sub("t", "items", RUN),
        expect(ready("t")),
        lose(),
        called("w1", "insert", RUN, "one", by="other", gives=Capture("item", ID)),
        resume(),
        expect(added(ITEMS, Var("item"), group=RUN, text="one")),
        telling("m", "update", Var("item"), "two", told=[changed(ITEMS, Var("item"), text="two")]),
        Nothing(),
        needs="resume",
    ),
    conversation(
        "fact_04_a_result_that_came_meanwhile",
        begin(),
        method("slow", "slow", 700, "late"),
        lose(),
        called("w1", "slow", 1000, 0, by="other", gives=0),
        resume(),
        in_any_order(result("slow", "late"), updated("slow")),
        Nothing(),
        needs="resume",
    ),
    conversation(
        "fact_04_a_method_that_goes_on_meanwhile",
        begin(),
        method("slow", "slow", 2000, "late"),
        lose(),
        resume(),
        in_any_order(result("slow", "late"), updated("slow")),
        Nothing(),
        needs="resume",
    ),
    conversation(
        "fact_04_more_than_once",
        begin(),
        lose(),
        meanwhile("w1", "changed", "things", "a", {"x": 2}),
        resume(),
        expect(changed("things", "a", x=2)),
        lose(),
        meanwhile("w2", "changed", "things", "a", {"x": 3}),
        resume(),
        expect(changed("things", "a", x=3)),
        Nothing(),
        needs="resume",
    ),
    conversation(
        "fact_04_the_user_stays",
        begin(),
        called("p", "person", Var("ann"), gives=ANYTHING),
        method("m1", "loginAs", Var("ann")),
        interleaved([ready("s"), result("m1")], [updated("m1")]),
        lose(),
        resume(),
        called("m2", "whoami", gives=Var("ann")),
        Nothing(),
        needs="resume",
    ),
    conversation(
        "fact_04_pings_do_not_count",
        begin(),
        say("ping", id="1"),
        expect({"msg": "pong", "id": "1"}),
        say("ping"),
        expect({"msg": "pong"}),
        lose(),
        resume(),
        Nothing(),
        needs="resume",
    ),
    conversation(
        "fact_04_errors_at_their_turn_count",
        begin(),
        say("sub", id=7, name="x"),
        expect(Has({"msg": "error", "reason": "Malformed subscription"})),
        lose(),
        resume(),
        Nothing(),
        needs="resume",
    ),
    conversation(
        "fact_04_another_count_is_a_new_session",
        begin(),
        lose(),
        anew(received=Var("received less")),
        forgotten(),
        needs="resume",
    ),
    conversation(
        "fact_04_a_refused_session_is_destroyed",
        begin(),
        lose(),
        anew(received=Var("received less")),
        # The right count comes too late.
        anew(),
        forgotten(),
        needs="resume",
    ),
    conversation(
        "fact_04_no_count_is_a_new_session",
        begin(),
        lose(),
        Open(),
        say("connect", version="1", support=["1"], session=SESSION),
        expect({"msg": "connected", "session": NewSession()}),
        forgotten(),
        needs="resume",
    ),
    conversation(
        "fact_04_an_unknown_session_is_a_new_one",
        begin(),
        lose(),
        anew(session="2222222222222222A"),
        forgotten(),
    ),
    conversation(
        "fact_04_strange_sessions_and_counts_are_a_new_session",
        begin(),
        lose(),
        anew(session={"$date": 1}, received="many"),
        anew(session=None, received=None),
        anew(session="", received=-1),
        anew(session=[SESSION], received=[RECEIVED]),
        Nothing(),
    ),
    conversation(
        "fact_04_a_session_in_use_is_destroyed",
        begin(),
        # Its counts would be right, but it is not in its grace period.
        Open("thief"),
        say("connect", "thief", version="1", support=["1"], session=SESSION, receivedCount=4),
        expect({"msg": "connected", "session": NewSession()}, by="thief"),
        Nothing("thief"),
        Closed(codes=(1000, 1001, 1005, 1006, 3000)),
        needs="resume",
    ),
    conversation(
        "fact_04_universal_publications_do_not_begin_again",
        connected(),
        expect(added("conformance.universal", "motd", text="hello")),
        connected("other"),
        expect(added("conformance.universal", "motd", text="hello"), by="other"),
        lose(),
        resume(),
        Nothing(),
        needs="resume",
        ignoring=frozenset({"users"}),
    ),
    conversation(
        "fact_05_who_disconnects_does_not_come_back",
        begin(),
        say("disconnect"),
        # A server may close before the client does.
        Leave(),
        anew(),
        forgotten(),
        needs="resume",
    ),
    conversation(
        "fact_05_disconnect_is_not_answered",
        connected(),
        connected("other"),
        method("m", "slow", 1000, 1),
        say("disconnect"),
        Leave(),
        Nothing("other"),
        needs="resume",
    ),
    conversation(
        "fact_05_whom_the_server_closes_does_not_come_back",
        begin(),
        method("m", "hangUp"),
        Closed(codes=(1000, 3000), silently=False),
        Leave(),
        anew(),
        forgotten(),
        needs="resume",
    ),
    conversation(
        "fact_06_all_is_sent_again",
        begin(),
        lose(),
        # A client sends these at once, before it knows whether it will have its session again.
        ask(resuming=True),
        script("s", ["added", "things", "a", {"x": 1}], ["ready"]),
        sub("t", "items", RUN),
        expect({"msg": "connected", "session": SESSION}, ready("t")),
        Nothing(),
        needs="resume",
    ),
    conversation(
        "fact_07_much_in_order",
        begin(),
        lose(),
        *(meanwhile(f"w{number}", "added", "things", f"{number}", {}) for number in range(30)),
        resume(),
        expect(*(added("things", f"{number}") for number in range(30))),
        driven("m", ["added", "things", "new", {}], added("things", "new")),
        Nothing(),
        needs="resume",
    ),
    conversation(
        "fact_07_what_is_told_to_a_session_that_has_gone",
        begin(),
        lose(),
        anew(received=Var("received less")),
        # Nobody hears it, and nothing breaks.
        method("w1", "drive", RUN, ["added", "things", "late", {}], by="other"),
        in_any_order(Has({"msg": "result", "id": "w1"}), updated("w1"), by="other"),
        Nothing(),
        Nothing("other"),
        needs="resume",
    ),
]
