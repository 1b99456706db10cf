"""Facts 30 to 33: methods, and whose turn it is."""

from __future__ import annotations

from typing import Any

from tests.conformance.conversation import (
    Conversation,
    Nothing,
    added,
    called,
    changed,
    connected,
    conversation,
    done,
    expect,
    interleaved,
    method,
    ready,
    removed,
    result,
    script,
    sub,
    telling,
    updated,
)
from tests.conformance.patterns import ANYTHING, ID, Capture, Has, Var

RUN, ITEM = Var("run"), Var("item")
ITEMS = "conformance.items"


def updated_after(what: str, name: str, *params: Any) -> Conversation:
    """`updated` is sent of every method, however it ended."""
    return conversation(
        f"fact_31_updated_of_a_method_that_{what}",
        connected(),
        method("m", name, *params),
        interleaved([Has({"msg": "result", "id": "m", "error": ANYTHING})], [updated("m")]),
        Nothing(),
    )


CONVERSATIONS = [
    conversation(
        "fact_30_one_method_at_a_time",
        connected(),
        method("slow", "slow", 300, 1),
        method("quick", "echo", 2),
        interleaved([result("slow", 1), result("quick", 2)], [updated("slow")], [updated("quick")]),
        Nothing(),
    ),
    conversation(
        "fact_30_clients_do_not_wait_for_each_other",
        connected(),
        connected("other"),
        method("slow", "slow", 5000, 1),
        called("quick", "echo", 2, by="other", gives=2),
        Nothing("me", queued=False),  # the slow one has not answered yet
    ),
    conversation(
        "fact_30_a_subscription_blocks_until_it_is_ready",
        connected(),
        script("s", ["wait", 300], ["added", "things", "a", {}], ["ready"]),
        method("m", "echo", 1),
        expect(added("things", "a"), ready("s")),
        done("m", 1),
        Nothing(),
    ),
    conversation(
        "fact_30_a_subscription_of_rows_blocks_until_they_are_told",
        connected(),
        called("m1", "insert", RUN, "one", gives=Capture("item", ID)),
        sub("s", "items", RUN),
        method("m2", "echo", 1),
        expect(added(ITEMS, ITEM, group=RUN, text="one"), ready("s")),
        done("m2", 1),
        Nothing(),
    ),
    conversation(
        "fact_30_a_subscription_that_unblocks",
        connected(),
        script("s", ["unblock"], ["wait", 2000], ["added", "things", "a", {}], ["ready"]),
        method("m", "echo", 1),
        done("m", 1),
        expect(added("things", "a"), ready("s")),
        Nothing(),
    ),
    conversation(
        "fact_30_a_method_that_unblocks",
        connected(),
        method("slow", "unblocked", 2000, 1),
        method("quick", "echo", 2),
        done("quick", 2),
        done("slow", 1),
        Nothing(),
        needs="unblock",
    ),
    conversation(
        "fact_30_order_of_all_kinds_of_requests",
        connected(),
        method("m1", "slow", 200, 1),
        script("s", ["added", "things", "a", {}], ["ready"]),
        method("m2", "echo", 2),
        sub("t", "unknown"),
        interleaved(
            [
                result("m1", 1),
                added("things", "a"),
                ready("s"),
                result("m2", 2),
                Has({"msg": "nosub", "id": "t"}),
            ],
            [updated("m1")],
            [updated("m2")],
        ),
        Nothing(),
    ),
    conversation("fact_31_updated_of_a_method_that_writes_nothing", connected(), called("m", "nothing")),
    updated_after("fails", "fail", "code"),
    updated_after("throws", "broken"),
    updated_after("is_unknown", "unknown"),
    updated_after("is_called_wrongly", "checked", "seven"),
    conversation(
        "fact_32_data_before_updated",
        connected(),
        sub("s", "items", RUN),
        expect(ready("s")),
        telling(
            "m1", "insert", RUN, "1", told=[added(ITEMS, Capture("item", ID), group=RUN, text="1")], gives=ID
        ),
        *(
            telling(f"u{number}", "update", ITEM, f"{number}", told=[changed(ITEMS, ITEM, text=f"{number}")])
            for number in range(2, 12)
        ),
        telling("m2", "remove", ITEM, told=[removed(ITEMS, ITEM)]),
        Nothing(),
    ),
    conversation(
        "fact_32_everyone_is_told",
        connected(),
        connected("other"),
        sub("s", "items", RUN),
        expect(ready("s")),
        sub("s", "items", RUN, by="other"),
        expect(ready("s"), by="other"),
        telling(
            "m1", "insert", RUN, "1", told=[added(ITEMS, Capture("item", ID), group=RUN, text="1")], gives=ID
        ),
        expect(added(ITEMS, ITEM, group=RUN, text="1"), by="other"),
        Nothing(),
        Nothing("other"),
    ),
    conversation(
        "fact_33_no_result",
        connected(),
        called("m", "nothing"),
        called("n", "echo", [None], gives=[None]),
        Nothing(),
    ),
    conversation(
        "fact_33_values_that_are_false",
        connected(),
        called("m1", "echo", 0, gives=0),
        called("m2", "echo", "", gives=""),
        called("m3", "echo", False, gives=False),
        called("m4", "echo", [], gives=[]),
        Nothing(),
    ),
]
