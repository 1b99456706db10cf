"""Fact 40: who asks too often has to wait."""

from __future__ import annotations

from tests.conformance.conversation import Nothing, Step, called, connected, conversation, failed
from tests.conformance.facts_accounts import CREDENTIALS, call, digest
from tests.conformance.patterns import Has, Var, Which

WRONG = {"user": {"username": Var("ann")}, "password": digest("wrong")}
TOO_MANY = {
    "isClientSafe": True,
    "error": "too-many-requests",
    "reason": Which(
        "the usual sentence",
        lambda text: (
            text.startswith("Error, too many requests. Please slow down. You must wait ")
            and text.endswith(" seconds before trying again.")
        ),
    ),
    "details": {"timeToReset": Which("milliseconds, ten seconds at most", lambda time: 0 <= time <= 10_000)},
    "message": Which("the reason and the code", lambda text: text.endswith(" [too-many-requests]")),
    "errorType": "Meteor.Error",
}


def five_tries(by: str = "me") -> list[Step]:
    steps: list[Step] = []
    for number in range(5):
        steps += [call(f"in{number}", "login", WRONG, by=by), failed(f"in{number}", CREDENTIALS, by=by)]
    return steps


CONVERSATIONS = [
    conversation(
        "fact_40_the_sixth_login_in_ten_seconds",
        connected(),
        five_tries(),
        call("too many", "login", WRONG),
        failed("too many", TOO_MANY),
        Nothing(),
        needs="accounts limits",
    ),
    conversation(
        "fact_40_other_methods_and_other_connections_have_limits_of_their_own",
        connected(),
        connected("other"),
        five_tries(),
        call("m", "resetPassword", "x" * 43, digest("b")),
        failed("m", Has({"error": 403})),
        call("in", "login", WRONG, by="other"),
        failed("in", CREDENTIALS, by="other"),
        call("too many", "login", WRONG),
        failed("too many", TOO_MANY),
        needs="accounts limits",
    ),
    conversation(
        "fact_40_methods_without_a_rule",
        connected(),
        [called(f"m{number}", "nothing") for number in range(50)],
        Nothing(),
    ),
]
