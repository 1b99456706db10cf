from __future__ import annotations

import string

from trigger_ddp import alea


def test_unmistakable_leaves_out_what_looks_alike() -> None:
    left_out = set(string.ascii_letters + string.digits) - set(alea.UNMISTAKABLE)
    assert left_out == set("01IOUVl")
    assert len(set(alea.UNMISTAKABLE)) == len(alea.UNMISTAKABLE) == 55


def test_random_ids() -> None:
    ids = {alea.meteor_random_id() for _ in range(500)}
    assert len(ids) == 500
    assert {len(text) for text in ids} == {17}
    assert set("".join(ids)) == set(alea.UNMISTAKABLE)
    assert len(alea.meteor_random_id(5)) == 5


def test_hex_strings() -> None:
    text = alea.hex_string(2000)
    assert len(text) == 2000
    assert set(text) == set("0123456789abcdef")
