"""README.md holds: its five minutes are lived through with its own words, on a project made from scratch."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import serving
from tests.conftest import Database
from tests.ddp import DDPClient
from tests.postgres import Cluster
from tests.serving import Server
from trigger_ddp.conf import Settings
from trigger_ddp.server.preconditions import OLDEST_POSTGRESQL

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
BOOK, AUTHOR = "bookstore.book", "bookstore.author"

#: How the fields that README.md names are declared in the project of this test.
FIELDS = {
    "name": "models.CharField(max_length=100)",
    "email": "models.EmailField(unique=True)",
    "title": "models.CharField(max_length=100)",
    "author": "models.ForeignKey(Author, on_delete=models.CASCADE)",
    "price": "models.DecimalField(max_digits=8, decimal_places=2, null=True)",
}


def section(heading: str) -> str:
    """What README.md has below a heading that begins so, up to the next one of its level."""
    found = re.search(
        rf"^## {heading}.*?$(.*?)(?=^## |\Z)", README.read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    assert found, f"README.md has no heading {heading!r}"
    return found[1]


def step(number: int, language: str) -> str:
    """The only block in ``language`` of one of the numbered steps of the five minutes."""
    text = section("Five minutes").partition(f"**{number}.**")[2].partition(f"**{number + 1}.**")[0]
    (block,) = re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return str(block)


def commands(number: int) -> list[list[str]]:
    """The words of every command line of a step."""
    return [shlex.split(line) for line in step(number, "sh").splitlines()]


def models() -> str:
    """A models.py with what the introduction of the five minutes says."""
    introduction = section("Five minutes").partition("**1.**")[0]
    lines = ["from django.db import models"]
    for name, fields in re.findall(r"`(\w+)`\s\(([^)]+)\)", introduction):
        lines += ["", "", f"class {name}(models.Model):"]
        lines += [f"    {field} = {FIELDS[field]}" for field in re.findall(r"`(\w+)`", fields)]
    return "\n".join([*lines, ""])


class Project:
    """The Django project ``mysite`` with the app ``bookstore``, and a database for it.

    Args:
        directory: where ``manage.py`` comes to be.
        database: an empty one.
    """

    def __init__(self, directory: Path, database: Database) -> None:
        self.directory = directory
        self.database = database
        cluster = database.cluster
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("DJANGO_", "DDP_", "TDDP_", "PG"))
        }
        self.environ = {
            **inherited,
            "PATH": f"{cluster.bindir}{os.pathsep}{os.environ['PATH']}",
            "PGHOST": str(cluster.directory),
            "PGPORT": str(cluster.port),
            "PGUSER": "postgres",
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
        }
        self.run("python", "-m", "django", "startproject", "mysite", ".")
        self.run("python", "manage.py", "startapp", "bookstore")
        (directory / "bookstore" / "models.py").write_text(models())
        (directory / "bookstore" / "ddp.py").write_text(step(2, "python"))
        database_settings = {"ENGINE": "django.db.backends.postgresql", "NAME": database.name}
        with (directory / "mysite" / "settings.py").open("a") as settings:
            settings.write(f"DATABASES = {{'default': {database_settings}}}\n")
            settings.write("INSTALLED_APPS += ['bookstore']\n")
            settings.write(step(1, "python").replace("...,", "*INSTALLED_APPS,"))
        self.run("python", "manage.py", "makemigrations", "bookstore")
        self.run("python", "manage.py", "migrate")

    def run(self, *command: str) -> str:
        """What the command prints; fails the test with what it says if it fails."""
        program = [sys.executable] if command[0] == "python" else [command[0]]
        done = subprocess.run(
            [*program, *command[1:]], cwd=self.directory, env=self.environ, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{shlex.join(command)} failed:\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def psql(self, statement: str | None = None) -> None:
        """Run the README's psql line on our database, with another statement if one is given."""
        ((*psql, said),) = commands(5)
        assert "mydatabase" in psql
        words = [self.database.name if word == "mydatabase" else word for word in psql]
        self.run(*words, statement or said)


@pytest.fixture(scope="module")
def project(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with cluster.connect() as conn:
        conn.execute("CREATE DATABASE readme")
    yield Project(tmp_path_factory.mktemp("readme"), Database(cluster, "readme"))
    with cluster.connect() as conn:
        conn.execute("DROP DATABASE readme WITH (FORCE)")


@pytest.fixture(scope="module")
def server(project: Project) -> Iterator[Server]:
    """Started by the commands of README.md, but on a free port."""
    install, serve = commands(3)
    project.run(*install)
    assert serve[:2] == ["trigger-ddp", "serve"]
    assert serve[-1].endswith(":8000")
    arguments = [*serve[2:-1], serve[-1].replace(":8000", ":0")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serving, "ROOT", project.directory)  # where the process is started
        server = Server(*arguments, environ=project.environ)
    yield server
    server.stop()


@pytest.fixture
def client(project: Project, server: Server) -> Iterator[DDPClient]:
    """Subscribes as the template of README.md does, to one of two authors."""
    name, parameter = in_the_app(r'this\.subscribe\("(\w+)", "([^"]+)"')
    project.database.psql(
        f"""
        TRUNCATE bookstore_author CASCADE;
        INSERT INTO bookstore_author (id, name, email)
        VALUES (1, 'Janet', '{parameter}'), (2, 'Paul', 'paul@example.com');
        INSERT INTO bookstore_book (id, title, author_id, price)
        VALUES (1, 'One', 1, 5.5), (2, 'Two', 2, NULL);
        """
    )
    with DDPClient(server.url) as client:
        client.subscribe(name, parameter)
        assert client.documents == {
            AUTHOR: {"1": {"name": "Janet", "email": parameter}},
            BOOK: {"1": {"title": "One", "author_id": "1", "price": "5.50"}},
        }
        yield client
        assert client.violations == []


def in_the_app(pattern: str) -> tuple[str, ...]:
    """The groups of what `pattern` finds in the JavaScript of the Meteor app."""
    found = re.search(pattern, step(4, "js"))
    assert found, f"client/main.js has nothing like {pattern}"
    return found.groups()


def test_what_is_installed_is_this() -> None:
    name = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["name"]
    assert commands(1) == [["pip", "install", name]]


def test_what_psql_writes_shows(project: Project, client: DDPClient) -> None:
    project.psql()
    client.wait_until(lambda: client.documents[BOOK]["1"]["title"] == "Live")
    assert client.messages[-1] == {
        "msg": "changed", "collection": BOOK, "id": "1", "fields": {"title": "Live"},
    }  # fmt: skip


def test_a_book_that_moves_to_another_author_is_gone(project: Project, client: DDPClient) -> None:
    project.psql("UPDATE bookstore_book SET author_id = 2 WHERE id = 1")
    client.wait_until(lambda: not client.documents[BOOK])
    assert set(client.documents[AUTHOR]) == {"1"}


def test_the_book_of_an_author_whose_address_changes_is_gone(project: Project, client: DDPClient) -> None:
    project.psql("UPDATE bookstore_author SET email = 'other@example.com' WHERE id = 1")
    client.wait_until(lambda: not client.documents[BOOK] and not client.documents[AUTHOR])


def test_the_method_works(client: DDPClient) -> None:
    method, title = in_the_app(r'django\.call\("([^"]+)", event\.currentTarget\.id, "(\w+)"\)')
    assert "error" not in client.call(method, "1", title)
    assert client.documents[BOOK]["1"]["title"] == title


def test_the_template_shows_what_is_published(client: DDPClient) -> None:
    (collection,) = in_the_app(r'new Mongo\.Collection\("([^"]+)"')
    (sorted_by,) = in_the_app(r"sort: { (\w+): 1 }")
    shown = set(re.findall(r"{{(\w+)}}", step(4, "html"))) - {"_id"}
    assert shown
    (book,) = client.documents[collection].values()
    assert {sorted_by, *shown} <= book.keys()


def test_numbers_are_the_defaults() -> None:
    text, defaults = README.read_text("utf-8"), Settings()
    assert f"more than {defaults.bulk_threshold} rows (`DDP_BULK_THRESHOLD`)" in text
    assert f"at most every {defaults.requery_interval * 1000:g} ms (`DDP_REQUERY_INTERVAL`)" in text
    assert f"PostgreSQL {OLDEST_POSTGRESQL} or newer" in text
    assert f"PostgreSQL {OLDEST_POSTGRESQL} to" in text


def test_recipes_are_in_the_justfile() -> None:
    recipes = re.findall(r"^(\w+).*:", (ROOT / "justfile").read_text("utf-8"), re.MULTILINE)
    assert set(re.findall(r"`just (\w+)", README.read_text("utf-8"))) <= set(recipes)


def test_links_lead_somewhere() -> None:
    links = [
        (page, target)
        for page in PAGES
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8"))
        if not re.match(r"\w+:", target)
    ]
    assert links
    broken = [
        f"{page.relative_to(ROOT)}: {target}" for page, target in links if not leads_somewhere(page, target)
    ]
    assert broken == []


def leads_somewhere(page: Path, target: str) -> bool:
    """Whether a relative link's file exists, and has the heading that the link names."""
    name, _, anchor = target.partition("#")
    path = page.parent / name if name else page
    return path.exists() and (not anchor or anchor in anchors(path))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ +(.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
