"""Document ids: which fields of a model make them, and the way there and back.

The id of a row's document is its primary key as text, unless the model has exactly one unique,
non-null AleaIdField: then it is that. A composite primary key gives its parts joined by ":", in which
"\\" and ":" stand behind a "\\".
"""

from __future__ import annotations

import datetime
import decimal
import functools
import re
import uuid
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from django.core.exceptions import ValidationError
from django.db import models
from django.utils.duration import duration_string

from trigger_ddp.api.fields import AleaIdField

M = TypeVar("M", bound=models.Model)


@functools.cache
def id_fields(model: type[models.Model]) -> tuple[Any, ...]:
    """The fields whose values make ``model``'s document ids: several for a composite primary key."""
    meta = model._meta
    if not isinstance(meta.pk, AleaIdField):
        for fields in (meta.local_fields, meta.concrete_fields):
            candidates = [
                field
                for field in fields
                if isinstance(field, AleaIdField) and field.unique and not field.null
            ]
            if len(candidates) == 1:
                return (candidates[0],)
    return tuple(meta.pk_fields)


def id_part(value: Any) -> str:
    """One primary key value as text, the same whatever the settings of the process are."""
    if type(value) is int:  # mostly
        return str(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, datetime.datetime):
        return (value.astimezone(datetime.UTC) if value.tzinfo else value).isoformat()
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return duration_string(value)
    if isinstance(value, decimal.Decimal):
        return format(value, "f")
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    return str(value)


def id_text(values: Sequence[Any]) -> str:
    """The document id of a row, from the values of its model's `id_fields`."""
    if len(values) == 1:
        return id_part(values[0])
    return ":".join(id_part(value).replace("\\", "\\\\").replace(":", "\\:") for value in values)


def id_texts(columns: Sequence[Sequence[Any]]) -> list[str]:
    """The document ids of rows, from the columns of their model's `id_fields`."""
    return (
        list(map(id_part, columns[0]))
        if len(columns) == 1
        else list(map(id_text, zip(*columns, strict=True)))
    )


def split_id(text: str) -> list[str]:
    """The parts of a composite primary key's document id."""
    return [
        re.sub(r"\\(.)", r"\1", part, flags=re.DOTALL)
        for part in re.findall(r"(?:^|:)((?:[^\\:]|\\.)*)", text, re.DOTALL)
    ]


def related_id_path(field: Any) -> str:
    """What to select for the document id that a foreign key refers to: "author_id" or "author__aid"."""
    (identifier,) = id_fields(field.related_model)
    # By to_field a foreign key may hold another unique column than the one clients know.
    if identifier == field.target_field:
        return str(field.attname)
    return f"{field.name}__{identifier.attname}"


def get_meteor_id(obj_or_model: models.Model | type[models.Model] | None, obj_pk: Any = None) -> str | None:
    """The document id of an object, or of the row of a model with primary key ``obj_pk``.

    Returns None for None, and for an object that is not saved and has no id yet.

    Raises:
        Model.DoesNotExist: there is no row with that primary key.
    """
    if obj_or_model is None:
        return None
    if isinstance(obj_or_model, models.Model):
        values = [getattr(obj_or_model, field.attname) for field in id_fields(type(obj_or_model))]
        return None if None in values else id_text(values)
    if obj_pk is None:
        return None
    names = [field.attname for field in id_fields(obj_or_model)]
    return id_text(obj_or_model._base_manager.values_list(*names).get(pk=obj_pk))


def get_meteor_ids(model: type[models.Model], object_ids: Iterable[Any]) -> dict[Any, str]:
    """The document ids of many rows: primary key to document id, for those that exist."""
    names = [field.attname for field in id_fields(model)]
    rows = model._base_manager.filter(pk__in=list(object_ids)).values_list("pk", *names)
    return {pk: id_text(values) for pk, *values in rows}


def get_object_id(model: type[models.Model], meteor_id: str | None) -> Any:
    """The primary key of the row that clients know as ``meteor_id``; None for None.

    Raises:
        Model.DoesNotExist: there is no such row.
    """
    return None if meteor_id is None else get_object(model, meteor_id).pk


def get_object_ids(model: type[models.Model], meteor_ids: Iterable[str]) -> dict[str, Any]:
    """The primary keys of many documents: document id to primary key, for those that exist."""
    found: dict[str, Any] = {}
    for meteor_id in meteor_ids:
        try:
            found[meteor_id] = get_object_id(model, meteor_id)
        except model.DoesNotExist:
            continue
    return found


def get_object(model: type[M], meteor_id: str, *args: Any, **kwargs: Any) -> M:
    """The row that clients know as ``meteor_id``.

    Args:
        model: the model.
        meteor_id: the document id as a client gave it.
        args, kwargs: further conditions, as of ``QuerySet.filter``.

    Raises:
        Model.DoesNotExist: there is no such row, or the text can't be an id of this model.
    """
    return model._default_manager.filter(*args, **kwargs).get(**key_of(model, meteor_id))


def key_of(model: type[models.Model], meteor_id: str) -> dict[str, Any]:
    """The values of the `id_fields` that a document id stands for, by attribute name.

    Raises:
        Model.DoesNotExist: the text can't be an id of this model.
    """
    fields = id_fields(model)
    texts = [meteor_id] if len(fields) == 1 else split_id(meteor_id)
    if len(texts) != len(fields):
        raise model.DoesNotExist(f"{meteor_id!r} is not an id of {model._meta.label}")
    try:
        return {field.attname: _parse(field, text) for field, text in zip(fields, texts, strict=True)}
    except (ValidationError, ValueError) as error:
        raise model.DoesNotExist(f"{meteor_id!r} is not an id of {model._meta.label}") from error


def _parse(field: Any, text: str) -> Any:
    while field.remote_field is not None:
        field = field.target_field
    if isinstance(field, models.BinaryField):
        return bytes.fromhex(text)
    return field.to_python(text)
