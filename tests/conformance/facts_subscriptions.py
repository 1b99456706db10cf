"""Facts 24 to 29: the life of a subscription, and errors."""

from __future__ import annotations

from typing import Any

from tests.conformance.conversation import (
    Conversation,
    Nothing,
    added,
    connected,
    conversation,
    done,
    driven,
    expect,
    failed,
    interleaved,
    meteor_error,
    method,
    nosub,
    ready,
    removed,
    say,
    script,
    sub,
    unsub,
    updated,
)
from tests.conformance.patterns import Has, Ordered, Var

RUN = Var("run")
UNKNOWN = meteor_error(404, "Subscription 'conformance.unknown' not found")
INTERNAL = meteor_error(500, "Internal server error")


def fails(what: str, *arguments: Any, error: Any) -> Conversation:
    return conversation(
        f"fact_27_error_{what}", connected(), method("m", "fail", *arguments), failed("m", error), Nothing()
    )


CONVERSATIONS = [
    conversation(
        "fact_24_unknown_name",
        connected(),
        sub("s", "unknown"),
        expect(nosub("s", error=UNKNOWN)),
        Nothing(),
    ),
    conversation(
        "fact_24_known_id_is_silence",
        connected(),
        script("s", ["added", "things", "a", {"x": 1}], ["ready"]),
        expect(added("things", "a", x=1), ready("s")),
        script("s", ["added", "things", "b", {}], ["ready"]),
        sub("s", "members"),
        Nothing(),
        unsub("s"),
        expect(removed("things", "a"), nosub("s")),
        Nothing(),
    ),
    conversation(
        "fact_24_unknown_name_before_known_id",
        connected(),
        script("s", ["added", "things", "a", {"x": 1}], ["ready"]),
        expect(added("things", "a", x=1), ready("s")),
        sub("s", "unknown"),
        expect(nosub("s", error=UNKNOWN)),
        Nothing(),
    ),
    conversation(
        "fact_24_malformed_before_unknown_name",
        connected(),
        say("sub", id="s", name="conformance.unknown", params=7),
        expect(Has({"msg": "error", "reason": "Malformed subscription"})),
        Nothing(),
    ),
    conversation(
        "fact_24_an_id_is_free_again_after_its_end",
        connected(),
        script("s", ["ready"]),
        expect(ready("s")),
        unsub("s"),
        expect(nosub("s")),
        script("s", ["added", "things", "a", {}], ["ready"]),
        expect(added("things", "a"), ready("s")),
        Nothing(),
    ),
    conversation(
        "fact_25_ready_once",
        connected(),
        script("s", ["ready"], ["ready"]),
        expect(ready("s")),
        driven("m", ["ready"]),
        Nothing(),
    ),
    conversation(
        "fact_25_one_ready_for_each",
        connected(),
        script("s", ["added", "things", "a", {}], ["ready"]),
        sub("t", "items", RUN),
        expect(added("things", "a"), ready("s"), ready("t")),
        Nothing(),
    ),
    conversation(
        "fact_25_never_ready_by_itself",
        connected(),
        script("s", ["added", "things", "a", {}]),
        expect(added("things", "a")),
        Nothing(),
        driven("m", ["ready"], ready("s")),
        Nothing(),
    ),
    conversation(
        "fact_26_unsub",
        connected(),
        script("s", ["added", "things", "a", {}], ["added", "others", "b", {"x": 1}], ["ready"]),
        expect(added("things", "a"), added("others", "b", x=1), ready("s")),
        unsub("s"),
        interleaved([removed("things", "a")], [removed("others", "b")]),
        expect(nosub("s")),
        Nothing(),
    ),
    conversation("fact_26_unsub_of_an_unknown_id", connected(), unsub("s"), expect(nosub("s")), Nothing()),
    conversation(
        "fact_26_unsub_twice",
        connected(),
        script("s", ["ready"]),
        expect(ready("s")),
        unsub("s"),
        unsub("s"),
        expect(nosub("s"), nosub("s")),
        Nothing(),
    ),
    conversation(
        "fact_26_stop",
        connected(),
        script("s", ["added", "things", "a", {}], ["ready"]),
        expect(added("things", "a"), ready("s")),
        driven("m", ["stop"], removed("things", "a"), nosub("s")),
        driven("n", ["added", "things", "late", {}]),
        Nothing(),
    ),
    conversation(
        "fact_26_error",
        connected(),
        script("s", ["added", "things", "a", {}], ["ready"]),
        expect(added("things", "a"), ready("s")),
        driven(
            "m",
            ["error", "enough", "Enough"],
            removed("things", "a"),
            nosub("s", error=meteor_error("enough", "Enough")),
        ),
        Nothing(),
    ),
    conversation(
        "fact_26_error_before_ready",
        connected(),
        script("s", ["added", "things", "a", {}], ["error", "enough"]),
        expect(added("things", "a"), removed("things", "a"), nosub("s", error=meteor_error("enough"))),
        Nothing(),
    ),
    conversation(
        "fact_26_nothing_of_others_is_removed",
        connected(),
        script("s", ["added", "things", "a", {}], ["ready"]),
        expect(added("things", "a"), ready("s")),
        sub("t", "script", "t", [["added", "things", "a", {}], ["added", "things", "b", {}], ["ready"]]),
        expect(added("things", "b"), ready("t")),
        unsub("t"),
        expect(removed("things", "b"), nosub("t")),
        Nothing(),
    ),
    conversation(
        "fact_27_key_order",
        connected(),
        sub("s", "unknown"),
        expect(nosub("s", error=Ordered(UNKNOWN))),
        method("m", "fail", "code", "reason", {"x": 1}),
        interleaved(
            [
                {
                    "msg": "result",
                    "id": "m",
                    "error": Ordered(meteor_error("code", "reason", details={"x": 1})),
                }
            ],
            [updated("m")],
        ),
        Nothing(),
    ),
    fails(
        "with_all",
        "code",
        "The reason",
        {"a": [1]},
        error=meteor_error("code", "The reason", details={"a": [1]}),
    ),
    fails("without_details", "code", "The reason", error=meteor_error("code", "The reason")),
    fails("without_reason", "code", error=meteor_error("code")),
    fails("with_a_number", 409, "Conflict", error=meteor_error(409, "Conflict")),
    conversation(
        "fact_28_unknown_exception_of_a_method",
        connected(),
        method("m", "broken"),
        failed("m", INTERNAL),
        Nothing(),
    ),
    conversation(
        "fact_28_unknown_exception_of_a_publication",
        connected(),
        script("s", ["added", "things", "a", {}], ["throw"]),
        expect(added("things", "a"), removed("things", "a"), nosub("s", error=INTERNAL)),
        Nothing(),
    ),
    conversation(
        "fact_28_check",
        connected(),
        method("m", "checked", "seven"),
        failed("m", Has(meteor_error(400, "Match failed"))),
        method("n", "checked", 7),
        done("n", 7),
        Nothing(),
    ),
    conversation(
        "fact_28_unknown_method",
        connected(),
        method("m", "unknown"),
        failed("m", meteor_error(404, "Method 'conformance.unknown' not found")),
        Nothing(),
    ),
    conversation(
        "fact_29_a_publication_that_returns_no_cursor",
        connected(),
        sub("s", "wrong"),
        expect(nosub("s", error=INTERNAL)),
        Nothing(),
    ),
]
