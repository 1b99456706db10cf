"""Model fields for ids that Meteor clients can make themselves."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from django.db import models
from django.db.models.fields import NOT_PROVIDED

from trigger_ddp.alea import meteor_random_id

if TYPE_CHECKING:
    _TextField = models.CharField[str, str]
else:
    _TextField = models.CharField


class AleaIdField(_TextField):
    """A text field that fills itself with a Meteor id (17 unmistakable characters) where it is empty.

    As a primary key the id is there once the object is; elsewhere once it is saved. A model with a
    unique, non-null AleaIdField is known to clients by it instead of its primary key.
    """

    def __init__(self, verbose_name: str | None = "Alea ID", **kwargs: Any) -> None:
        kwargs["blank"] = True
        length = kwargs.setdefault("max_length", 17)
        if kwargs.get("primary_key"):
            # Not for other fields: adding a column with a default gives all rows there are the same id.
            kwargs.setdefault("default", functools.partial(meteor_random_id, length))
        super().__init__(verbose_name, **kwargs)

    def deconstruct(self) -> tuple[str, str, Sequence[Any], dict[str, Any]]:
        """As any field's, without what ``__init__`` adds itself."""
        name, path, args, kwargs = super().deconstruct()
        del kwargs["blank"]
        if isinstance(kwargs.get("default"), functools.partial):
            del kwargs["default"]
        return name, path, args, kwargs

    def pre_save(self, model_instance: models.Model, add: bool) -> Any:
        """The value to save: a new id if the field is empty and declares no default of its own."""
        value = super().pre_save(model_instance, add)
        if not value and (self.default is NOT_PROVIDED or self.primary_key):
            value = meteor_random_id(self.max_length or 17)
            setattr(model_instance, self.attname, value)
        return value


class AleaIdMixin(models.Model):
    """Gives a model an ``aid``, by which clients know its rows."""

    aid = AleaIdField(unique=True, editable=True)

    class Meta:
        abstract = True
