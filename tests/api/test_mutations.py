"""What clients may do to collections by ``insert``, ``update`` and ``remove``, and what not."""

from __future__ import annotations

import datetime
import decimal
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db.backends.postgresql.psycopg_any import DateRange, NumericRange
from django.db.models import Q
from django.test import override_settings

from tests.api.mutating import ann, call, nothing_required, refused, register, registry
from tests.zoo.models import (
    Animal,
    AnimalProxy,
    Bird,
    Every,
    EveryPostgres,
    Keeper,
    Nest,
    Species,
    Stall,
    Ticket,
    Visit,
)
from trigger_ddp import ejson
from trigger_ddp.alea import RandomStream
from trigger_ddp.api import API, Collection, get_meteor_id, this
from trigger_ddp.api.checks import check_declarations
from trigger_ddp.api.mutations import writable_fields
from trigger_ddp.demo.bookstore.models import Author, Book, Tag

__all__ = ["ann", "nothing_required", "registry"]


# -- which methods there are ----------------------------------------------------------------------


def test_nothing_is_allowed_by_default(registry: None) -> None:
    API.register(type("Quiet", (Collection,), {"model": Ticket, "name": "quiet"}))
    API.register(type("Half", (Collection,), {"model": Ticket, "name": "half", "allow": ["insert"]}))
    names = [name for name in API.api_path_map() if name.startswith(("/quiet/", "/half/"))]
    assert sorted(names) == ["/half/insert", "/half/insertAsync", "/half/schema", "/quiet/schema"]


def test_checks(registry: None) -> None:
    own = {"serialize": lambda self, obj, meteor_ids=None: {"fields": {}}}
    for number, attributes in enumerate(
        [{"allow": "insert"}, {"allow": ["upsert"]}, {"writable": ["nothing"]}, {"writable": "price"}, own,
         {**own, "writable": ["price"]}, {"writable": ["price"]}]
    ):  # fmt: skip
        register(Ticket, f"checked{number}", **attributes)
    found = [problem for problem in check_declarations() if "collection 'checked" in problem.msg.lower()]
    assert [(problem.msg.split("'")[1], problem.id) for problem in found] == [
        ("checked0", "trigger_ddp.E115"), ("checked1", "trigger_ddp.E115"), ("checked2", "trigger_ddp.E116"),
        ("checked3", "trigger_ddp.E116"), ("checked4", "trigger_ddp.W103"),
    ]  # fmt: skip


# -- insert, update, remove -----------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["", "Async"])
def test_a_documents_life(ann: User, suffix: str) -> None:
    register(Ticket)
    key = call(f"insert{suffix}", {"price": "1.50"})
    assert Ticket.objects.get(pk=key).price == decimal.Decimal("1.50")
    assert call(f"update{suffix}", key, {"$set": {"price": "2.5"}}) == 1
    assert call(f"update{suffix}", {"_id": key}, {"$set": {"price": "3.5"}}, {}) == 1
    assert Ticket.objects.get(pk=key).price == decimal.Decimal("3.50")
    assert call(f"remove{suffix}", {"_id": key}) == 1
    assert not Ticket.objects.exists()
    assert call(f"remove{suffix}", key) == call(f"update{suffix}", key, {"$set": {"price": "1"}}) == 0


@pytest.mark.parametrize("model", [Ticket, Keeper])
def test_the_id_is_the_one_of_the_clients_stub(ann: User, nothing_required: None, model: Any) -> None:
    def greedy(self: Any, user: Any, obj: Any) -> bool:
        if not model.objects.exists():
            model(**values).save()
        return True

    values = {"price": 1} if model is Ticket else {"name": "b"}
    register(model, can_insert=greedy)
    stub = RandomStream("seed")
    with this.bound(random_seed="seed"):
        assert call("insert", dict(values)) == stub("/collection/tested").id()
        assert call("insert", {**values, "_id": "chosen"}) == "chosen"
    with this.bound(random_seed="seed"):
        assert refused("insert", dict(values)) == (409, "Duplicate _id")
    assert refused("insert", {**values, "_id": "chosen"}) == (409, "Duplicate _id")
    assert refused("insert", {**values, "_id": ""}) == (400, "Match failed", "_id: Expected a document's id")
    assert refused("insert", {**values, "_id": 7})[0] == 400
    with pytest.raises(ValidationError):
        call("insert", {**values, "_id": "x" * 18})
    assert model.objects.count() == 3


def test_who_has_another_key_gets_it_from_the_database(ann: User) -> None:
    register(Tag)
    key = call("insert", {"name": "a"})
    assert key == get_meteor_id(Tag.objects.get())
    error = refused("insert", {"_id": "7", "name": "b"})
    assert error == (403, "Access denied. The server gives documents of this collection their _id.")


@pytest.mark.parametrize(
    "selector", [{}, {"_id": {"$in": ["1"]}}, {"_id": "1", "name": "a"}, {"name": "a"}, None, 7, ["1"]]
)
def test_only_by_id(ann: User, selector: Any) -> None:
    register(Tag)
    words = "Not permitted. Untrusted code may only {} documents by ID."
    for name in ("update", "updateAsync"):
        assert refused(name, selector, {"$set": {}}) == (403, words.format(name))
    for name in ("remove", "removeAsync"):
        assert refused(name, selector) == (403, words.format(name))


@pytest.mark.parametrize("key", ["", "x", "9" * 30, "\0", "\ud800", "1:2"])
def test_what_is_no_id_is_no_document(ann: User, key: str) -> None:
    for number, model in enumerate((Tag, Ticket, Stall)):
        with API.restored():
            register(model)
            assert call("remove", key) == 0, number


@pytest.mark.parametrize("spelling", [" {}", "0{}", "+{}", "{}_0"])
def test_an_id_is_spelled_as_clients_know_it(ann: User, spelling: str) -> None:
    register(Tag)
    Tag.objects.create(pk=10, name="a")
    key = str(Tag.objects.create(pk=1, name="b").pk)
    assert call("remove", spelling.format(key)) == 0
    assert call("update", spelling.format(key), {"$set": {"name": "c"}}) == 0
    assert set(Tag.objects.values_list("name", flat=True)) == {"a", "b"}


@pytest.mark.parametrize(
    "modifier", [{}, {"name": "b"}, {"$inc": {"name": 1}}, {"$set": {"name": "b"}, "$push": {"name": "c"}}]
)
def test_other_modifiers(ann: User, modifier: Any) -> None:
    register(Tag)
    key = call("insert", {"name": "a"})
    assert refused("update", key, modifier)[:2] == (400, "Only $set and $unset are possible here")
    for wrong in ({"$set": 1}, {"$set": {"name": "b"}, "$unset": {"name": ""}}, "x"):
        assert refused("update", key, wrong)[:2] == (400, "Match failed")
    error = refused("update", key, {"$set": {"name": "b"}}, {"upsert": True})
    assert error == (403, "Access denied. Upserts not allowed in a restricted collection.")
    assert call("update", key, {"$set": {"name": "c"}}, {"multi": True}) == 1
    assert call("update", key, {"$set": {"name": "d"}}, None) == 1


def test_unset(ann: User) -> None:
    register(Book, "books")
    author = Author.objects.create(name="a", email="a@x.org")
    tag = Tag.objects.create(name="t")
    key = call("insert", {
        "title": "t", "author_id": str(author.pk), "price": "1", "in_stock": False, "tags_ids": [str(tag.pk)],
    }, collection="books")  # fmt: skip
    everything = {"price": "", "in_stock": 1, "tags_ids": True}
    assert call("update", key, {"$unset": everything}, collection="books") == 1
    book = Book.objects.get()
    assert (book.price, book.in_stock, list(book.tags.all())) == (None, True, [])
    for required in ("title", "author_id"):
        with pytest.raises(ValidationError):
            call("update", key, {"$unset": {required: ""}}, collection="books")


def test_values_as_documents_have_them(ann: User, nothing_required: None) -> None:
    """A document told to a client may be sent back as it is."""
    register(Every)
    when = datetime.datetime(2024, 2, 29, 12, 30, tzinfo=datetime.UTC)
    obj = Every.objects.create(
        big_integer=2**60, boolean=True, char="c", date=when.date(), datetime=when,
        decimal=decimal.Decimal("1.5"), duration=datetime.timedelta(days=1, seconds=3), email="a@x.org",
        float=1.5, generic_ip_address="::1", integer=-3, json={"a": [1, None, {"$date": 1}]},
        positive_integer=3, slug="s", text="t", time=datetime.time(1, 2, 3), url="http://x.org/",
        uuid="12345678123456781234567812345678", size="l", legs=4, writer="w",
    )  # fmt: skip
    collection = API.get_col_by_name("tested")
    _, told = collection.serializer().document_of_instance(Every.objects.get())
    document = {
        name: ejson.decode(text) for name, text in told.items() if name in writable_fields(collection)
    }
    assert set(told) - set(document) == {
        "binary", "shouted", "doubled", "file", "image", "file_path",
    }  # fmt: skip
    key = call("insert", document)
    copy = Every.objects.get(pk=key)
    for name in document:
        assert getattr(copy, name) == getattr(Every.objects.get(pk=obj.pk), name), name
    assert call("update", key, {"$set": document}) == 1
    assert call("update", key, {"$set": dict.fromkeys(document)}) == 1
    copy.refresh_from_db()
    assert [getattr(copy, name) for name in document] == [None] * len(document)
    assert copy.unserialized == "secret"


def test_values_of_postgresqls_own_types(ann: User, nothing_required: None) -> None:
    register(EveryPostgres)
    day = datetime.date(2024, 2, 29)
    obj = EveryPostgres.objects.create(
        integers=[1, 2], matrix=[[1, 2], [3, 4]], dates=[day, day], decimals=["1.50"], texts=["a"],
        jsons=[{"a": 1}], integer_range=NumericRange(1, 5), decimal_range=NumericRange(None, 5, "(]"),
        date_range=DateRange(day, None), big_integer_range=NumericRange(empty=True),
    )  # fmt: skip
    collection = API.get_col_by_name("tested")
    _, told = collection.serializer().document_of_instance(EveryPostgres.objects.get())
    document = {name: ejson.decode(text) for name, text in told.items() if name != "search"}
    copy = EveryPostgres.objects.get(pk=call("insert", document))
    stored = EveryPostgres.objects.get(pk=obj.pk)
    for name in document:
        assert getattr(copy, name) == getattr(stored, name), name


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("integer", 1.5), ("integer", True), ("integer", "x"), ("integer", {}), ("char", 1), ("char", "\0"),
        ("char", "\ud800"), ("boolean", 1), ("boolean", "true"), ("date", "2024-01-01"), ("datetime", 0),
        ("decimal", "x"), ("decimal", "NaN"), ("decimal", True), ("decimal", []), ("duration", "x"),
        ("time", "25:00"), ("uuid", "x"),
        ("float", "1"), ("float", False), ("json", {"a": float("nan")}), ("json", b"x"),
        ("json", {"\0": 1}),
        ("json", datetime.datetime.now(datetime.UTC)), ("json", ["\ud800"]),
        ("integers", 1), ("integers", ["x"]), ("texts", [None, 1]),
        ("integer_range", {"lower": 3, "upper": 1}),
        ("integer_range", {"lower": "x"}), ("integer_range", {"bounds": "x"}), ("integer_range", [1, 2]),
        ("date_range", {"lower": 3}),
    ],
)  # fmt: skip
def test_values_that_do_not_fit(ann: User, name: str, value: Any) -> None:
    register(Every if name in {field.name for field in Every._meta.fields} else EveryPostgres)
    code, reason, details = refused("insert", {name: value})
    assert (code, reason) == (400, "Match failed")
    assert details.startswith(f"{name}: Expected ")
    assert details.count("\n") == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [("integer", 2**40), ("positive_integer", -1), ("char", "x" * 101), ("size", "x"), ("email", "x"),
     ("decimal", "123456789012345678901234"), ("big_integer", "9" * 30)],
)  # fmt: skip
def test_values_that_full_clean_refuses(ann: User, nothing_required: None, name: str, value: Any) -> None:
    register(Every)
    with pytest.raises(ValidationError) as caught:
        call("insert", {name: value})
    assert set(caught.value.error_dict) == {name}


def test_without_time_zones(ann: User, nothing_required: None) -> None:
    register(Every)
    with override_settings(USE_TZ=False, TIME_ZONE="Asia/Tokyo"):
        when = datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.UTC)
        key = call("insert", {"datetime": when})
        assert Every.objects.get(pk=key).datetime == datetime.datetime(2024, 2, 29, 21)


# -- fields ---------------------------------------------------------------------------------------


def test_fields_that_are_not_for_clients(ann: User, nothing_required: None) -> None:
    register(Every, exclude=["char"])
    key = call("insert", {"text": "a"})
    for name in (
        "char",
        "id",
        "pk",
        "_id",
        "shouted",
        "file",
        "unserialized",
        "nothing",
        "json.a",
        "__class__",
    ):
        expected = (403, f"Access denied. Field '{name}' can't be written.")
        for operator in ("$set", "$unset"):
            assert refused("update", key, {"$set": {"text": "b"}, operator: {name: "x"}}
                           if operator == "$unset" else {operator: {name: "x"}}) == expected  # fmt: skip
        if name != "_id":
            assert refused("insert", {name: "x"}) == expected
    assert Every.objects.get().text == "a"


def test_writable_names_some(ann: User) -> None:
    register(Every, writable=["text", "integer", "char"], exclude=["char"])
    assert set(writable_fields(API.get_col_by_name("tested"))) == {"text", "integer"}
    own = {"serialize": lambda self, obj, meteor_ids=None: {"fields": {"text": obj.text}}}
    register(Every, "own", **own)
    register(Every, "named", **own, writable=["text"])
    assert writable_fields(API.get_col_by_name("own")) == {}
    assert set(writable_fields(API.get_col_by_name("named"))) == {"text"}
    register(Animal, "animals", writable=["friends", "mother_id"])
    assert set(writable_fields(API.get_col_by_name("animals"))) == {"friends_ids", "mother_id"}
    register(Bird, "birds")
    register(Nest, "nests")
    register(Stall, "stalls2")
    birds = writable_fields(API.get_col_by_name("birds"))
    assert not {"id", "animal_ptr_id", "admirers_ids"} & set(birds)  # admirers has a through model of its own
    assert {"name", "wingspan", "mother_id", "friends_ids", "eats_ids"} <= set(birds)
    assert set(writable_fields(API.get_col_by_name("nests"))) == {"eggs"}
    assert set(writable_fields(API.get_col_by_name("stalls2"))) == {"animal_id"}


def test_what_stays_empty_is_nobodys_mistake(ann: User) -> None:
    """A form would demand an account; the row is there without one, and the client changes something else."""
    keeper = Keeper.objects.create(name="a")
    register(Keeper)
    with pytest.raises(ValidationError) as caught:
        call("insert", {"name": "b"})
    assert set(caught.value.error_dict) == {"account"}
    assert call("update", keeper.aid, {"$set": {"name": "c"}}) == 1
    with pytest.raises(ValidationError):
        call("update", keeper.aid, {"$set": {"account_id": None}})
    with pytest.raises(ValidationError):
        call("update", keeper.aid, {"$set": {"name": ""}})


# -- relations ------------------------------------------------------------------------------------


def test_relations_are_document_ids(ann: User, nothing_required: None) -> None:
    keeper = Keeper.objects.create(name="k")
    species = [Species.objects.create(code=code, latin=code * 2) for code in "ab"]
    mother = Animal.objects.create(name="m")
    register(Animal)
    key = call("insert", {
        "name": "x", "keeper_id": keeper.aid, "species_id": "a", "by_latin_name_id": "b",
        "mother_id": str(mother.pk), "eats_ids": ["b", "a", "a"], "cage_id": None,
    })  # fmt: skip
    animal = Animal.objects.get(pk=key)
    assert (animal.keeper, animal.species, animal.by_latin_name, animal.mother) == (keeper, *species, mother)
    assert set(animal.eats.all()) == set(species)
    assert call("update", key, {"$set": {"eats_ids": [], "keeper_id": None}}) == 1
    animal.refresh_from_db()
    assert (animal.keeper, animal.eats.count()) == (None, 0)
    nobody = "There is no such document"
    for name, value, problem in [
        ("keeper_id", "x" * 17, nobody), ("mother_id", "999", nobody), ("mother_id", "x", nobody),
        ("mother_id", "9" * 30, nobody), ("eats_ids", ["a", "c"], nobody), ("cage_id", "x", nobody),
        ("mother_id", mother.pk, "Expected a document's id"), ("eats_ids", "a", "Expected a list of ids"),
        ("eats_ids", [None], "Expected a document's id"), ("eats_ids", None, "Expected a list of ids"),
    ]:  # fmt: skip
        assert refused("update", key, {"$set": {name: value}}) == (400, "Match failed", f"{name}: {problem}")


def test_what_is_referred_to_must_be_seen(ann: User) -> None:
    mine, other = Keeper.objects.create(name="a", account=ann), Keeper.objects.create(name="b")
    register(Animal, exclude=["name"])
    API.register(type("Own", (Collection,), {"model": Keeper, "name": "own", "user_rel": "account"}))
    for name, collection in list(API._collections.items()):
        if collection.model is Keeper and name != "own":  # the test project's
            del API._collections[name]
    key = str(Animal.objects.create(name="x").pk)
    assert call("update", key, {"$set": {"keeper_id": mine.aid}}) == 1
    gone = refused("update", key, {"$set": {"keeper_id": "x" * 17}})
    assert refused("update", key, {"$set": {"keeper_id": other.aid}}) == gone


def test_a_collection_of_a_proxy_says_what_is_seen(ann: User) -> None:
    hidden, shown = (Animal.objects.create(name=name) for name in ("hidden", "shown"))
    register(Visit)
    API.register(type("Proxies", (Collection,), {"model": AnimalProxy, "qs_filter": ~Q(name="hidden")}))
    keeper = Keeper.objects.create(name="k")
    document = {"keeper_id": keeper.aid, "animal_id": str(shown.pk)}
    key = call("insert", document)
    assert Visit.objects.get(pk=key).animal == shown
    assert refused("update", key, {"$set": {"animal_id": str(hidden.pk)}})[0] == 400
