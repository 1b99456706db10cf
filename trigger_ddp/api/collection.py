"""Collections: a Django model as clients see it."""

from __future__ import annotations

import functools
from collections.abc import Collection as Container
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from django.contrib.auth import get_permission_codename, get_user_model
from django.core.exceptions import FieldDoesNotExist
from django.db import models
from django.db.models import Q, QuerySet
from django.db.models.constants import LOOKUP_SEP
from django.db.models.query import RawQuerySet

from trigger_ddp.api.documents import Serializer
from trigger_ddp.api.endpoints import APIMixin, api_endpoint
from trigger_ddp.api.publication import Dependency
from trigger_ddp.api.schema import field_schema
from trigger_ddp.errors import ConfigurationError


class Collection(APIMixin):
    """A model's rows as documents, and who may see them.

    Attributes:
        model: the model; the one attribute a collection must have.
        name: the collection's name on the wire; by default "app_label.model_name".
        qs_filter: a Q that all published rows fulfil, whatever a publication selects.
        order_by: names of fields that order querysets which have no order of their own.
        user_rel: the path, or paths, from the model to its user, such as "author__user": rows are visible
            to users that one of them leads to; None makes them visible to everybody.
        always_allow_superusers: whether active superusers see all rows in spite of ``user_rel``.
        depends_on: models whose triggers the documents need beyond those of the collection itself:
            what an own ``serialize`` reads.
        exclude: names of fields that are not published.
        decimal_as: what a Decimal becomes: "string" (exact, every client reads it), "number" (rounded to
            JavaScript's precision) or "ejson" (``$type: Decimal``, for clients with mongo-decimal).
        allow: which of "insert", "update" and "remove" clients may call, as Meteor's collections do; by
            default none. Who may is decided by `has_permission` and the ``can_…`` methods.
        writable: names of the fields that clients may set by them; None: all that are published and editable.
            A collection with an own ``serialize`` has to name them.
    """

    name: ClassVar[str]
    api_path_prefix_format = "/{name}/"
    model: ClassVar[Any] = None
    qs_filter: ClassVar[Q | None] = None
    order_by: ClassVar[Sequence[Any] | None] = None
    user_rel: ClassVar[str | Sequence[str] | None] = None
    always_allow_superusers: ClassVar[bool] = True
    depends_on: ClassVar[Sequence[Dependency]] = ()
    exclude: ClassVar[Container[str]] = ()
    decimal_as: ClassVar[Literal["string", "number", "ejson"]] = "string"
    serializer_class: ClassVar[type[Serializer]] = Serializer
    allow: ClassVar[Container[str]] = ()
    writable: ClassVar[Container[str] | None] = None

    @classmethod
    def default_name(cls) -> str:
        """The model's "app_label.model_name"."""
        return cls.__name__ if cls.model is None else str(cls.model._meta)

    @property
    def overrides_serialize(self) -> bool:
        """Whether a subclass has its own ``serialize``."""
        return type(self).serialize is not Collection.serialize

    @property
    def user_model(self) -> type[models.Model]:
        """The project's user model."""
        return get_user_model()

    @property
    def user_rels(self) -> tuple[str, ...]:
        """``user_rel`` as a tuple."""
        if not self.user_rel:
            return ()
        return (self.user_rel,) if isinstance(self.user_rel, str) else tuple(self.user_rel)

    @property
    def queryset(self) -> QuerySet[Any]:
        """All rows of the collection."""
        return self.get_queryset()

    def get_queryset(self, base_qs: QuerySet[Any] | None = None) -> QuerySet[Any]:
        """The rows of ``base_qs`` (default: of the model) that belong to the collection, in a definite order.

        A slice is taken after filtering: ``[:20]`` stands for 20 rows of the collection.
        """
        queryset: QuerySet[Any] = self._narrowed(base_qs, Q())
        return queryset

    def objects_for_user(self, user: Any, qs: QuerySet[Any] | None = None) -> QuerySet[Any]:
        """The rows of ``qs`` (default: of the model) that ``user`` may see.

        Args:
            user: a user, a user's primary key, or None for nobody.
            qs: a queryset of the model. A slice of it is taken after filtering.

        Raises:
            ConfigurationError: ``qs`` is a raw one, which can't be narrowed to what the user may see.
        """
        if not self.user_rels or self._sees_all(user):
            return self.get_queryset(qs)
        if isinstance(qs, RawQuerySet):
            raise self._raw_refused("user_rel")
        if user is None or (isinstance(user, models.Model) and user.pk is None):
            return self.get_queryset(qs).none()
        if getattr(user, "is_anonymous", False):
            return self.get_queryset(qs).none()
        visible = Q()
        for path in self.user_rels:
            ends_at_user = any(field.is_relation for field in self._fields_of(path)[-1:])
            visible |= Q((path, user if ends_at_user else getattr(user, "pk", user)))
        narrowed: QuerySet[Any] = self._narrowed(qs, visible)
        return narrowed

    def serialize(self, obj: models.Model, meteor_ids: Any = None) -> dict[str, Any]:
        """What is published of ``obj``: ``{"fields": {name: value}}``, values as `ejson.encode` takes them.

        Override it to add or change fields, starting from ``super().serialize(obj)``, and name in
        ``depends_on`` what else it reads. An overridden ``serialize`` is called for each row, which
        costs more than declared fields do.

        Args:
            obj: an instance of the model.
            meteor_ids: not used; django-ddp passes it.
        """
        return {"fields": self.serializer(type(obj)).values_of_instance(obj)}

    def serializer(
        self, model: type[models.Model] | None = None, only: Container[str] | None = None
    ) -> Serializer:
        """The `Serializer` of the collection's documents.

        Args:
            model: the queryset's model, if it is a proxy of the collection's.
            only: the fields a queryset loads, as `documents.loaded_fields` tells; None for all.
        """
        return self._serializer(model or self.model, None if only is None else frozenset(only))

    @functools.lru_cache(maxsize=256)  # noqa: B019 - collections live as long as the process
    def _serializer(self, model: type[models.Model], only: frozenset[str] | None) -> Serializer:
        return self.serializer_class(self, model, only)

    def has_permission(self, user: Any, action: str) -> bool:
        """Whether ``user`` may do this at all: if it has Django's permission to add, change or delete.

        Override it to decide otherwise, for instance to let anybody insert.

        Args:
            user: as the database has it now; None for nobody, and for who is not active any more.
            action: "insert", "update" or "remove".
        """
        meta = self.model._meta
        codename = get_permission_codename({"insert": "add", "update": "change"}.get(action, "delete"), meta)
        return hasattr(user, "has_perm") and bool(user.has_perm(f"{meta.app_label}.{codename}"))

    def can_insert(self, user: Any, obj: Any) -> bool:
        """Whether ``user`` may insert ``obj``, which has the client's values and is not saved.

        The rules are asked on a worker thread, in the transaction that writes. They may change ``obj``, for
        instance say whose it is; ``full_clean`` comes after them. They may raise a `MeteorError`.
        """
        return True

    def can_update(self, user: Any, obj: Any, fields: Mapping[str, Any]) -> bool:
        """Whether ``user``, who may see ``obj``, may change it.

        Args:
            user: the user.
            obj: as it is stored, and locked.
            fields: the new values by attribute name ("title", "author_id"); lists of objects for
                many-to-many fields ("tags").
        """
        return True

    def can_remove(self, user: Any, obj: Any) -> bool:
        """Whether ``user``, who may see ``obj``, may delete it."""
        return True

    def can_hide(self, user: Any, obj: Any) -> bool:
        """Whether ``user`` may write ``obj`` so that it is not one of `objects_for_user` (any more)."""
        return False

    @api_endpoint
    def schema(self) -> Mapping[str, Mapping[str, Any]]:
        """The fields of the collection's documents, in the form Meteor's SimpleSchema packages use."""
        return field_schema(self.serializer())

    def _sees_all(self, user: Any) -> bool:
        if not self.always_allow_superusers or user is None:
            return False
        if isinstance(user, models.Model) or hasattr(user, "is_superuser"):
            return bool(getattr(user, "is_superuser", False) and getattr(user, "is_active", False))
        try:
            self.user_model._meta.get_field("is_superuser")
        except FieldDoesNotExist:
            return False
        return self.user_model._default_manager.filter(pk=user, is_superuser=True, is_active=True).exists()

    def _raw_refused(self, attribute: str) -> ConfigurationError:
        return ConfigurationError(
            f"collection {self.name!r} has {attribute}, by which a raw queryset can't be narrowed; filter() "
            "by pk__in=RawSQL(…) instead"
        )

    def _narrowed(self, base_qs: Any, condition: Q) -> Any:
        if isinstance(base_qs, RawQuerySet):
            if self.qs_filter is not None:
                raise self._raw_refused("qs_filter")
            return base_qs
        qs = self.model._default_manager.all() if base_qs is None else base_qs.all()
        query = qs.query
        low, high = query.low_mark, query.high_mark
        if query.is_sliced:
            query.clear_limits()
        if self.qs_filter is not None:
            qs = qs.filter(self.qs_filter)
        if condition:
            qs = qs.filter(condition)
            along = [field for path in self.user_rels for field in self._fields_of(path)]
            if any(field.many_to_many or field.one_to_many for field in along):
                # A row may come once for each of its related rows.
                qs = qs.distinct()
        if self.order_by and not query.order_by:
            qs = qs.order_by(*self.order_by)
        elif not qs.ordered and not query.combinator and not query.distinct_fields:
            qs = qs.order_by("pk")
        if low or high is not None:
            qs.query.set_limits(low, high)
        return qs

    def _fields_of(self, path: str) -> list[Any]:
        """The fields along a path from the model, as far as there are any."""
        fields: list[Any] = []
        model = self.model
        for name in path.split(LOOKUP_SEP):
            if model is None:
                break
            try:
                fields.append(model._meta.pk if name == "pk" else model._meta.get_field(name))
            except FieldDoesNotExist:
                break
            model = fields[-1].related_model
        return fields
