"""The listening connection dies: nothing is lost, every client is brought up to date."""

from __future__ import annotations

from tests.ddp import DDPClient

LISTENERS = "application_name LIKE 'trigger_ddp%' AND datname = current_database()"


def kill_listener(db):
    assert (
        db.psql(f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE {LISTENERS}") != "0\n"
    )


def test_what_was_written_while_nobody_listened_arrives(db, server):
    db.psql("INSERT INTO bookstore_author (id, name, email) VALUES (1, 'Ada', 'ada@x'), (2, 'Bob', 'bob@x')")
    with DDPClient(server.url) as client:
        client.subscribe("AllBooks")
        for round_ in range(5):
            with db.connect() as writer, writer.transaction():
                kill_listener(db)
                writer.execute("UPDATE bookstore_author SET name = %s WHERE id = 1", [f"Ada {round_}"])
                writer.execute("DELETE FROM bookstore_author WHERE id = 2")
                writer.execute(
                    "INSERT INTO bookstore_author (id, name, email) VALUES (%s, 'new', %s)", [10 + round_] * 2
                )
            client.wait_until(
                lambda round_=round_: (
                    client.documents["bookstore.author"].get("1")
                    == {"name": f"Ada {round_}", "email": "ada@x"}
                    and str(10 + round_) in client.documents["bookstore.author"]
                )
            )
        assert client.violations == []
        assert set(client.documents["bookstore.author"]) == {"1", "10", "11", "12", "13", "14"}
    server.wait_for_log("lost")


def test_methods_wait_for_the_connection_and_then_keep_their_promise(db, server):
    db.psql("INSERT INTO bookstore_author (id, name, email) VALUES (1, 'Ada', 'ada@x')")
    db.psql("INSERT INTO bookstore_book (id, title, author_id, in_stock) VALUES (1, 'One', 1, true)")
    with DDPClient(server.url) as client:
        client.subscribe("AllBooks")
        for number in range(5):
            kill_listener(db)
            client.call("rename", "1", f"t{number}")
            assert client.documents["bookstore.book"]["1"]["title"] == f"t{number}"


def test_every_connection_of_the_server_is_cut(db, server):
    """Worker threads too: their next unit of work gets a new connection, live queries are asked again."""
    with DDPClient(server.url) as client:
        client.subscribe("AllBooks")
        client.call("echo", 1)
        for number in range(5):
            db.psql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            db.psql(f"INSERT INTO bookstore_author (id, name, email) VALUES ({number}, 'n', 'n{number}@x')")
            client.wait_until(lambda number=number: str(number) in client.documents["bookstore.author"])
        assert client.violations == []
