"""Facts 8 to 12: input that is no DDP. The server says so, and the connection goes on."""

from __future__ import annotations

from typing import Any

from tests.conformance.conversation import (
    Conversation,
    Nothing,
    Open,
    Send,
    SendText,
    connected,
    conversation,
    done,
    expect,
    interleaved,
    method,
    nosub,
    result,
    say,
    updated,
)
from tests.conformance.patterns import ID, Has, Ordered, Which

BAD = {"msg": "error", "reason": "Bad request"}


def bad_text(name: str, text: str, answer: Any = BAD) -> Conversation:
    return conversation(name, connected(), SendText(text), expect(answer), Nothing())


def malformed(name: str, reason: str, message: dict[str, Any]) -> Conversation:
    """A message that is answered with an error that shows it."""
    return conversation(
        name,
        connected(),
        Send(message),
        expect({"msg": "error", "reason": reason, "offendingMessage": message}),
        Nothing(),
    )


def bad_sub(what: str, **message: Any) -> Conversation:
    return malformed(f"fact_11_sub_{what}", "Malformed subscription", {"msg": "sub", **message})


def bad_method(what: str, **message: Any) -> Conversation:
    return malformed(f"fact_11_method_{what}", "Malformed method invocation", {"msg": "method", **message})


CONVERSATIONS = [
    conversation(
        "fact_08_shape_of_errors",
        connected(),
        say("nonsense", x=1),
        expect(
            Ordered(
                {"msg": "error", "reason": "Bad request", "offendingMessage": {"msg": "nonsense", "x": 1}}
            )
        ),
        Nothing(),
    ),
    bad_text("fact_09_no_json", "{nonsense"),
    bad_text("fact_09_null", "null"),
    bad_text("fact_09_number", "7"),
    bad_text("fact_09_zero", "0"),
    bad_text("fact_09_text", '"connect"'),
    bad_text("fact_09_object_without_msg", '{"x": 1}', {**BAD, "offendingMessage": {"x": 1}}),
    bad_text("fact_09_msg_is_empty", '{"msg": ""}', {**BAD, "offendingMessage": {"msg": ""}}),
    bad_text("fact_09_array", "[1]", {**BAD, "offendingMessage": [1]}),
    bad_text(
        "fact_09_unknown_type_in_params",
        '{"msg": "method", "id": "m", "method": "conformance.echo", "params": [{"$type": "x", "$value": 1}]}',
        {"msg": "error", "reason": "Parse error"},
    ),
    bad_text(
        "fact_09_cleared_is_no_array",
        '{"msg": "sub", "id": "s", "name": "conformance.none", "cleared": 7}',
        {"msg": "error", "reason": "Parse error"},
    ),
    conversation(
        "fact_10_must_connect_first",
        Open(),
        say("sub", id="s", name="conformance.members"),
        expect(Has({"msg": "error", "reason": "Must connect first"})),
        say("method", id="m", method="conformance.nothing"),
        expect(Has({"msg": "error", "reason": "Must connect first"})),
        say("connect", version="1", support=["1"]),
        expect({"msg": "connected", "session": ID}),
        Nothing(),
    ),
    conversation(
        "fact_10_already_connected",
        connected(),
        say("connect", version="1", support=["1"]),
        expect(
            {
                "msg": "error",
                "reason": "Already connected",
                "offendingMessage": {"msg": "connect", "version": "1", "support": ["1"]},
            }
        ),
        Nothing(),
    ),
    conversation(
        "fact_10_bad_requests_wait_for_their_turn",
        connected(),
        method("m", "slow", 300, 1),
        say("nonsense"),
        interleaved(
            [result("m", 1), {**BAD, "offendingMessage": {"msg": "nonsense"}}],
            [updated("m")],
        ),
        Nothing(),
    ),
    bad_sub("without_id", name="conformance.members"),
    bad_sub("id_is_no_text", id=7, name="conformance.members"),
    bad_sub("without_name", id="s"),
    bad_sub("name_is_no_text", id="s", name=["conformance.members"]),
    bad_sub("params_are_no_array", id="s", name="conformance.members", params={"x": 1}),
    bad_method("without_id", method="conformance.nothing"),
    bad_method("id_is_no_text", id=7, method="conformance.nothing"),
    bad_method("without_name", id="m"),
    bad_method("name_is_no_text", id="m", method=7),
    bad_method("params_are_no_array", id="m", method="conformance.nothing", params=7),
    bad_method("seed_is_no_text", id="m", method="conformance.nothing", params=[], randomSeed=7),
    conversation(
        "fact_11_params_may_be_left_out",
        connected(),
        say("method", id="m", method="conformance.nothing"),
        done("m"),
        Nothing(),
    ),
    conversation(
        "fact_11_unknown_keys_are_nothing",
        connected(),
        say("method", id="m", method="conformance.echo", params=[1], randomSeed="seed", colour="red"),
        done("m", 1),
        say("unsub", id="none", colour="red"),
        expect(nosub("none")),
        Nothing(),
    ),
    conversation(
        "fact_12_the_offending_message_is_told",
        connected(),
        say("sub", id=7, name="x", params=[{"$date": 0}]),
        expect(
            {
                "msg": "error",
                "reason": "Malformed subscription",
                # As decoded or as it came: the date may be an ISO text by now.
                "offendingMessage": Has(
                    {"msg": "sub", "id": 7, "name": "x", "params": Which("an array", lambda v: len(v) == 1)}
                ),
            }
        ),
        Nothing(),
    ),
]
