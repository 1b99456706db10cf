"""Facts 16 to 23: documents."""

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
    data,
    driven,
    expect,
    in_any_order,
    meteor_error,
    method,
    nosub,
    ready,
    removed,
    script,
    sub,
    telling,
    unsub,
)
from tests.conformance.patterns import ID, Capture, OneOf, Ordered, Var

RUN, ITEM = Var("run"), Var("item")
ITEMS = "conformance.items"


def id_is(what: str, document_id: str, on_the_wire: str) -> Conversation:
    return conversation(
        f"fact_20_id_{what}",
        connected(),
        script("s", ["added", "things", document_id, {"x": 1}], ["ready"]),
        expect(added("things", on_the_wire, x=1), ready("s")),
        driven("m1", ["changed", "things", document_id, {"x": 2}], changed("things", on_the_wire, x=2)),
        driven("m2", ["removed", "things", document_id], removed("things", on_the_wire)),
        Nothing(),
    )


def value_is(what: str, value: Any) -> Conversation:
    """A value goes in as a parameter, and comes back as a result and in a document."""
    return conversation(
        f"fact_21_value_{what}",
        connected(),
        called("m", "echo", value, gives=value),
        script("s", ["added", "things", "a", {"value": value}], ["ready"]),
        expect(added("things", "a", value=value), ready("s")),
        Nothing(),
    )


VALUES: dict[str, Any] = {
    "of_json": ["", 'Gödel \\ " 🌍', 0, -0.5, 9007199254740991, True, False, [None], {"a": {"b": []}}],
    "date": {"$date": 1700000000123},
    "date_before_1970": {"$date": -1},
    "binary": {"$binary": "AAECAw=="},
    "binary_empty": {"$binary": ""},
    "infinity": {"$InfNaN": 1},
    "minus_infinity": {"$InfNaN": -1},
    "not_a_number": {"$InfNaN": 0},
    "regular_expression": {"$regexp": "^a.b$", "$flags": "i"},
    "object_id": {"$type": "oid", "$value": "0123456789abcdef01234567"},
    "decimal": {"$type": "Decimal", "$value": "12.50"},
    "escaped": {"$escape": {"$date": 5}},
    "escaped_type": {"$escape": {"$type": "x", "$value": 1}},
    "nested": [{"deep": [{"$date": 1}, {"$escape": {"$date": {"$date": 2}}}]}],
    "of_more_keys_is_itself": {"$date": 1, "b": 2, "c": 3},
}

CONVERSATIONS = [
    conversation(
        "fact_16_key_order",
        connected(),
        script("s", ["added", "things", "a", {"x": 1, "y": 2}], ["ready"]),
        expect(
            Ordered({"msg": "added", "collection": "things", "id": "a", "fields": {"x": 1, "y": 2}}),
            Ordered({"msg": "ready", "subs": ["s"]}),
        ),
        driven(
            "m1",
            ["changed", "things", "a", {"x": 3}, ["y"]],
            Ordered(
                {"msg": "changed", "collection": "things", "id": "a", "fields": {"x": 3}, "cleared": ["y"]}
            ),
        ),
        driven(
            "m2", ["removed", "things", "a"], Ordered({"msg": "removed", "collection": "things", "id": "a"})
        ),
        method("m3", "echo", 1),
        in_any_order(
            Ordered({"msg": "result", "id": "m3", "result": 1}),
            Ordered({"msg": "updated", "methods": ["m3"]}),
        ),
        method("m4", "fail", "code"),
        in_any_order(
            Ordered({"msg": "result", "id": "m4", "error": meteor_error("code")}),
            Ordered({"msg": "updated", "methods": ["m4"]}),
        ),
        sub("t", "members"),
        expect(Ordered({"msg": "nosub", "id": "t", "error": meteor_error("members-only", "Members only")})),
        Nothing(),
    ),
    conversation(
        "fact_17_no_fields",
        connected(),
        script("s", ["added", "things", "a", {}], ["ready"]),
        expect({"msg": "added", "collection": "things", "id": "a"}, ready("s")),
        Nothing(),
    ),
    conversation(
        "fact_17_cleared",
        connected(),
        script("s", ["added", "things", "a", {"x": 1, "y": 2}], ["ready"]),
        expect(added("things", "a", x=1, y=2), ready("s")),
        driven("m", ["changed", "things", "a", {}, ["x"]], data("changed", "things", "a", cleared=["x"])),
        Nothing(),
    ),
    conversation(
        "fact_17_a_change_that_changes_nothing",
        connected(),
        script("s", ["added", "things", "a", {"x": 1}], ["ready"]),
        expect(added("things", "a", x=1), ready("s")),
        driven("m1", ["changed", "things", "a", {"x": 1}]),
        driven("m2", ["changed", "things", "a", {}, ["no such field"]]),
        driven("m3", ["changed", "things", "a", {}]),
        Nothing(),
    ),
    conversation(
        "fact_17_only_what_differs",
        connected(),
        script("s", ["added", "things", "a", {"x": 1, "y": {"deep": 1}, "z": 1}], ["ready"]),
        expect(added("things", "a", x=1, y={"deep": 1}, z=1), ready("s")),
        driven(
            "m",
            ["changed", "things", "a", {"x": 1, "y": {"deep": 2}}],
            changed("things", "a", y={"deep": 2}),
        ),
        Nothing(),
    ),
    conversation(
        "fact_17_only_what_differs_of_a_row",
        connected(),
        sub("s", "items", RUN),
        expect(ready("s")),
        telling(
            "m1",
            "insert",
            RUN,
            "one",
            told=[added(ITEMS, Capture("item", ID), group=RUN, text="one")],
            gives=ID,
        ),
        telling("m2", "update", ITEM, "two", told=[changed(ITEMS, ITEM, text="two")]),
        called("m3", "update", ITEM, "two"),
        telling("m4", "remove", ITEM, told=[removed(ITEMS, ITEM)]),
        Nothing(),
    ),
    conversation(
        "fact_19_id_is_no_field",
        connected(),
        script("s", ["added", "things", "a", {"_id": "b", "x": 1}], ["ready"]),
        expect(added("things", "a", x=1), ready("s")),
        driven("m", ["changed", "things", "a", {"_id": "c", "x": 2}], changed("things", "a", x=2)),
        Nothing(),
    ),
    id_is("plain", "abc", "abc"),
    id_is("of_digits", "7", "7"),
    id_is("begins_with_a_dash", "-x", "--x"),
    id_is("begins_with_a_tilde", "~x", "-~x"),
    id_is("begins_with_a_brace", "{x", "-{x"),
    id_is("like_an_object_id", "0123456789abcdef01234567", "-0123456789abcdef01234567"),
    id_is("like_no_object_id_in_capitals", "0123456789ABCDEF01234567", "0123456789ABCDEF01234567"),
    id_is("with_a_dash_within", "a-b", "a-b"),
    id_is("not_of_ascii", "ä/\\🌍", "ä/\\🌍"),
    conversation(
        "fact_20_numbers_are_written_one_way",
        connected(),
        script("s", ["added", "things", 7, {"x": 1}], ["ready"]),
        expect(added("things", Capture("seven", OneOf("7", "~7")), x=1), ready("s")),
        driven("m1", ["changed", "things", 7, {"x": 2}], changed("things", Var("seven"), x=2)),
        driven("m2", ["removed", "things", 7], removed("things", Var("seven"))),
        Nothing(),
    ),
    *(value_is(what, value) for what, value in VALUES.items()),
    conversation(
        "fact_21_no_ejson_in_details",
        connected(),
        # The method gets {"$date": 5}, which is no date, and throws it as it is.
        method("m", "fail", "code", "reason", {"$escape": {"$date": 5}}),
        in_any_order(
            {
                "msg": "result",
                "id": "m",
                "error": meteor_error("code", "reason", details={"$date": 5}),
            },
            {"msg": "updated", "methods": ["m"]},
        ),
        Nothing(),
    ),
    conversation(
        "fact_22_mergebox_precedence",
        connected(),
        script("first", ["added", "things", "a", {"x": "first", "y": "first"}], ["ready"]),
        expect(added("things", "a", x="first", y="first"), ready("first")),
        sub("second", "script", "second", [["added", "things", "a", {"x": "second", "z": 2}], ["ready"]]),
        expect(changed("things", "a", z=2), ready("second")),
        # The first is heard, gives its value up so that the second's shows, and is last from then on.
        driven("m1", ["changed", "things", "a", {"x": "1st"}], changed("things", "a", x="1st")),
        driven("m2", ["changed", "things", "a", {}, ["x"]], changed("things", "a", x="second")),
        driven("m3", ["changed", "things", "a", {"x": "late"}]),
        Nothing(),
    ),
    conversation(
        "fact_22_the_next_value_when_the_holder_stops",
        connected(),
        script("first", ["added", "things", "a", {"x": "first", "y": 1, "same": 0}], ["ready"]),
        expect(added("things", "a", x="first", y=1, same=0), ready("first")),
        sub("second", "script", "second", [["added", "things", "a", {"x": "second", "same": 0}], ["ready"]]),
        expect(ready("second")),
        unsub("first"),
        expect(data("changed", "things", "a", fields={"x": "second"}, cleared=["y"]), nosub("first")),
        unsub("second"),
        expect(removed("things", "a"), nosub("second")),
        Nothing(),
    ),
    conversation(
        "fact_22_the_hidden_value_that_goes_is_not_told",
        connected(),
        sub("first", "script", "first", [["added", "things", "a", {"x": "first"}], ["ready"]]),
        expect(added("things", "a", x="first"), ready("first")),
        script("second", ["added", "things", "a", {"x": "second"}], ["ready"]),
        expect(ready("second")),
        driven("m1", ["changed", "things", "a", {"x": "2nd"}]),
        driven("m2", ["changed", "things", "a", {}, ["x"]]),
        driven("m3", ["removed", "things", "a"]),
        unsub("second"),
        expect(nosub("second")),
        Nothing(),
    ),
    conversation(
        "fact_23_a_second_added_tells_only_what_is_new",
        connected(),
        sub("first", "script", "first", [["added", "things", "a", {"x": 1}], ["ready"]]),
        expect(added("things", "a", x=1), ready("first")),
        sub("second", "script", "second", [["added", "things", "a", {"x": 1}], ["ready"]]),
        expect(ready("second")),
        sub("third", "script", "third", [["added", "things", "a", {"x": 1, "y": 2}], ["ready"]]),
        expect(changed("things", "a", y=2), ready("third")),
        unsub("first"),
        expect(nosub("first")),
        unsub("third"),
        expect(data("changed", "things", "a", cleared=["y"]), nosub("third")),
        Nothing(),
    ),
    conversation(
        "fact_23_rows_of_two_subscriptions",
        connected(),
        called("m1", "insert", RUN, "one", gives=Capture("item", ID)),
        sub("first", "items", RUN),
        expect(added(ITEMS, ITEM, group=RUN, text="one"), ready("first")),
        sub("second", "items", RUN),
        expect(ready("second")),
        telling("m2", "update", ITEM, "two", told=[changed(ITEMS, ITEM, text="two")]),
        unsub("first"),
        expect(nosub("first")),
        telling("m3", "update", ITEM, "three", told=[changed(ITEMS, ITEM, text="three")]),
        sub("third", "script", "third", [["added", ITEMS, "by hand", {"text": "four"}], ["ready"]]),
        expect(added(ITEMS, "by hand", text="four"), ready("third")),
        unsub("second"),
        expect(removed(ITEMS, ITEM), nosub("second")),
        Nothing(),
    ),
]
