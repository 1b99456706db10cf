"""Publications: named functions of (user, params) to querysets, or to whatever they tell a handle."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

from django.db import models
from django.db.models.query import RawQuerySet

from trigger_ddp.api.arguments import bind
from trigger_ddp.api.context import this
from trigger_ddp.api.endpoints import APIMixin, api_endpoint
from trigger_ddp.api.fields import collection_name
from trigger_ddp.api.ids import get_meteor_id
from trigger_ddp.errors import ConfigurationError, MeteorError

#: A model, its label ("app.Model"), or a relation path from a collection's model ("author__publisher").
Dependency = str | type[models.Model]


class Publication(APIMixin):
    """What clients may subscribe to, by ``queries``, ``get_queries(*params)`` or ``publish(handle, …)``.

    Each query is a queryset, whose model has a collection, or a pair (queryset, collection name).

    Attributes:
        name: what clients subscribe to; by default the class's name. ``name = None`` makes it universal:
            every session has it from the start, without asking.
        queries: the queries, if they are the same for everybody.
        publish: an ``async`` method of a `Handle` and the client's parameters, which tells the handle what
            the client is to have. It may return queries, which are published beside; without them the
            subscription is ready when it calls ``handle.ready()``. It is cancelled when that ends.
        depends_on: models whose triggers the queries need beyond those of their collections: joined
            models that have no collection.
    """

    name: ClassVar[Any]
    api_path_prefix_format = "publication/{name}/"
    queries: ClassVar[Sequence[Any] | None] = None
    publish: ClassVar[Callable[..., Any] | None] = None
    depends_on: ClassVar[Sequence[Dependency]] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        universal = "name" in cls.__dict__ and cls.__dict__["name"] is None
        super().__init_subclass__(**kwargs)
        if universal:
            cls.name = None

    @property
    def label(self) -> str:
        """The name, or the class's name where a universal publication has none; for messages."""
        return type(self).__name__ if self.name is None else self.name

    def get_queries(self, *params: Any, **named: Any) -> Iterable[Any] | Any:
        """The queries for a client's parameters; override it with the parameters the publication has.

        ``this.user`` and ``this.user_id`` are the subscriber's. Type hints of the parameters are
        enforced. A single queryset may be returned without a list; None stands for no queries.

        Raises:
            MeteorError: the client may not subscribe; it receives the error.
        """
        if self.queries is None:
            raise ConfigurationError(f"publication {self.label!r} needs `queries` or a `get_queries` method")
        if params:
            raise MeteorError(400, "Match failed", f"publication {self.label!r} takes no parameters")
        return self.queries

    @api_endpoint
    def collections(self, *params: Any) -> list[str]:
        """The names of the collections that the queries for a client's parameters are of.

        Raises:
            MeteorError: 404, it is a function, which alone knows what it publishes; or as of `get_queries`.
        """
        if self.publish is not None:
            raise MeteorError(404, "The collections of a function are not known")
        names = set()
        for query in self.user_queries(False, *params):
            if isinstance(query, list | tuple):
                names.add(query[1])
            else:
                names.add(collection_name(query.model))
        return sorted(names)

    def user_queries(self, user: Any, *params: Any) -> list[Any]:
        """The queries of this publication as ``user`` (None: nobody) is to see them.

        Args:
            user: the subscriber, None if not logged in, or False to leave `this` as it is.
            params: the client's parameters.

        Raises:
            MeteorError: the parameters don't fit ``get_queries``, or it refused.
        """
        arguments = bind(self.get_queries, list(params))
        if user is False:
            return as_list(self.get_queries(*arguments))
        known = None if user is None or user.pk is None else user
        with this.bound(
            user=known, user_id=None if known is None else known.pk, user_ddp_id=get_meteor_id(known)
        ):
            # Inside the block, since get_queries may be a generator.
            return as_list(self.get_queries(*arguments))


def as_list(queries: Any) -> list[Any]:
    """What a publication returned as a list of queries: None stands for none, a single query for itself.

    Raises:
        TypeError: it is none of these, nor a list.
    """
    if queries is None:
        return []
    if isinstance(queries, models.QuerySet | RawQuerySet | models.Manager):
        return [queries]
    if isinstance(queries, tuple) and len(queries) == 2 and isinstance(queries[1], str):
        return [queries]
    return list(queries)


def of_function(name: str | None, function: Callable[..., Any]) -> type[Publication]:
    """A publication whose ``publish`` is an async function.

    Raises:
        TypeError: it is not async.
    """
    if not inspect.iscoroutinefunction(function):
        raise TypeError(
            f"{getattr(function, '__qualname__', function)!s} is not an `async def`; publish querysets with "
            "a Publication class that has a `get_queries` method"
        )
    attributes = {"name": name, "publish": staticmethod(function), "__module__": function.__module__}
    return type(function.__name__, (Publication,), attributes)
