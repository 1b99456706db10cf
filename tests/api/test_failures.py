"""What clients are told of exceptions."""

from __future__ import annotations

from typing import Any

import pytest
from django import forms
from django.core.exceptions import ObjectDoesNotExist, PermissionDenied, ValidationError
from django.http import Http404
from django.utils.translation import gettext_lazy

from tests.conftest import Database
from trigger_ddp import ejson
from trigger_ddp.api.failures import as_meteor_error
from trigger_ddp.demo.bookstore.models import Author
from trigger_ddp.errors import MeteorError

OWN = MeteorError("own", "My own", [1])


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (OWN, "own", "My own"),
        (PermissionDenied("SELECT secret"), 403, "Access denied"),
        (Author.DoesNotExist("Author secret"), 404, "Not found"),
        (ObjectDoesNotExist(), 404, "Not found"),
        (Http404("No secret matches"), 404, "Not found"),
        (ValidationError("x"), "validation-error", "Validation failed"),
    ],
)
def test_what_is_told(error: Exception, code: Any, reason: str) -> None:
    told = as_meteor_error(error)
    assert told is not None
    assert (told.error, told.reason) == (code, reason)
    assert told is error or error is not OWN
    assert "secret" not in str(told.as_dict())


@pytest.mark.parametrize(
    "error",
    [ValueError("secret"), LookupError(), Author.MultipleObjectsReturned(), SystemExit(), PermissionError()],
)
def test_what_is_not(error: BaseException) -> None:
    assert as_meteor_error(error) is None


def details(error: ValidationError) -> Any:
    told = as_meteor_error(error)
    assert told is not None
    assert ejson.decode(ejson.encode(told.details)) == told.details
    return told.details


def test_the_details_of_a_validation_error(db: Database) -> None:
    Author.objects.create(name="a", email="a@example.com")
    with pytest.raises(ValidationError) as caught:
        Author(name="", email="a@example.com").full_clean()
    assert details(caught.value) == [
        {"name": "name", "type": "blank", "message": "This field cannot be blank."},
        {"name": "email", "type": "unique", "message": "Author with this Email already exists."},
    ]
    with pytest.raises(ValidationError) as caught:
        forms.IntegerField(max_value=3).clean("5")
    assert details(caught.value) == [
        {"name": "__all__", "type": "max_value", "message": "Ensure this value is less than or equal to 3."}
    ]
    lazily = ValidationError({"a": ["one", ValidationError(gettext_lazy("two %(n)s"), "code", {"n": 2})]})
    assert details(lazily) == [
        {"name": "a", "type": "invalid", "message": "one"},
        {"name": "a", "type": "code", "message": "two 2"},
    ]
