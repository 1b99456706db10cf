"""Model fields for ids that Meteor clients can make themselves."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from django.db import models
from django.db.models.fields import NOT_PROVIDED

from trigger_ddp.alea import meteor_random_id
from trigger_ddp.errors import ConfigurationError

if TYPE_CHECKING:
    _TextField = models.CharField[str, str]
else:
    _TextField = models.CharField


class AleaIdField(_TextField):
    """A text field that fills itself with a Meteor id (17 unmistakable characters) where it is empty.

    As a primary key the id is there once the object is; elsewhere once it is saved. A model with a
    unique, non-null AleaIdField is known to clients by it instead of its primary key.

    In a method that a client called with a random seed the ids are those that its stub's ``insert`` gave, as
    long as both make their objects in the same order: they are drawn from ``/collection/NAME``, NAME being
    the collection of the object's model (for a primary key of the model that declares the field).
    """

    def __init__(self, verbose_name: str | None = "Alea ID", **kwargs: Any) -> None:
        kwargs["blank"] = True
        length = kwargs.setdefault("max_length", 17)
        if kwargs.get("primary_key"):
            # Not for other fields: adding a column with a default gives all rows there are the same id.
            kwargs.setdefault("default", functools.partial(meteor_random_id, length=length))
        super().__init__(verbose_name, **kwargs)

    def deconstruct(self) -> tuple[str, str, Sequence[Any], dict[str, Any]]:
        """As any field's, without what ``__init__`` adds itself."""
        name, path, args, kwargs = super().deconstruct()
        del kwargs["blank"]
        if isinstance(kwargs.get("default"), functools.partial):
            del kwargs["default"]
        return name, path, args, kwargs

    def get_default(self) -> Any:
        """The value of a new object; of a field that fills itself as a primary key a new id."""
        if isinstance(self.default, functools.partial):
            return self._new_id(self.model)
        return super().get_default()

    def pre_save(self, model_instance: models.Model, add: bool) -> Any:
        """The value to save: a new id if the field is empty and declares no default of its own."""
        value = super().pre_save(model_instance, add)
        if not value and (self.default is NOT_PROVIDED or self.primary_key):
            value = self._new_id(type(model_instance))
            setattr(model_instance, self.attname, value)
        return value

    def _new_id(self, model: type[models.Model]) -> str:
        return meteor_random_id(f"/collection/{collection_name(model)}", self.max_length or 17)


def collection_name(model: type[models.Model]) -> str:
    """The name clients know ``model`` by, or would know it by if a collection published it."""
    from trigger_ddp.api.registry import API  # which needs this module for its models' ids

    try:
        return API.collection_for_model(model).name
    except ConfigurationError:
        return str(model._meta)


class AleaIdMixin(models.Model):
    """Gives a model an ``aid``, by which clients know its rows."""

    aid = AleaIdField(unique=True, editable=True)

    class Meta:
        abstract = True
