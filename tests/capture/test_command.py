"""``manage.py ddp_install_triggers`` as people and deployments use it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from io import StringIO
from typing import Any

import pytest
from django.apps import apps
from django.core.management import CommandError, call_command
from django.db import connection, models
from django.test import override_settings

from tests.capture.capturing import listening
from tests.conftest import Database
from trigger_ddp.api import API
from trigger_ddp.capture.tables import Table
from trigger_ddp.changes.change import Change
from trigger_ddp.demo.bookstore.models import Author, Book

WATCHED = [Table.from_model(model).name for model in API.watched_models()]


def run(*args: str, **options: Any) -> str:
    out = StringIO()
    call_command("ddp_install_triggers", *args, stdout=out, stderr=out, no_color=True, **options)
    return out.getvalue()


def installed(db: Database) -> set[str]:
    return set(db.psql("SELECT DISTINCT tgrelid::regclass FROM pg_trigger WHERE tgname ~ '^ddp'").split())


@pytest.mark.every_major
def test_without_arguments_it_installs_what_is_watched(db: Database) -> None:
    with pytest.raises(CommandError, match="bookstore_book has no triggers"):
        run("--check")
    out = run()
    assert installed(db) == set(WATCHED)
    assert "installed  bookstore_book\n" in out
    assert f"default: {len(WATCHED)} installed" in out
    assert f"{len(WATCHED)} tables up to date" in run("--check")
    again = run()
    assert f"default: {len(WATCHED)} up to date" in again
    assert "installed" not in again
    assert run(verbosity=0) == ""
    with override_settings(DDP_BULK_THRESHOLD=3):
        with pytest.raises(CommandError, match="is of version"):
            run("--check")
        out = run(verbosity=2)
    assert "updated    bookstore_book\n" in out
    assert "is of version" in out


def test_arguments_name_models(db: Database) -> None:
    run("bookstore.Book", "bookstore.tag")
    assert installed(db) == {"bookstore_book", "bookstore_tag"}
    run("bookstore")
    assert installed(db) == {"bookstore_author", "bookstore_book", "bookstore_book_tags", "bookstore_tag"}
    run("bookstore.Book_tags", "--check")
    with pytest.raises(CommandError, match=r"there is no app 'nowhere'; the apps are: .*bookstore"):
        run("nowhere.Book")
    with pytest.raises(
        CommandError, match=r"bookstore has no model 'Boook'; its models are: Author, Book, .*Tag"
    ):
        run("bookstore.Boook")
    with pytest.raises(CommandError, match=r"'elsewhere' is not in DATABASES, which has: default"):
        run("--database", "elsewhere")


@pytest.mark.every_major
def test_without_arguments_it_removes_what_is_no_longer_watched(db: Database) -> None:
    run("auth.Permission")
    with pytest.raises(
        CommandError, match=r"is not asked for by any model, but called for public\.auth_permission"
    ):
        run("--check")
    assert "auth_permission" in installed(db)
    run("bookstore")
    assert "auth_permission" in installed(db)
    assert "removed    public.auth_permission" in run()
    assert "auth_permission" not in installed(db)
    run("--check")


def test_uninstall(db: Database) -> None:
    run()
    run("bookstore.Book", "--uninstall")
    assert installed(db) == set(WATCHED) - {"bookstore_book"}
    run("--uninstall")
    assert installed(db) == set()
    assert db.psql("SELECT proname FROM pg_proc WHERE proname ~ '^ddp'") == ""
    assert "nothing to do" in run("--uninstall")


@pytest.mark.every_major
@pytest.mark.parametrize("level", ["statement", "row"])
def test_what_a_dry_run_prints_can_be_piped_to_psql(db: Database, level: str) -> None:
    out = run("--dry-run", "--for-each", level)
    assert installed(db) == set()
    assert "CREATE OR REPLACE FUNCTION" in out
    db.psql(out)
    run("--check", "--for-each", level)
    db.psql(run("--dry-run", "--for-each", level))
    out = run("--dry-run", "--uninstall")
    assert installed(db) != set()
    db.psql(out)
    assert installed(db) == set()


def test_one_table_in_use_does_not_stop_the_others(db: Database) -> None:
    with db.connect() as writer:
        writer.execute("BEGIN; LOCK bookstore_author IN ROW EXCLUSIVE MODE")
        with pytest.raises(
            CommandError, match="1 table left as before:\n  bookstore_author is in use"
        ) as failure:
            run("--lock-timeout", "50ms")
        assert failure.value.returncode == 1
    assert installed(db) == set(WATCHED) - {"bookstore_author"}
    run()
    assert installed(db) == set(WATCHED)


def test_a_refused_table_does_not_stop_the_others(db: Database) -> None:
    db.psql(
        "DROP TABLE bookstore_book_tags;"
        "CREATE VIEW bookstore_book_tags AS SELECT 1 AS id, 2 AS book_id, 3 AS tag_id"
    )
    with pytest.raises(CommandError, match="1 table can't have triggers:\n  bookstore_book_tags is a view"):
        run("bookstore")
    assert installed(db) == {"bookstore_author", "bookstore_book", "bookstore_tag"}
    with pytest.raises(CommandError, match="bookstore_book_tags is a view"):
        run("bookstore", "--check")


def test_a_role_without_rights_gets_a_sentence(db: Database) -> None:
    db.psql("DROP ROLE IF EXISTS nobody_much; CREATE ROLE nobody_much LOGIN")
    try:
        connection.close()
        connection.settings_dict["USER"] = "nobody_much"
        with pytest.raises(CommandError, match="bookstore_book: permission denied"):
            run("bookstore.Book")
    finally:
        connection.close()
        connection.settings_dict["USER"] = "postgres"
        db.psql("DROP ROLE nobody_much")


def test_options_that_do_not_go_together(db: Database) -> None:
    for other in ("--dry-run", "--uninstall", "--make-migrations"):
        with pytest.raises(CommandError, match="--check goes with none"):
            run("--check", other)
    with pytest.raises(CommandError, match="--app only goes with"):
        run("--app", "bookstore")
    for wrong in ("soon", "-1", "5m"):
        with pytest.raises(CommandError, match="lock-timeout"):
            run(f"--lock-timeout={wrong}")


def test_two_models_of_one_table_must_agree(db: Database) -> None:
    class Other(models.Model):
        class Meta:
            app_label = "bookstore"
            db_table = "bookstore_book"
            managed = False

    try:
        with pytest.raises(
            CommandError, match=r"bookstore.Book and bookstore.Other both stand for bookstore_book"
        ):
            run("bookstore.Book", "bookstore.Other")
    finally:
        del apps.all_models["bookstore"]["other"]
        apps.clear_cache()


@pytest.fixture
def manage(db: Database) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run_it(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "django", "ddp_install_triggers", *args],
            env=os.environ | db.environ, capture_output=True, text=True,
        )  # fmt: skip

    return run_it


def test_exit_codes(db: Database, manage: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    missing = manage("--check")
    assert missing.returncode == 1
    assert "has no triggers" in missing.stderr
    assert "Traceback" not in missing.stderr
    done = manage("bookstore")
    assert (done.returncode, done.stderr) == (0, "")
    assert manage("bookstore", "--check").returncode == 0
    help_text = manage("--help").stdout
    assert "examples:" in help_text
    assert "manage.py ddp_install_triggers --dry-run | psql" in help_text


def test_what_is_installed_tells(db: Database) -> None:
    run()
    table = Table.from_model(Book)
    with listening(db, table) as ear:
        author = Author.objects.create(name="A", email="a@example.org")
        book = Book.objects.create(title="T", author=author)
        assert ear.changes() == [Change("bookstore_book", "I", ((str(book.pk), str(author.pk)),))]
