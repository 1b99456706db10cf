"""The ``schema`` method: a collection's fields as Meteor's SimpleSchema packages describe them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib.postgres import fields as postgres
from django.db import models
from django.utils.text import capfirst

from trigger_ddp.api.fields import collection_name

if TYPE_CHECKING:
    from trigger_ddp.api.documents import Serializer

#: A field's type is that of the first of these classes it is an instance of, else "String".
_TYPES: tuple[tuple[tuple[type, ...], str], ...] = (
    ((models.BooleanField,), "Boolean"),
    ((models.IntegerField, models.AutoField, models.FloatField), "Number"),
    ((models.DateField,), "Date"),
    ((models.BinaryField,), "Uint8Array"),
    ((models.JSONField, postgres.HStoreField, postgres.RangeField), "Object"),
)


def field_schema(serializer: Serializer) -> dict[str, dict[str, Any]]:
    """Each published field's schema: ``type``, ``label``, ``optional``, ``allowedValues`` and so on."""
    published = {column.name for column in serializer.columns}
    meta = serializer.model._meta
    schemas: dict[str, dict[str, Any]] = {}
    for field in meta.concrete_fields:
        if field.attname in published:
            schemas[field.attname] = _schema(field, serializer.collection.decimal_as)
    for field in meta.many_to_many:
        name = f"{field.name}_ids"
        if name in published:
            schemas[name] = {"type": "[String]", **_relation(field), **_common(field)}
    return schemas


def _schema(field: Any, decimal_as: str) -> dict[str, Any]:
    if field.remote_field:
        return {"type": "String", **_relation(field), **_common(field)}
    if isinstance(field, models.GeneratedField):
        return {**_schema(field.output_field, decimal_as), "label": _label(field), "optional": True}
    schema: dict[str, Any] = {"type": _type(field, decimal_as), **_common(field)}
    if field.choices:
        choices = field.flatchoices
        schema["allowedValues"] = [value for value, _ in choices]
        schema["autoform"] = {"options": [{"label": str(label), "value": value} for value, label in choices]}
    if getattr(field, "max_length", None) is not None:
        schema["max"] = field.max_length
    if isinstance(
        field, models.PositiveIntegerField | models.PositiveBigIntegerField | models.PositiveSmallIntegerField
    ):
        schema["min"] = 0
    if schema["type"] == "Number" and isinstance(field, models.FloatField | models.DecimalField):
        schema["decimal"] = True
    return schema


def _type(field: Any, decimal_as: str) -> str:
    if isinstance(field, models.DecimalField):
        return {"string": "String", "number": "Number", "ejson": "Decimal"}[decimal_as]
    if isinstance(field, postgres.ArrayField):
        return f"[{_type(field.base_field, decimal_as)}]"
    return next((name for kinds, name in _TYPES if isinstance(field, kinds)), "String")


def _relation(field: Any) -> dict[str, Any]:
    return {"relation": {"name": field.name, "collection": collection_name(field.related_model)}}


def _label(field: Any) -> str:
    """As the field's form field has it."""
    return str(capfirst(getattr(field, "verbose_name", None) or field.name))


def _common(field: Any) -> dict[str, Any]:
    schema: dict[str, Any] = {"label": _label(field)}
    if field.blank or field.null:
        schema["optional"] = True
    return schema
