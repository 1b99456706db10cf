"""Servers with users, and what clients of Meteor's accounts packages send."""

from __future__ import annotations

import email
import hashlib
import re
from collections.abc import Callable, Iterator
from email import policy
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import User

from tests.conftest import Database
from tests.ddp import DDPClient
from tests.serving import Server

AMBIGUOUS = (403, "Something went wrong. Please check your credentials.")
LOGGED_OUT = (403, "You've been logged out by the server. Please log in again.")


def digest(password: str) -> dict[str, str]:
    """A password as Meteor's clients send it."""
    return {"digest": hashlib.sha256(password.encode()).hexdigest(), "algorithm": "sha-256"}


def ok(answer: dict[str, Any]) -> Any:
    assert "error" not in answer, answer
    return answer.get("result")


def refused(answer: dict[str, Any]) -> tuple[Any, Any]:
    error = answer["error"]
    return error["error"], error.get("reason")


def mails(directory: Path) -> list[Any]:
    """What was mailed, oldest first."""
    files = sorted(directory.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    return [
        email.message_from_string(text, policy=policy.default)
        for path in files
        for text in path.read_text().split("-" * 79 + "\n")
        if text.strip()
    ]


def token_of(mail: Any) -> str:
    """The token in a mail's link."""
    match = re.search(r"/#/[a-z-]+/([A-Za-z0-9_-]{43})\s", mail.get_content())
    assert match is not None, mail.get_content()
    return match[1]


@pytest.fixture
def ann(db: Database) -> User:
    """A user of Meteor's."""
    user = User.objects.create(username="ann", email="Ann@example.com", first_name="Ann", last_name="Author")
    user.password = make_password("ann's secret", hasher="meteor_pbkdf2_sha256")
    user.save()
    return user


@pytest.fixture
def start(serve: Callable[..., Server], tmp_path: Path) -> Callable[..., Server]:
    """Starts a server that mails to `mail_directory` and limits no rates: ``start(DDP_X="…")``."""
    environ = {"TDDP_TEST_MAILS": str(tmp_path / "mails"), "TDDP_TEST_NO_RATE_LIMIT": "1"}
    return lambda **more: serve(**{**environ, **more})


@pytest.fixture
def mail_directory(tmp_path: Path) -> Path:
    directory = tmp_path / "mails"
    directory.mkdir()
    return directory


@pytest.fixture
def connect() -> Iterator[Callable[[Server], DDPClient]]:
    """Connects strict clients."""
    opened: list[DDPClient] = []

    def client(server: Server) -> DDPClient:
        opened.append(DDPClient(server.url))
        return opened[-1]

    yield client
    for one in opened:
        one.close()
        assert one.violations == []
