"""Long messages: what they hold is counted, and what has to be known of them read, without decoding them."""

from __future__ import annotations

import json
import unittest.mock
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


@given(json_values, st.booleans(), st.integers(1, 20))
def test_what_is_inside_of_strings_is_not_counted(value, ascii_only, piece):
    text = json.dumps(value, ensure_ascii=ascii_only)
    with unittest.mock.patch("trigger_ddp.protocol.requests._PIECE", piece):
        assert values_in(text, 1000) == structure(value)


def test_what_is_enough_is_not_exceeded_by_much():
    assert values_in("[" + "1," * 1_000_000, 1000) < 100_000
    assert values_in(json.dumps(["x"] * 5000), 10) > 10
    assert values_in("\\" * 1_000_001, 10) == 0


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
