"""Long messages: what they hold is counted, and what has to be known of them read, without decoding them."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trigger_ddp.protocol.requests import BadRequest, Message, head, head_only, parse, values_in

SPACE = " " * 5000
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def parsed(parser: Callable[[str], Message], text: str) -> Message | BadRequest:
    try:
        return parser(text)
    except BadRequest as bad:
        return bad


def structure(value: object) -> int:
    """Commas, brackets and braces of a value's JSON outside of strings."""
    if isinstance(value, dict):
        return 1 + max(0, len(value) - 1) + sum(map(structure, value.values()))
    if isinstance(value, list):
        return 1 + max(0, len(value) - 1) + sum(map(structure, value))
    return 0


@given(json_values, st.booleans())
def test_what_is_inside_of_strings_is_not_counted(value, ascii_only):
    text = json.dumps(value, ensure_ascii=ascii_only)
    exact = structure(value)
    assert values_in(text, 1000) >= exact, "counted with what is in strings, since that is few enough"
    counted = values_in(text + SPACE, 0)
    assert counted > 0 if exact else counted >= 0
    assert (values_in(text + SPACE, exact + text.count('"')) <= exact + text.count('"')) or exact == 0


def test_above_what_is_enough_it_is_exact():
    text = json.dumps({"a": [1, 2, {"b": [[], []]}], "c": 'x,[{"\\' * 1000})
    assert values_in(text, 10) == structure(json.loads(text)) == 10
    text = json.dumps(["x"] * 5000)
    assert values_in(text, 10) > 10


@given(st.dictionaries(st.sampled_from(["msg", "id", "params", "x"]), json_values | st.just("method")))
def test_the_head_of_a_long_message_is_what_parsing_finds(message):
    text = json.dumps(message) + SPACE
    whole = parsed(parse, text)
    if isinstance(whole, BadRequest):
        bad = parsed(head, text)
        assert isinstance(bad, BadRequest)
        assert (bad.reason, bad.offending) == (whole.reason, whole.offending)
        return
    if whole["msg"] in ("method", "sub", "unsub"):
        assert head(text) == {name: whole[name] for name in ("msg", "id") if name in whole}
    else:
        assert head(text) == whole


@pytest.mark.parametrize(
    "text", ["", "[]", "5", '{"msg":"method","params":[', "[" * 100_000, '{"id":1}', "\x00"]
)
def test_of_what_is_no_message_the_head_has_no_msg(text):
    assert "msg" not in head_only(text)
    with pytest.raises(BadRequest):
        head(text + SPACE)
