"""Users as the database has them: looked up, and watched while somebody is logged in as one of them."""

from __future__ import annotations

import copy
import logging
import uuid
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import trio
from django.contrib.auth import get_user_model

from trigger_ddp.api import API, get_object
from trigger_ddp.api.dependencies import with_parents
from trigger_ddp.api.ids import id_part
from trigger_ddp.api.membership import memberships
from trigger_ddp.capture.tables import Table
from trigger_ddp.changes.change import Change, Gap
from trigger_ddp.errors import MeteorError
from trigger_ddp.server.source import ChangeSource
from trigger_ddp.server.triggers import Triggers

logger = logging.getLogger("trigger_ddp.users")


def find_user(user_id: Any) -> Any:
    """The active user with this document id (a text) or primary key. For a worker thread.

    Raises:
        TypeError: it can't be an id.
        MeteorError: 403, there is no such user, or it is not active.
    """
    user_model: Any = get_user_model()
    if isinstance(user_id, bool) or not isinstance(user_id, (str, int, uuid.UUID)):
        raise TypeError(
            f"set_user_id takes a user's document id or primary key, or None, not {type(user_id).__name__}"
        )
    try:
        if isinstance(user_id, str):
            user = get_object(user_model, user_id)
        else:
            user = user_model._default_manager.get(pk=user_id)
    except (user_model.DoesNotExist, ValueError, OverflowError):
        raise MeteorError(403, "User not found") from None
    if not getattr(user, "is_active", True):
        raise MeteorError(403, "Login forbidden")
    return user


def reload_user(pk: Any) -> Any:
    """The user as it is now, or None if it is gone or not active any more. For a worker thread."""
    user = get_user_model()._default_manager.filter(pk=pk).first()
    return user if getattr(user, "is_active", True) else None


def snapshot(user: Any) -> dict[str, Any]:
    """The values of a user's own columns, which what is done to the object afterwards does not change.

    Without ``last_login``: each login of a user would have all its other clients' publications run again.
    """
    return {
        field.attname: copy.deepcopy(user.__dict__.get(field.attname))
        for field in user._meta.concrete_fields
        if field.attname != "last_login"
    }


class Watch:
    """One session's interest in its user.

    Args:
        notify: called with whether the user's groups or permissions may have changed; if not, it was
            the row alone.

    Attributes:
        key: the user's primary key as notifications have it; None: any user's change may concern it.
    """

    def __init__(self, notify: Callable[[bool], None]) -> None:
        self.notify = notify
        self.key: str | None = None


class Users:
    """Tells sessions when their users change, whoever changed them.

    Args:
        source: where changes come from.
        triggers: what is known of the tables' triggers.
    """

    def __init__(self, source: ChangeSource, triggers: Triggers) -> None:
        self._source = source
        self._triggers = triggers
        self._watches: dict[str | None, dict[Watch, None]] = {}
        self._checked = False
        self._warned: set[str] = set()

    async def watch(self, notify: Callable[[bool], None]) -> Watch:
        """A watch that hears of every user's changes until it is given its own to `watch_only`.

        Every change that commits from now on is heard of. Pair with `forget`.
        """
        await self._source.subscribe(self._tables.values())
        self._triggers.use(self._tables.values())
        watch = Watch(notify)
        self._watches.setdefault(None, {})[watch] = None
        try:
            if not self._checked:
                self._checked = True
                await self._warn_of_stale_tables()
        except BaseException:
            self._checked = False
            self._drop(watch)
            self._triggers.unuse(self._tables.values())
            with trio.CancelScope(shield=True):
                await self._source.unsubscribe(self._tables.values())
            raise
        return watch

    def watch_only(self, watch: Watch, pk: Any) -> None:
        """From now on ``watch`` hears of this user alone."""
        self._drop(watch)
        # These have the same text in PostgreSQL. Of other kinds of keys every change is heard of.
        watch.key = id_part(pk) if isinstance(pk, (str, int, uuid.UUID)) else None
        self._watches.setdefault(watch.key, {})[watch] = None

    def forget(self, watch: Watch, nursery: trio.Nursery) -> None:
        """End a watch."""
        self._drop(watch)
        self._triggers.unuse(self._tables.values())
        nursery.start_soon(self._source.unsubscribe, self._tables.values())
        if not self._watches:
            self._checked = False

    def _drop(self, watch: Watch) -> None:
        watches = self._watches[watch.key]
        del watches[watch]
        if not watches:
            del self._watches[watch.key]

    def receive(self, event: Change | Gap) -> None:
        """Note for every session whose user ``event`` concerns that it must be looked at again."""
        if not self._watches:
            return
        if isinstance(event, Gap):
            if event.table is None or event.table in self._tables:
                for watch in [watch for watches in self._watches.values() for watch in watches]:
                    watch.notify(True)
        elif event.table in self._tables:
            position, membership = self._positions[event.table]
            keys = {row[position] for rows in (event.rows, event.old) for row in rows}
            for key in (*keys, None):
                for watch in list(self._watches.get(key, ())):
                    watch.notify(membership)

    # -- tables ---------------------------------------------------------------------------------

    @cached_property
    def _positions(self) -> dict[str, tuple[int, bool]]:
        """Table name to where in its rows a user's key stands, and whether it is a many-to-many table."""
        return {table.name: (position, membership) for table, position, membership in _user_tables()}

    @cached_property
    def _tables(self) -> dict[str, Table]:
        return {table.name: table for table, _, _ in _user_tables()}

    async def _warn_of_stale_tables(self) -> None:
        tables = list(self._tables.values())
        stale = await self._triggers.check(tables)
        watched = {model._meta.label for model in API.watched_models()}
        for table in tables:
            if table.name not in stale or table.name in self._warned:
                continue
            self._warned.add(table.name)
            command = "ddp_install_triggers"
            if table.model_label not in watched:
                command += f" {table.model_label}"
            logger.warning(
                "%s has no current trigger: what changes there does not reach users who are logged in; "
                "run `manage.py %s`",
                table.name, command,
            )  # fmt: skip


def _user_tables() -> Iterator[tuple[Table, int, bool]]:
    for model in with_parents(get_user_model()):
        yield Table.from_model(model), 0, False
    for through, column in memberships():
        table = Table.from_model(through)
        names = [known.name for known in (*table.primary_key, *table.foreign_keys)]
        yield table, names.index(column), True
