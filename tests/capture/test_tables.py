from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.db import models
from django.test import override_settings

from tests.capture.capturing import model
from trigger_ddp.capture.columns import Column
from trigger_ddp.capture.tables import Table
from trigger_ddp.demo.bookstore.models import Book
from trigger_ddp.errors import ConfigurationError


def test_a_model_of_the_bookstore() -> None:
    table = Table.from_model(Book)
    assert (table.name, table.model_label) == ("bookstore_book", "bookstore.Book")
    assert table.primary_key == (Column("id", "bigint"),)
    assert table.foreign_keys == (Column("author_id", "bigint"),)
    assert table.width == 2
    assert table == Table.from_model(Book)
    assert len({table, Table.from_model(Book)}) == 1


def test_through_tables_and_generic_relations() -> None:
    table = Table.from_model(User.groups.through)
    assert [column.name for column in table.foreign_keys] == ["group_id", "user_id"]


@pytest.mark.parametrize(
    ("db_table", "name", "schema", "relation"),
    [
        ("plain", "plain", None, "plain"),
        ("Odd Name", '"Odd Name"', None, "Odd Name"),
        ('shop"."item', "shop.item", "shop", "item"),
        ('"shop"."Ïtem"', 'shop."Ïtem"', "shop", "Ïtem"),
        ('we""ird', '"we""ird"', None, 'we"ird'),
    ],
)
def test_names(db_table: str, name: str, schema: str | None, relation: str) -> None:
    table = Table.from_model(model(db_table, id=models.AutoField(primary_key=True)))
    assert (table.name, table.schema, table.relation) == (name, schema, relation)
    assert table.identifier.as_string(None).endswith('"')


def test_inherited_and_proxy_models() -> None:
    parent = model(
        "parent", id=models.BigAutoField(primary_key=True), friend=models.ForeignKey("self", models.CASCADE)
    )

    class Meta:
        app_label = "capturing"
        apps = parent._meta.apps
        db_table = "child"

    child = type("Child", (parent,), {"__module__": __name__, "Meta": Meta})
    table = Table.from_model(child)
    assert [column.name for column in table.primary_key] == [f"{parent._meta.model_name}_ptr_id"]
    assert table.foreign_keys == ()

    class ProxyMeta:
        app_label = "capturing"
        apps = parent._meta.apps
        proxy = True

    proxy = type("Proxy", (parent,), {"__module__": __name__, "Meta": ProxyMeta})
    assert Table.from_model(proxy) == Table.from_model(parent)


def test_abstract_models_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="abstract"):
        Table.from_model(model("x", meta={"abstract": True}))


def test_the_version_tells_whatever_the_functions_depend_on() -> None:
    def version(**fields: models.Field) -> str:
        return Table.from_model(model("thing", **fields)).version

    plain = version(id=models.AutoField(primary_key=True))
    with override_settings(DDP_BULK_THRESHOLD=7):
        lower = version(id=models.AutoField(primary_key=True))
    versions = {
        plain,
        lower,
        version(id=models.UUIDField(primary_key=True)),
        version(key=models.AutoField(primary_key=True)),
        version(id=models.AutoField(primary_key=True), owner=models.ForeignKey("self", models.CASCADE)),
        Table.from_model(model('s"."thing', id=models.AutoField(primary_key=True))).version,
    }
    assert len(versions) == 6
    assert version(id=models.AutoField(primary_key=True), other=models.TextField()) == plain
    assert all(len(version) == 8 for version in versions)
