"""A server of the project with accounts, on a database of its own, for either user model."""

from __future__ import annotations

import dataclasses
import email
import email.policy
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from pathlib import Path

import pytest

from tests import postgres
from tests.conftest import Database
from tests.serving import ROOT, Server

_templates: set[tuple[int, str]] = set()
_numbers = iter(range(1, 1_000_000))

MIGRATIONS = "tests.accounts.settings"


@dataclasses.dataclass(frozen=True)
class Project:
    """The project, its database and its mail."""

    db: Database
    users: str
    mail: Path
    start: Callable[..., Server]

    @property
    def environ(self) -> dict[str, str]:
        return environ(self.db, self.users, self.mail)

    @property
    def table(self) -> str:
        return "people_person" if self.users == "custom" else "auth_user"

    def serve(self, *arguments: str, **settings: str) -> Server:
        return self.start(*arguments, **{**self.environ, **settings})

    def manage(self, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        return manage({**self.environ, **settings}, *arguments)

    def python(self, code: str) -> str:
        """What a Python program prints that has Django set up."""
        program = f"import django; django.setup(); {code}"
        done = subprocess.run(
            [sys.executable, "-c", program], env={**os.environ, **self.environ}, cwd=ROOT,
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def mails(self) -> list[EmailMessage]:
        """The mails that were sent, the oldest first."""
        texts = [
            path.read_text() for path in sorted(self.mail.glob("*"), key=lambda path: path.stat().st_mtime)
        ]
        parts = [
            part for text in texts for part in re.split(r"^-{79}\n", text, flags=re.MULTILINE) if part.strip()
        ]
        return [email.message_from_string(part, policy=email.policy.default) for part in parts]  # type: ignore[misc]

    def link(self) -> str:
        """The token of the link in the last mail."""
        match = re.search(r"https://books\.example/app/#/[a-z-]+/(\S{43})\n", self.mails()[-1].get_content())
        assert match is not None
        return match[1]


def environ(db: Database, users: str, mail: Path) -> dict[str, str]:
    return {
        **db.environ, "DJANGO_SETTINGS_MODULE": "tests.accounts.settings", "TDDP_USERS": users,
        "TDDP_MAIL": str(mail),
    }  # fmt: skip


def manage(variables: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "django", *arguments], env={**os.environ, **variables}, cwd=ROOT,
        capture_output=True, text=True,
    )  # fmt: skip


@pytest.fixture(params=["django", "custom"])
def users(request: pytest.FixtureRequest) -> str:
    """Which user model the project has."""
    return str(request.param)


@pytest.fixture
def project(
    cluster: postgres.Cluster, users: str, tmp_path: Path, serve: Callable[..., Server], db: Database
) -> Iterator[Project]:
    """The project on a database cloned from one in which its migrations have run."""
    template = f"template_accounts_{users}"
    if (cluster.major, users) not in _templates:
        with cluster.connect() as connection:
            connection.execute(f"CREATE DATABASE {template}")
        done = manage(environ(Database(cluster, template), users, tmp_path), "migrate", "--run-syncdb", "-v0")
        assert done.returncode == 0, done.stderr
        _templates.add((cluster.major, users))
    name = f"a{next(_numbers)}"
    with cluster.connect() as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    database = Database(cluster, name)
    servers: list[Server] = []

    def start(*arguments: str, **variables: str) -> Server:
        servers.append(serve(*arguments, **variables))
        return servers[-1]

    yield Project(database, users, tmp_path / "mail", start)
    for server in servers:
        if server.process.returncode is None:
            server.stop()
    with cluster.connect() as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
