"""What the project with accounts adds: hooks, receivers and methods that tests look through."""

from __future__ import annotations

import logging
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed

from tests.accounts.hashers import Counting
from trigger_ddp.accounts import hooks, signals, tokens
from trigger_ddp.accounts.users import find
from trigger_ddp.api import API, APIMixin, MeteorError, Publication, api_endpoint, this
from trigger_ddp.demo.bookstore.models import Author, Tag

logger = logging.getLogger("tests")

#: Where `fail_here` raises just now, as the method `failing` says.
failing: set[str] = set()


def fail_here(where: str) -> None:
    """Raise, if a test wants that, on top of frames that have passwords and tokens in their variables."""
    if where in failing:
        raise RuntimeError(f"{where} fails")


for name, signal in {
    "user_logged_in": user_logged_in, "user_logged_out": user_logged_out,
    "user_login_failed": user_login_failed, "create_user": signals.create_user,
    "password_changed": signals.password_changed, "forgot_password": signals.forgot_password,
    "password_reset": signals.password_reset,
}.items():  # fmt: skip

    def receiver(sender: Any, request: Any, name: str = name, **kwargs: Any) -> None:
        logger.warning("signal %s of %s", name, request.META["REMOTE_ADDR"])
        fail_here(name)
        if name == "user_login_failed":
            assert "password" not in kwargs["credentials"] or set(kwargs["credentials"]["password"]) == {"*"}
            Tag.objects.get_or_create(name=name)  # a transaction that is rolled back would take it along

    signal.connect(receiver, weak=False)


@hooks.validate_login_attempt
def validate(attempt: hooks.LoginAttempt) -> bool:
    fail_here("validate")
    if attempt.user is not None and "reset-meanwhile" in attempt.user.get_username():
        user = get_user_model()._default_manager.get(pk=attempt.user.pk)
        if attempt.type == "password" and attempt.method_name == "login":
            user.set_password("somebody else's")
            user.save()
            tokens.forget_logins(user)
    if attempt.user is not None and "banned" in attempt.user.get_username():
        raise MeteorError("banned", "You are banned")
    return not (attempt.user is not None and "unwanted" in attempt.user.get_username())


@hooks.on_login
def logged_in(attempt: hooks.LoginAttempt) -> None:
    logger.warning("hook on_login %s %s", attempt.type, attempt.method_name)
    fail_here("on_login")


@hooks.on_login_failure
def failed(attempt: hooks.LoginAttempt) -> None:
    logger.warning("hook on_login_failure %s %s %s", attempt.type, attempt.method_name, attempt.error)


@hooks.on_logout
def logged_out(user: Any, connection: Any) -> None:
    logger.warning("hook on_logout %s", user.get_username())


@hooks.on_create_user
def created(options: Any, user: Any) -> None:
    assert "password" not in options
    fail_here("on_create_user")
    if "color" in (options.get("profile") or {}):
        user.ddp_account.profile = {**options["profile"], "hooked": True}


@hooks.validate_new_user
def validate_new(user: Any) -> bool:
    return "invalid" not in user.get_username()


@hooks.register_login_handler("magic")
def magic(options: Any) -> Any:
    if "magic" not in options:
        return None
    if options["magic"] != "abracadabra":
        raise MeteorError("no-magic", "Wrong word")
    return find({"email": "ann@x.org"})


@hooks.extend_user_document
def length(user: Any) -> dict[str, int]:
    return {"length": len(user.get_username())} if user.get_username().startswith("long") else {}


class Names(Publication):
    """Everybody's name, and no more."""

    def get_queries(self) -> Any:
        model: Any = get_user_model()
        return [(model.objects.only(model.USERNAME_FIELD), "users")]


class Mine(Publication):
    """What only who is logged in sees."""

    def get_queries(self) -> Any:
        return None if this.user is None else Author.objects.all()


class Methods(APIMixin):
    api_path_prefix = ""

    @api_endpoint
    def echo(self, value: Any) -> Any:
        return value

    @api_endpoint
    def who(self) -> Any:
        return None if this.user is None else this.user_ddp_id

    @api_endpoint
    def hashed(self) -> int:
        return Counting.hashed

    @api_endpoint
    def become(self, user_id: str) -> None:
        this.set_user_id(user_id)

    @api_endpoint("failing")
    def set_failing(self, where: list[str]) -> None:
        failing.clear()
        failing.update(where)

    @api_endpoint
    def sweep(self) -> int:
        return tokens.sweep()


API.register([Names, Mine, Methods])
