"""Every entrance keeps its promise: for what the fuzzer kept, what it found once, and what comes to mind.

The promises are in `targets.TARGETS`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import FOLDER, TARGETS, Target

MOST_CORPUS_BYTES = 1_000_000


def _inputs(folder: str, name: str) -> list[Path]:
    return sorted(path for path in (FOLDER / folder / name).glob("*") if path.is_file())


@pytest.mark.parametrize("name", TARGETS)
def test_for_what_the_fuzzer_kept(name: str) -> None:
    kept = _inputs("corpus", name)
    assert kept
    for path in kept:
        try:
            TARGETS[name].run(path.read_bytes())
        except Exception as error:
            error.add_note(f"again: python -m tests.fuzz.once {name} {path.relative_to(FOLDER.parents[1])}")
            raise


@pytest.mark.parametrize(
    ("name", "path"),
    [
        pytest.param(name, path, id=f"{name}-{path.name}")
        for name in TARGETS
        for path in _inputs("crashes", name)
    ],
)
def test_for_what_was_found_once(name: str, path: Path) -> None:
    TARGETS[name].run(path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_for_the_inputs_to_begin_with(name: str) -> None:
    for data in (b"", *TARGETS[name].seeds):
        TARGETS[name].run(data)


def test_the_corpus_stays_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.glob("corpus/*/*")) < MOST_CORPUS_BYTES


def test_the_documentation_has_every_promise() -> None:
    text = (FOLDER.parents[1] / "docs" / "fuzzing.md").read_text("utf-8")
    told = dict(re.findall(r"^\| `(\w+)` \| ([^|]*) \|$", text, re.MULTILINE))
    assert told == {name: target.promise for name, target in TARGETS.items()}


def _texts(target: Target) -> st.SearchStrategy[bytes]:
    """An input to begin with, cut somewhere, with words and bytes put in and pieces of others behind it."""
    seeds = st.sampled_from(target.seeds)
    words = st.sampled_from([word.encode("latin-1", "replace") for word in target.words])
    cut = st.tuples(seeds, st.integers(0, 400), st.integers(0, 400)).map(lambda t: t[0][t[1] : t[1] + t[2]])
    part = st.one_of(cut, words, st.binary(max_size=20))
    return st.tuples(seeds, st.integers(0, 400), st.lists(part, max_size=6)).map(
        lambda t: t[0][: t[1]] + b"".join(t[2]) + t[0][t[1] :]
    )


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
_steps = st.lists(
    st.tuples(
        st.sampled_from(["added", "changed", "removed"]), st.just("c"), st.sampled_from(["i", "j"])
    ).flatmap(
        lambda step: st.dictionaries(st.sampled_from("fg"), _json, max_size=2).map(
            lambda fields: [*step, fields]
        )
    )
    | st.sampled_from([["ready"], ["stop"], ["error"], ["sleep"], ["unblock"], "x", []]),
    max_size=6,
)
_messages = st.one_of(
    st.fixed_dictionaries(
        {
            "msg": st.just("sub"), "id": st.sampled_from("st"),
            "name": st.sampled_from(["fuzz/script", "nothing"]), "params": _steps.map(lambda steps: [steps]),
        }
    ),
    st.fixed_dictionaries({"msg": st.just("unsub"), "id": st.sampled_from("st")}),
    st.fixed_dictionaries(
        {
            "msg": st.just("method"), "id": st.sampled_from("12"),
            "method": st.sampled_from(["fuzz/echo", "fuzz/typed", "fuzz/slow", "fuzz/refuse", "fuzz/leave"]),
            "params": st.lists(_json, max_size=3),
        }
    ),
    st.fixed_dictionaries({"msg": _json}, optional={"id": _json, "params": _json, "fields": _json}),
    st.fixed_dictionaries({"msg": st.sampled_from(["ping", "pong", "connect", "disconnect"])}),
)  # fmt: skip
_CONNECT = '{"msg":"connect","version":"1","support":["1"],"session":"SESSION","receivedCount":"COUNT"}'
_conversations = st.lists(
    _messages.map(json.dumps) | st.sampled_from(["!wait", f"!lost\n{_CONNECT}", "!lost"]), max_size=10
).map(lambda lines: "\n".join([_CONNECT, *lines]).encode())

#: What comes to mind for an entrance besides its inputs cut to pieces.
_MORE = {"ddp": _conversations}


@pytest.mark.parametrize("name", TARGETS)
def test_for_what_comes_to_mind(name: str) -> None:
    target = TARGETS[name]
    inputs = _texts(target)

    @given(inputs | _MORE[name] if name in _MORE else inputs)
    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    def the_promise_holds(data: bytes) -> None:
        target.run(data)

    the_promise_holds()
