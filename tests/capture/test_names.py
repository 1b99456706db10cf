import re

from hypothesis import example, given
from hypothesis import strategies as st

from trigger_ddp.capture import names

identifiers = st.text(st.characters(exclude_characters="\0"), min_size=1, max_size=200)


@given(st.none() | identifiers, identifiers)
@example(None, "x" * 63)
@example(None, "é" * 63)
@example("schéma", "日本" * 30)
@example(None, "\udc80")
def test_every_name_fits_into_63_bytes_and_needs_no_quotes(schema: str | None, relation: str) -> None:
    made = [
        names.channel(schema, relation),
        *(names.trigger(schema, relation, event) for event in names.EVENTS),
    ]
    assert len(set(made)) == 5
    for name in made:
        assert len(name.encode()) <= 63
        assert re.fullmatch(r"ddp1_[a-z0-9_]*_[0-9a-f]{8}", name)
    assert all(re.search(names.OURS, name) for name in made[1:])


@given(st.tuples(st.none() | identifiers, identifiers), st.tuples(st.none() | identifiers, identifiers))
@example((None, "a.b"), ("a", "b"))
@example((None, "Book"), (None, "book"))
@example((None, "x" * 60 + "1"), (None, "x" * 60 + "2"))
def test_two_tables_have_two_names(one: tuple[str | None, str], other: tuple[str | None, str]) -> None:
    if one != other and (one[0] or "", one[1]) != (other[0] or "", other[1]):
        assert names.channel(*one) != names.channel(*other)


def test_names_are_readable_and_stay_what_released_triggers_have() -> None:
    assert names.channel(None, "bookstore_book") == "ddp1_bookstore_book_bbcca1dd"
    assert names.trigger(None, "bookstore_book", "truncate") == "ddp1_bookstore_book_truncate_bbcca1dd"
