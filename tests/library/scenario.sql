-- The scenario of test_statements.py: each heading is one transaction, in this order, from the rows of data.py.
-- Keys are deferred and cascade, see data.prepare.

--- a price
UPDATE library_book SET price = 5 WHERE id = 4;

--- a price of the same value
UPDATE library_book SET price = 5.00, title = 'it' WHERE id = 4;

--- a price becomes null
UPDATE library_book SET price = NULL WHERE id = 1;

--- a price is null no more
UPDATE library_book SET price = 8.5 WHERE id IN (1, 3);

--- a year
UPDATE library_book SET year = 2021 WHERE id = 1;

--- a date
UPDATE library_book SET published = '2021-06-16' WHERE id = 3;

--- dates become null
UPDATE library_book SET published = NULL WHERE id IN (1, 2);

--- in stock
UPDATE library_book SET in_stock = NOT in_stock WHERE id IN (1, 3, 5);

--- many columns
UPDATE library_book SET title = 'x', year = 2020, price = 1, slot = slot + 3 WHERE id = 2;

--- all rows
UPDATE library_book SET price = coalesce(price, 0) + 1;

--- a foreign key moves
UPDATE library_book SET author_id = 2 WHERE id = 1;

--- foreign keys move both ways
UPDATE library_book SET author_id = 3 - author_id WHERE author_id IN (1, 2);

--- a nullable key is set
UPDATE library_book SET editor_id = 1 WHERE id = 2;

--- a nullable key is cleared
UPDATE library_book SET editor_id = NULL WHERE id IN (1, 4);

--- a key to itself
UPDATE library_book SET sequel_of_id = CASE id WHEN 1 THEN 2 WHEN 2 THEN NULL END WHERE id <= 2;

--- two places are swapped
UPDATE library_book SET slot = CASE id WHEN 3 THEN 2 ELSE 1 END WHERE id IN (3, 4);

--- an owner
UPDATE library_book SET owner_id = 2 WHERE id = 1;

--- a joined row
UPDATE library_author SET name = 'bob' WHERE id = 1;

--- all joined rows
UPDATE library_author SET name = name || 'x';

--- joined rows are as before
UPDATE library_author SET name = CASE id WHEN 2 THEN 'bob' ELSE 'ann' END;

--- two unique values are swapped
UPDATE library_author SET email = 'z' WHERE id = 1;
UPDATE library_author SET email = '1@x' WHERE id = 2;
UPDATE library_author SET email = '2@x' WHERE id = 1;

--- a joined row's key moves
UPDATE library_author SET publisher_id = 2 WHERE id IN (1, 4);

--- a joined row's key is cleared
UPDATE library_author SET publisher_id = NULL WHERE id = 2;

--- a joined row's key is set
UPDATE library_author SET publisher_id = 3 WHERE id IN (2, 3);

--- a row joined through another
UPDATE library_publisher SET country = 'fr', active = NOT active WHERE id = 3;

--- rows joined through another
UPDATE library_publisher SET country = 'de';

--- a through row
INSERT INTO library_bookgenre (id, book_id, genre_id, weight) VALUES (20, 3, 1, 1);

--- a through row twice
INSERT INTO library_bookgenre (id, book_id, genre_id, weight) VALUES (21, 3, 1, 2);

--- a through row's own column
UPDATE library_bookgenre SET weight = 4 - weight WHERE id IN (1, 2, 5);

--- a through row's book
UPDATE library_bookgenre SET book_id = 6 WHERE id = 1;

--- a through row's other side
UPDATE library_bookgenre SET genre_id = 2 WHERE id IN (3, 6);

--- through rows of a book go
DELETE FROM library_bookgenre WHERE book_id = 3;

--- a many-to-many row
INSERT INTO library_book_awards (id, book_id, award_id) VALUES (20, 5, 1), (21, 3, 2);

--- many-to-many rows go
DELETE FROM library_book_awards WHERE book_id IN (1, 3);

--- the other side of many
UPDATE library_genre SET name = CASE id WHEN 1 THEN 'poetry' ELSE 'crime' END WHERE id <= 2;
UPDATE library_award SET name = 'gold';

--- two ids are swapped
UPDATE library_genre SET aid = 'z' WHERE id = 1;
UPDATE library_genre SET aid = 'g1' WHERE id = 2;
UPDATE library_genre SET aid = 'g2' WHERE id = 1;

--- reviews
INSERT INTO library_review (id, book_id, reviewer_id, stars) VALUES (20, 2, 1, 5), (21, 4, 2, 3);

--- stars
UPDATE library_review SET stars = 6 - stars;

--- a review of another book
UPDATE library_review SET book_id = 6 WHERE id IN (2, 20);

--- a review of another user
UPDATE library_review SET reviewer_id = CASE id WHEN 1 THEN NULL ELSE 2 END WHERE id IN (1, 3);

--- a review goes
DELETE FROM library_review WHERE id IN (2, 21);

--- users
UPDATE auth_user SET is_active = NOT is_active, is_superuser = NOT is_superuser WHERE id > 1;

--- copies
INSERT INTO library_copy (book_id, number, condition) VALUES (4, 1, 'new'), (4, 2, 'worn');

--- a copy's condition
UPDATE library_copy SET condition = 'worn' WHERE number = 1;

--- a copy's key
UPDATE library_copy SET number = 7 WHERE book_id = 1 AND number = 1;

--- a copy of another book
UPDATE library_copy SET book_id = 6 WHERE book_id = 2;

--- a child's own column
UPDATE library_comic SET colour = NOT colour, artist_id = 2;

--- a child of a row that was there
INSERT INTO library_comic (book_ptr_id, colour, artist_id) VALUES (1, true, 1);

--- only a child goes
DELETE FROM library_comic WHERE book_ptr_id = 5;

--- a row
INSERT INTO library_book (id, author_id, editor_id, title, price, year, in_stock, shelf, slot) VALUES
    (7, 1, 2, 'x', 0.5, 2021, true, 'c', 1);

--- a row with all its relations
WITH b AS (INSERT INTO library_book (id, author_id, sequel_of_id, title, price, year, published,
    in_stock, shelf, slot) VALUES (8, 2, 1, 'y', 8.5, 2023, '2020-06-30', true, 'c', 2)) INSERT INTO
    library_bookgenre (id, book_id, genre_id, weight) VALUES (30, 8, 1, 2), (31, 8, 2, 1);
INSERT INTO library_review (id, book_id, reviewer_id, stars) VALUES (30, 8, 1, 5), (31, 8, NULL, 3);
INSERT INTO library_comic (book_ptr_id, colour, artist_id) VALUES (8, false, 1);

--- an upsert of both kinds
INSERT INTO library_book (id, author_id, title, price, year, in_stock, shelf, slot) VALUES (1, 3, 'y',
    2, 2020, true, 'c', 3), (9, 3, 'y', 2, 2020, true, 'c', 4) ON CONFLICT (id) DO UPDATE SET title =
    EXCLUDED.title, price = EXCLUDED.price;

--- a bulk insert
INSERT INTO library_book (id, author_id, title, price, year, in_stock, shelf, slot) SELECT n, 1, 'x', n,
    2019 + n % 3, n % 2 = 0, 'd', n FROM generate_series(20, 40) n;

--- a primary key
UPDATE library_book SET id = 50 WHERE id = 2;

--- a primary key with a child
UPDATE library_book SET id = 51 WHERE id = 8;

--- a joined primary key
UPDATE library_author SET id = 9 WHERE id = 1;

--- keys are exchanged
UPDATE library_book SET id = 90 WHERE id = 1;
UPDATE library_book SET id = 1 WHERE id = 4;
UPDATE library_book SET id = 4 WHERE id = 90;

--- a merge
MERGE INTO library_review r USING (SELECT id FROM library_book WHERE id < 10) b ON r.book_id = b.id WHEN
    MATCHED THEN UPDATE SET stars = 3 WHEN NOT MATCHED THEN INSERT (id, book_id, stars) VALUES (100 +
    b.id, b.id, 5);

--- a row goes and its references are cleared
DELETE FROM library_publisher WHERE id = 2;

--- a cascade
DELETE FROM library_book WHERE id IN (1, 51);

--- a longer cascade
DELETE FROM library_author WHERE id = 2;

--- a subtransaction rolled back
SAVEPOINT s;
DELETE FROM library_book;
ROLLBACK TO s;
UPDATE library_book SET title = 'y' WHERE id = 20;

--- nothing in the end
UPDATE library_book SET year = year + 1;
UPDATE library_book SET year = year - 1;
DELETE FROM library_review WHERE stars = 5;

--- many rows go
DELETE FROM library_book WHERE id % 2 = 0;

--- a truncated leaf
TRUNCATE library_review;

--- a truncated through table
TRUNCATE library_bookgenre;

--- everything is truncated
TRUNCATE library_publisher CASCADE;
