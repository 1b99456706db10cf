"""From the name and parameters of a subscription to compiled queries. For a worker thread."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from typing import Any

from django.db import connections, transaction

from trigger_ddp.api import API, Publication, this
from trigger_ddp.api.publication import as_list
from trigger_ddp.live.compile import compile_queryset
from trigger_ddp.live.compiled import CompiledQuery
from trigger_ddp.protocol.session import Subscription
from trigger_ddp.server import logcontext
from trigger_ddp.server.database import is_passing


def compile_publication(
    publication: Publication, params: Sequence[Any], context: dict[str, Any]
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
    with this.bound(**context):
        return _compile(publication, publication.user_queries(context["user"], *params), context)


def compile_returned(publication: Publication, returned: Any, context: dict[str, Any]) -> list[CompiledQuery]:
    """Compile the querysets that an async publication function returned.

    Raises:
        NotLive, Exception: as of `compile_publication`.
    """
    with this.bound(**context):
        return _compile(publication, as_list(returned), context)


def compile_all(
    subscriptions: Sequence[Subscription], context: dict[str, Any], alias: str
) -> list[list[CompiledQuery] | Exception]:
    """`compile_publication` for many; in place of what fails stands the exception.

    Raises:
        Exception: the database is away, and asking again later may help.
    """
    connection = connections[alias]
    answers: list[list[CompiledQuery] | Exception] = []
    for subscription in subscriptions:
        assert subscription.publication is not None
        # Within a method's transaction a failed query must not spoil the rest of it.
        inside = connection.in_atomic_block
        try:
            with (
                logcontext.subscription_of(subscription),
                transaction.atomic(using=alias) if inside else contextlib.nullcontext(),
            ):
                answer = compile_publication(subscription.publication, subscription.params, context)
        except Exception as error:
            if not inside and is_passing(error):
                raise
            answers.append(error)
        except (SystemExit, KeyboardInterrupt) as error:
            answers.append(RuntimeError(f"publication {subscription.name} raised {type(error).__name__}"))
        else:
            answers.append(answer)  # not before: the end of the savepoint may fail, too
    return answers


def _compile(
    publication: Publication, queries: Iterable[Any], context: dict[str, Any]
) -> list[CompiledQuery]:
    compiled = []
    for query in queries:
        queryset, collection = API.qs_and_collection(query)
        visible = collection.objects_for_user(context["user"], queryset)
        compiled.append(compile_queryset(collection, visible, publication.depends_on))
    return compiled
