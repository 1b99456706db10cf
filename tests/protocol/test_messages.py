"""Messages about documents."""

from __future__ import annotations

import json

import pytest

from trigger_ddp.live.document import Document
from trigger_ddp.protocol import messages

IDS = ["1", "", "-1", "~", "{", "a" * 24, "A" * 24, "b" * 23, "a%s", 'x"y', "é"]


@pytest.mark.parametrize("collection", ["books", "100%b", 'a"b'])
def test_documents_are_told_together_as_one_by_one(collection: str) -> None:
    documents = [Document(one, body) for one in IDS for body in (b"{}", b'{"a":1}', b'{"%b":"%"}')]
    together = messages.all_added(collection, documents)
    assert together == [messages.added(collection, one.id, one.body) for one in documents]
    for one, told in zip(documents, together, strict=True):
        message = json.loads(told)
        assert (message["msg"], message["collection"]) == ("added", collection)
        assert message["id"] in (one.id, f"-{one.id}")
        assert message.get("fields", {}) == json.loads(one.body)
        assert "fields" in message or one.body == b"{}"
