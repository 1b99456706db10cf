"""Fact 40: who asks too often has to wait."""

from __future__ import annotations

from tests.conformance.conversation import (
    Met,
    Nothing,
    Step,
    called,
    connected,
    conversation,
    failed,
    meteor_error,
)
from tests.conformance.facts_accounts import LOGGED_OUT, call, digest
from tests.conformance.patterns import Capture, OneOf, Which

WRONG = {"resume": "x" * 43}
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


def tries() -> list[Step]:
    """Eleven logins. Five are not too many; a window of ten seconds may end meanwhile, but hardly two."""
    steps: list[Step] = []
    for number in range(11):
        answer = LOGGED_OUT if number < 5 else OneOf(Capture("refusal", TOO_MANY), LOGGED_OUT)
        steps += [call(f"in{number}", "login", WRONG), failed(f"in{number}", answer)]
    return [*steps, Met("refusal")]


CONVERSATIONS = [
    conversation(
        "fact_40_more_than_five_logins_in_ten_seconds",
        connected(),
        tries(),
        Nothing(),
        needs="accounts limits",
    ),
    conversation(
        "fact_40_other_methods_and_other_connections_have_limits_of_their_own",
        connected(),
        connected("other"),
        tries(),
        call("m", "resetPassword", "x" * 43, digest("b")),
        failed("m", meteor_error(403, "Token expired")),
        call("in", "login", WRONG, by="other"),
        failed("in", LOGGED_OUT, by="other"),
        Nothing(),
        Nothing("other"),
        needs="accounts limits",
    ),
    conversation(
        "fact_40_methods_without_a_rule",
        connected(),
        [called(f"m{number}", "nothing") for number in range(50)],
        Nothing(),
    ),
]
