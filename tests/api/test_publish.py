"""Publications that are functions, and those without a name, as they are declared and checked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User

from tests.zoo.models import Keeper
from trigger_ddp.api import API, AlreadyRegistered, Collection, Handle, Publication, api_endpoint
from trigger_ddp.api.checks import check_declarations
from trigger_ddp.api.registry import DDP
from trigger_ddp.demo.bookstore.models import Author, Tag


@pytest.fixture
def api() -> DDP:
    return DDP()


@pytest.fixture
def declared() -> Iterator[DDP]:
    """The real registry, as it was when the test is over."""
    with API.restored():
        yield API


def problems() -> list[tuple[str, str]]:
    return [(message.id or "", message.msg) for message in check_declarations()]


def test_a_function_becomes_a_publication(api: DDP) -> None:
    async def ticks(handle: Handle, start: int) -> None: ...

    assert api.publish("ticks")(ticks) is ticks
    publication = api.get_pub_by_name("ticks")
    assert publication.publish is ticks
    assert publication.label == "ticks"
    with pytest.raises(AlreadyRegistered, match=r"'ticks' of tests\.api\.test_publish\.ticks is already"):
        api.publish("ticks")(ticks)


def test_only_async_functions(api: DDP) -> None:
    def books(handle: Handle) -> None: ...

    async def generator(handle: Handle) -> Any:
        yield 1

    for function in (books, generator):
        with pytest.raises(TypeError, match=r"not an `async def`.*get_queries"):
            api.publish("books")(function)
    assert not api.publications
    with pytest.raises(TypeError, match=r'@API\.publish\("name"\)'):
        api.publish(books)  # type: ignore[arg-type]


def test_publications_without_a_name_are_universal(api: DDP) -> None:
    @api.register
    class Tags(Publication):
        name = None
        queries = [Tag.objects.all()]

        @api_endpoint
        def count(self) -> int:
            return 0

    @api.publish(None)
    async def motd(handle: Handle) -> None: ...

    @api.register
    class Named(Tags):
        @api_endpoint
        def count(self) -> int:
            return 1

    assert [publication.label for publication in api.universal_publications] == ["Tags", "motd"]
    assert list(api.publications) == ["Named"]
    assert set(api.api_path_map()) >= {"publication/Tags/count", "publication/Named/count"}


def test_restored_forgets_universal_publications(declared: DDP) -> None:
    with declared.restored():
        declared.register(type("Tags", (Publication,), {"name": None, "queries": [Tag.objects.all()]}))
        assert len(declared.universal_publications) == 1
    assert len(declared.universal_publications) == 0


def test_ready_is_called_of_universal_publications(api: DDP) -> None:
    called = []

    class Tags(Publication):
        name = None
        queries = [Tag.objects.all()]

        def ready(self) -> None:
            called.append(self)

    api.register(Tags)
    api.ready()
    assert called == list(api.universal_publications)


def test_watched_models_of_universal_publications_and_users(api: DDP) -> None:
    class Universal(Publication):
        name = None
        queries = [Author.objects.filter(books__tags__name="x")]
        depends_on = ["auth.Group"]

    api.register(Universal)
    labels = {model._meta.label for model in api.watched_models()}
    assert {"bookstore.Author", "bookstore.Tag", "auth.Group"} <= labels
    assert "auth.User" not in labels

    class Keepers(Collection):
        model = Keeper
        user_rel = "account"

    api.register(Keepers)
    assert set(api.watched_models()) >= {User, User.groups.through, User.user_permissions.through}


async def _publish(self: Any, handle: Handle) -> None: ...


async def _publish_with_params(self: Any, handle: Handle, name: str) -> None: ...


async def _publish_nothing(self: Any) -> None: ...


def _not_async(self: Any, handle: Handle) -> None: ...


def _queries(self: Any) -> list[Any]:
    return []


def _queries_with_params(self: Any, name: str) -> list[Any]:
    return []


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"publish": _publish}, []),
        ({"publish": _publish_with_params}, []),
        ({"publish": _publish, "name": None}, []),
        ({"get_queries": _queries, "name": None}, []),
        ({"publish": _not_async}, ["E112"]),
        ({"publish": _publish, "get_queries": _queries}, ["E113"]),
        ({"publish": _publish, "queries": []}, ["E113"]),
        ({"publish": _publish_nothing}, ["E114"]),
        ({"publish": _publish_with_params, "name": None}, ["E114"]),
        ({"get_queries": _queries_with_params, "name": None}, ["E114"]),
        ({"name": None}, ["E102"]),
        ({"name": None, "queries": ["books"]}, ["E103"]),
    ],
)
def test_system_checks(declared: DDP, attributes: dict[str, Any], expected: list[str]) -> None:
    before = problems()
    declared.register(type("Odd", (Publication,), attributes))
    new = [problem for problem in problems() if problem not in before]
    assert [identifier for identifier, _ in new] == [f"trigger_ddp.{one}" for one in expected]
    assert all("'Odd'" in text for _, text in new)
