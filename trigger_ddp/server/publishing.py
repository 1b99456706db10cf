"""From the name and parameters of a subscription to compiled queries. For a worker thread."""

from __future__ import annotations

from typing import Any

from trigger_ddp.api import API, Publication, this
from trigger_ddp.live.compile import compile_queryset
from trigger_ddp.live.compiled import CompiledQuery


def compile_publication(
    publication: Publication, params: list[Any], context: dict[str, Any]
) -> list[CompiledQuery]:
    """Run a publication and compile the querysets it returns.

    Args:
        publication: the registered publication.
        params: the client's parameters, decoded.
        context: what `this` shows while it runs; ``user`` decides what its collections let through.

    Raises:
        MeteorError: the parameters don't fit, or the publication refuses.
        NotLive: it returned a queryset that can't be kept current.
        Exception: whatever the publication, or Django compiling its querysets, raises.
    """
    user = context["user"]
    with this.bound(**context):
        compiled = []
        for query in publication.user_queries(user, *params):
            queryset, collection = API.qs_and_collection(query)
            visible = collection.objects_for_user(user, queryset)
            compiled.append(compile_queryset(collection, visible, publication.depends_on))
        return compiled
