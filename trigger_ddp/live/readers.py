"""From rows, as PostgreSQL gives them, to documents. What is of the application's own may query."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Any, Protocol, cast

from django.db import connections
from django.db.models import F, prefetch_related_objects

from trigger_ddp.api.documents import Serializer, encoded_all
from trigger_ddp.api.encoders import NULL
from trigger_ddp.api.ids import id_texts
from trigger_ddp.live.compiled import Read
from trigger_ddp.live.document import Document, Name, name_text
from trigger_ddp.live.evaluation import Found, Route, Row

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

    def documents(self, columns: Sequence[Sequence[Any]], names: Sequence[Name]) -> list[Document]:
        """The documents, in the order of the rows, of which there is at least one.

        Args:
            columns: the values of all rows, as Django's converters give them, column by column.
            names: what the rows are held under.
        """


class RowReader:
    """Documents straight from the selected values."""

    def __init__(self, serializer: Serializer, extras: Sequence[Extra]) -> None:
        self._serializer = serializer
        self._extras = extras
        # Where a row's key is its document's id it is neither selected nor in memory twice.
        self._ids = 0 if serializer.id_is_key else len(serializer.id_paths)
        self.expressions = dict(serializer.values()[len(serializer.id_paths) - self._ids :])
        self.width = len(self.expressions) + len(extras)

    def documents(self, columns: Sequence[Sequence[Any]], names: Sequence[Name]) -> list[Document]:
        width = len(self.expressions)
        ids = id_texts(columns[: self._ids]) if self._ids else cast("Sequence[str]", names)
        fields = self._serializer.fields(columns[self._ids : width])
        for extra, values in zip(self._extras, columns[width:], strict=True):
            fields[extra.name] = encoded_all(extra.encode, values)
        # As `object_text` would, but in a few calls for all rows.
        template = b"{%b}" % b",".join([name_text(name).replace(b"%", b"%%") + b":%b" for name in fields])
        rows = zip(*fields.values(), strict=True) if fields else [()] * len(ids)
        return list(map(Document, ids, map(template.__mod__, rows)))


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

    def documents(self, columns: Sequence[Sequence[Any]], names: Sequence[Name]) -> list[Document]:
        width = len(self._attributes)
        instances = []
        for row in zip(*columns, strict=True):
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
        for extra in extras:
            value = getattr(instance, extra.name)
            shown.setdefault(extra.name, NULL if value is None else extra.encode(value))
        # An own serialize may give the same fields in another order at another time.
        documents.append(Document.of(document_id, dict(sorted(shown.items()))))
    return documents


def read_rows(routes: int, keys: int, converters: Converters, reader: Reader, alias: str) -> Read:
    """Reads rows that begin with a route, then a key, then what the reader makes a document of.

    Args:
        routes: number of values of a route.
        keys: number of parts of a key.
        converters: by positions of the whole row; those of the route are not applied.
        reader: makes the documents.
        alias: the database.
    """
    start = routes + keys
    end = start + reader.width  # DISTINCT has Django select what ORDER BY names too, behind the rest

    def read(rows: Sequence[Row], wanted: Container[Route]) -> Found:
        if not rows:
            return {}
        columns: list[Sequence[Any]] = list(zip(*rows, strict=True))
        routes_of, names = _told_apart(columns, routes, start)
        if not _are_wanted_once(routes_of, names, wanted):
            return read(_wanted_once(rows, zip(routes_of, names, strict=True), wanted), wanted)
        documents = reader.documents(_converted(columns, converters, start, alias)[start:end], names)
        return _by_route(routes_of, names, documents)

    return read


def read_whom(routes: int, keys: int) -> Read:
    """Reads rows of a route and a key, without documents."""

    def read(rows: Sequence[Row], wanted: Container[Route]) -> Found:
        if not rows:
            return {}
        told_apart = zip(*_told_apart(list(zip(*rows, strict=True)), routes, routes + keys), strict=True)
        found = [(route, name) for route, name in dict.fromkeys(told_apart) if route in wanted]
        return _by_route([route for route, _ in found], [name for _, name in found], [None] * len(found))

    return read


def read_instances(
    queryset: Callable[[], Any], serializer: Serializer, extras: Sequence[Extra], related: Iterable[Any]
) -> Read:
    """Reads a queryset that Django evaluates, whatever the rows given. A document's id is its key."""
    paths = (*related, *serializer.related_paths)

    def read(_: Sequence[Row], __: Container[Route]) -> Found:
        documents = documents_of_instances(list(queryset()), serializer, extras, paths)
        return {(): {document.id: document for document in documents}}

    return read


def are_plain(converters: Converters) -> bool:
    """Whether these are Django's own: nothing of the application's, that might query or take its time."""
    functions = [function for functions, _ in converters.values() for function in functions]
    return all(getattr(function, "__module__", "").startswith("django.") for function in functions)


def _told_apart(
    columns: Sequence[Sequence[Any]], routes: int, start: int
) -> tuple[Sequence[Route], Sequence[Name]]:
    """What tells the rows apart, of which there is at least one: their routes and names."""
    keys = columns[routes:start]
    names: Sequence[Name] = keys[0] if len(keys) == 1 else list(zip(*keys, strict=True))
    return list(zip(*columns[:routes], strict=True)) if routes else [()] * len(names), names


def _are_wanted_once(routes_of: Sequence[Route], names: Sequence[Name], wanted: Container[Route]) -> bool:
    """Whether all rows are wanted, and no two are the same. As a rule; and then nothing is done for each."""
    if not all(map(wanted.__contains__, set(routes_of))):
        return False
    count = len(names)
    return len(set(names)) == count or len(set(zip(routes_of, names, strict=True))) == count


def _wanted_once(
    rows: Sequence[Row], told_apart: Iterable[tuple[Route, Name]], wanted: Container[Route]
) -> list[Row]:
    """Each row whose route is wanted once: a join may find it more often. (For another route its extra fields
    may have other values.)"""
    found: dict[tuple[Route, Name], Row] = {}
    for which, row in zip(told_apart, rows, strict=True):
        if which[0] in wanted:
            known = found.get(which)
            # An annotation through such a join has several values: always the same one is chosen.
            if known is None or (known != row and repr(row) < repr(known)):
                found[which] = row
    return list(found.values())


def _by_route(
    routes_of: Sequence[Route], names: Sequence[Name], documents: Sequence[Document | None]
) -> Found:
    found: dict[Route, dict[Name, Document | None]] = {route: {} for route in routes_of}
    if len(found) == 1:
        return {routes_of[0]: dict(zip(names, documents, strict=True))}
    for route, name, document in zip(routes_of, names, documents, strict=True):
        found[route][name] = document
    return found


def _converted(
    columns: list[Sequence[Any]], converters: Converters, start: int, alias: str
) -> list[Sequence[Any]]:
    connection = connections[alias]
    for position, (functions, expression) in converters.items():
        if position >= start:
            for function in functions:
                columns[position] = [function(value, expression, connection) for value in columns[position]]
    return columns
