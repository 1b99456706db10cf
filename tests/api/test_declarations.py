"""Collections, publications and methods as a ddp.py declares them."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, Group, Permission, User
from django.contrib.contenttypes.models import ContentType
from django.db.models import Q, QuerySet
from django.test import override_settings
from django.utils.functional import SimpleLazyObject

from tests.api.documents import collection_of
from tests.conftest import Database
from tests.zoo.models import Animal, AnimalProxy, Bird, Keeper, Species, Visit
from trigger_ddp.api import (
    API,
    AlreadyRegistered,
    APIMixin,
    Collection,
    MeteorError,
    Publication,
    api_endpoint,
    this,
)
from trigger_ddp.api.registry import DDP
from trigger_ddp.demo.bookstore.models import Author, Book, Tag
from trigger_ddp.errors import ConfigurationError


@pytest.fixture
def api() -> DDP:
    """A registry of the test's own."""
    return DDP()


class Books(Collection):
    model = Book


class Authors(Collection):
    model = Author
    name = "writers"


def test_names_and_prefixes() -> None:
    assert (Books.name, Books.api_path_prefix) == ("bookstore.book", "/bookstore.book/")
    assert (Authors.name, Authors.api_path_prefix) == ("writers", "/writers/")

    class Recent(Publication):
        queries = []

    class Renamed(Recent):
        name = "recent.books"

    class Inheriting(Renamed):
        pass

    class Bare(APIMixin):
        api_path_prefix = ""

    assert (Recent.name, Recent.api_path_prefix) == ("Recent", "publication/Recent/")
    assert (Renamed.name, Renamed.api_path_prefix) == ("recent.books", "publication/recent.books/")
    assert (Inheriting.name, Inheriting.api_path_prefix) == ("Inheriting", "publication/Inheriting/")
    assert (Bare.name, Bare.api_path_prefix, APIMixin.api_path_prefix) == ("Bare", "", "/")


class Counter(APIMixin):
    value = 0

    @api_endpoint
    def increment(self, amount: int) -> int:
        self.value += amount
        return self.value

    @api_endpoint("Decrement")
    def decrement(self, amount: int) -> int:
        self.value -= amount
        return self.value

    @api_endpoint(decorate=False)
    async def later(self) -> int:
        return self.value

    @api_endpoint
    @staticmethod
    def constant() -> int:
        return 7

    @property
    def trap(self) -> None:
        raise AssertionError("looking for endpoints must not run properties")


def test_endpoints(api: DDP) -> None:
    api.register(Counter)
    methods = api.api_path_map()
    assert set(methods) == {"/schema", "/increment", "/Decrement", "/later", "/constant"}
    assert methods["/increment"](3) == 3
    assert methods["/Decrement"](1) == 2
    assert asyncio.run(methods["/later"]()) == 2
    assert methods["/constant"]() == 7


def test_endpoints_of_providers_and_bare_names(api: DDP) -> None:
    class Login(APIMixin):
        api_path_prefix = ""

        @api_endpoint
        def login(self) -> str:
            return "in"

    class Site(APIMixin):
        api_providers = [Login(), Counter()]

    api.register([Site])
    assert {"login", "/increment"} <= set(api.api_path_map())


calls: list[str] = []


def noting(name: str) -> Callable[[], Any]:
    def factory() -> Any:
        def decorator(function: Any) -> Any:
            def wrapper(*args: Any) -> Any:  # without functools.wraps, as applications write them
                calls.append(name)
                return function(*args)

            return wrapper

        return decorator

    return factory


first, second = noting("first"), noting("second")


def test_endpoint_decorators(api: DDP) -> None:
    paths = [f"{__name__}.first", f"{__name__}.second"]
    with override_settings(DDP_API_ENDPOINT_DECORATORS=paths):

        class Decorated(APIMixin):
            @api_endpoint
            def both(self) -> int:
                return 1

            @api_endpoint(decorate=False)
            def neither(self) -> int:
                return 2

    api.register(Decorated)
    calls.clear()
    assert api.api_path_map()["/neither"]() == 2
    assert not calls
    assert api.api_path_map()["/both"]() == 1
    assert calls == ["second", "first"], "the first is applied first, hence innermost"


def test_registering(api: DDP) -> None:
    class Numbers(Publication):
        queries = []

    assert api.register(Numbers) is Numbers
    classes = [Books, Authors]
    assert api.register(classes) is classes
    assert list(api.collections) == ["bookstore.book", "writers"]
    assert list(api.publications) == ["Numbers"]
    assert isinstance(api.get_pub_by_name("Numbers"), Numbers)
    assert isinstance(api.get_col_by_name("writers"), Authors)
    for lookup in (api.get_pub_by_name, api.get_col_by_name):
        with pytest.raises(KeyError):
            lookup("Nobody")
    with pytest.raises(TypeError):
        api.collections["x"] = 1  # type: ignore[index]


def test_registering_twice(api: DDP) -> None:
    class Numbers(Publication):
        queries = []

    class Digits(Publication):
        name = "Numbers"
        queries = []

    class Volumes(Collection):
        model = Book

    class OtherCounter(APIMixin):
        @api_endpoint
        def increment(self) -> None:
            """Clashes."""

    api.register([Numbers, Books, Counter])
    before = api.api_path_map()
    for second_class, words in (
        (Digits, ("publication 'Numbers'", "Digits", ".Numbers;")),
        (Volumes, ("collection 'bookstore.book'", "Volumes", f"{__name__}.Books")),
        (OtherCounter, ("method '/increment'", "OtherCounter", f"{__name__}.Counter")),
    ):
        with pytest.raises(AlreadyRegistered) as caught:
            api.register(second_class)
        assert all(word in str(caught.value) for word in words)
    assert api.api_path_map() == before


def test_restored() -> None:
    before = (dict(API.collections), dict(API.publications), API.api_path_map())
    with API.restored():
        API.register([Authors, Counter])
        assert "writers" in API.collections
        assert "/increment" in API.api_path_map()
    assert (dict(API.collections), dict(API.publications), API.api_path_map()) == before


def test_collections_of_models(api: DDP) -> None:
    api.register([Books, Authors])
    assert isinstance(api.collection_for_model(Author), Authors)
    assert api.get_collection(Book) is api.collection_for_model(Book)
    with pytest.raises(ConfigurationError, match=r"bookstore\.Tag"):
        api.collection_for_model(Tag)

    class Animals(Collection):
        model = Animal

    api.register(Animals)
    assert isinstance(api.collection_for_model(AnimalProxy), Animals)
    with pytest.raises(ConfigurationError):
        api.collection_for_model(Bird)

    class MoreAuthors(Collection):
        model = Author
        name = "more"

    api.register(MoreAuthors)
    with pytest.raises(ConfigurationError, match="writers, more"):
        api.collection_for_model(Author)

    class DefaultAuthors(Collection):
        model = Author

    api.register(DefaultAuthors)
    assert isinstance(api.collection_for_model(Author), DefaultAuthors)


def test_queries_and_their_collections(api: DDP) -> None:
    api.register([Books, Authors])
    books = Book.objects.all()
    assert api.qs_and_collection(books) == (books, api.get_col_by_name("bookstore.book"))
    queryset, collection = api.qs_and_collection((Author.objects, "writers"))
    assert isinstance(queryset, QuerySet)
    assert collection.name == "writers"
    for wrong in (
        None,
        "books",
        Book,
        (books, "nobody"),
        (books, "writers"),
        (1, "writers"),
        Tag.objects.all(),
    ):
        with pytest.raises(ConfigurationError):
            api.qs_and_collection(wrong)


def test_watched_models(api: DDP) -> None:
    class Birds(Collection):
        model = Bird
        depends_on = ["eats", "keeper__account__groups", "auth.Permission", Book]

    class AllAuthors(Publication):
        queries = [(Author.objects.filter(books__tags__name="x"), "writers")]
        depends_on = [ContentType]

    api.register([Birds, AllAuthors])
    assert api.watched_models() == [
        Bird, Animal, Species, Keeper, Animal.friends.through, Animal.eats.through, Visit,
        User, User.groups.through, Group, Permission, Book, Author, Book.tags.through, Tag, ContentType,
    ]  # fmt: skip


def test_conditions_of_collections_are_watched(api: DDP) -> None:
    class Tags(Collection):
        model = Tag
        qs_filter = Q(books__author__name="A")
        order_by = ["-books__title"]

    api.register([Tags])
    assert set(api.watched_models()) == {Tag, Book, Author, Book.tags.through}

    class Animals(Collection):
        model = AnimalProxy
        user_rel = "keeper__account"
        exclude = [field.name for field in Animal._meta.get_fields() if field.name != "name"]

    api.register(Animals)
    assert api.watched_models()[-5:] == [
        Animal, Keeper, User, User.groups.through, User.user_permissions.through,
    ]  # fmt: skip


def test_subqueries_of_static_queries_are_watched(api: DDP) -> None:
    class Some(Publication):
        queries = [Book.objects.filter(author__in=Author.objects.filter(books__tags__name="x"))]

    api.register([Some])
    assert set(api.watched_models()) == {Book, Author, Tag, Book.tags.through}


@pytest.mark.parametrize("wrong", ["nobody", "name__x", "zoo.Nobody", "a.b.c", "eats__nobody"])
def test_wrong_dependencies(api: DDP, wrong: str) -> None:
    api.register(type("Animals", (Collection,), {"model": Animal, "depends_on": [wrong]}))
    with pytest.raises(ConfigurationError, match=wrong):
        api.watched_models()


def test_publications_name_no_paths(api: DDP) -> None:
    api.register(type("Some", (Publication,), {"queries": [], "depends_on": ["author"]}))
    with pytest.raises(ConfigurationError, match="author"):
        api.watched_models()


# Publications


def test_static_queries() -> None:
    class All(Publication):
        queries = [Book.objects.all()]

    assert All().user_queries(None) == list(All.queries)
    with pytest.raises(MeteorError) as caught:
        All().user_queries(None, 1)
    assert (caught.value.error, caught.value.reason) == (400, "Match failed")


def test_get_queries_has_the_user_bound() -> None:
    class Mine(Publication):
        def get_queries(self, kind: str, count: int = 2) -> Iterator[Any]:
            yield (this.user, this.user_id, this.user_ddp_id, kind, count)

    user = User(pk=5)
    assert Mine().user_queries(user, "a") == [(user, 5, "5", "a", 2)]
    assert Mine().user_queries(None, "a", 3) == [(None, None, None, "a", 3)]
    assert Mine().user_queries(AnonymousUser(), "a") == [(None, None, None, "a", 2)]
    with this.bound(user=user, user_id=5, user_ddp_id="five"):
        assert Mine().user_queries(False, "a") == [(user, 5, "five", "a", 2)]
    for params in ((), ("a", "b"), (1,), ("a", 2, 3)):
        with pytest.raises(MeteorError) as caught:
            Mine().user_queries(None, *params)
        assert caught.value.error == 400


def test_what_get_queries_may_return() -> None:
    books = Book.objects.all()
    for returned, expected in (
        (None, []),
        (books, [books]),
        (Book.objects, [Book.objects]),
        ((books, "name"), [(books, "name")]),
        ((books, books), [books, books]),
        ([], []),
    ):
        publication = type("Some", (Publication,), {"get_queries": lambda self, answer=returned: answer})()
        assert [id(query) for query in publication.user_queries(None)] == [
            id(query) for query in expected
        ] or (publication.user_queries(None) == expected)


def test_a_publication_without_queries() -> None:
    class Nothing(Publication):
        pass

    with pytest.raises(ConfigurationError, match="Nothing"):
        Nothing().user_queries(None)


# this


def test_this_by_default() -> None:
    assert (this.user, this.user_id, this.user_ddp_id) == (None, None, None)
    with pytest.raises(AttributeError, match="user_id"):
        _ = this.connection
    with pytest.raises(AttributeError, match="bound"):
        this.user = 1
    assert not hasattr(this, "random_seed")


def test_this_is_of_one_context() -> None:
    with this.bound(user_id=1, random_seed="a"):
        with this.bound(user_id=2):
            assert (this.user_id, this.random_seed) == (2, "a")
            assert dir(this) == ["bound", "random_seed", "random_stream", "user", "user_ddp_id", "user_id"]
        assert this.user_id == 1
        seen: list[Any] = []
        for context in (contextvars.Context(), contextvars.copy_context()):
            thread = threading.Thread(target=context.run, args=(lambda: seen.append(this.user_id),))
            thread.start()
            thread.join()
        assert seen == [None, 1]
    with pytest.raises(ZeroDivisionError), this.bound(user_id=3):
        _ = 1 / 0
    assert this.user_id is None


# Who sees what


@pytest.fixture
def people(db: Database) -> dict[str, Any]:
    users = {
        name: User.objects.create(
            username=name, is_superuser=name in ("root", "fired"), is_active=name != "fired"
        )
        for name in ("ann", "ben", "root", "fired")
    }
    for name in ("ann", "ben"):
        keeper = Keeper.objects.create(name=name, account=users[name])
        for number in range(3):
            animal = Animal.objects.create(name=f"{name} {number}", keeper=keeper)
            Visit.objects.create(animal=animal, keeper=keeper)
            Visit.objects.create(animal=animal, keeper=keeper)
    return users


def names(queryset: QuerySet[Any]) -> list[str]:
    return [animal.name for animal in queryset]


def test_user_rel(people: dict[str, Any]) -> None:
    collection = collection_of(Animal, user_rel="keeper__account")
    mine = ["ann 0", "ann 1", "ann 2"]
    ann = people["ann"]
    for user in (ann, ann.pk, SimpleLazyObject(lambda: ann)):
        assert names(collection.objects_for_user(user)) == mine
    for nobody in (None, AnonymousUser(), User(), people["fired"], people["fired"].pk):
        assert names(collection.objects_for_user(nobody)) == []
    for everything in (people["root"], people["root"].pk):
        assert len(collection.objects_for_user(everything)) == 6
    strict = collection_of(Animal, user_rel="keeper__account", always_allow_superusers=False)
    assert names(strict.objects_for_user(people["root"])) == []


def test_user_rels_are_alternatives_and_rows_come_once(people: dict[str, Any]) -> None:
    collection = collection_of(Animal, user_rel=["keeper__account", "admirers__account"])
    Visit.objects.create(animal=Animal.objects.get(name="ben 1"), keeper=Keeper.objects.get(name="ann"))
    assert names(collection.objects_for_user(people["ann"])) == ["ann 0", "ann 1", "ann 2", "ben 1"]


def test_without_user_rel_everybody_sees_everything(people: dict[str, Any]) -> None:
    assert len(collection_of(Animal).objects_for_user(None)) == 6


def test_the_users_own_row(people: dict[str, Any]) -> None:
    collection = collection_of(User, user_rel="pk")
    assert list(collection.objects_for_user(people["ann"])) == [people["ann"]]


def test_filters_and_order(people: dict[str, Any]) -> None:
    collection = collection_of(
        Animal, qs_filter=Q(name__endswith="1") | Q(name__endswith="2"), order_by=["-name"]
    )
    assert names(collection.queryset) == ["ben 2", "ben 1", "ann 2", "ann 1"]
    assert names(collection.get_queryset(Animal.objects.order_by("name"))) == [
        "ann 1",
        "ann 2",
        "ben 1",
        "ben 2",
    ]
    assert collection_of(Book).queryset.query.order_by == ("pk",)
    assert collection_of(Animal).queryset.query.order_by == (), "the model has an ordering of its own"


def test_slices_are_of_what_may_be_seen(people: dict[str, Any]) -> None:
    collection = collection_of(Animal, user_rel="keeper__account", qs_filter=~Q(name__endswith="0"))
    base = Animal.objects.order_by("-name")[1:3]
    assert names(collection.objects_for_user(people["ann"], base)) == ["ann 1"]
    assert names(base) == ["ben 1", "ben 0"], "the queryset itself is left as it was"
    assert names(collection.get_queryset(base)) == ["ben 1", "ann 2"]


# The schema methods


def test_schema(api: DDP) -> None:
    api.register([Books])
    schema = api.api_path_map()["/bookstore.book/schema"]()
    assert schema["author_id"] == {
        "type": "String",
        "relation": {"name": "author", "collection": "bookstore.author"},
        "label": "Author",
    }
    assert schema["price"] == {"type": "String", "label": "Price", "optional": True}
    assert schema["tags_ids"]["type"] == "[String]"
    assert set(schema) == {
        column.name for column in api.get_col_by_name("bookstore.book").serializer().columns
    }
    assert api.api_path_map()["/schema"]() == {"bookstore.book": schema}
    assert collection_of(Book, decimal_as="number").schema()["price"]["decimal"] is True


def test_the_collections_of_a_publication(api: DDP) -> None:
    class Some(Publication):
        def get_queries(self, named: bool) -> list[Any]:
            second = (Animal.objects.all(), "beasts") if named else Animal.objects
            return [Book.objects.all(), second, Book.objects.none()]

    class Function(Publication):
        async def publish(self, handle: Any) -> None:
            """Tells what it likes."""

    api.register([Some, Function])
    collections = api.api_path_map()["publication/Some/collections"]
    assert (collections(True), collections(False)) == (
        ["beasts", "bookstore.book"],
        ["bookstore.book", "zoo.animal"],
    )
    for wrong in ([], ["x"]):
        with pytest.raises(MeteorError) as caught:
            collections(*wrong)
        assert caught.value.error == 400
    with pytest.raises(MeteorError) as caught:
        api.api_path_map()["publication/Function/collections"]()
    assert caught.value.error == 404
