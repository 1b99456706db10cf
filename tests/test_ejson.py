"""EJSON against Meteor's rules, and round trips of everything it can carry."""

from __future__ import annotations

import datetime
import decimal
import enum
import json
import math
import re
import sys
import uuid
from typing import Any

import pytest
from django.utils.safestring import mark_safe
from django.utils.translation import gettext_lazy
from hypothesis import given
from hypothesis import strategies as st

from trigger_ddp import ejson
from trigger_ddp.ejson import EJSONError, ObjectID, RegExp
from trigger_ddp.errors import AlreadyRegistered, TriggerDDPError

UTC = datetime.UTC


class Suit(enum.StrEnum):
    HEARTS = "h"


class Level(enum.IntEnum):
    HIGH = 3


class Colour(enum.Enum):
    RED = (255, 0, 0)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (7, "7"),
        (1.5, "1.5"),
        ("é", '"é"'),
        ([1, (2, [])], "[1,[2,[]]]"),
        ({"a": {"b": 1}, 5: 6}, '{"a":{"b":1},"5":6}'),
        (math.inf, '{"$InfNaN":1}'),
        (-math.inf, '{"$InfNaN":-1}'),
        (math.nan, '{"$InfNaN":0}'),
        (b"hello", '{"$binary":"aGVsbG8="}'),
        (bytearray(b"hello"), '{"$binary":"aGVsbG8="}'),
        (memoryview(b"hello"), '{"$binary":"aGVsbG8="}'),
        (datetime.datetime(1970, 1, 1, 0, 0, 1, 999, tzinfo=UTC), '{"$date":1000}'),
        (datetime.datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), '{"$date":-1}'),
        (
            datetime.datetime(1970, 1, 1, 2, tzinfo=datetime.timezone(datetime.timedelta(hours=2))),
            '{"$date":0}',
        ),
        (datetime.datetime(1970, 1, 2), '{"$date":86400000}'),
        (datetime.date(1970, 1, 2), '{"$date":86400000}'),
        (datetime.time(9, 5, 0, 250), '"09:05:00.000250"'),
        (datetime.timedelta(days=1, seconds=2), '"1 00:00:02"'),
        (uuid.UUID(int=10), '"00000000-0000-0000-0000-00000000000a"'),
        (decimal.Decimal("1.50"), '{"$type":"Decimal","$value":"1.50"}'),
        (ObjectID("A" * 24), '{"$type":"oid","$value":"aaaaaaaaaaaaaaaaaaaaaaaa"}'),
        (RegExp("(?<year>[0-9]+)", "dgs"), '{"$regexp":"(?<year>[0-9]+)","$flags":"dgs"}'),
        (re.compile("^a", re.IGNORECASE | re.MULTILINE), '{"$regexp":"^a","$flags":"im"}'),
        (re.compile("a.b", re.DOTALL), '{"$regexp":"a.b","$flags":"s"}'),
        (2**53 - 1, "9007199254740991"),
        (2**53, '"9007199254740992"'),
        (-(2**53), '"-9007199254740992"'),
        (Suit.HEARTS, '"h"'),
        ({Suit.HEARTS: Level.HIGH}, '{"h":3}'),
        (Colour.RED, "[255,0,0]"),
        (mark_safe("<b>"), '"<b>"'),
        (gettext_lazy("yes"), '"yes"'),
    ],
)
def test_forms(value: Any, text: str) -> None:
    assert ejson.encode(value).decode() == text
    assert json.loads(text) == ejson.to_json(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"$date": 1}, '{"$escape":{"$date":1}}'),
        ({"$date": b""}, '{"$escape":{"$date":{"$binary":""}}}'),
        ({"$binary": {"$date": 1}}, '{"$escape":{"$binary":{"$escape":{"$date":1}}}}'),
        ({"$InfNaN": 1}, '{"$escape":{"$InfNaN":1}}'),
        ({"$escape": {}}, '{"$escape":{"$escape":{}}}'),
        ({"$type": 1, "$value": 2}, '{"$escape":{"$type":1,"$value":2}}'),
        ({"$regexp": 1, "$flags": 2}, '{"$escape":{"$regexp":1,"$flags":2}}'),
        ({"$date": 1, "b": 2}, '{"$date":1,"b":2}'),
        ({"$type": 1}, '{"$type":1}'),
        ({"$type": 1, "$value": 2, "c": 3}, '{"$type":1,"$value":2,"c":3}'),
        ({"$other": 1}, '{"$other":1}'),
        ({}, "{}"),
    ],
)
def test_escapes_exactly_what_would_be_mistaken(value: Any, text: str) -> None:
    assert ejson.encode(value).decode() == text
    assert ejson.decode(text) == value


def test_the_value_of_a_custom_type_is_not_searched_for_forms() -> None:
    class Interval:
        def __init__(self, parts: Any) -> None:
            self.parts = parts

    ejson.add_type("test-interval", Interval, lambda interval: interval.parts, Interval)
    assert ejson.encode(Interval({"$date": 1})) == b'{"$type":"test-interval","$value":{"$date":1}}'
    assert ejson.decode(b'{"$type":"test-interval","$value":{"$date":1}}').parts == {"$date": 1}
    with pytest.raises(EJSONError, match="custom type"):
        ejson.encode(Interval(object()))
    with pytest.raises(AlreadyRegistered):
        ejson.add_type("test-interval", int, int, int)
    with pytest.raises(AlreadyRegistered):
        ejson.add_type("test-other", Interval, int, int)


@pytest.mark.parametrize(
    "value", [{1, 2}, object(), {1.5: 1}, {None: 1}, {True: 1}, "\ud800", {"\udfff": 1}, [10**5000]]
)
def test_what_has_no_form(value: Any) -> None:
    with pytest.raises(EJSONError):
        ejson.encode([value])


@pytest.mark.parametrize("pattern", [re.compile(b"a"), re.compile("a b", re.VERBOSE)])
def test_patterns_without_a_javascript_form(pattern: Any) -> None:
    with pytest.raises(EJSONError):
        ejson.encode(pattern)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "nul",
        "NaN",
        b"\xff",
        b'"\xff"',
        '"\\ud800"',
        '"\ud800"',
        "9" * 5000,
        "1e400",
        "[" * 100_000,
        "[" * 100_000 + "]" * 100_000,
        '{"a":' * 300 + "1" + "}" * 300,
        '{"$date":null}',
        '{"$date":"2020-01-01"}',
        '{"$date":true}',
        '{"$date":1e300}',
        '{"$date":-99999999999999}',
        '{"$binary":1}',
        '{"$binary":"a"}',
        '{"$binary":"é==="}',
        '{"$InfNaN":"1"}',
        '{"$escape":1}',
        '{"$type":"nobody","$value":1}',
        '{"$type":[],"$value":1}',
        '{"$type":"Decimal","$value":1}',
        '{"$type":"Decimal","$value":"one"}',
        '{"$type":"oid","$value":"xyz"}',
        '{"$type":"oid","$value":null}',
        '{"$regexp":1,"$flags":""}',
        '{"$regexp":"","$flags":null}',
    ],
)
def test_refused_text(text: bytes | str) -> None:
    with pytest.raises(EJSONError) as caught:
        ejson.decode(text)
    assert isinstance(caught.value, TriggerDDPError)


def test_depth_is_bounded_whatever_the_interpreter_allows() -> None:
    deep: Any = 1
    for _ in range(ejson.MAX_DEPTH):
        deep = [deep]
    assert ejson.decode(ejson.encode(deep)) == deep
    assert ejson.from_json(ejson.to_json(deep)) == deep
    for convert in (ejson.encode, ejson.to_json, ejson.from_json):
        with pytest.raises(EJSONError, match="deep"):
            convert([deep])
    ring: list[Any] = []
    ring.append(ring)
    with pytest.raises(EJSONError, match="deep"):
        ejson.encode(ring)


def test_a_caller_near_the_end_of_the_stack_gets_an_ejson_error() -> None:
    def descend(levels: int) -> None:
        if levels:
            return descend(levels - 1)
        ejson.decode("[" * 250 + "]" * 250)
        return None

    with pytest.raises(EJSONError, match="deep"):
        descend(sys.getrecursionlimit() - 150 - len(__import__("traceback").extract_stack()))


def test_decoded_dates_are_aware() -> None:
    assert ejson.decode('{"$date":1.5}') == datetime.datetime(1970, 1, 1, 0, 0, 0, 1500, tzinfo=UTC)
    assert ejson.decode('{"$date":0}').tzinfo is UTC


@pytest.mark.parametrize(
    "source",
    ["", "a.b", "(?<year>[0-9]+)", "[[a]", "(", "(" * 5000, "(a|b)" * 200_000],
    ids=["empty", "plain", "only JavaScript", "warned of", "malformed", "deep", "slow to compile"],
)
def test_regular_expressions_are_not_compiled(source: str) -> None:
    expression = ejson.decode(json.dumps({"$regexp": source, "$flags": "g"}))
    assert expression == RegExp(source, "g")
    assert {expression: 1}[RegExp(source, "g")] == 1


@pytest.mark.parametrize(
    ("letters", "flags"),
    [
        ("", ""),
        ("gi", "gi"),
        ("yumig", "gimuy"),
        ("iigi", "gi"),
        ("dgsvx G", "g"),
        ("x" * 49 + "g", "g"),
        ("x" * 50 + "g", ""),
        ("1\N{CYRILLIC SMALL LETTER U}y", "y"),
    ],
)
def test_decoded_flags_are_those_that_meteor_keeps(letters: str, flags: str) -> None:
    assert ejson.decode(json.dumps({"$regexp": "a", "$flags": letters})) == RegExp("a", flags)


def test_a_regular_expression_can_be_compiled() -> None:
    assert RegExp("a.b", "gimsuy").compile() == re.compile("a.b", re.IGNORECASE | re.MULTILINE | re.DOTALL)
    assert RegExp("a").compile() == re.compile("a")
    with pytest.raises(re.error):
        RegExp("(?<year>[0-9]+)").compile()


def test_from_json_leaves_its_argument_alone() -> None:
    value = {"a": [{"$date": 0}]}
    ejson.from_json(value)
    assert value == {"a": [{"$date": 0}]}


def test_object_id() -> None:
    assert ObjectID("A" * 24) == "a" * 24
    assert repr(ObjectID("b" * 24)) == f"ObjectID('{'b' * 24}')"
    for text in ("", "b" * 23, "g" * 24, "b" * 24 + "\n", "٣" * 24):
        with pytest.raises(ValueError):
            ObjectID(text)


def test_what_decode_gives_beside_plain_values() -> None:
    class Marked(ObjectID):
        pass

    assert all(map(ejson.decodes_to, (ObjectID, Marked, decimal.Decimal, RegExp)))
    assert not any(map(ejson.decodes_to, (str, datetime.datetime, uuid.UUID, object, re.Pattern)))


keys = st.one_of(
    st.sampled_from(["$date", "$binary", "$InfNaN", "$escape", "$type", "$value", "$regexp", "$flags", "a"]),
    st.text(max_size=4),
)
atoms = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-ejson.MAX_SAFE_INTEGER, ejson.MAX_SAFE_INTEGER),
    st.floats(allow_nan=False),
    st.text(),
    st.binary(),
    st.decimals(allow_nan=False),
    st.datetimes(timezones=st.just(UTC)).map(lambda d: d.replace(microsecond=d.microsecond // 1000 * 1000)),
    st.builds(RegExp, st.text(max_size=4), st.sampled_from(["", "g", "gi", "imuy"])),
    st.text("0123456789abcdef", min_size=24, max_size=24).map(ObjectID),
)
values = st.recursive(
    atoms,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(keys, children, max_size=3),
    max_leaves=25,
)


def test_an_infinity_may_be_told_by_a_number_too_large_for_a_float() -> None:
    assert ejson.decode('{"$InfNaN":1%s}' % ("0" * 400)) == math.inf
    assert ejson.decode('{"$InfNaN":-1%s}' % ("0" * 400)) == -math.inf


@given(values)
def test_round_trip(value: Any) -> None:
    text = ejson.encode(value)
    assert ejson.decode(text) == value
    assert ejson.decode(text.decode()) == value
    assert ejson.from_json(json.loads(text)) == value
    assert json.loads(text) == json.loads(json.dumps(ejson.to_json(value)))


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.text(max_size=5)
    | st.sampled_from(["Decimal", "oid", "1"]),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(keys, children, max_size=3),
    max_leaves=20,
)


@given(json_values)
def test_escaped_json_stays_what_it_is(value: Any) -> None:
    text = json.dumps(value)
    assert ejson.decode(json.dumps(ejson.escape(value))) == json.loads(text)


def test_escaping_leaves_numbers_alone_and_knows_no_depth() -> None:
    assert ejson.escape([2**60]) == [2**60]
    deep: Any = {"$date": 1}
    for _ in range(5000):
        deep = [deep]
    escaped = ejson.escape(deep)
    for _ in range(5000):
        (escaped,) = escaped
    assert escaped == {"$escape": {"$date": 1}}


@given(st.one_of(st.binary(), st.text(), json_values.map(json.dumps)))
def test_whatever_comes_in_is_a_value_or_an_ejson_error(text: bytes | str) -> None:
    try:
        value = ejson.decode(text)
    except EJSONError:
        return
    assert ejson.decode(ejson.encode(value)) == value
