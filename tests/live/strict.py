"""A client and a database small enough to think about, for tests of the stages that have no sockets."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from trigger_ddp.live.compile import CompiledQuery
from trigger_ddp.live.document import Document
from trigger_ddp.live.evaluation import Answer, Evaluation
from trigger_ddp.protocol.frames import Wire
from trigger_ddp.protocol.session import Session

Row = dict[str, Any]


class StrictSession(Session):
    """A session with its client built in, which throws where Meteor's server-to-server client would."""

    def __init__(self) -> None:
        super().__init__(Wire.RAW, lambda session: None)
        self.documents: dict[tuple[str, str], Row] = {}

    def push(self, frames: bytes) -> None:
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


class Query:
    """What a queryset is to the engine: rows that match, with some of their fields."""

    def __init__(
        self, name: str, matches: Callable[[Row], bool], fields: tuple[str, ...] | None = None
    ) -> None:
        self.name = name
        self.matches = matches
        self.fields = fields

    def document(self, key: str, row: Row) -> Document:
        fields = {name: json.dumps(value).encode() for name, value in row.items() if name != "id"}
        if self.fields is not None:
            fields = {name: value for name, value in fields.items() if name in self.fields}
        return Document(row.get("id", key), fields)

    def compiled(self, dependencies: dict[str, Any], collection: str = "things") -> CompiledQuery:
        return CompiledQuery(
            collection, (collection, self.name, ()), (), dependencies, None, None, lambda rows: []
        )

    def answers(self, evaluation: Evaluation, rows: dict[str, Row]) -> list[Answer]:
        asked = rows.keys() if evaluation.keys is None else {key for (key,) in evaluation.keys}
        return [
            ((key,), (), self.document(key, row))
            for key, row in rows.items()
            if key in asked and self.matches(row)
        ]
