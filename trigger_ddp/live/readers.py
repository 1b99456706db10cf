"""From rows, as PostgreSQL gives them, to documents. What is of the application's own may query."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from django.db import connections
from django.db.models import F, prefetch_related_objects

from trigger_ddp.api.documents import Serializer
from trigger_ddp.live.compiled import Read
from trigger_ddp.live.document import Document, Key
from trigger_ddp.live.evaluation import Answer, Route, Row

#: Per position of a row, what Django does to the value that PostgreSQL gave, and the expression it came from.
Converters = Mapping[int, tuple[Sequence[Callable[[Any, Any, Any], Any]], Any]]


@dataclasses.dataclass(frozen=True, slots=True)
class Extra:
    """A field that a queryset adds to its documents: an annotation, or a related model's in ``values()``.

    Args:
        name: the field's name in the document.
        alias: by which name it is selected.
        encode: gives the EJSON text of a value; not called for None.
        kind: what its values are converted and encoded by: the same SQL may be read as different things.
    """

    name: str
    alias: str
    encode: Callable[[Any], bytes]
    kind: str


class Reader(Protocol):
    """Makes the documents of rows."""

    @property
    def expressions(self) -> Mapping[str, Any]:
        """What it needs selected, by alias; then the extras, by theirs."""

    @property
    def width(self) -> int:
        """How many values of a row it reads."""

    def documents(self, rows: list[list[Any]]) -> list[Document]:
        """The documents, in the order of the rows, whose values are as Django's converters give them."""


class RowReader:
    """Documents straight from the selected values."""

    def __init__(self, serializer: Serializer, extras: Sequence[Extra]) -> None:
        self._serializer = serializer
        self._extras = extras
        self.expressions = dict(serializer.values())
        self.width = len(self.expressions) + len(extras)

    def documents(self, rows: list[list[Any]]) -> list[Document]:
        if not self._extras:
            return [Document(*self._serializer.document(row)) for row in rows]
        width = len(self.expressions)
        documents = []
        for row in rows:
            document_id, fields = self._serializer.document(row[:width])
            documents.append(Document(document_id, fields | encoded(self._extras, row[width:])))
        return documents


class InstanceReader:
    """Documents from model instances, for a collection that overrides ``serialize``.

    Args:
        serializer: the collection's, for the fields asked for.
        extras: further fields; instances have them as attributes too.
        related: relation paths that instances have loaded when they are serialised.
        alias: the database.
    """

    def __init__(
        self, serializer: Serializer, extras: Sequence[Extra], related: Iterable[Any], alias: str
    ) -> None:
        self._serializer = serializer
        self._extras = extras
        self._alias = alias
        self._related = (*related, *serializer.related_paths)
        self._attributes = [field.attname for field in serializer.model._meta.concrete_fields]
        self.expressions = {f"_field{index}": F(name) for index, name in enumerate(self._attributes)}
        self.width = len(self.expressions) + len(extras)

    def documents(self, rows: list[list[Any]]) -> list[Document]:
        width = len(self._attributes)
        instances = []
        for row in rows:
            instance = self._serializer.model.from_db(self._alias, self._attributes, row[:width])
            for extra, value in zip(self._extras, row[width:], strict=True):
                setattr(instance, extra.name, value)
            instances.append(instance)
        return documents_of_instances(instances, self._serializer, self._extras, self._related)


def documents_of_instances(
    instances: list[Any], serializer: Serializer, extras: Sequence[Extra], related: Iterable[Any]
) -> list[Document]:
    """The documents of model instances, with the extras that they have as attributes."""
    if instances:
        prefetch_related_objects(instances, *related)
    documents = []
    for instance in instances:
        document_id, fields = serializer.document_of_instance(instance)
        shown = {name: value for name, value in fields.items() if name not in serializer.hidden}
        values = [getattr(instance, extra.name) for extra in extras]
        documents.append(Document(document_id, encoded(extras, values) | shown))
    return documents


def encoded(extras: Sequence[Extra], values: Sequence[Any]) -> dict[str, bytes]:
    """The fields that the extras add."""
    return {
        extra.name: b"null" if value is None else extra.encode(value)
        for extra, value in zip(extras, values, strict=True)
    }


def read_rows(routes: int, keys: int, converters: Converters, reader: Reader, alias: str) -> Read:
    """Answers from rows that begin with a route, then a key, then what the reader makes a document of.

    Args:
        routes: number of values of a route.
        keys: number of parts of a key.
        converters: by positions of the whole row; those of the route are not applied.
        reader: makes the documents.
        alias: the database.
    """
    start = routes + keys
    end = start + reader.width  # DISTINCT has Django select what ORDER BY names too, behind the rest

    def read(rows: Iterable[Row], wanted: Container[Route]) -> list[Answer]:
        # A join may find a row more than once; for another route its extra fields may have other values.
        found: dict[tuple[Key, Route], Row] = {}
        for row in rows:
            route = tuple(row[:routes])
            if route in wanted:
                name = tuple(row[routes:start]), route
                known = found.get(name)
                # An annotation through such a join has several values: always the same one is chosen.
                if known is None or (known != row and repr(row) < repr(known)):
                    found[name] = row
        converted = _converted(found.values(), converters, start, alias)
        documents = reader.documents([values[start:end] for values in converted])
        return [Answer(key, route, document) for (key, route), document in zip(found, documents, strict=True)]

    return read


def read_whom(routes: int, keys: int) -> Read:
    """Answers without documents, from rows of a route and a key."""

    def read(rows: Iterable[Row], wanted: Container[Route]) -> list[Answer]:
        found = dict.fromkeys((tuple(row[routes : routes + keys]), tuple(row[:routes])) for row in rows)
        return [Answer(key, route, None) for key, route in found if route in wanted]

    return read


def read_instances(
    queryset: Callable[[], Any], serializer: Serializer, extras: Sequence[Extra], related: Iterable[Any]
) -> Read:
    """Answers from a queryset that Django evaluates, whatever the rows given. A document's id is its key."""
    paths = (*related, *serializer.related_paths)

    def read(_: Iterable[Row], __: Container[Route]) -> list[Answer]:
        documents = documents_of_instances(list(queryset()), serializer, extras, paths)
        return [Answer((document.id,), (), document) for document in documents]

    return read


def are_plain(converters: Converters) -> bool:
    """Whether these are Django's own: nothing of the application's, that might query or take its time."""
    functions = [function for functions, _ in converters.values() for function in functions]
    return all(getattr(function, "__module__", "").startswith("django.") for function in functions)


def _converted(rows: Iterable[Row], converters: Converters, start: int, alias: str) -> Iterator[list[Any]]:
    connection = connections[alias]
    applied = [(position, *converter) for position, converter in converters.items() if position >= start]
    for row in rows:
        values = list(row)
        for position, functions, expression in applied:
            for function in functions:
                values[position] = function(values[position], expression, connection)
        yield values
