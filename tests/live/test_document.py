"""A document's fields as one text, taken apart again."""

from __future__ import annotations

import json
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trigger_ddp.live import document
from trigger_ddp.live.document import Document, difference, difference_of

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
objects = st.dictionaries(st.text() | st.sampled_from("abc"), values, max_size=5)


def encoded(fields: dict[str, object]) -> dict[str, bytes]:
    return {name: json.dumps(value).encode() for name, value in fields.items()}


@given(objects)
@example({})
@example({'a"b': "},{", "c\\": ["{", {"d": ":"}], "": {}})
def test_what_was_put_together_comes_apart(fields: dict[str, object]) -> None:
    made = Document.of("x", encoded(fields))
    assert json.loads(made.body) == fields
    assert made.fields == encoded(fields)
    assert document._taken_apart_slowly(made.body) == document._taken_apart(made.body)


@given(objects, objects)
def test_a_difference_is_that_of_the_fields(old: dict[str, object], new: dict[str, object]) -> None:
    found = difference_of(Document.of("x", encoded(old)), Document.of("x", encoded(new)))
    expected = difference(encoded(old), encoded(new))
    assert {name: bytes(value) for name, value in found.fields.items()} == expected.fields
    assert found.cleared == expected.cleared


def test_values_that_are_too_deep_to_decode_are_told_apart_all_the_same() -> None:
    deep = b"[" * 5000 + b"]" * 5000
    old = Document.of("x", {"a": b"1", "deep": deep, "b": b'"}"'})
    new = Document.of("x", {"a": b"2", "deep": deep, "b": b'"}"'})
    assert old.fields == {"a": b"1", "deep": deep, "b": b'"}"'}
    told = difference_of(old, new)
    assert ({name: bytes(value) for name, value in told.fields.items()}, told.cleared) == ({"a": b"2"}, [])
    shallow = Document.of("x", {"a": b"1", "b": b'"}"'})  # this one can be decoded
    told = difference_of(shallow, old)
    assert ({name: bytes(value) for name, value in told.fields.items()}, told.cleared) == ({"deep": deep}, [])
    told = difference_of(old, shallow)
    assert (told.fields, told.cleared) == ({}, ["deep"])


def test_a_document_is_small() -> None:
    """Documents are what most memory goes to."""
    one = Document("1", b'{"title":"t"}')
    assert sys.getsizeof(one) <= 32
    with pytest.raises(AttributeError):
        one.id = "2"  # type: ignore[misc]
    assert not hasattr(one, "__dict__")
