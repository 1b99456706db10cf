"""A document as clients see it, and the difference between what was and what is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

import msgspec

#: A row's primary key, each part as the text that notifications carry. It names the row inside the server;
#: the document's id, which clients see, may be another column (an AleaIdField).
Key = tuple[str | None, ...]

#: What a row is held under: its key; of a key of one part, as most are, that part. Very many are held.
Name = str | Key

#: Field name to its value, already encoded as EJSON.
Fields = Mapping[str, bytes]

_encode = msgspec.json.Encoder().encode
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_name = msgspec.json.Decoder(str).decode
_TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*"|[][{}:,]')

#: A name as JSON. Names of fields and collections are few, and in every message.
name_text = lru_cache(maxsize=4096)(_encode)


class Document(msgspec.Struct, frozen=True, gc=False):
    """One row as its collection shows it. Replaced when the row changes, never altered.

    There may be millions, so it is as small as can be: its fields are one text, and that is what is compared
    and what is sent. Two documents of one collection with the same fields in another order are not equal.

    Args:
        id: its id, as clients see it.
        body: its fields as the text of an EJSON object.
    """

    id: str
    body: bytes

    @classmethod
    def of(cls, document_id: str, fields: Fields) -> Document:
        """The document with these fields."""
        return cls(document_id, object_text(fields))

    @property
    def fields(self) -> Fields:
        """Its fields, taken apart."""
        return {name: bytes(value) for name, value in _taken_apart(self.body).items()}


def name_of(key: Key) -> Name:
    """What a row with this key is held under."""
    return key[0] or "" if len(key) == 1 else key


def object_text(fields: Mapping[str, bytes | msgspec.Raw]) -> bytes:
    """Fields as the text of an EJSON object."""
    return b"{" + b",".join([name_text(name) + b":" + value for name, value in fields.items()]) + b"}"


def _taken_apart(body: bytes) -> dict[str, msgspec.Raw]:
    try:
        return _decode_fields(body)
    except RecursionError:  # a value of a thousand levels, in a JSON column
        return _taken_apart_slowly(body)


def _taken_apart_slowly(body: bytes) -> dict[str, msgspec.Raw]:
    fields: dict[str, msgspec.Raw] = {}
    depth, name, start = 0, "", 1
    for token in _TOKENS.finditer(body):
        match token[0]:
            case b"{" | b"[":
                depth += 1
            case b":" if depth == 1:
                name, start = _decode_name(body[start : token.start()]), token.end()
            case b"," | b"}" if depth == 1:
                if token.start() > start:
                    fields[name] = msgspec.Raw(body[start : token.start()])
                start = token.end()
            case b"}" | b"]":
                depth -= 1
    return fields


class Transition(msgspec.Struct, frozen=True):
    """What became of one document: it left (no new one), came (no old one), or changed."""

    id: str
    old: Document | None
    new: Document | None


class Difference(msgspec.Struct, frozen=True):
    """Two versions of one document's fields compared.

    Args:
        fields: what is new or has another value.
        cleared: names of the fields that are gone.
    """

    fields: Mapping[str, bytes | msgspec.Raw]
    cleared: list[str]

    def __bool__(self) -> bool:
        return bool(self.fields or self.cleared)


def difference(old: Mapping[str, bytes | msgspec.Raw], new: Mapping[str, bytes | msgspec.Raw]) -> Difference:
    """What a client that has ``old`` must be told to have ``new``."""
    return Difference(
        {name: value for name, value in new.items() if old.get(name) != value},
        [name for name in old if name not in new],
    )


def difference_of(old: Document, new: Document) -> Difference:
    """The `difference` of two documents' fields."""
    return difference(_taken_apart(old.body), _taken_apart(new.body))
