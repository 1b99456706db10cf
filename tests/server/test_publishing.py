"""What publications answer when the database goes away under a method's transaction."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from django.db import OperationalError

from trigger_ddp.protocol.session import Subscription
from trigger_ddp.server import publishing


def test_there_is_one_answer_for_each_where_a_savepoint_can_not_be_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    away = OperationalError("the connection is closed")

    @contextlib.contextmanager
    def savepoint(using: str) -> Iterator[None]:
        yield
        raise away

    monkeypatch.setattr(publishing, "connections", {"default": SimpleNamespace(in_atomic_block=True)})
    monkeypatch.setattr(publishing, "compile_publication", lambda *args: [])
    monkeypatch.setattr(publishing, "transaction", SimpleNamespace(atomic=savepoint))
    subscriptions = [Subscription(name, name, publication=cast(Any, object())) for name in "ab"]
    assert publishing.compile_all(subscriptions, {}, "default") == [away, away]
