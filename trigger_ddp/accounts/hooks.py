"""What an application registers to be asked or told, by the names that Meteor's ``Accounts`` has.

Each function may be used as a decorator. Callbacks are plain functions; they run on a worker thread, in the
transaction that logs in, as far as there is one.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from trigger_ddp.errors import MeteorError

Function = TypeVar("Function", bound="Callable[..., Any]")


@dataclasses.dataclass(slots=True)
class LoginAttempt:
    """Somebody wants to log in.

    Args:
        type: the service: "password", "resume", or the name of a login handler.
        method_name: what the client has called: "login", "createUser", "resetPassword", "verifyEmail".
        connection: its `this.connection`.
        user: who it would be, if that is known.
        error: why it fails, if it does; a validator may replace it.
    """

    type: str
    method_name: str
    connection: Any
    user: Any = None
    error: Exception | None = None

    @property
    def allowed(self) -> bool:
        """Whether it succeeds, as far as is known."""
        return self.error is None


_NAMES = (
    "login_handlers", "validators", "logins", "failures", "logouts", "new_user_validators", "creators",
    "documents",
)  # fmt: skip


class _Registry:
    def __init__(self) -> None:
        self.login_handlers: dict[str, Callable[[Mapping[str, Any]], Any]] = {}
        self.validators: list[Callable[[LoginAttempt], object]] = []
        self.logins: list[Callable[[LoginAttempt], object]] = []
        self.failures: list[Callable[[LoginAttempt], object]] = []
        self.logouts: list[Callable[[Any, Any], object]] = []
        self.new_user_validators: list[Callable[[Any], object]] = []
        self.creators: list[Callable[[Mapping[str, Any], Any], object]] = []
        self.documents: list[Callable[[Any], Mapping[str, Any]]] = []

    @contextlib.contextmanager
    def restored(self) -> Iterator[None]:
        """A ``with`` block whose registrations are undone at its end; for tests."""
        before = {name: getattr(self, name).copy() for name in _NAMES}
        try:
            yield
        finally:
            for name, value in before.items():
                setattr(self, name, value)


registry = _Registry()


def register_login_handler(name: str) -> Callable[[Function], Function]:
    """Have a function log in clients by other means: ``@register_login_handler("ldap")``.

    It is called with the options of ``login`` and returns None where they are none of its business, or the
    user; or it raises a `MeteorError`.
    """

    def register(function: Function) -> Function:
        registry.login_handlers[name] = function
        return function

    return register


def validate_login_attempt(function: Function) -> Function:
    """Have ``function(attempt)`` asked for each `LoginAttempt`, also those that fail.

    It returns whether the login may go on, or raises a `MeteorError` that the client is told.
    """
    registry.validators.append(function)
    return function


def on_login(function: Function) -> Function:
    """Have ``function(attempt)`` called after each login."""
    registry.logins.append(function)
    return function


def on_login_failure(function: Function) -> Function:
    """Have ``function(attempt)`` called after each attempt that failed."""
    registry.failures.append(function)
    return function


def on_logout(function: Function) -> Function:
    """Have ``function(user, connection)`` called when a client logs out."""
    registry.logouts.append(function)
    return function


def validate_new_user(function: Function) -> Function:
    """Have ``function(user)`` asked, before it is saved, whether a user that createUser makes may be."""
    registry.new_user_validators.append(function)
    return function


def on_create_user(function: Function) -> Function:
    """Have ``function(options, user)`` change a user that createUser makes, before it is saved.

    ``options`` are the client's, without the password.
    """
    registry.creators.append(function)
    return function


def extend_user_document(function: Function) -> Function:
    """Have ``function(user)`` return further fields of users' documents, by their names.

    They are live as far as they are made of the user's own row: of its own columns, that is. Whoever a
    publication of ``users`` reaches sees them.
    """
    registry.documents.append(function)
    return function


def validate(attempt: LoginAttempt) -> None:
    """Ask the validators; afterwards ``attempt.error`` says why it fails, if it does."""
    for function in registry.validators:
        try:
            allowed = function(attempt)
        except MeteorError as error:
            attempt.error = error
        else:
            if not allowed and attempt.error is None:
                attempt.error = MeteorError(403, "Login forbidden")
