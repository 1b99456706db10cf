import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trigger_ddp.changes.change import Change, Gap
from trigger_ddp.changes.decode import decode


@dataclasses.dataclass(frozen=True)
class Things:
    name: str = "thing"
    version: str = "0123abcd"
    primary_key: tuple[object, ...] = ("id",)
    width: int = 2


TABLE = Things()
TWO_KEYS = Things(primary_key=("a", "b"), width=3)


@pytest.mark.parametrize(
    ("payload", "change"),
    [
        ('["0123abcd","I",[[1, null]]]', Change("thing", "I", (("1", None),))),
        (
            '["0123abcd","D",[["é",-9223372036854775808]]]',
            Change("thing", "D", (("é", "-9223372036854775808"),)),
        ),
        ('["0123abcd","U",[[2,3],["4","5"]]]', Change("thing", "U", (("2", "3"), ("4", "5")))),
        ('["0123abcd","U",[[2,3]],[[1,3]]]', Change("thing", "U", (("2", "3"),), (("1", "3"),))),
        ('["0123abcd","U",[],[[1,3]]]', Change("thing", "U", (), (("1", "3"),))),
        ('["0123abcd","U",[[1,3]],[]]', Change("thing", "U", (("1", "3"),))),
        ('["0123abcd","B"]', Gap("thing", "bulk")),
        ('["0123abcd","T"]', Gap("thing", "truncate")),
        ('["ffffffff","I",[[1,2]]]', Gap("thing", "version")),
        ('["ffffffff","B"]', Gap("thing", "version")),
    ],
)
def test_what_triggers_send(payload: str, change: Change | Gap) -> None:
    assert decode(TABLE, payload) == change


@pytest.mark.parametrize(
    "payload",
    [
        "", "null", "[]", "{}", '["0123abcd"]', '["0123abcd","X"]', '["0123abcd","I"]', '["0123abcd","I",[]]',
        '["0123abcd","I",[[]]]', '["0123abcd","I",[[1]]]', '["0123abcd","I",[[1,2,3]]]',
        '["0123abcd","I",[[null,2]]]',
        '["0123abcd","I",[[1.5,2]]]', '["0123abcd","I",[[true,2]]]', '["0123abcd","I",[[[1],2]]]',
        '["0123abcd","I",[[1,2]],[[1,2]]]', '["0123abcd","D",[[1,2]],[[1,2]]]', '["0123abcd","U",[],[]]',
        '["0123abcd","B",[[1,2]]]', '["0123abcd","T",[],[[1,2]]]', '["0123abcd","I",[[1,2]],[],1]',
        '["0123abcd","I",[[9223372036854775808,2]]]', '["0123abcd","I",[[1' + "0" * 7000 + ',2]]]',
        '["0123abcd","I",[["\ud800",2]]]', '["0123abcd","I",[["\\ud800",2]]]', "[" * 7999,
    ],
)  # fmt: skip
def test_what_no_trigger_sends(payload: str) -> None:
    assert decode(TABLE, payload) == Gap("thing", "undecodable")


def test_every_part_of_a_key_is_there() -> None:
    assert decode(TWO_KEYS, '["0123abcd","I",[[1,"x",null]]]') == Change("thing", "I", (("1", "x", None),))
    assert decode(TWO_KEYS, '["0123abcd","I",[[1,null,2]]]') == Gap("thing", "undecodable")


values = st.none() | st.text() | st.integers() | st.floats(allow_nan=False) | st.booleans()
rows = st.lists(st.lists(values, max_size=4) | values, max_size=4)
payloads = (
    st.text()
    | st.recursive(values, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)).map(json.dumps)
    | st.tuples(st.sampled_from(["0123abcd", "x"]), st.sampled_from("IUDBTX"), rows, rows).map(json.dumps)
    | st.tuples(st.sampled_from(["0123abcd", "x"]), st.sampled_from("IUDBTX"), rows).map(json.dumps)
)


@given(payloads)
def test_whatever_is_sent_is_a_change_or_a_gap_of_the_table(payload: str) -> None:
    found = decode(TABLE, payload)
    assert found.table == "thing"
    if isinstance(found, Change):
        assert found.rows or found.old
        for row in (*found.rows, *found.old):
            assert len(row) == 2
            assert isinstance(row[0], str)
            assert row[1] is None or isinstance(row[1], str)


@given(
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_categories=["Cs"])), st.none() | st.integers(-(2**63), 2**63 - 1)
        ),
        min_size=1,
    )
)
def test_texts_and_numbers_come_through(told: list[tuple[str, Any]]) -> None:
    change = decode(TABLE, json.dumps(["0123abcd", "I", told], ensure_ascii=False))
    assert change == Change(
        "thing", "I", tuple((key, None if value is None else str(value)) for key, value in told)
    )
