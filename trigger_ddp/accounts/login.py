"""From a proof of who it is to a connection that is logged in, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

from django.contrib.auth import authenticate
from django.contrib.auth.hashers import check_password
from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed
from django.db import transaction
from django.http import HttpRequest
from django.utils import timezone

from trigger_ddp.accounts import hooks, tokens
from trigger_ddp.accounts.hashers import Digest, hash_password, is_ours, waste_time
from trigger_ddp.accounts.hooks import LoginAttempt
from trigger_ddp.accounts.models import LoginToken
from trigger_ddp.accounts.users import find, refusal
from trigger_ddp.api import get_meteor_id, this
from trigger_ddp.errors import MeteorError

#: The key of the login token that a connection uses, by `this.connection`.
_tokens: WeakKeyDictionary[Any, int] = WeakKeyDictionary()


def request_of(connection: Any) -> HttpRequest:
    """A connection as receivers of Django's signals and authentication backends expect it."""
    request = HttpRequest()
    request.META["REMOTE_ADDR"] = connection.client_address
    for name, value in connection.http_headers.items():
        request.META["HTTP_" + name.upper().replace("-", "_")] = value
    return request


# -- passwords --------------------------------------------------------------------------------------


def by_password(selector: Mapping[str, str], password: str) -> Any:
    """The user that a selector means, if the password is right.

    A text is shown to the project's authentication backends; where they accept it, the user's hash becomes
    one that digests can be compared with. A `Digest` can only be compared with such a hash.

    Raises:
        MeteorError: 403.
    """
    user = find(selector)
    if isinstance(password, Digest):
        problem = _problem_with_digest(user, password)
        if problem is not None:
            _tell_of_failure(selector)
            raise refusal(problem)
        return user
    # PostgreSQL, and what else backends ask, could not even be asked for a NUL character.
    if (user is None and "username" not in selector) or "\x00" in "".join((*selector.values(), password)):
        waste_time(password)
        _tell_of_failure(selector)
        raise refusal("User not found" if user is None else "Incorrect password")
    # A backend may know users that we do not: a directory's, which makes its users at their first login.
    name = selector["username"] if user is None else user.get_username()
    # By the names that Django's own login form uses, so that all backends know them.
    known = authenticate(request_of(this.connection), username=name, password=password)
    if known is None:
        raise refusal("User not found" if user is None else "Incorrect password")
    # A backend may have accepted another password than the user's own here, which stays what it is.
    if not is_ours(known.password) and check_password(password, known.password):
        upgrade(known, password)
    return known


def _tell_of_failure(selector: Mapping[str, str]) -> None:
    """As `authenticate` does where it is asked."""
    user_login_failed.send(sender=__name__, credentials=dict(selector), request=request_of(this.connection))


def _problem_with_digest(user: Any, digest: Digest) -> str | None:
    if user is None or not user.has_usable_password() or not is_ours(user.password):
        waste_time(digest)
        return "User not found" if user is None else "User has no password set"
    return None if check_password(digest, user.password) else "Incorrect password"


def upgrade(user: Any, password: str) -> None:
    """Store the hash of a password that is known to be right so that digests can be compared with it."""
    before, user.password = user.password, hash_password(password)
    type(user)._base_manager.filter(pk=user.pk, password=before).update(password=user.password)


# -- logging in -------------------------------------------------------------------------------------


def attempt(method_name: str, kind: str, identify: Callable[[], Any]) -> dict[str, Any]:
    """Log in whoever ``identify`` returns, and tell who wants to know.

    Args:
        method_name: what the client has called.
        kind: the service, as of `LoginAttempt.type`.
        identify: returns a user, or a user with its login token's text and row.

    Returns:
        The method's result: ``id``, ``token``, ``tokenExpires`` and ``type``.

    Raises:
        MeteorError: the login fails.
    """
    attempt = LoginAttempt(kind, method_name, this.connection)
    token = row = None
    try:
        try:
            found = identify()
        except MeteorError as error:
            attempt.error = error
        else:
            attempt.user, token, row = found if isinstance(found, tuple) else (found, None, None)
            if not getattr(attempt.user, "is_active", True):
                attempt.error = MeteorError(403, "Login forbidden")
        hooks.validate(attempt)
        if attempt.error is not None:
            raise attempt.error
        with transaction.atomic():
            if kind == "password":
                _keep_password(attempt.user)
            result = _log_in(attempt.user, token, row)
    except Exception as error:
        attempt.error = error
        for function in hooks.registry.failures:
            function(attempt)
        raise
    for function in hooks.registry.logins:
        function(attempt)
    return {**result, "type": kind}


def _log_in(user: Any, token: str | None, row: LoginToken | None) -> dict[str, Any]:
    if token is None or row is None:
        token, row = tokens.issue(user)
    # Before the connection knows its user: what receivers write into the user's row is no news to it then.
    user_logged_in.send(sender=type(user), request=request_of(this.connection), user=user)
    return use(user, token, row)


def _keep_password(user: Any) -> None:
    """Have a user's password stay as it was read until the transaction ends.

    Comparing it took its time. A reset meanwhile has logged out whoever knew the old password, and must not
    be followed by a login with it.

    Raises:
        MeteorError: 403, it is another by now.
    """
    locked = type(user)._base_manager.select_for_update(no_key=True).filter(pk=user.pk)
    if locked.values_list("password", flat=True).first() != user.password:
        raise refusal("Incorrect password")


def use(user: Any, token: str, row: LoginToken) -> dict[str, Any]:
    """Log this connection in as a user, for as long as the row of the token is there."""
    this.set_user_id(user.pk, lease=row)
    _tokens[this.connection] = row.pk
    return {"id": get_meteor_id(user), "token": token, "tokenExpires": tokens.expires(row)}


def by_resume_token(token: str) -> tuple[Any, str, LoginToken]:
    """Whose token it is, the token, and its row.

    Raises:
        MeteorError: 403, it is nobody's any more.
    """
    row = LoginToken.objects.select_related("user").filter(hashed_token=tokens.hash_token(token)).first()
    if row is None:
        raise MeteorError(403, "You've been logged out by the server. Please log in again.")
    if timezone.now() >= tokens.expires(row):
        raise MeteorError(403, "Your session has expired. Please log in again.")
    return row.user, token, row


def own_tokens() -> Any:
    """The login tokens of this connection's user."""
    return LoginToken.objects.filter(user=this.user)


def current_token() -> LoginToken | None:
    """The row of the login token that this connection uses."""
    row: LoginToken | None = own_tokens().filter(pk=_tokens.get(this.connection)).first()
    return row


def log_out() -> None:
    """End this connection's login, and its token."""
    user, key = this.user, _tokens.pop(this.connection, None)
    this.set_user_id(None)
    if user is None:
        return
    LoginToken.objects.filter(user=user, pk=key).delete()
    user_logged_out.send(sender=type(user), request=request_of(this.connection), user=user)
    for function in hooks.registry.logouts:
        function(user, this.connection)
