"""Document ids and relations: every kind of key, the ids that refer to them, and what the SQL reads."""

from __future__ import annotations

import datetime
import uuid
from typing import Any

import pytest
from django.db import connection
from django.db.models import F
from django.test.utils import CaptureQueriesContext
from hypothesis import given
from hypothesis import strategies as st

from tests.api.documents import collection_of, decoded, document_of_row, documents
from tests.conftest import Database
from tests.zoo.models import (
    Animal,
    AnimalProxy,
    Bird,
    Cage,
    Daily,
    Keeper,
    Nest,
    Odd,
    Parrot,
    Species,
    Stall,
    Ticket,
    Visit,
)
from trigger_ddp.api import get_meteor_id, get_meteor_ids, get_object, get_object_id, get_object_ids
from trigger_ddp.api.documents import loaded_fields
from trigger_ddp.api.ids import id_text, split_id
from trigger_ddp.demo.bookstore.models import Author, Book, Tag


@pytest.fixture
def zoo(db: Database) -> dict[str, Any]:
    species = {
        code: Species.objects.create(code=code, latin=f"{code} latin") for code in ("wolf", "Ant", "é:\\")
    }
    keepers = [Keeper.objects.create(name=name) for name in ("Ann", "Ben")]
    cage = Cage.objects.create(id=uuid.UUID(int=7), label="7")
    mother = Animal.objects.create(name="mother")
    wolf = Animal.objects.create(
        name="wolf",
        species=species["wolf"],
        by_latin_name=species["Ant"],
        keeper=keepers[0],
        cage=cage,
        mother=mother,
    )
    wolf.friends.add(mother, wolf)
    wolf.eats.set([species["é:\\"], species["Ant"]])
    for keeper in (keepers[1], keepers[0], keepers[1]):
        Visit.objects.create(animal=wolf, keeper=keeper)
    return {"wolf": wolf, "mother": mother, "keepers": keepers, "species": species}


def test_every_kind_of_relation(zoo: dict[str, Any]) -> None:
    wolf, mother, keepers = zoo["wolf"], zoo["mother"], zoo["keepers"]
    found = documents(collection_of(Animal), Animal.objects.all())
    assert found[str(wolf.pk)] == {
        "name": "wolf",
        "species_id": "wolf",
        "by_latin_name_id": "Ant",  # the document's id, not the text that the column holds
        "keeper_id": keepers[0].aid,
        "cage_id": "00000000-0000-0000-0000-000000000007",
        "mother_id": str(mother.pk),
        "content_type_id": None,
        "object_id": None,
        "friends_ids": [str(mother.pk), str(wolf.pk)],
        "eats_ids": ["Ant", "é:\\"],
        "admirers_ids": [keeper.aid for keeper in keepers],  # in order of primary keys, each once
    }
    assert found[str(mother.pk)] == {
        "name": "mother",
        **dict.fromkeys(
            (
                "species_id",
                "by_latin_name_id",
                "keeper_id",
                "cage_id",
                "mother_id",
                "content_type_id",
                "object_id",
            )
        ),
        "friends_ids": [str(wolf.pk)],
        "eats_ids": [],
        "admirers_ids": [],
    }


def test_a_proxy_has_the_same_documents(zoo: dict[str, Any]) -> None:
    collection = collection_of(Animal)
    assert documents(collection, AnimalProxy.objects.all()) == documents(collection, Animal.objects.all())
    assert documents(collection_of(AnimalProxy), AnimalProxy.objects.all()).keys() == {
        str(zoo["wolf"].pk), str(zoo["mother"].pk),
    }  # fmt: skip


def test_bookstore(db: Database) -> None:
    author = Author.objects.create(name="A", email="a@b.example")
    book = Book.objects.create(title="T", author=author)
    tags = [Tag.objects.create(name=str(number)) for number in range(12)]
    book.tags.set(reversed(tags))
    (document,) = documents(collection_of(Book), Book.objects.all()).values()
    assert document["author_id"] == str(author.pk)
    assert document["tags_ids"] == [str(tag.pk) for tag in tags], "in numerical order"


def test_instances_read_many_to_many_where_nothing_was_loaded_along(zoo: dict[str, Any]) -> None:
    serializer = collection_of(Animal).serializer()
    by_columns = documents(collection_of(Animal), Animal.objects.all())
    for obj in Animal.objects.all():
        document_id, fields = serializer.document_of_instance(obj)
        assert decoded(fields) == by_columns[document_id]


def test_instances_take_many_to_many_from_annotations(zoo: dict[str, Any]) -> None:
    serializer = collection_of(Animal).serializer(only={"name", "eats"})
    lists = {column.name: column.expression for column in serializer.columns if column.name == "eats_ids"}
    obj = Animal.objects.annotate(**lists).get(pk=zoo["wolf"].pk)
    with CaptureQueriesContext(connection) as queries:
        assert serializer.values_of_instance(obj) == {"name": "wolf", "eats_ids": ["Ant", "é:\\"]}
    assert not queries.captured_queries


def test_what_the_documents_read(db: Database) -> None:
    serializer = collection_of(Animal).serializer()
    assert serializer.read_paths == [
        "by_latin_name__code", "keeper__aid", "friends", "eats", "admirers__aid",
    ]  # fmt: skip
    assert serializer.related_models == [
        Species, Keeper, Animal.friends.through, Animal.eats.through, Visit,
    ]  # fmt: skip
    narrow = collection_of(Animal).serializer(only={"name", "mother"})
    assert (narrow.related_models, narrow.read_paths) == ([], [])


def test_only_names_many_to_many_fields(zoo: dict[str, Any]) -> None:
    queryset = Animal.objects.only("name", "eats").filter(name="wolf")
    (document,) = documents(collection_of(Animal), queryset, loaded_fields(queryset)).values()
    assert document == {"name": "wolf", "eats_ids": ["Ant", "é:\\"]}
    deferring = Animal.objects.defer("name", "keeper_id")
    assert loaded_fields(deferring) == {
        field.name for field in (*Animal._meta.concrete_fields, *Animal._meta.many_to_many)
    } - {"name", "keeper"}


def test_multi_table_inheritance(zoo: dict[str, Any]) -> None:
    ticket = Ticket.objects.create(price=2)
    parrot = Parrot.objects.create(
        name="Polly", wingspan=0.5, words=3, ticket=ticket, keeper=zoo["keepers"][0]
    )
    parrot.eats.add(zoo["species"]["Ant"])
    key = str(parrot.pk)
    (document,) = documents(collection_of(Parrot), Parrot.objects.all()).values()
    assert document == {
        "name": "Polly", "species_id": None, "by_latin_name_id": None, "keeper_id": zoo["keepers"][0].aid,
        "cage_id": None, "mother_id": None, "content_type_id": None, "object_id": None, "friends_ids": [],
        "eats_ids": ["Ant"], "admirers_ids": [],
        "animal_ptr_id": key, "wingspan": 0.5,
        "bird_ptr_id": key, "words": 3, "ticket_id": ticket.id,
    }  # fmt: skip
    assert documents(collection_of(Bird), Bird.objects.all())[key]["animal_ptr_id"] == key
    Nest.objects.create(bird=parrot.bird_ptr, eggs=2)
    assert documents(collection_of(Nest), Nest.objects.all()) == {key: {"bird_id": key, "eggs": 2}}


def test_document_ids(zoo: dict[str, Any]) -> None:
    keeper, ticket = zoo["keepers"][0], Ticket.objects.create(price=1)
    assert documents(collection_of(Keeper), Keeper.objects.filter(name="Ann")) == {
        keeper.aid: {"name": "Ann", "account_id": None}
    }
    assert documents(collection_of(Ticket), Ticket.objects.all()) == {ticket.id: {"price": "1.00"}}
    assert set(documents(collection_of(Species), Species.objects.all())) == {"wolf", "Ant", "é:\\"}
    assert set(documents(collection_of(Cage), Cage.objects.all())) == {"00000000-0000-0000-0000-000000000007"}
    Daily.objects.create(day=datetime.date(2024, 1, 2))
    db_style = documents(collection_of(Daily), Daily.objects.all())
    assert db_style == {"2024-01-02": {"visitors": 0}}


def test_composite_primary_keys(zoo: dict[str, Any]) -> None:
    Stall.objects.create(house="a:b\\", number=3, animal=zoo["wolf"])
    assert documents(collection_of(Stall), Stall.objects.all()) == {
        "a\\:b\\\\:3": {"house": "a:b\\", "number": 3, "animal_id": str(zoo["wolf"].pk)}
    }
    stall = get_object(Stall, "a\\:b\\\\:3")
    assert stall.pk == ("a:b\\", 3)
    assert get_meteor_id(stall) == "a\\:b\\\\:3"
    for text in ("a", "a:b:3", "a:b\\\\:3", "a\\:b\\\\:three", ""):
        with pytest.raises(Stall.DoesNotExist):
            get_object(Stall, text)


@given(st.lists(st.text(), min_size=2, max_size=4))
def test_the_parts_of_a_composite_id_can_be_told_apart(parts: list[str]) -> None:
    assert split_id(id_text(parts)) == parts


def test_the_way_back_from_an_id(zoo: dict[str, Any]) -> None:
    keeper, wolf = zoo["keepers"][0], zoo["wolf"]
    assert get_object(Keeper, keeper.aid) == keeper
    assert get_object_id(Keeper, keeper.aid) == keeper.pk
    assert get_object_id(Keeper, None) is None
    assert get_object(Animal, str(wolf.pk), name="wolf") == wolf
    assert get_object(Cage, str(uuid.UUID(int=7))).label == "7"
    assert get_object(Species, "é:\\").latin == "é:\\ latin"
    for model, text in ((Animal, "x"), (Animal, "999"), (Cage, "x"), (Keeper, "x"), (Daily, "x")):
        with pytest.raises(model.DoesNotExist):
            get_object(model, text)
    with pytest.raises(Animal.DoesNotExist):
        get_object(Animal, str(wolf.pk), name="cat")
    assert get_meteor_id(None) is None
    assert get_meteor_id(Animal()) is None
    assert get_meteor_id(Animal, wolf.pk) == str(wolf.pk)
    assert get_meteor_id(Keeper, keeper.pk) == keeper.aid
    assert get_meteor_ids(Keeper, [keeper.pk, 999]) == {keeper.pk: keeper.aid}
    assert get_object_ids(Keeper, [keeper.aid, "x"]) == {keeper.aid: keeper.pk}


def test_odd_names(db: Database) -> None:
    row = Odd.objects.create(select=1, größe=2)
    assert documents(collection_of(Odd), Odd.objects.all()) == {str(row.pk): {"select": 1, "größe": 2}}


def test_a_queryset_keeps_its_own_joins_and_annotations(zoo: dict[str, Any]) -> None:
    queryset = Animal.objects.filter(keeper__name="Ann", eats__latin="Ant latin").annotate(
        title=F("keeper__name")
    )
    serializer = collection_of(Animal).serializer()
    rows = queryset.values_list(*(expression for _, expression in serializer.values()))
    assert [document_of_row(serializer, row)[0] for row in rows] == [str(zoo["wolf"].pk)]
