"""What the tests of trigger_ddp.accounts ask for by the environment of their server."""

from __future__ import annotations

import logging
import os
from typing import Any

from django.contrib.auth import signals as django_signals
from django.contrib.auth.models import User

from trigger_ddp.accounts import hooks, signals
from trigger_ddp.accounts.ddp import remove_default_rate_limit
from trigger_ddp.api import MeteorError

logger = logging.getLogger("tests.accounts")

if os.environ.get("TDDP_TEST_NO_RATE_LIMIT"):
    remove_default_rate_limit()

if os.environ.get("TDDP_TEST_ACCOUNT_HOOKS"):
    for module, names in (
        (django_signals, ["user_logged_in", "user_logged_out", "user_login_failed"]),
        (signals, ["create_user", "password_changed", "forgot_password", "password_reset"]),
    ):
        for name in names:

            def tell(*, _name: str = name, request: Any = None, **values: Any) -> None:
                told = {key: str(values[key]) for key in ("user", "credentials", "params") if key in values}
                logger.warning("signal %s %s %s", _name, request.META["REMOTE_ADDR"], told)

            getattr(module, name).connect(tell, weak=False)

    @hooks.validate_login_attempt
    def validate(attempt: hooks.LoginAttempt) -> bool:
        logger.warning(
            "attempt %s %s %s %s", attempt.type, attempt.method_name, attempt.user, attempt.allowed
        )
        if attempt.user is not None and attempt.user.username == "banned":
            raise MeteorError(403, "You are banned")
        return attempt.user is None or attempt.user.username != "unwelcome"

    @hooks.on_login
    def logged_in(attempt: hooks.LoginAttempt) -> None:
        logger.warning("on_login %s", attempt.user)

    @hooks.on_login_failure
    def failed(attempt: hooks.LoginAttempt) -> None:
        logger.warning("on_login_failure %s %s", attempt.user, attempt.error)

    @hooks.on_logout
    def logged_out(user: Any, connection: Any) -> None:
        logger.warning("on_logout %s %s", user, connection.client_address)

    @hooks.validate_new_user
    def may_be(user: Any) -> bool:
        return bool(user.username != "impossible")

    @hooks.on_create_user
    def complete(options: Any, user: Any) -> None:
        assert "password" not in options
        user.first_name = options.get("firstName", "")
        user.ddp_account.profile["made"] = "here"

    @hooks.register_login_handler("magic")
    def magic(options: Any) -> Any:
        if "magic" not in options:
            return None
        if options["magic"] != "please":
            raise MeteorError(403, "Say please")
        return User.objects.get(username="ann")

    @hooks.extend_user_document
    def staff(user: Any) -> dict[str, Any]:
        return {"staff": user.is_staff}


if os.environ.get("TDDP_TEST_ACCOUNT_HOOKS") == "writes":

    @hooks.on_login_failure
    def write_down(attempt: hooks.LoginAttempt) -> None:
        User.objects.update(last_name="failed once")
