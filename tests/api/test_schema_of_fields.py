"""The schema of every kind of field can be told and sent."""

from __future__ import annotations

from typing import Any

import pytest
from django.db.models import GeneratedField
from django.utils.text import capfirst

from tests.api.documents import collection_of
from tests.zoo.models import Animal, Bird, Every, EveryPostgres, Keeper, Visit
from trigger_ddp import ejson
from trigger_ddp.demo.bookstore.models import Author, Book


@pytest.mark.parametrize("model", [Every, EveryPostgres, Animal])
def test_every_published_field_has_a_schema(model: type) -> None:
    collection = collection_of(model)
    schema = collection.schema()
    assert set(schema) == {column.name for column in collection.serializer().columns}
    assert ejson.decode(ejson.encode(schema)) == schema


def test_details() -> None:
    schema = {**collection_of(Every).schema(), **collection_of(EveryPostgres).schema()}
    assert schema["size"] == {
        "type": "String", "label": "Size", "optional": True, "max": 1, "allowedValues": ["s", "l"],
        "autoform": {"options": [{"label": "small", "value": "s"}, {"label": "large", "value": "l"}]},
    }  # fmt: skip
    assert schema["positive_integer"] == {
        "type": "Number",
        "label": "Positive integer",
        "optional": True,
        "min": 0,
    }
    assert schema["shouted"] == {"type": "String", "label": "Shouted", "optional": True, "max": 100}
    types = {
        name: schema[name]["type"]
        for name in ("date", "datetime", "json", "binary", "float", "boolean", "matrix")
    }
    assert types == {
        "date": "Date", "datetime": "Date", "json": "Object", "binary": "Uint8Array", "float": "Number",
        "boolean": "Boolean", "matrix": "[[Number]]",
    }  # fmt: skip


def test_relations_name_the_collections_that_clients_know() -> None:
    schema = collection_of(Animal).schema()
    assert schema["keeper_id"]["relation"] == {"name": "keeper", "collection": "zoo.keeper"}
    assert schema["species_id"]["relation"] == {"name": "species", "collection": "species"}
    assert schema["eats_ids"] == {
        "type": "[String]", "relation": {"name": "eats", "collection": "species"}, "label": "Eats",
    }  # fmt: skip


@pytest.mark.parametrize("model", [Every, EveryPostgres, Animal, Keeper, Bird, Visit, Author, Book])
def test_it_has_what_django_ddps_schema_has(model: Any) -> None:
    """As django-ddp 0.19 makes it of each field; where a type is another, the documents' is as well."""
    schema = collection_of(model).schema()
    fields = (*model._meta.concrete_fields, *model._meta.many_to_many)
    for field in fields:
        name = f"{field.name}_ids" if field.many_to_many else field.attname
        if name not in schema or isinstance(field, GeneratedField):
            continue
        told = schema[name]
        assert told["label"] == capfirst(field.verbose_name)  # as forms have it
        assert told.get("optional", False) >= field.blank
        assert ("relation" in told) == (field.remote_field is not None)
        if field.choices:
            assert told["allowedValues"] == [value for value, _ in field.choices]
            assert [option["value"] for option in told["autoform"]["options"]] == told["allowedValues"]
        assert told.get("max") == (None if field.many_to_many else getattr(field, "max_length", None))
        assert ("min" in told) == field.get_internal_type().startswith("Positive")
        if field.get_internal_type() == "FloatField":
            assert told["decimal"] is True
