"""The schema of every kind of field can be told and sent."""

from __future__ import annotations

import pytest

from tests.api.documents import collection_of
from tests.zoo.models import Animal, Every, EveryPostgres
from trigger_ddp import ejson


@pytest.mark.parametrize("model", [Every, EveryPostgres, Animal])
def test_every_published_field_has_a_schema(model: type) -> None:
    collection = collection_of(model)
    schema = collection.schema()
    assert set(schema) == {column.name for column in collection.serializer().columns}
    assert ejson.decode(ejson.encode(schema)) == schema


def test_details() -> None:
    schema = {**collection_of(Every).schema(), **collection_of(EveryPostgres).schema()}
    assert schema["size"] == {
        "type": "String", "label": "size", "optional": True, "max": 1, "allowedValues": ["s", "l"],
        "autoform": {"options": [{"label": "small", "value": "s"}, {"label": "large", "value": "l"}]},
    }  # fmt: skip
    assert schema["positive_integer"] == {
        "type": "Number",
        "label": "positive integer",
        "optional": True,
        "min": 0,
    }
    assert schema["shouted"] == {"type": "String", "label": "shouted", "optional": True, "max": 100}
    types = {
        name: schema[name]["type"]
        for name in ("date", "datetime", "json", "binary", "float", "boolean", "matrix")
    }
    assert types == {
        "date": "Date", "datetime": "Date", "json": "Object", "binary": "Uint8Array", "float": "Number",
        "boolean": "Boolean", "matrix": "[[Number]]",
    }  # fmt: skip
