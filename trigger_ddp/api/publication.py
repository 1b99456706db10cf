"""Publications: named functions of (user, params) to querysets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from django.db import models

from trigger_ddp.api.arguments import bind
from trigger_ddp.api.context import this
from trigger_ddp.api.endpoints import APIMixin
from trigger_ddp.api.ids import get_meteor_id
from trigger_ddp.errors import ConfigurationError, MeteorError

#: A model, its label ("app.Model"), or a relation path from a collection's model ("author__publisher").
Dependency = str | type[models.Model]


class Publication(APIMixin):
    """What clients may subscribe to: either ``queries``, or ``get_queries`` with the client's parameters.

    Each query is a queryset, whose model has a collection, or a pair (queryset, collection name).

    Attributes:
        name: what clients subscribe to; by default the class's name.
        queries: the queries, if they are the same for everybody.
        depends_on: models whose triggers the queries need beyond those of their collections: joined
            models that have no collection.
    """

    name: ClassVar[str]
    api_path_prefix_format = "publication/{name}/"
    queries: ClassVar[Sequence[Any] | None] = None
    depends_on: ClassVar[Sequence[Dependency]] = ()

    def get_queries(self, *params: Any, **named: Any) -> Iterable[Any] | Any:
        """The queries for a client's parameters; override it with the parameters the publication has.

        ``this.user`` and ``this.user_id`` are the subscriber's. Type hints of the parameters are
        enforced. A single queryset may be returned without a list; None stands for no queries.

        Raises:
            MeteorError: the client may not subscribe; it receives the error.
        """
        if self.queries is None:
            raise ConfigurationError(f"publication {self.name!r} needs `queries` or a `get_queries` method")
        if params:
            raise MeteorError(400, "Match failed", f"publication {self.name!r} takes no parameters")
        return self.queries

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
            return self._list(self.get_queries(*arguments))
        known = None if user is None or user.pk is None else user
        with this.bound(
            user=known, user_id=None if known is None else known.pk, user_ddp_id=get_meteor_id(known)
        ):
            # Inside the block, since get_queries may be a generator.
            return self._list(self.get_queries(*arguments))

    def _list(self, queries: Any) -> list[Any]:
        if queries is None:
            return []
        if isinstance(queries, models.QuerySet | models.Manager):
            return [queries]
        if isinstance(queries, tuple) and len(queries) == 2 and isinstance(queries[1], str):
            return [queries]
        return list(queries)
