"""What `manage.py ddp_grants` prints: it suffices, each part of it is needed, and what is missing is said."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from io import StringIO
from typing import Any

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.db import connections

from tests import postgres, roles
from tests.conftest import Database, new_database
from tests.ddp import DDPClient
from tests.serving import Server
from tests.test_cli import refused
from tests.test_users import COLUMNS, ok

BOOK, AUTHOR, KEEPERS = "bookstore.book", "bookstore.author", "personal-keepers"

ROWS = """
    INSERT INTO bookstore_author (id, name, email) VALUES (1, 'Ada', 'ada@x'), (2, 'Bob', 'bob@x');
    INSERT INTO bookstore_book (id, title, author_id, in_stock) VALUES (1, 'One', 1, true);"""


@pytest.fixture
def shelf(db: Database) -> Database:
    db.psql(ROWS)
    return db


def revoking(grant: str) -> str:
    return grant.replace("GRANT", "REVOKE").replace(" TO ", " FROM ")


def connect_as(db: Database, role: str) -> psycopg.Connection:
    return psycopg.connect(db.dsn.replace("user=postgres", f"user={role}"), autocommit=True)


# -- installing -----------------------------------------------------------------------------------


@pytest.fixture
def bare(cluster: postgres.Cluster) -> Iterator[Database]:
    """A database in which the installing role has its rights, and Django is that role."""
    roles.make(cluster)
    with new_database(cluster) as db:
        db.psql("REVOKE ALL ON SCHEMA public FROM PUBLIC;" + roles.CONNECT.format(name=db.name))
        db.psql(roles.grants(roles.INSTALLING))
        connections.close_all()
        connections.settings["default"]["USER"] = roles.INSTALLING
        yield db
        connections.settings["default"]["USER"] = "postgres"


def install(*arguments: str) -> str:
    out = StringIO()
    try:
        call_command("ddp_install_triggers", *arguments, stdout=out, stderr=out, no_color=True)
    finally:
        connections.close_all()  # who may connect is asked at the beginning
    return out.getvalue()


@pytest.mark.every_major
def test_the_installing_role_installs_updates_and_removes(bare: Database) -> None:
    assert "installed  bookstore_book" in install()
    install("--check")
    owners = bare.psql("SELECT DISTINCT proowner::regrole FROM pg_proc WHERE proname ~ '^ddp'").split()
    assert owners == [roles.INSTALLING]
    bare.psql("ALTER TABLE bookstore_book DISABLE TRIGGER USER")
    assert "updated    bookstore_book" in install()
    install("bookstore", "--uninstall")
    assert "installed  bookstore_book" in install()
    with (
        connect_as(bare, roles.INSTALLING) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute("SELECT FROM bookstore_book")


def test_each_right_of_the_installing_role_is_needed(bare: Database) -> None:
    connections.settings["default"]["USER"] = "postgres"
    grants = [line for line in roles.grants(roles.INSTALLING).splitlines() if line.startswith("GRANT")]
    connections.close_all()
    connections.settings["default"]["USER"] = roles.INSTALLING
    assert len(grants) > 10
    for grant in grants:
        for one in ("CREATE", "USAGE") if "CREATE" in grant else ("",):
            part = grant.replace("USAGE, CREATE", one) if one else grant
            bare.psql(revoking(part))
            with pytest.raises(CommandError) as refusal:
                install()
            bare.psql(part)
            words = str(refusal.value)
            if one == "USAGE":  # then it is as if there were no table
                assert "there is no table bookstore_book in the database" in words
            else:
                assert "permission denied for " in words
            if "TRIGGER" in grant:
                assert words.startswith("1 table left as before:\n")
                assert words.endswith("`manage.py ddp_grants --install ROLE` prints the rights that it takes")
                install("--uninstall")
    install()
    install("--check")


def test_what_only_the_owner_of_a_table_may(bare: Database) -> None:
    with pytest.raises(CommandError, match="must be owner of table bookstore_book"):
        install("--for-each", "row", "bookstore.Book")
    bare.psql(f"ALTER TABLE bookstore_book OWNER TO {roles.INSTALLING}")
    install("--for-each", "row", "bookstore.Book")


def test_partitions_have_grants_of_their_own(db: Database) -> None:
    db.psql(
        "ALTER TABLE bookstore_tag RENAME TO before;"
        "CREATE TABLE bookstore_tag (LIKE before, PRIMARY KEY (id)) PARTITION BY RANGE (id);"
        "CREATE TABLE tag_1 PARTITION OF bookstore_tag FOR VALUES FROM (0) TO (9)"
    )
    lines = roles.grants(roles.INSTALLING, roles.SERVING).splitlines()
    assert [line.split()[1] for line in lines if '"tag_1"' in line] == ["TRIGGER"]


# -- serving --------------------------------------------------------------------------------------


@pytest.mark.every_major
def test_all_connections_are_the_serving_roles(shelf: Database, server: Server) -> None:
    with DDPClient(server.url) as client:
        client.subscribe("AllBooks")
        client.call("rename", "1", "Uno")
        assert client.documents[BOOK]["1"]["title"] == "Uno"
        names = shelf.psql(
            "SELECT DISTINCT usename FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        assert names.split() == [roles.SERVING]


def test_nothing_is_written_but_by_methods(shelf: Database, serve: Callable[..., Server]) -> None:
    """All of the server's transactions are read-only: it listens, notifies itself, and reads."""
    shelf.psql(f"ALTER ROLE {roles.SERVING} IN DATABASE {shelf.name} SET default_transaction_read_only = on")
    server = serve(DDP_HEARTBEAT_INTERVAL="0.1")
    with DDPClient(server.url) as client:
        client.subscribe("AllBooks")
        shelf.psql("UPDATE bookstore_book SET title = 'Uno'")
        client.settle()
        assert client.documents[BOOK]["1"]["title"] == "Uno"
        server.errors_expected = True
        assert client.call("rename", "1", "Two")["error"]["error"] == 500
        server.wait_for_log("cannot execute UPDATE in a read-only transaction")


def test_the_listening_role_may_do_nothing_but_connect(shelf: Database, serve: Callable[..., Server]) -> None:
    dsn = shelf.dsn.replace("user=postgres", f"user={roles.LISTENING}")
    server = serve(DDP_LISTEN_DSN=f'"{dsn}"')
    with DDPClient(server.url) as client:
        client.subscribe("AllBooks")
        client.call("rename", "1", "Uno")
        assert client.documents[BOOK]["1"]["title"] == "Uno"
    with connect_as(shelf, roles.LISTENING) as connection, pytest.raises(psycopg.Error):
        connection.execute("SELECT FROM bookstore_book")


def test_a_role_that_may_not_connect_or_not_see_the_tables_does_not_start(shelf: Database) -> None:
    for right, words in [
        (f"CONNECT ON DATABASE {shelf.name}", "can't be reached: .*permission denied for database"),
        (
            "USAGE ON SCHEMA public",
            "the role may not use schema public of database 'default'; `manage.py ddp_gra",
        ),
    ]:
        shelf.psql(f"REVOKE {right} FROM {roles.SERVING}")
        sentence = refused(environ={**shelf.environ})
        shelf.psql(f"GRANT {right} TO {roles.SERVING}")
        assert re.search(words, sentence), sentence


@pytest.mark.parametrize("table", ["bookstore_book", "bookstore_author", "bookstore_book_tags"])
def test_a_table_that_may_not_be_read(shelf: Database, serve: Callable[..., Server], table: str) -> None:
    shelf.psql(f"REVOKE SELECT ON {table} FROM {roles.SERVING}")
    server = serve()
    server.errors_expected = True
    server.wait_for_log(f"ERROR.*the role may not read {table}, so .* fail; `manage.py ddp_grants --serve")
    with DDPClient(server.url) as client:
        client.start_subscription("AllBooks")
        error = client.wait_for(lambda m: m["msg"] == "nosub")["error"]
        assert (error["error"], "permission" in str(error)) == (500, False)
        server.wait_for_log(f"permission denied for table {table}")
        shelf.psql(f"GRANT SELECT ON {table} TO {roles.SERVING}")
        client.subscribe("AllBooks")
        assert set(client.documents[BOOK]) == {"1"}


def test_a_right_that_is_taken_away_while_a_query_is_live(shelf: Database, server: Server) -> None:
    server.errors_expected = True
    with DDPClient(server.url) as client:
        subscription = client.subscribe("Authors")
        shelf.psql(
            f"REVOKE SELECT ON bookstore_author FROM {roles.SERVING}; UPDATE bookstore_author SET name = 'x'"
        )
        assert client.wait_for(lambda m: m["msg"] == "nosub")["id"] == subscription
        assert client.documents[AUTHOR] == {}
        server.wait_for_log("permission denied for table bookstore_author")


def test_what_methods_and_logins_need(shelf: Database, server: Server) -> None:
    server.errors_expected = True
    shelf.psql(
        f"INSERT INTO auth_user ({COLUMNS}) VALUES"
        " (1, 'ann', '', 'ab', '', '', false, false, true, now());"
        "INSERT INTO auth_user_user_permissions (user_id, permission_id)"
        " SELECT 1, id FROM auth_permission WHERE codename ~ '_keeper$'"
    )

    def keeper(client: DDPClient) -> dict[str, Any]:
        return client.call(f"/{KEEPERS}/insert", {"name": "Kim"})

    def remove(client: DDPClient) -> dict[str, Any]:
        shelf.psql(
            "INSERT INTO zoo_keeper (aid, name, account_id) VALUES ('fired', 'Joe', 1) ON CONFLICT DO NOTHING"
        )
        return client.call(f"/{KEEPERS}/remove", {"_id": "fired"})

    calls: dict[str, Callable[[DDPClient], dict[str, Any]]] = {
        "UPDATE ON bookstore_book": lambda client: client.call("rename", "1", "Uno"),
        **{
            f"SELECT ON {table}": keeper
            for table in (
                "auth_user_user_permissions", "auth_permission", "django_content_type",
                "auth_group", "auth_group_permissions", "auth_user_groups",
            )
        },
        "INSERT ON zoo_keeper": keeper,
        "DELETE ON zoo_keeper": remove,
        "UPDATE ON zoo_keeper": remove,  # the row is locked first
        "DELETE ON zoo_visit": remove,
        "SELECT ON zoo_animal": remove,
    }  # fmt: skip
    with DDPClient(server.url) as client:
        ok(client.call("become", 1))
        for right, call in calls.items():
            shelf.psql(f"REVOKE {right} FROM {roles.SERVING}")
            errors = server.log().count("permission denied for table")
            assert call(client)["error"]["error"] == 500, right
            shelf.psql(f"GRANT {right} TO {roles.SERVING}")
            table = right.split()[-1]
            server.wait_for_log(f"permission denied for table {table}")
            assert server.log().count("permission denied for table") > errors
            assert "error" not in call(client), right


def test_users_that_may_not_be_read_can_not_log_in(shelf: Database, server: Server) -> None:
    server.errors_expected = True
    shelf.psql(
        f"INSERT INTO auth_user ({COLUMNS}) VALUES (1, 'ann', '', 'ab', '', '', false, false, true, now());"
        f"REVOKE SELECT ON auth_user FROM {roles.SERVING}"
    )
    with DDPClient(server.url) as client:
        client.start_call("become", 1)
        assert client.wait_for(lambda m: m["msg"] == "result")["error"]["error"] == 500
        server.wait_for_log("permission denied for table auth_user")
    shelf.psql(f"GRANT SELECT ON auth_user TO {roles.SERVING}")
    with DDPClient(server.url) as client:
        ok(client.call("become", 1))
        shelf.psql(f"REVOKE SELECT ON auth_user FROM {roles.SERVING}; UPDATE auth_user SET is_active = true")
        client.settle()
        shelf.psql("UPDATE auth_user SET first_name = 'Ann'")
        client.wait_until(lambda: client.closed)  # who can't be shown to be logged in is not


def test_columns_may_be_granted_one_by_one(shelf: Database, serve: Callable[..., Server]) -> None:
    shelf.psql(
        "ALTER TABLE bookstore_author ADD secret text DEFAULT 'x';"
        f"REVOKE ALL ON bookstore_author FROM {roles.SERVING};"
        f"GRANT SELECT (id, name, email) ON bookstore_author TO {roles.SERVING}"
    )
    server = serve()
    with DDPClient(server.url) as client:
        client.subscribe("Authors")
        shelf.psql("UPDATE bookstore_author SET name = 'Eve', secret = 'y' WHERE id = 1")
        client.settle()
        assert client.documents[AUTHOR]["1"] == {"name": "Eve", "email": "ada@x"}


def test_row_level_security_hides_rows_from_all_clients(shelf: Database, server: Server) -> None:
    """The serving role sees for all of them, and triggers tell of all rows."""
    shelf.psql(
        "ALTER TABLE bookstore_author ENABLE ROW LEVEL SECURITY;"
        f"CREATE POLICY visible ON bookstore_author TO {roles.SERVING} USING (name <> 'hidden')"
    )
    with DDPClient(server.url) as client:
        client.subscribe("Authors")
        assert set(client.documents[AUTHOR]) == {"1", "2"}
        for name, visible in [("hidden", {"2"}), ("Ada", {"1", "2"})]:
            shelf.psql(f"UPDATE bookstore_author SET name = '{name}' WHERE id = 1")
            client.settle()
            assert set(client.documents[AUTHOR]) == visible
        assert client.violations == []


# -- writers --------------------------------------------------------------------------------------


@pytest.mark.every_major
def test_other_writers_need_no_more_than_before(shelf: Database, server: Server) -> None:
    """Neither to execute the triggers' functions, nor to read the table, nor its keys."""
    shelf.psql(
        f"GRANT USAGE ON SCHEMA public TO {roles.WRITING};"
        f"GRANT INSERT, UPDATE (name), DELETE, TRUNCATE ON bookstore_tag TO {roles.WRITING};"
        f"GRANT INSERT (id, name, email) ON bookstore_author TO {roles.WRITING};"
        f"GRANT SELECT (id), UPDATE (name), DELETE ON bookstore_author TO {roles.WRITING};"
        "DO $$ DECLARE f record; BEGIN FOR f IN SELECT oid::regprocedure AS name FROM pg_proc"
        " WHERE proname ~ '^ddp' LOOP EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', f.name);"
        " END LOOP; END $$"
    )
    with DDPClient(server.url) as client, connect_as(shelf, roles.WRITING) as writer:
        client.subscribe("Authors")
        for statement, names in [
            ("INSERT INTO bookstore_author (id, name, email) VALUES (7, 'Eve', 'e')", {"Ada", "Bob", "Eve"}),
            ("UPDATE bookstore_author SET name = 'Cyd' WHERE id = 7", {"Ada", "Bob", "Cyd"}),
            ("DELETE FROM bookstore_author WHERE id = 7", {"Ada", "Bob"}),
        ]:
            writer.execute(statement)
            client.settle()
            assert {author["name"] for author in client.documents[AUTHOR].values()} == names
        writer.execute("INSERT INTO bookstore_tag (id, name) VALUES (1, 'a')")
        writer.execute("UPDATE bookstore_tag SET name = 'c'")
        writer.execute("DELETE FROM bookstore_tag")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            writer.execute("SELECT name FROM bookstore_author")


def test_writers_need_pg_notify(shelf: Database) -> None:
    """Everybody has it, unless it was taken away."""
    shelf.psql("REVOKE EXECUTE ON FUNCTION pg_notify(text, text) FROM PUBLIC")
    shelf.psql(
        f"GRANT USAGE ON SCHEMA public TO {roles.WRITING};GRANT INSERT ON bookstore_author TO {roles.WRITING}"
    )
    insert = "INSERT INTO bookstore_author (id, name, email) VALUES (7, 'Eve', 'e')"
    with connect_as(shelf, roles.WRITING) as writer:
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="function pg_notify"):
            writer.execute(insert)
        shelf.psql(f"GRANT EXECUTE ON FUNCTION pg_notify(text, text) TO {roles.WRITING}")
        writer.execute(insert)


# -- the command ----------------------------------------------------------------------------------


def test_numbers_of_a_serial_column_come_from_a_sequence(db: Database) -> None:
    db.psql(
        "ALTER TABLE bookstore_tag ALTER id DROP IDENTITY; CREATE SEQUENCE numbers OWNED BY bookstore_tag.id;"
        "ALTER TABLE bookstore_tag ALTER id SET DEFAULT nextval('numbers')"
    )
    with connect_as(db, roles.SERVING) as connection:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("INSERT INTO bookstore_tag (name) VALUES ('a')")
        db.psql(roles.grants(roles.SERVING))
        connection.execute("INSERT INTO bookstore_tag (name) VALUES ('a')")


def test_reads_are_less_than_writes(db: Database) -> None:
    out = StringIO()
    call_command("ddp_grants", serve="a role", reads=["bookstore.Tag"], writes=["bookstore.Book"], stdout=out)
    lines = out.getvalue().splitlines()
    assert (
        'GRANT SELECT ON TABLE "public"."bookstore_tag" TO "a role";  -- published, read by methods' in lines
    )
    everything = "SELECT, INSERT, UPDATE, DELETE"
    for table in ("bookstore_book", "bookstore_book_tags"):
        assert any(line.startswith(f'GRANT {everything} ON TABLE "public"."{table}" TO') for line in lines)


def test_what_the_command_refuses(db: Database) -> None:
    for options, words in [
        ({}, "say for which roles"),
        ({"serve": "x", "database": "nowhere"}, "'nowhere' is not in DATABASES"),
        ({"serve": "x", "reads": ["nowhere"]}, "there is no app 'nowhere'"),
    ]:
        with pytest.raises(CommandError, match=words):
            call_command("ddp_grants", **options)
    db.psql("DROP TABLE bookstore_book CASCADE")
    with pytest.raises(CommandError, match="there is no table bookstore_book in the database: has"):
        call_command("ddp_grants", serve="x")
