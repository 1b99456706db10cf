"""A client and a database small enough to think about, for tests of the stages that have no sockets."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from trigger_ddp.live import holders
from trigger_ddp.live.compiled import CompiledQuery, CompiledShape
from trigger_ddp.live.document import Document, Name
from trigger_ddp.live.evaluation import Answers, Evaluation, Route
from trigger_ddp.protocol.frames import Wire
from trigger_ddp.protocol.session import Session

Row = dict[str, Any]


class StrictSession(Session):
    """A session with its client built in, which throws where Meteor's server-to-server client would."""

    def __init__(self) -> None:
        super().__init__(Wire.RAW, lambda session: None)
        self.documents: dict[tuple[str, str], Row] = {}

    def push(self, frames: bytes, count: int = 1) -> None:
        for message in _messages(frames):
            self._hear(message)

    def _hear(self, message: dict[str, Any]) -> None:
        if message["msg"] not in ("added", "changed", "removed"):
            return
        name = message["collection"], message["id"]
        assert (name in self.documents) == (message["msg"] != "added"), message
        if message["msg"] == "removed":
            del self.documents[name]
            return
        document = self.documents.setdefault(name, {})
        before = dict(document)
        document.update(message.get("fields", {}))
        for field in message.get("cleared", ()):
            del document[field]
        assert message["msg"] == "added" or document != before, f"changes nothing: {message}"


def _messages(frames: bytes) -> list[dict[str, Any]]:
    messages = []
    while frames:
        length, start = frames[1], 2
        if length == 126:
            length, start = int.from_bytes(frames[2:4], "big"), 4
        messages.append(json.loads(frames[start : start + length]))
        frames = frames[start + length :]
    return messages


#: As compiling keeps them: one for each name and dependencies.
shapes: dict[Any, CompiledShape] = {}


class Query:
    """What querysets of one shape are to the engine: rows that match, with some of their fields.

    Args:
        name: stands for the SQL.
        matches: the conditions that are not lifted.
        fields: names of the fields of the documents; None for all.
        lifted: names of the fields whose values are the routes.
    """

    def __init__(
        self,
        name: str,
        matches: Callable[[Row], bool],
        fields: tuple[str, ...] | None = None,
        lifted: tuple[str, ...] = (),
    ) -> None:
        self.name = name
        self.matches = matches
        self.fields = fields
        self.lifted = lifted

    def document(self, key: str, row: Row) -> Document:
        fields = {name: json.dumps(value).encode() for name, value in row.items() if name != "id"}
        if self.fields is not None:
            fields = {name: value for name, value in fields.items() if name in self.fields}
        return Document.of(row.get("id", key), dict(sorted(fields.items())))  # as columns are

    def compiled(
        self, tables: dict[str, Any], routes: tuple[Route, ...] = ((),), *, by_keys: bool = True
    ) -> CompiledQuery:
        shape = shapes.setdefault(
            (self.name, str(tables), by_keys),
            CompiledShape(
                "things", (), (self.name, str(tables), str(by_keys)), self.lifted, tables, None, None,
                by_keys, lambda rows, wanted: {}, lambda rows, wanted: {},
            ),
        )  # fmt: skip
        return CompiledQuery(shape, routes)

    def answers(self, evaluation: Evaluation, rows: dict[str, Row]) -> Answers:
        """What PostgreSQL would say, of documents where it is asked for them."""
        keys = set(evaluation.keys)
        for link, values in evaluation.follow:
            # The link leads from an owner's name to the rows that have it, as a foreign key would.
            keys |= {(key,) for key, row in rows.items() if (row["name"],) in values and link}
        documents = bool(evaluation.queries) or evaluation.shape.compiled.by_keys
        found: dict[Route, dict[Name, Document | None]] = {}
        for key, row in rows.items():
            route = tuple(row[name] for name in self.lifted)
            asked_about = evaluation.queries or (key,) in keys
            if asked_about and self.matches(row) and route in evaluation.shape.by_route:
                found.setdefault(route, {})[key] = self.document(key, row) if documents else None
        return Answers(found, keys)


@pytest.fixture(autouse=True, scope="module", params=[1, holders.FEW], ids=["holders noted", "holders asked"])
def few(request: pytest.FixtureRequest) -> Iterator[None]:
    """Both ways of finding who holds a row: see `holders.FEW`."""
    usual, holders.FEW = holders.FEW, request.param
    yield
    holders.FEW = usual
