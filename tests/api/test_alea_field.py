"""AleaIdField: where its values come from, and what migrations see of it."""

from __future__ import annotations

from typing import Any

import pytest
from django.apps.registry import Apps
from django.db import IntegrityError, connection, models
from django.db.migrations.writer import MigrationWriter

from tests.conftest import Database
from tests.zoo.models import Keeper, Ticket
from trigger_ddp.alea import UNMISTAKABLE, RandomStream
from trigger_ddp.api import API, AleaIdField, Collection, meteor_random_id, this


def is_meteor_id(text: Any) -> bool:
    return isinstance(text, str) and len(text) == 17 and set(text) <= set(UNMISTAKABLE)


def test_a_primary_key_is_there_before_saving(db: Database) -> None:
    ticket = Ticket(price=1)
    before = ticket.pk
    assert is_meteor_id(before)
    ticket.save()
    assert Ticket.objects.get() == ticket
    assert ticket.pk == before
    assert Ticket(pk="chosen").pk == "chosen"
    cleared = Ticket(pk="", price=1)
    cleared.save()
    assert is_meteor_id(cleared.pk)


def test_another_field_is_filled_on_saving(db: Database) -> None:
    keeper = Keeper.objects.create(name="a")
    assert is_meteor_id(keeper.aid)
    aid = keeper.aid
    keeper.save()
    keeper.refresh_from_db()
    assert keeper.aid == aid
    assert Keeper.objects.create(name="b", aid="chosen").aid == "chosen"
    with pytest.raises(IntegrityError):
        Keeper.objects.create(name="c", aid="chosen")


def test_bulk_create(db: Database) -> None:
    Keeper.objects.bulk_create(Keeper(name=str(number)) for number in range(20))
    Ticket.objects.bulk_create(Ticket(price=number) for number in range(20))
    aids = [*Keeper.objects.values_list("aid", flat=True), *Ticket.objects.values_list("id", flat=True)]
    assert len(set(aids)) == 40
    assert all(map(is_meteor_id, aids))


def test_in_a_method_ids_are_those_of_the_clients_stub(db: Database) -> None:
    """Each object draws once, at the time it does without a seed, from its collection's stream."""
    stub = RandomStream("seed")
    with this.bound(random_seed="seed"):
        tickets = [Ticket(price=1), Ticket(price=2)]
        tickets[1].save()
        tickets[0].save()
        tickets[0].save()
        Ticket(id="chosen", price=3).save()  # of `pk="chosen"` Django asks for a default first
        for key in ("", None):
            tickets.append(Ticket(id=key, price=4))
            tickets[-1].save()
        tickets.append(Ticket.objects.create(price=5))
        Ticket.objects.bulk_create(new := [Ticket(price=6), Ticket(price=7)])
        Ticket.objects.only("price").get(pk="chosen").refresh_from_db()
        tickets += [*new, Ticket.objects.get_or_create(price=8)[0]]
        keepers = [Keeper(name="b"), Keeper(name="a")]
        for keeper in reversed(keepers):
            keeper.save()
            keeper.save()
        Keeper.objects.create(name="c", aid="chosen")
        keepers[:0] = Keeper.objects.bulk_create([Keeper(name="d"), Keeper(name="e")])
    assert [ticket.pk for ticket in tickets] == [stub("/collection/zoo.ticket").id() for _ in tickets]
    names = API.collection_for_model(Keeper).name
    assert [keepers[at].aid for at in (3, 2, 0, 1)] == [stub(f"/collection/{names}").id() for _ in keepers]
    assert Ticket().pk != stub("/collection/zoo.ticket").id()


def test_the_stream_is_that_of_the_collections_name() -> None:
    with API.restored(), this.bound(random_seed="seed"):
        API.register(type("Tickets", (Collection,), {"model": Ticket, "name": "tickets"}))
        assert Ticket().pk == RandomStream("seed")("/collection/tickets").id()


@pytest.mark.parametrize(
    ("field", "kwargs"),
    [
        (AleaIdField(), {"max_length": 17, "verbose_name": "Alea ID"}),
        (AleaIdField(primary_key=True), {"max_length": 17, "verbose_name": "Alea ID", "primary_key": True}),
        (AleaIdField("key", max_length=20), {"max_length": 20, "verbose_name": "key"}),
        (
            AleaIdField(default=meteor_random_id),
            {"max_length": 17, "verbose_name": "Alea ID", "default": meteor_random_id},
        ),
        (
            AleaIdField(unique=True, null=True),
            {"max_length": 17, "verbose_name": "Alea ID", "unique": True, "null": True},
        ),
    ],
)
def test_deconstruct(field: AleaIdField, kwargs: dict[str, Any]) -> None:
    _, path, args, found = field.deconstruct()
    assert (path, args, found) == ("trigger_ddp.api.fields.AleaIdField", [], kwargs)
    again = AleaIdField(*args, **found)
    assert again.deconstruct()[1:] == field.deconstruct()[1:]
    assert again.blank
    text, imports = MigrationWriter.serialize(field)
    assert text.startswith("trigger_ddp.api.fields.AleaIdField(")
    assert "import trigger_ddp.api.fields" in imports


def test_adding_it_to_a_table_with_rows(db: Database) -> None:
    """As the migrations for a unique field do: add it nullable, fill it by saving, then make it required."""
    db.psql("INSERT INTO bookstore_tag (name) VALUES ('a'), ('b')")

    class Meta:
        app_label = "zoo"
        db_table = "bookstore_tag"
        apps = Apps()

    body = {
        "__module__": __name__,
        "Meta": Meta,
        "name": models.TextField(),
        "aid": AleaIdField(unique=True, null=True),
    }
    model: Any = type("TaggedLater", (models.Model,), body)
    with connection.schema_editor() as editor:
        editor.add_field(model, model._meta.get_field("aid"))
    assert [row.aid for row in model.objects.all()] == [None, None]
    for row in model.objects.all():
        row.save()
    assert len({row.aid for row in model.objects.all() if is_meteor_id(row.aid)}) == 2
