"""Writers that write all the time, whatever is done to the database meanwhile."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Iterator

import psycopg

from tests.conftest import Database

STATEMENTS = (
    "UPDATE bookstore_book SET price = {n} WHERE id = {id}",
    "UPDATE bookstore_book SET title = 't{n}' WHERE id IN ({id}, {id} + 1)",
    "UPDATE bookstore_book SET author_id = {author} WHERE id = {id}",
    "INSERT INTO bookstore_book (id, title, author_id, price, in_stock)"
    " VALUES ({id}, 'new', {author}, {n}, true)"
    " ON CONFLICT (id) DO UPDATE SET in_stock = NOT bookstore_book.in_stock",
    "DELETE FROM bookstore_book WHERE id = {id} AND id > 3",
    "UPDATE bookstore_author SET email = '{author}@' || CASE WHEN email LIKE '%x' THEN 'y' ELSE 'x' END"
    " WHERE id = {author}",
)


class Writers:
    """Threads that write into the bookstore's tables.

    Attributes:
        written: statements that were committed so far.
        errors: what PostgreSQL refused.
    """

    def __init__(self, db: Database, threads: int) -> None:
        self.written = 0
        self.errors: list[psycopg.Error] = []
        self._news = threading.Condition()
        self._stopped = False
        self._threads = [
            threading.Thread(target=self._write, args=(db, random.Random(number)), name=f"writer {number}")
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def _write(self, db: Database, chance: random.Random) -> None:
        with db.connect() as connection:
            while not self._stopped:
                statement = chance.choice(STATEMENTS).format(
                    id=chance.randint(1, 12), author=chance.randint(1, 3), n=chance.randint(1, 9)
                )
                try:
                    connection.execute(statement)
                except psycopg.errors.DeadlockDetected:
                    continue
                except psycopg.Error as error:
                    self.errors.append(error)
                    return
                with self._news:
                    self.written += 1
                    self._news.notify_all()

    def go_on(self, more: int = 20) -> None:
        """Wait until this many more statements are committed."""
        with self._news:
            wanted = self.written + more
            assert self._news.wait_for(lambda: self.written >= wanted or self.errors, 60)
        assert self.errors == []

    def stop(self) -> None:
        self._stopped = True
        for thread in self._threads:
            thread.join()


@contextlib.contextmanager
def writing(db: Database, threads: int = 2) -> Iterator[Writers]:
    """Writers at work. Those that the block has not stopped are; that none was refused anything is held."""
    writers = Writers(db, threads)
    try:
        yield writers
    finally:
        writers.stop()
    assert writers.errors == []
