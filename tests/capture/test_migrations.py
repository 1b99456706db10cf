"""Migrations that make the triggers, forwards and back."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import override_settings

from tests.conftest import Database
from trigger_ddp.demo import bookstore

SOURCE = Path(bookstore.__file__).parent / "migrations"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the bookstore's migrations that may be written to."""
    package = tmp_path / "bookstore_migrations"
    shutil.copytree(SOURCE, package, ignore=shutil.ignore_patterns("__pycache__", "*triggers*"))
    monkeypatch.syspath_prepend(tmp_path)
    with override_settings(MIGRATION_MODULES={"bookstore": "bookstore_migrations"}):
        yield package
    for name in [name for name in sys.modules if name.startswith("bookstore_migrations")]:
        del sys.modules[name]


def run(*args: str, **options: Any) -> str:
    out = StringIO()
    call_command("ddp_install_triggers", *args, stdout=out, stderr=out, no_color=True, **options)
    return out.getvalue()


def migrate(*args: str) -> None:
    for name in [name for name in sys.modules if name.startswith("bookstore_migrations")]:
        del sys.modules[name]
    call_command("migrate", *args, verbosity=0)


def files(project: Path) -> list[str]:
    return sorted(path.stem for path in project.glob("0*.py"))


@pytest.mark.every_major
@pytest.mark.parametrize("level", ["statement", "row"])
def test_migrate_installs_and_removes(db: Database, project: Path, level: str) -> None:
    before = files(project)
    out = run("bookstore", "--make-migrations", "--for-each", level)
    assert files(project) == [*before, f"{len(before) + 1:04}_ddp_triggers"]
    assert "wrote" in out
    text = (project / f"{files(project)[-1]}.py").read_text()
    compile(text, "migration", "exec")
    assert f'("bookstore", "{before[-1]}")'.replace('"', "'") in text
    with pytest.raises(CommandError):
        run("bookstore", "--check")
    migrate("bookstore")
    run("bookstore", "--check", "--for-each", level)
    assert "no changes" in run("bookstore", "--make-migrations")
    migrate("bookstore", before[-1])
    assert db.psql("SELECT proname FROM pg_proc WHERE proname ~ '^ddp'") == ""
    migrate("bookstore")
    run("bookstore", "--check")


def test_only_what_differs_is_written_and_undone(db: Database, project: Path) -> None:
    run("bookstore.Book", "bookstore.Tag", "--make-migrations")
    first = files(project)[-1]
    run("bookstore", "--make-migrations")
    text = (project / f"{files(project)[-1]}.py").read_text()
    assert "Triggers that tell changes of bookstore_author, bookstore_book_tags." in text
    migrate("bookstore")
    run("bookstore", "--check")
    with override_settings(DDP_BULK_THRESHOLD=9):
        run("bookstore.Book", "--make-migrations", "--for-each", "row")
        migrate("bookstore")
        run("bookstore.Book", "--check", "--for-each", "row")
    migrate("bookstore", files(project)[-2])
    run("bookstore.Book", "--check", "--for-each", "statement")
    migrate("bookstore", first)
    run("bookstore.Book", "bookstore.Tag", "--check")
    with pytest.raises(CommandError):
        run("bookstore.Author", "--check")


def test_uninstalling_by_a_migration(db: Database, project: Path) -> None:
    assert "no changes" in run("bookstore", "--make-migrations", "--uninstall")
    run("bookstore", "--make-migrations")
    with_triggers = files(project)[-1]
    run("bookstore.Book", "--make-migrations", "--uninstall")
    migrate("bookstore")
    assert "bookstore_book_insert" not in db.psql("SELECT proname FROM pg_proc WHERE proname ~ '^ddp'")
    migrate("bookstore", with_triggers)
    run("bookstore", "--check")


def test_partitions_are_seen_to_where_the_migration_runs(db: Database, project: Path) -> None:
    db.psql(
        'CREATE TABLE "quo\'te %s" () INHERITS (bookstore_tag);'
        "CREATE SCHEMA s; CREATE TABLE s.below () INHERITS (bookstore_tag)"
    )
    for level in ("statement", "row"):
        run("bookstore.Tag", "--make-migrations", "--for-each", level)
        db.psql("CREATE TABLE later () INHERITS (bookstore_tag)")
        migrate("bookstore")
        run("bookstore.Tag", "--check", "--for-each", level)
        db.psql("DROP TABLE later")


def test_another_app_takes_the_migration(db: Database, project: Path) -> None:
    with pytest.raises(CommandError, match="auth is an installed package"):
        run("auth.Permission", "--make-migrations")
    with pytest.raises(CommandError, match="zoo has no migrations"):
        run("zoo.Every", "--make-migrations")
    run("auth.Permission", "bookstore.Book", "--make-migrations", "--app", "bookstore")
    text = (project / f"{files(project)[-1]}.py").read_text()
    assert "('auth', '00" in text
    assert "('bookstore', '00" in text
    migrate()
    run("auth.Permission", "bookstore.Book", "--check")


def test_a_dry_run_writes_nothing(db: Database, project: Path) -> None:
    before = files(project)
    assert "would write" in run("bookstore", "--make-migrations", "--dry-run")
    assert files(project) == before


def test_sqlmigrate_shows_the_sql(db: Database, project: Path) -> None:
    run("bookstore", "--make-migrations")
    out = StringIO()
    call_command("sqlmigrate", "bookstore", files(project)[-1], stdout=out)
    db.psql(out.getvalue())
    run("bookstore", "--check")


def test_a_table_is_migrated_before_it_exists(db: Database, project: Path) -> None:
    migrate("bookstore", "zero")
    run("bookstore", "--make-migrations")
    migrate("bookstore")
    run("bookstore", "--check")
