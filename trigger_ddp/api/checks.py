"""Django system checks of what the apps' ``ddp.py`` declare: ``manage.py check`` names each mistake."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterator
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.base_user import AbstractBaseUser
from django.core import checks
from django.core.exceptions import FieldDoesNotExist
from django.db import models
from django.db.models import Q
from django.db.models.constants import LOOKUP_SEP

from trigger_ddp.api.collection import Collection
from trigger_ddp.api.dependencies import watched_by_collection, watched_by_publication
from trigger_ddp.api.mutations import ACTIONS
from trigger_ddp.api.publication import Publication
from trigger_ddp.api.registry import API
from trigger_ddp.errors import ConfigurationError


def check_declarations(**_kwargs: Any) -> list[checks.CheckMessage]:
    """Every mistake in the registered collections and publications that can be told without a client."""
    problems: list[checks.CheckMessage] = []
    for collection in API.collections.values():
        problems.extend(_check_collection(collection))
    problems.extend(_check_shared_models())
    for publication in (*API.publications.values(), *API.universal_publications):
        problems.extend(_check_publication(publication))
    return problems


def _check_collection(collection: Collection) -> Iterator[checks.CheckMessage]:
    model = collection.model
    if not (isinstance(model, type) and issubclass(model, models.Model)) or model._meta.abstract:
        yield checks.Error(
            f"Collection {collection.name!r} has no model.",
            hint="Set its `model` attribute to a model class that is not abstract.",
            obj=type(collection),
            id="trigger_ddp.E101",
        )
        return
    broken = False
    for path in collection.user_rels:
        if problem := _user_rel_problem(model, path):
            broken = True
            yield checks.Error(
                f"user_rel {path!r} of collection {collection.name!r}: {problem}.",
                hint="Name the path from the model to the user, such as 'owner' or 'project__owner'.",
                obj=type(collection),
                id="trigger_ddp.E104",
            )
    qs_filter: Any = collection.qs_filter
    if qs_filter is not None and not isinstance(qs_filter, Q):
        broken = True
        yield checks.Error(
            f"qs_filter of collection {collection.name!r} is not a Q object.",
            hint="Write it as Q(field=value, …).",
            obj=type(collection),
            id="trigger_ddp.E105",
        )
    if isinstance(collection.order_by, str):
        broken = True
        yield checks.Error(
            f"order_by of collection {collection.name!r} is a string.",
            hint=f"Make it a list: order_by = [{collection.order_by!r}].",
            obj=type(collection),
            id="trigger_ddp.E106",
        )
    if collection.decimal_as not in ("string", "number", "ejson"):
        broken = True
        yield checks.Error(
            f"decimal_as of collection {collection.name!r} is {collection.decimal_as!r}.",
            hint="It is 'string', 'number' or 'ejson'.",
            obj=type(collection),
            id="trigger_ddp.E107",
        )
    if isinstance(collection.exclude, str):
        broken = True
        yield checks.Error(
            f"exclude of collection {collection.name!r} is a string.",
            hint=f"Make it a list: exclude = [{collection.exclude!r}].",
            obj=type(collection),
            id="trigger_ddp.E108",
        )
    elif unknown := sorted(set(collection.exclude) - _field_names(model)):
        # An error, since what was to be kept back is published.
        yield checks.Error(
            f"exclude of collection {collection.name!r} names no fields: {', '.join(unknown)}.",
            hint="Name fields of the model: 'author', 'tags'.",
            obj=type(collection),
            id="trigger_ddp.E111",
        )
    yield from _check_writing(collection)
    if broken:
        return
    try:
        list(watched_by_collection(collection))
    except ConfigurationError as error:
        yield checks.Error(f"In {error}.", obj=type(collection), id="trigger_ddp.E109")
        return
    published = {column.name for column in collection.serializer().columns}
    if issubclass(model, AbstractBaseUser) and "password" in published and not collection.overrides_serialize:
        yield checks.Warning(
            f"Collection {collection.name!r} publishes the password hashes of its users.",
            hint="Set exclude = ['password'] on the collection.",
            obj=type(collection),
            id="trigger_ddp.W101",
        )


def _check_writing(collection: Collection) -> Iterator[checks.CheckMessage]:
    if isinstance(collection.allow, str) or not set(collection.allow) <= set(ACTIONS):
        yield checks.Error(
            f"allow of collection {collection.name!r} is {collection.allow!r}.",
            hint='Make it a tuple of some of "insert", "update" and "remove".',
            obj=type(collection),
            id="trigger_ddp.E115",
        )
    writable = collection.writable
    if isinstance(writable, str) or set(writable or ()) - _field_names(collection.model):
        yield checks.Error(
            f"writable of collection {collection.name!r} names what is no field: {writable!r}.",
            hint="Make it a list of names of fields of the model: ['title', 'tags'].",
            obj=type(collection),
            id="trigger_ddp.E116",
        )
    elif collection.allow and writable is None and collection.overrides_serialize:
        yield checks.Warning(
            f"Collection {collection.name!r} allows writing, but no field is writable.",
            hint="Having its own `serialize`, it has to name them: writable = ['title'].",
            obj=type(collection),
            id="trigger_ddp.W103",
        )


def _field_names(model: type[models.Model]) -> set[str]:
    fields = (*model._meta.concrete_fields, *model._meta.many_to_many)
    return {name for field in fields for name in (field.name, field.attname)}


def _user_rel_problem(model: Any, path: str) -> str | None:
    names = path.split(LOOKUP_SEP)
    field: Any = None
    for name in names:
        if model is None:
            return f"{field.name!r} is no relation, so that {name!r} can't follow it"
        try:
            field = model._meta.pk if name == "pk" else model._meta.get_field(name)
        except FieldDoesNotExist:
            return f"{model._meta.label} has no field {name!r}"
        model = field.related_model
    user_model = get_user_model()
    if field.related_model is None:
        # The user's own primary key is a path to the user too: user_rel = "pk" on the users' collection.
        return (
            None if field.primary_key and field.model._meta.concrete_model is user_model else "is no relation"
        )
    if not issubclass(field.related_model, user_model):
        return f"leads to {field.related_model._meta.label}, not to {user_model._meta.label}"
    return None


def _check_shared_models() -> Iterator[checks.CheckMessage]:
    shared = Counter(
        collection.model for collection in API.collections.values() if collection.model is not None
    )
    for model, count in shared.items():
        if count > 1 and str(model._meta) not in API.collections:
            names = [name for name, collection in API.collections.items() if collection.model is model]
            yield checks.Warning(
                f"Collections {', '.join(names)} publish {model._meta.label}, none by its default name.",
                hint="Publications have to name theirs: (queryset, collection name).",
                obj=model,
                id="trigger_ddp.W102",
            )


def _check_publication(publication: Publication) -> Iterator[checks.CheckMessage]:
    yield from _check_publish(publication)
    if type(publication).get_queries is not Publication.get_queries or publication.publish is not None:
        queries: tuple[Any, ...] = ()
    elif publication.queries is None:
        yield checks.Error(
            f"Publication {publication.label!r} has neither queries nor get_queries nor publish.",
            hint="Set `queries` to a list of querysets, or define get_queries(self, …) that returns one.",
            obj=type(publication),
            id="trigger_ddp.E102",
        )
        return
    else:
        queries = tuple(publication.queries)
    for query in queries:
        try:
            API.qs_and_collection(query)
        except ConfigurationError as error:
            yield checks.Error(
                f"Publication {publication.label!r}: {error}.",
                hint="Publish querysets of models that have a collection.",
                obj=type(publication),
                id="trigger_ddp.E103",
            )
    try:
        list(watched_by_publication(publication))
    except ConfigurationError as error:
        yield checks.Error(f"In {error}.", obj=type(publication), id="trigger_ddp.E110")


def _check_publish(publication: Publication) -> Iterator[checks.CheckMessage]:
    """What the server calls with a handle, and what it calls for every session."""
    own_queries = type(publication).get_queries is not Publication.get_queries
    called, given = publication.get_queries, 0
    if publication.publish is not None:
        called, given = publication.publish, 1
        if not inspect.iscoroutinefunction(publication.publish):
            yield checks.Error(
                f"`publish` of publication {publication.label!r} is no async function.",
                hint="Write `async def publish(self, handle, …)`, or define get_queries(self, …).",
                obj=type(publication),
                id="trigger_ddp.E112",
            )
            return
        if own_queries or publication.queries is not None:
            yield checks.Error(
                f"Publication {publication.label!r} has `publish` and queries beside it.",
                hint="Return the queries from `publish`.",
                obj=type(publication),
                id="trigger_ddp.E113",
            )
    try:
        signature = inspect.signature(called)
        if publication.name is None:
            signature.bind(*[None] * given)
        else:
            signature.bind_partial(*[None] * given)
    except TypeError:
        yield checks.Error(
            f"Publication {publication.label!r} can't be called with what it gets.",
            hint="`publish` takes a handle first. What is universal, having no name, is given no parameters.",
            obj=type(publication),
            id="trigger_ddp.E114",
        )
