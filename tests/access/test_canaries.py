"""No client is ever sent what it had no right to: all texts are canaries, and all frames are looked at.

Users log in, out and change in the middle of it; writers hand rows from one owner to another together with
what is in them, give and take rights, deactivate, roll back.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable

import psycopg
import pytest

from tests.access.canaries import (
    AUTHOR,
    EMAIL,
    KEEPER,
    NEVER,
    USERNAME,
    Judge,
    Ledger,
    Recorder,
    Story,
)
from tests.conftest import Database
from tests.ddp import DDPClient
from tests.serving import Server

USERS = (1, 2, 3, 4)
SEEDS = [int(seed) for seed in os.environ.get("TDDP_ACCESS_SEEDS", "1,2").split(",")]
STEPS = 120
PUBLICATIONS = ("MyKeepers", "MyKeepersStrictly", "access/authors", "access/author-names", "access/names")


class Writer(threading.Thread):
    """Writes all the time. There is one for each half of the rows, so that it knows what each row says."""

    def __init__(self, db: Database, ledger: Ledger, number: int, seed: int) -> None:
        super().__init__(name=f"writer {number}", daemon=True)
        self._random = random.Random(f"{seed} writer {number}")
        self._ledger = ledger
        self._connection = psycopg.connect(db.dsn)
        self._rows = [row for row in range(1, 9) if row % 2 == number]
        self._users = [user for user in USERS if user % 2 == number]
        self._now: dict[tuple[str, int], list[str]] = {}
        self._has: dict[tuple[str, int], bool] = dict.fromkeys((("active", user) for user in USERS), True)
        self.stop = threading.Event()
        self.commits = 0
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            while not self.stop.is_set():
                self.step()
        except BaseException as error:  # noqa: BLE001 - the test raises it
            self.failure = error
        finally:
            self._connection.close()

    def begin(self) -> None:
        """Give every row its first canaries."""
        for row in self._rows:
            self._keeper(row)
            self._author(row)
        for user in self._users:
            self._ledger.give(time.monotonic(), "active", user, True)
            self._user(user)

    def step(self) -> None:
        row, user = self._random.choice(self._rows), self._random.choice(self._users)
        self._random.choice(
            [self._keeper] * 8 + [self._author] * 4 + [self._rolled_back, self._in_between, self._without]
        )(row)
        if self._random.random() < 0.2:
            self._random.choice([self._user, self._superuser, self._reader, self._active])(user)

    def _write(self, key: tuple[str, int], new: list[str], sql: str, parameters: list[object]) -> None:
        self._connection.execute(sql, parameters)
        before = self._commit()
        self._ledger.commit(before, new, self._now.get(key, []))
        self._now[key] = new

    def _commit(self) -> float:
        before = time.monotonic()
        self._connection.commit()
        self.commits += 1
        return before

    def _keeper(self, row: int) -> None:
        owner = self._random.choice(USERS)
        canary = self._ledger.canary(KEEPER, owner)
        self._write(
            ("keeper", row), [canary],
            "INSERT INTO zoo_keeper (id, aid, name, account_id) VALUES (%s, %s, %s, %s)"
            " ON CONFLICT (id) DO UPDATE SET name = EXCLUDED.name, account_id = EXCLUDED.account_id",
            [row, str(row) * 17, canary, owner],
        )  # fmt: skip

    def _without(self, row: int) -> None:
        self._write(("keeper", row), [], "DELETE FROM zoo_keeper WHERE id = %s", [row])

    def _author(self, row: int) -> None:
        name, email = self._ledger.canary(AUTHOR), self._ledger.canary(EMAIL)
        self._write(
            ("author", row), [name, email],
            "INSERT INTO bookstore_author (id, name, email) VALUES (%s, %s, %s)"
            " ON CONFLICT (id) DO UPDATE SET name = EXCLUDED.name, email = EXCLUDED.email",
            [row, name, email],
        )  # fmt: skip

    def _rolled_back(self, row: int) -> None:
        """To be seen by nobody."""
        for owner in USERS:
            self._connection.execute(
                "UPDATE zoo_keeper SET name = %s, account_id = %s WHERE id = %s",
                [self._ledger.canary(KEEPER, owner), owner, row],
            )
        self._connection.rollback()

    def _in_between(self, row: int) -> None:
        """One's, then another's, in one transaction: of the first nobody may learn."""
        for owner in USERS:
            self._connection.execute(
                "UPDATE zoo_keeper SET name = %s, account_id = %s WHERE id = %s",
                [self._ledger.canary(KEEPER, owner), owner, row],
            )
        self._keeper(row)

    def _user(self, user: int) -> None:
        new = [self._ledger.canary(USERNAME), *(self._ledger.canary(NEVER) for _ in range(4))]
        self._write(
            ("user", user), new,
            "UPDATE auth_user SET username = %s, password = %s, email = %s, first_name = %s, last_name = %s"
            " WHERE id = %s", [*new, user],
        )  # fmt: skip

    def _toggle(self, right: str, user: int) -> bool:
        given = self._has[right, user] = not self._has.get((right, user), False)
        return given

    def _superuser(self, user: int) -> None:
        given = self._toggle("superuser", user)
        self._connection.execute("UPDATE auth_user SET is_superuser = %s WHERE id = %s", [given, user])
        self._ledger.give(self._commit(), "superuser", user, given)

    def _active(self, user: int) -> None:
        given = self._toggle("active", user)
        self._connection.execute("UPDATE auth_user SET is_active = %s WHERE id = %s", [given, user])
        self._ledger.give(self._commit(), "active", user, given)

    def _reader(self, user: int) -> None:
        if given := self._toggle("reader", user):
            self._connection.execute(
                "INSERT INTO auth_user_groups (user_id, group_id) VALUES (%s, 1)", [user]
            )
        else:
            self._connection.execute("DELETE FROM auth_user_groups WHERE user_id = %s", [user])
        self._ledger.give(self._commit(), "reader", user, given)


class Visitor(threading.Thread):
    """A client that logs in and out, subscribes and unsubscribes; it says what it did."""

    def __init__(self, url: str, number: int, seed: int) -> None:
        super().__init__(name=f"visitor {number}", daemon=True)
        self._random = random.Random(f"{seed} visitor {number}")
        self.story = Story(Recorder())
        self.client = DDPClient(url, wire=self.story.recorder)
        self._open: list[str] = []
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            for _ in range(STEPS):
                self._random.choice(
                    [self._login] * 4
                    + [self._logout]
                    + [self._subscribe] * 3
                    + [self._unsubscribe, self._settle]
                )()
            self._settle()
        except BaseException as error:  # noqa: BLE001 - the test raises it
            self.failure = error
        finally:
            self.client.close()

    def _call(self, method: str, *params: object) -> tuple[str, float]:
        sent = time.monotonic()
        call = self.client.start_call(method, *params)
        self.story.calls[call] = sent
        return call, sent

    def _login(self) -> None:
        user = self._random.choice(USERS)
        call, sent = self._call(self._random.choice(["become", "login_async", "login_in_thread"]), user)
        self.story.logins.append((call, user, sent))
        if self._random.random() < 0.7:
            self.client.finish_call(call)

    def _logout(self) -> None:
        call, sent = self._call("become_nobody")
        self.story.logins.append((call, 0, sent))
        if self._random.random() < 0.7:
            self.client.finish_call(call)

    def _subscribe(self) -> None:
        if len(self._open) < 6:
            name, sent = self._random.choice(PUBLICATIONS), time.monotonic()
            subscription = self.client.start_subscription(name)
            self.story.subscriptions[subscription] = name, sent
            self._open.append(subscription)

    def _unsubscribe(self) -> None:
        if self._open:
            self.client.send(msg="unsub", id=self._open.pop(self._random.randrange(len(self._open))))

    def _settle(self) -> None:
        self.client.finish_call(self._call("echo", 1)[0])


@pytest.mark.parametrize("seed", SEEDS)
def test_no_client_is_ever_sent_what_it_had_no_right_to(
    db: Database, serve: Callable[..., Server], seed: int
) -> None:
    db.psql(
        "INSERT INTO auth_user (id, username, password, first_name, last_name, email, is_superuser, is_staff,"
        " is_active, date_joined) SELECT n, 'u' || n, '', '', '', '', false, false, true, now()"
        " FROM generate_series(1, 4) n; INSERT INTO auth_group (id, name) VALUES (1, 'readers')"
    )
    server = serve(DDP_LINGER="0.2" if seed % 2 else "5")
    ledger = Ledger()
    writers = [Writer(db, ledger, number, seed) for number in range(2)]
    for writer in writers:
        writer.begin()
    visitors = [Visitor(server.url, number, seed) for number in range(4)]
    for thread in (*writers, *visitors):
        thread.start()
    for visitor in visitors:
        visitor.join(120)
    for writer in writers:
        writer.stop.set()
        writer.join(30)
    for thread in (*writers, *visitors):
        assert not thread.is_alive()
        if thread.failure is not None:
            raise thread.failure
    kinds: set[str] = set()
    for visitor in visitors:
        judge = Judge(visitor.story, ledger)
        assert judge.leaks() == []
        assert visitor.client.violations == []
        kinds |= judge.seen
    assert kinds == {KEEPER, EMAIL, AUTHOR, USERNAME}, "or nothing was there to be looked at"
    assert min(writer.commits for writer in writers) > 100
