"""The library's rows: how each scenario finds them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.conftest import Database

#: Foreign keys as Django makes them, none of which cascades by itself.
_FOREIGN_KEYS = """
    SELECT format('ALTER TABLE %s DROP CONSTRAINT %I, ADD %s ON UPDATE CASCADE ON DELETE %s DEFERRABLE',
        conrelid::regclass, conname, split_part(pg_get_constraintdef(c.oid), ' DEFERRABLE', 1),
        CASE WHEN attnotnull THEN 'CASCADE' ELSE 'SET NULL' END)
    FROM pg_constraint c JOIN pg_attribute ON attrelid = conrelid AND attnum = conkey[1]
    WHERE contype = 'f' AND conrelid::regclass::text LIKE 'library\\_%'
"""

_EMPTY = """
TRUNCATE library_publisher, library_author, library_genre, library_award CASCADE;
DELETE FROM auth_user;
"""
_INSERTS = """
INSERT INTO auth_user (id, username, password, is_superuser, is_staff, is_active, first_name, last_name,
    email, date_joined)
    SELECT n, 'u' || n, '', n = 3, false, true, '', '', '', now() FROM generate_series(1, 3) n;
INSERT INTO library_publisher (id, country, active) VALUES (1, 'de', true), (2, 'fr', true), (3, 'de', false);
INSERT INTO library_author (id, publisher_id, name, email) VALUES
    (1, 1, 'ann', '1@x'), (2, 2, 'bob', '2@x'), (3, NULL, 'cid', '3@x'), (4, 3, 'ann', '4@x');
INSERT INTO library_genre (id, aid, name) VALUES (1, 'g1', 'crime'), (2, 'g2', 'poetry'), (3, 'g3', 'travel');
INSERT INTO library_award (id, name) VALUES (1, 'gold'), (2, 'silver');
INSERT INTO library_book (id, author_id, editor_id, sequel_of_id, owner_id, title, price, year, published,
    in_stock, shelf, slot) VALUES
    (1, 1, 2, NULL, 1, 'x', 5, 2020, '2020-01-01', true, 'a', 1),
    (2, 1, NULL, 1, 2, 'y', 8.5, 2021, '2021-06-15', true, 'a', 2),
    (3, 2, 3, NULL, NULL, 'x', NULL, 2020, NULL, false, 'b', 1),
    (4, 3, 1, 3, 1, 'it''s %', 1, 2022, '2020-06-15', true, 'b', 2),
    (5, 4, 4, 4, 3, 'X', 5, 2021, '2021-12-31', false, 'b', 3),
    (6, 2, NULL, NULL, 2, 'bob', 9, 2022, NULL, true, 'b', 4);
INSERT INTO library_comic (book_ptr_id, colour, artist_id) VALUES (5, true, 1), (6, false, NULL);
INSERT INTO library_bookgenre (id, book_id, genre_id, weight) VALUES
    (1, 1, 1, 1), (2, 1, 2, 2), (3, 2, 1, 1), (4, 2, 1, 3), (5, 3, 2, 2), (6, 4, 3, 1), (7, 5, 1, 1);
INSERT INTO library_book_awards (id, book_id, award_id) VALUES (1, 1, 1), (2, 2, 2), (3, 4, 1);
INSERT INTO library_review (id, book_id, reviewer_id, stars) VALUES
    (1, 1, 1, 3), (2, 1, 2, 5), (3, 2, NULL, 3), (4, 3, 1, 1), (5, 5, 3, 4);
INSERT INTO library_copy (book_id, number, condition) VALUES
    (1, 1, 'new'), (1, 2, 'worn'), (2, 1, 'new'), (3, 1, 'worn'), (5, 1, 'new');
"""

ROWS = _EMPTY + _INSERTS
#: What of the rows is missing.
MISSING_ROWS = re.sub(
    r"(INSERT INTO (\w+)[^;]+);",
    lambda found: f"{found[1]} ON CONFLICT {'(id) ' if found[2] == 'library_book' else ''}DO NOTHING;",
    _INSERTS,
)


def prepare(db: Database) -> None:
    """Once for each database: have its foreign keys cascade."""
    with db.connect() as connection:
        for (statement,) in connection.execute(_FOREIGN_KEYS).fetchall():
            connection.execute(statement)


def reset(db: Database) -> None:
    """Exactly these rows."""
    with db.connect() as connection, connection.transaction():
        connection.execute(ROWS)
