"""Whether something was done to the triggers of tables since one last looked: a look that costs little.

`status` tells how triggers stand, from all their functions' texts. A server that wants to know every few
seconds asks this first, and `status` only about tables for which the answer is another than before.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

from trigger_ddp.capture import names
from trigger_ddp.capture.install import status
from trigger_ddp.capture.resources import script
from trigger_ddp.capture.status import State
from trigger_ddp.capture.tables import Table


@dataclasses.dataclass(frozen=True, slots=True)
class Look:
    """How one table stood at one moment.

    Args:
        triggers: another text whenever something was done to its triggers, to their functions, or to which
            tables are below it; empty if there is no such table.
        columns: another text whenever its columns or unique indexes are others.
        stale: why its changes may go unnoticed, as a sentence; empty if its triggers are as they should be.
    """

    triggers: str
    columns: str
    stale: str


def look(
    connection: BaseDatabaseWrapper, tables: Sequence[Table], before: Mapping[str, Look]
) -> dict[str, Look]:
    """How ``tables`` stand, by their names.

    Args:
        connection: Django's connection to the database.
        tables: any number of them.
        before: earlier looks. Of tables that look as they did it is not asked again why they are stale.

    Raises:
        django.db.Error: the database can't be asked.
    """
    found = {table.name: Look("", "", "") for table in tables}
    asked: dict[str, Any] = {
        "tables": [table.identifier.as_string(None) for table in tables],
        "ours": names.OURS,
    }
    with connection.cursor() as cursor:
        cursor.execute(script("installed").text, asked)
        for position, triggers, columns in cursor.fetchall():
            found[tables[position].name] = Look(triggers, columns, "")
    # Whatever is done between the two questions makes the next look another.
    changed = []
    for table in tables:
        new, old = found[table.name], before.get(table.name)
        if old is None or (new.triggers, new.columns) != (old.triggers, old.columns):
            changed.append(table)
        else:
            found[table.name] = dataclasses.replace(new, stale=old.stale)
    if changed:
        for one in status(connection, changed).tables:
            if one.state is not State.CURRENT:
                name = one.table.name
                found[name] = dataclasses.replace(found[name], stale="; ".join(one.differences))
    return found


def running(connection: BaseDatabaseWrapper) -> frozenset[str]:
    """The transactions that run now, by names that none has again.

    Raises:
        django.db.Error: the database can't be asked.
    """
    with connection.cursor() as cursor:
        cursor.execute(script("running").text)
        return frozenset(name for (name,) in cursor.fetchall())
