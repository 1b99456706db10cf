"""Remembers what querysets were compiled to: after a reconnect storm's first client all others ask the same.

Two querysets are the same if they are pickled to the same bytes, for which Django's queries are made, see
"Pickling QuerySets" in its reference. That takes a fiftieth of the time of compiling. What can't be pickled,
or might run when it is, is compiled each time. So is, once more, what the first compilation of all has Django
note in a model's fields, which then is pickled too.
"""

from __future__ import annotations

import collections
import io
import pickle
from collections.abc import Hashable
from typing import Any

from django.db import connections
from django.db.models import QuerySet
from django.db.models.sql.query import Query
from django.utils import timezone, translation

from trigger_ddp import conf
from trigger_ddp.api import Collection
from trigger_ddp.api.publication import Dependency
from trigger_ddp.live.compiled import CompiledQuery

#: Querysets that are remembered, the last ones used; and bytes of one that is.
MOST, MOST_BYTES = 1000, 10_000


class CompiledCache:
    """What querysets were compiled to. One thread at a time may use it; any may `clear` it.

    Attributes:
        generation: how often it was cleared.
    """

    def __init__(self) -> None:
        self.generation = 0
        self._compiled: collections.OrderedDict[Hashable, CompiledQuery] = collections.OrderedDict()

    def get(self, key: Hashable) -> CompiledQuery | None:
        """What was put in under this key, if it is still there."""
        compiled = self._compiled
        found = compiled.get(key)
        if found is not None:
            compiled.move_to_end(key)
        return found

    def put(self, key: Hashable, compiled: CompiledQuery, generation: int) -> None:
        """Remember what was compiled in that generation, and forget what was last used the longest ago."""
        compiled_ones = self._compiled
        if generation == self.generation:
            compiled_ones[key] = compiled
            if len(compiled_ones) > MOST:
                compiled_ones.popitem(last=False)

    def clear(self) -> None:
        """Forget all, and what is being compiled at the moment."""
        # In this order: what is put in between goes into the one that nobody uses any more.
        self.generation += 1
        self._compiled = collections.OrderedDict()


def key_of(
    collection: Collection, queryset: Any, depends_on: tuple[Dependency, ...], alias: str
) -> Hashable | None:
    """Equal for two querysets only if they are compiled to the same; None if that can't be told.

    Args:
        collection, queryset, depends_on: as of `compile_queryset`.
        alias: the database.
    """
    # An own class of querysets may have attributes that decide what it is evaluated to.
    if type(queryset) is not QuerySet and type(queryset).__init__ is not QuerySet.__init__:
        return None
    if not isinstance(queryset.query, Query) or not _are_texts(queryset._prefetch_related_lookups):
        return None
    written = io.BytesIO()
    try:
        _Pickler(written, pickle.HIGHEST_PROTOCOL).dump(queryset.query)
    except Exception:  # noqa: BLE001  whatever a value or an expression of the application's raises
        return None
    if written.tell() > MOST_BYTES:
        return None
    where = connections[alias].settings_dict
    return (
        written.getvalue(),
        collection,
        type(queryset),
        queryset._fields,
        queryset._iterable_class,
        queryset._prefetch_related_lookups,
        depends_on,
        (where["HOST"], str(where["PORT"]), where["NAME"]),
        conf.settings(),
        # What is compiled may depend on these: the text of a lazy translation, the day of a time.
        translation.get_language(),
        timezone.get_current_timezone_name(),
    )


class _Pickler(pickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, QuerySet):
            raise pickle.PicklingError("pickling a queryset evaluates it")
        return NotImplemented


def _are_texts(lookups: tuple[Any, ...]) -> bool:
    return all(isinstance(lookup, str) for lookup in lookups)
