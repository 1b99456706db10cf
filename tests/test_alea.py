"""Random values, and those that Meteor's own generator gives for the same seeds."""

from __future__ import annotations

import string
import threading
from typing import Any

import pytest

from trigger_ddp import alea
from trigger_ddp.api import meteor_random_id, this


def test_unmistakable_leaves_out_what_looks_alike() -> None:
    left_out = set(string.ascii_letters + string.digits) - set(alea.UNMISTAKABLE)
    assert left_out == set("01IOUVl")
    assert len(set(alea.UNMISTAKABLE)) == len(alea.UNMISTAKABLE) == 55


def test_random_ids() -> None:
    ids = {meteor_random_id() for _ in range(500)}
    assert len(ids) == 500
    assert {len(text) for text in ids} == {17}
    assert set("".join(ids)) == set(alea.UNMISTAKABLE)
    assert len(meteor_random_id(length=5)) == 5


def test_hex_strings() -> None:
    text = alea.hex_string(2000)
    assert len(text) == 2000
    assert set(text) == set("0123456789abcdef")


def test_secure_values() -> None:
    fractions = [alea.SECURE.fraction() for _ in range(1000)]
    assert 0 <= min(fractions) < 0.1
    assert 0.9 < max(fractions) < 1
    assert len(alea.SECURE.secret()) == 43
    assert {alea.SECURE.choice("ab") for _ in range(100)} == {"a", "b"}
    with pytest.raises(IndexError):
        alea.SECURE.choice([])


#: What Random.createWithSeeds(...seeds) of Meteor's package `random` gives in Node: four ids, two fractions,
#: hexString(20), secret(), choice(['a', 'b', 'c', 'd']), id(5), one after another. Those of seed 0 begin
#: with the ids that Meteor's own test expects.
VECTORS: list[tuple[tuple[str | int, ...], list[Any]]] = [
    (
        (0,),
        [
            "cp9hWvhg8GSvuZ9os", "3f3k6Xo7rrHCifQhR", "shxDnjWWmnKPEoLhM", "6QTjB8C5SEqhmz4ni",
            0.9153131402563304, 0.4236936739180237, "1a31acfc750a3605357d",
            "_X6tqK8uUwDuRIO_atE_Lk19nCqHhuSEaVVHp5b-wg4", "a", "sNzQw",
        ],
    ),
    (
        ("a",),
        [
            "RJPYdcTmvrKwZdt8d", "8RXN7xpYhgPNHRN46", "d8DZw6KhfkZbiZfXy", "mWx6LWA5Xtmb9HYQH",
            0.8601576020009816, 0.1844247013796121, "82e460e3dc42ac0e3d6b",
            "OEItKN-GanVvs_l7jsBRVZGHmuDr9_uC-aBUHnO4v0b", "d", "qfSQb",
        ],
    ),
    (
        ("e5c3f0a1b2d4c6e7f809", "/collection/keepers"),
        [
            "QzvHzTKYxu8RaQWY7", "LPkGyuE2uaCS5g2dF", "kDrs7hRReSY4SvXL8", "zat8dzg33XagytWeJ",
            0.8369803333189338, 0.9521589048672467, "7bb21140931d75005058",
            "uIKGWfIWt2pF_0OFwkC671ofUCIKFw26bCJlhCDsV-c", "a", "joDb9",
        ],
    ),
    (
        ("e5c3f0a1b2d4c6e7f809", "default"),
        [
            "uu8QEFzxfEwXHYyoC", "kTR49CXztN2nYb7qy", "tuBjDnT3T7sr8ErCY", "rTqxasQHeWdyMzzzg",
            0.8022754495032132, 0.9757031402550638, "b9b592f86848663b614b",
            "QSV0JetAlGVMCY6kj70dtKsrlWiBSOrmQsAAA9wslHd", "a", "MoQma",
        ],
    ),
    (
        ("ü😀", "/rpc/x"),  # in JavaScript three characters
        [
            "gg9HokvpfkbLfQdhx", "72aBkKsWTf2oSSuZq", "rC423gQP5KQuieJra", "GZRtMvigoiCYEbw3X",
            0.2071904286276549, 0.004663747735321522, "39e610aa9028b7ce8193",
            "F1HGoQCNtaNMVmN96Z10fhwwW0-o8pmteeLU8UIyU28", "c", "uyWG6",
        ],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("seeds", "values"), VECTORS)
def test_meteors_values(seeds: tuple[str | int, ...], values: list[Any]) -> None:
    random = alea.AleaRandom(*seeds)
    assert [random.id() for _ in range(4)] == values[:4]
    assert [random.fraction(), random.fraction()] == values[4:6]
    assert [random.hex_string(20), random.secret(), random.choice(["a", "b", "c", "d"])] == values[6:9]
    assert random.id(5) == values[9]


def test_a_stream_has_a_generator_for_each_name() -> None:
    stream = alea.RandomStream("e5c3f0a1b2d4c6e7f809")
    first, second = VECTORS[2][1], VECTORS[3][1]
    assert [stream("/collection/keepers").id(), stream().id()] == [first[0], second[0]]
    assert [stream("default").id(), stream("/collection/keepers").id()] == [second[1], first[1]]


def test_threads_draw_whole_ids() -> None:
    random, seen = alea.AleaRandom("seed"), []

    def draw() -> None:
        seen.extend([random.id() for _ in range(300)])

    threads = [threading.Thread(target=draw) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    alone = alea.AleaRandom("seed")
    assert set(seen) == {alone.id() for _ in range(1200)}


def test_this_random_stream() -> None:
    ids = VECTORS[2][1]
    with this.bound(random_seed="e5c3f0a1b2d4c6e7f809"):
        assert this.random_stream("/collection/keepers").id() == ids[0]
        with this.bound(user=1):
            assert meteor_random_id("/collection/keepers") == ids[1]
        with this.bound(random_seed=None):
            assert meteor_random_id("/collection/keepers") not in ids
        assert meteor_random_id() != VECTORS[3][1][0]
        assert this.random_stream().id() == VECTORS[3][1][0]
        assert meteor_random_id("/collection/keepers") == ids[2]
    assert this.random_stream("/collection/keepers") is alea.SECURE
