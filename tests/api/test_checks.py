"""System checks of declarations and settings, each with the mistake it is for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core import checks
from django.db.models import Q

from tests.zoo.models import Animal, Keeper, Ticket
from trigger_ddp.api import API, Collection, Publication
from trigger_ddp.api.checks import check_declarations
from trigger_ddp.demo.bookstore.models import Author, Book


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    assert check_declarations() == []
    with API.restored():
        yield


def collection(**attributes: Any) -> None:
    API.register(type("Tested", (Collection,), {"name": "tested", **attributes}))


def publication(**attributes: Any) -> None:
    API.register(type("Tested", (Publication,), attributes))


def only_problem() -> checks.CheckMessage:
    (problem,) = check_declarations()
    return problem


@pytest.mark.parametrize(
    ("attributes", "problem_id", "words"),
    [
        ({}, "E101", "no model"),
        ({"model": "zoo.Animal"}, "E101", "no model"),
        ({"model": Animal, "user_rel": "nobody"}, "E104", "no field 'nobody'"),
        ({"model": Animal, "user_rel": ["keeper__account", "keeper__nobody"]}, "E104", "no field 'nobody'"),
        ({"model": Animal, "user_rel": "name__x"}, "E104", "no relation"),
        ({"model": Animal, "user_rel": "name"}, "E104", "no relation"),
        ({"model": Animal, "user_rel": "keeper"}, "E104", "leads to zoo.Keeper"),
        ({"model": Animal, "qs_filter": {"name": "x"}}, "E105", "Q object"),
        ({"model": Animal, "order_by": "name"}, "E106", "string"),
        ({"model": Animal, "decimal_as": "float"}, "E107", "'float'"),
        ({"model": Animal, "exclude": "name"}, "E108", "string"),
        ({"model": User, "exclude": ["password", "paswords"]}, "E111", "names no fields: paswords"),
        ({"model": Animal, "qs_filter": Q(nobody=1)}, "E109", "nobody"),
        ({"model": Animal, "order_by": ["nobody"]}, "E109", "nobody"),
        ({"model": Animal, "depends_on": ["zoo.Nobody"]}, "E109", "zoo.Nobody"),
        ({"model": User}, "W101", "password"),
    ],
)
def test_collections(attributes: dict[str, Any], problem_id: str, words: str) -> None:
    collection(**attributes)
    problem = only_problem()
    assert problem.id == f"trigger_ddp.{problem_id}"
    assert words in problem.msg
    assert "'tested'" in problem.msg
    assert problem.hint or problem_id == "E109"


@pytest.mark.parametrize(
    "attributes",
    [
        {"model": Animal, "user_rel": ("keeper__account", "admirers__account")},
        {
            "model": Animal,
            "qs_filter": Q(name="x") & ~Q(keeper__name="y"),
            "order_by": ["-keeper__name", "pk", "?"],
        },
        {"model": User, "exclude": ["password", "groups"], "user_rel": "pk"},
        {"model": Animal, "exclude": ["keeper_id", "eats"]},
        {"model": User, "serialize": lambda self, obj, meteor_ids=None: {"fields": {}}},
        {"model": Animal, "depends_on": ["eats", "keeper__account", "auth.User", Keeper]},
    ],
)
def test_nothing_to_complain_of(attributes: dict[str, Any]) -> None:
    collection(**attributes)
    assert check_declarations() == []


@pytest.mark.parametrize(
    ("attributes", "problem_id", "words"),
    [
        ({}, "E102", "neither queries nor get_queries"),
        ({"queries": [Animal.objects.all()]}, "E103", "zoo.Animal"),
        ({"queries": [(Book.objects.all(), "nobody")]}, "E103", "nobody"),
        ({"queries": ["books"]}, "E103", "'books'"),
        ({"queries": [], "depends_on": ["zoo.Nobody"]}, "E110", "zoo.Nobody"),
    ],
)
def test_publications(attributes: dict[str, Any], problem_id: str, words: str) -> None:
    publication(**attributes)
    problem = only_problem()
    assert problem.id == f"trigger_ddp.{problem_id}"
    assert words in problem.msg
    assert "'Tested'" in problem.msg


def test_two_collections_of_one_model() -> None:
    collection(model=Author)  # beside the bookstore's, which has the default name
    assert check_declarations() == []
    collection(model=Ticket, name="a")
    collection(model=Ticket, name="b")
    assert only_problem().id == "trigger_ddp.W102"


def test_the_checks_are_registered() -> None:
    collection()
    assert "trigger_ddp.E101" in {problem.id for problem in checks.run_checks(app_configs=[])}
