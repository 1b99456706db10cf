"""`API`: all collections, publications and methods that the project's apps declare."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeVar

from django.db import models
from django.db.models.query import RawQuerySet

from trigger_ddp.api import mutations
from trigger_ddp.api.collection import Collection
from trigger_ddp.api.dependencies import watched_by_collection, watched_by_publication
from trigger_ddp.api.endpoints import APIMixin, api_endpoint
from trigger_ddp.api.hooks import Hook
from trigger_ddp.api.membership import user_tables
from trigger_ddp.api.publication import Publication, of_function
from trigger_ddp.api.ratelimit import RateLimiter
from trigger_ddp.errors import AlreadyRegistered, ConfigurationError

Function = TypeVar("Function", bound="Callable[..., Any]")
Declarations = TypeVar("Declarations", bound="type[APIMixin] | Iterable[type[APIMixin]]")


class DDP(APIMixin):
    """The registry; there is one instance, `API`.

    Attributes:
        rate_limiter: how often clients may do what.
        connection_hook, message_hook, reload_hook: what `on_connection`, `on_message` and `on_reload`
            register.
    """

    def __init__(self) -> None:
        self.rate_limiter = RateLimiter()
        self.connection_hook = Hook("on_connection")
        self.message_hook = Hook("on_message")
        self.reload_hook = Hook("on_reload")
        self._collections: dict[str, Collection] = {}
        self._publications: dict[str, Publication] = {}
        self._universal: list[Publication] = []
        self._others: list[APIMixin] = []
        self._methods: dict[str, Callable[..., Any]] = {}
        self._owners: dict[str, APIMixin] = {}
        self._periodic: list[tuple[float, Callable[[], object]]] = []
        self._add_methods(self)

    def register(self, api_or_iterable: Declarations) -> Declarations:
        """Register one class or several; usable as a class decorator.

        Raises:
            AlreadyRegistered: another class has the name, or a method of the same name.
        """
        classes = [api_or_iterable] if isinstance(api_or_iterable, type) else api_or_iterable
        for declared in classes:
            self._register(declared())
        return api_or_iterable

    def publish(self, name: str | None) -> Callable[[Function], Function]:
        """Decorator that makes an async function of a `Handle` and the client's parameters a publication.

        Args:
            name: what clients subscribe to; None for a universal publication, which every session has.

        Raises:
            AlreadyRegistered: another publication has the name.
            TypeError: the function is not async, or the decorator was used without parentheses.
        """
        if name is not None and not isinstance(name, str):
            raise TypeError('write @API.publish("name"), or @API.publish(None) for a universal publication')

        def register(function: Function) -> Function:
            self._register(of_function(name, function)())
            return function

        return register

    def on_connection(self, callback: Function) -> Function:
        """Have ``callback`` called with the `this.connection` of every client that connects.

        It is called once the client is connected and has what universal publications published at once; not
        when a session is resumed. Usable as a decorator; `off` undoes it.

        Args:
            callback: a plain function, which runs on the server's event loop and must not wait (queries are
                refused there), or an async one, which ends with the session at the latest. What it
                raises is logged. `this` shows it what it shows to publications.

        Raises:
            TypeError: it can't be called.
        """
        self.connection_hook.register(callback)
        return callback

    def on_message(self, callback: Function) -> Function:
        """Have ``callback`` called with every message of a client, before it is dealt with.

        Its arguments are the message, a dict with its EJSON values decoded, and the client's
        `this.connection`. The message is the one that is dealt with, so do not change it. Messages that
        are answered out of turn are not among them: ``connect``, ``disconnect``, ``ping``, ``pong``, and what
        can't be parsed.

        Args:
            callback: as of `on_connection`.

        Raises:
            TypeError: it can't be called.
        """
        self.message_hook.register(callback)
        return callback

    def on_reload(self, callback: Function) -> Function:
        """Have each server process call ``callback()`` at SIGHUP: what was read once may have changed.

        Args:
            callback: as of `every`: a plain function, which runs on a thread that may use the ORM, or
                an async one on the server's event loop. What it raises is logged.

        Raises:
            TypeError: it can't be called.
        """
        self.reload_hook.register(callback)
        return callback

    def off(self, callback: Callable[..., Any]) -> bool:
        """Have a callback called no more that a hook registered. Returns whether there was one.

        Async ones that run go on.
        """
        hooks = (self.connection_hook, self.message_hook, self.reload_hook)
        removed = [hook.remove(callback) for hook in hooks]
        return any(removed)

    def every(self, seconds: float, function: Callable[[], object]) -> None:
        """Have every server process call ``function()`` each ``seconds``, on a thread that may use the ORM.

        The first time after ``seconds``, then that long after it has returned. What it raises is logged. An
        ``async`` function runs on the server's event loop instead, where it may use a `Handle`, and has
        ``this.in_thread``.
        """
        self._periodic.append((seconds, function))

    @property
    def periodic(self) -> Sequence[tuple[float, Callable[[], object]]]:
        """What `every` was told: pairs of seconds and function."""
        return tuple(self._periodic)

    def _register(self, api: APIMixin) -> None:
        if isinstance(api, Collection):
            self._refuse_second("collection", api, self._collections.get(api.name))
            self._add_methods(api)
            self._collections[api.name] = api
        elif isinstance(api, Publication):
            self._refuse_second("publication", api, self._publications.get(api.name))
            self._add_methods(api)
            if api.name is None:
                self._universal.append(api)
            else:
                self._publications[api.name] = api
        else:
            self._add_methods(api)
            self._others.append(api)

    def _refuse_second(self, kind: str, new: APIMixin, old: APIMixin | None) -> None:
        if old is not None:
            raise AlreadyRegistered(
                f"{kind} {new.name!r} of {_label(new)} is already registered by {_label(old)}; "
                "give one of them another `name`"
            )

    def _add_methods(self, api: APIMixin) -> None:
        endpoints = list(api.iter_endpoints())
        if isinstance(api, Collection):
            endpoints += mutations.endpoints(api, lambda: self.collections)
        for name, _ in endpoints:
            if name in self._owners:
                raise AlreadyRegistered(
                    f"method {name!r} of {_label(api)} is already registered by "
                    f"{_label(self._owners[name])}; give one of them another path or `api_path_prefix`"
                )
        for name, function in endpoints:
            self._methods[name] = function
            self._owners[name] = api

    @property
    def collections(self) -> Mapping[str, Collection]:
        """Every collection by its name, in order of registration."""
        return MappingProxyType(self._collections)

    @property
    def publications(self) -> Mapping[str, Publication]:
        """Every publication that has one by its name, in order of registration."""
        return MappingProxyType(self._publications)

    @property
    def universal_publications(self) -> Sequence[Publication]:
        """The publications without a name, which every session has, in order of registration."""
        return tuple(self._universal)

    def api_path_map(self) -> dict[str, Callable[..., Any]]:
        """Every method clients may call: name to bound function."""
        return dict(self._methods)

    def get_col_by_name(self, name: str) -> Collection:
        """The collection ``name``.

        Raises:
            KeyError: there is no such collection.
        """
        return self._collections[name]

    def get_pub_by_name(self, name: str) -> Publication:
        """The publication ``name``.

        Raises:
            KeyError: there is no such publication.
        """
        return self._publications[name]

    def collection_for_model(self, model: type[models.Model]) -> Collection:
        """The collection that publishes ``model``; for a proxy without one, that of its concrete model.

        Where several publish it, it is the one that has the model's default name.

        Raises:
            ConfigurationError: no collection publishes it, or several do and none has the default name.
        """
        candidates = [model, *filter(None, [model._meta.concrete_model])]
        for candidate in candidates:
            found = [collection for collection in self._collections.values() if collection.model is candidate]
            if len(found) == 1:
                return found[0]
            for collection in found:
                if collection.name == str(candidate._meta):
                    return collection
            if found:
                names = ", ".join(collection.name for collection in found)
                raise ConfigurationError(
                    f"several collections publish {model._meta.label}: {names}; "
                    "say which with (queryset, collection name)"
                )
        raise ConfigurationError(f"no collection publishes {model._meta.label}; declare one in a ddp.py")

    #: django-ddp's name of it.
    get_collection = collection_for_model

    def qs_and_collection(self, qs: Any) -> tuple[models.QuerySet[Any], Collection]:
        """A publication's query as (queryset, collection).

        Args:
            qs: a queryset or manager, or a pair of one and the name of its collection.

        Raises:
            ConfigurationError: there is no such collection, or ``qs`` is neither form.
        """
        name = None
        if isinstance(qs, list | tuple) and len(qs) == 2:
            qs, name = qs
        if isinstance(qs, models.Manager):
            qs = qs.all()
        if not isinstance(qs, models.QuerySet | RawQuerySet):
            raise ConfigurationError(f"not a queryset, nor a pair of queryset and collection name: {qs!r}")
        queryset: Any = qs
        if name is None:
            return queryset, self.collection_for_model(queryset.model)
        collection = self._collections.get(name)
        if collection is None:
            raise ConfigurationError(f"there is no collection {name!r}")
        if collection.model._meta.concrete_model is not queryset.model._meta.concrete_model:
            raise ConfigurationError(f"collection {name!r} does not publish {queryset.model._meta.label}")
        return queryset, collection

    def watched_models(self) -> list[type[models.Model]]:
        """The models whose tables need triggers: everything the declarations are known to read.

        Those are the collections' models with their multi-table parents, the through tables and
        related tables their documents come from, what ``qs_filter``, ``order_by``, ``user_rel`` and static
        ``queries`` join, and what ``depends_on`` names; and the user model with its many-to-many tables, if a
        collection has a ``user_rel``. Concrete models, each once, in a stable order.

        Raises:
            ConfigurationError: a ``depends_on`` names what is not there.
        """
        watched: dict[type[models.Model], None] = {}
        for collection in self._collections.values():
            if collection.model is not None:
                watched.update(dict.fromkeys(watched_by_collection(collection)))
        for publication in (*self._publications.values(), *self._universal):
            watched.update(dict.fromkeys(watched_by_publication(publication)))
        if any(collection.user_rels for collection in self._collections.values()):
            watched.update(dict.fromkeys(user_tables()))
        return list(watched)

    def ready(self) -> None:
        """Call ``ready`` of everything registered."""
        for api in (
            *self._collections.values(), *self._publications.values(), *self._universal, *self._others,
        ):  # fmt: skip
            api.ready()

    @contextlib.contextmanager
    def restored(self) -> Iterator[None]:
        """A ``with`` block whose registrations, rules and hooks are undone at its end; for tests."""
        before = (
            dict(self._collections), dict(self._publications), list(self._others),
            dict(self._methods), dict(self._owners), list(self._universal), list(self._periodic),
        )  # fmt: skip
        try:
            with (
                self.rate_limiter.restored(), self.connection_hook.restored(), self.message_hook.restored(),
                self.reload_hook.restored(),
            ):  # fmt: skip
                yield
        finally:
            (
                self._collections, self._publications, self._others,
                self._methods, self._owners, self._universal, self._periodic,
            ) = before  # fmt: skip

    @api_endpoint
    def schema(self) -> dict[str, Any]:
        """The schema of every collection by its name."""
        return {name: collection.schema() for name, collection in self._collections.items()}


def _label(api: APIMixin) -> str:
    return f"{type(api).__module__}.{type(api).__qualname__}"


API = DDP()
