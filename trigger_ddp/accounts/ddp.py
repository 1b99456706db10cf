"""What clients call and subscribe to: the methods of Meteor's accounts packages, and ``users``.

Read along: Meteor's packages/accounts-base/accounts_server.js and accounts-password/password_server.js.
The methods run without a transaction around them, so that what is written about a login that fails stays.
"""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.hashers import check_password
from django.contrib.auth.password_validation import validate_password
from django.db import transaction

from trigger_ddp.accounts import hooks, login, signals, tokens
from trigger_ddp.accounts.hashers import Digest, hash_password, is_ours, waste_time
from trigger_ddp.accounts.mail import send_link
from trigger_ddp.accounts.models import LoginToken, MailToken
from trigger_ddp.accounts.options import ByPassword, ByToken, NewUser, Password, match, password_of
from trigger_ddp.accounts.profile import modified
from trigger_ddp.accounts.users import (
    account_of,
    document,
    email_field,
    email_of,
    find,
    make,
    refusal,
    username_field,
    validation_told,
    verify_address,
)
from trigger_ddp.api import API, APIMixin, Collection, Publication, api_endpoint, this
from trigger_ddp.api.documents import Serializer
from trigger_ddp.conf import settings
from trigger_ddp.errors import MeteorError


class Accounts(APIMixin):
    """Meteor's ``Accounts`` methods."""

    api_path_prefix = ""

    # -- in and out -----------------------------------------------------------------------------

    @api_endpoint
    @transaction.non_atomic_requests
    def login(self, options: dict[str, Any]) -> dict[str, Any]:
        """Log in by ``{"user": …, "password": …}``, ``{"resume": token}``, or what a login handler knows."""
        if options.get("resume"):
            return login.attempt(
                "login", "resume", lambda: login.by_resume_token(match(options, ByToken).resume)
            )
        if options.get("password"):
            return login.attempt("login", "password", lambda: _by_password(options))
        for kind, handler in hooks.registry.login_handlers.items():
            try:
                user, error = handler(options), None
            except MeteorError as refused:
                user, error = None, refused
            if user is not None or error is not None:
                return login.attempt("login", kind, lambda: _user_or(error, user))  # noqa: B023
        unrecognized = MeteorError(400, "Unrecognized options for login request")
        return login.attempt("login", "unknown", lambda: _user_or(unrecognized, None))

    @api_endpoint
    def logout(self) -> None:
        """Log out, and forget this login's token."""
        login.log_out()

    @api_endpoint("getNewToken")
    def get_new_token(self) -> dict[str, Any]:
        """A new token, which ends when the current one does."""
        _must_be_logged_in()
        current = login.current_token()
        if current is None:
            raise MeteorError("Invalid login token")
        return login.use(this.user, *tokens.issue(this.user, current.created))

    @api_endpoint("removeOtherTokens")
    def remove_other_tokens(self) -> None:
        """Log out everybody else who is logged in as this user."""
        _must_be_logged_in()
        _remove_other_tokens()

    @api_endpoint("logoutOtherClients")
    def logout_other_clients(self) -> dict[str, Any]:
        """As ``getNewToken`` and ``removeOtherTokens``, for clients of Meteor before 1.3."""
        result = self.get_new_token()
        _remove_other_tokens()
        return {name: result[name] for name in ("token", "tokenExpires")}

    @api_endpoint("configureLoginService")
    def configure_login_service(self, options: dict[str, Any]) -> None:
        """Refused: there are no login services that a client could configure."""
        if not isinstance(options.get("service"), str):
            raise MeteorError(400, "Match failed", "options.service: Expected `str`")
        raise MeteorError(403, "Service unknown")

    # -- accounts -------------------------------------------------------------------------------

    @api_endpoint("createUser")
    @transaction.non_atomic_requests
    def create_user(self, options: dict[str, Any]) -> dict[str, Any]:
        """Make a user and log in as it."""
        return login.attempt("createUser", "password", lambda: _create_user(match(options, NewUser), options))

    @api_endpoint("changePassword")
    def change_password(self, oldPassword: Password, newPassword: Password) -> dict[str, Any]:  # noqa: N803
        """Change the password of who is logged in; everybody else who is logged in so is logged out."""
        old, new = password_of(oldPassword), password_of(newPassword)
        if this.user is None:
            raise MeteorError(401, "Must be logged in")
        user = get_user_model()._default_manager.select_for_update().get(pk=this.user_id)
        if not user.has_usable_password() or (isinstance(old, Digest) and not is_ours(user.password)):
            waste_time(old)
            raise refusal("User has no password set")
        if not check_password(old, user.password):
            raise refusal("Incorrect password")
        _set_password(user, new)
        MailToken.objects.filter(user=user).exclude(purpose=MailToken.Purpose.VERIFY).delete()
        _remove_other_tokens()
        signals.password_changed.send(sender=__name__, request=login.request_of(this.connection), user=user)
        return {"passwordChanged": True}

    @api_endpoint("forgotPassword")
    @transaction.non_atomic_requests
    def forgot_password(self, options: dict[str, Any]) -> None:
        """Mail a link by which the password can be reset."""
        email = options.get("email")
        if not isinstance(email, str):
            raise MeteorError(400, "Match failed", "options.email: Expected `str`")
        user = find({"email": email}) if email else None
        if user is None or not getattr(user, "is_active", True):
            raise refusal("User not found")
        send_link(user, MailToken.Purpose.RESET, email_of(user), login.request_of(this.connection))

    @api_endpoint("resetPassword")
    @transaction.non_atomic_requests
    def reset_password(self, token: str, newPassword: Password) -> dict[str, Any]:  # noqa: N803
        """Set a password by the token of a mail, log out whoever is logged in as this user, and log in."""
        password = password_of(newPassword)
        return login.attempt("resetPassword", "password", lambda: _reset_password(token, password))

    @api_endpoint("verifyEmail")
    @transaction.non_atomic_requests
    def verify_email(self, token: str) -> dict[str, Any]:
        """Show by the token of a mail that its address is this user's, and log in."""
        return login.attempt("verifyEmail", "password", lambda: _verify_email(token))


def _must_be_logged_in() -> None:
    if this.user is None:
        raise MeteorError("You are not logged in.")


def _user_or(error: MeteorError | None, user: Any) -> Any:
    if error is not None:
        raise error
    return user


def _by_password(options: dict[str, Any]) -> Any:
    given = match(options, ByPassword)
    return login.by_password(given.user.as_dict(), password_of(given.password))


def _remove_other_tokens() -> None:
    current = login.current_token()
    login.own_tokens().exclude(pk=None if current is None else current.pk).delete()


def _set_password(user: Any, password: str) -> None:
    """Raises: MeteorError, the project's validators refuse a text; of a digest they can tell nothing."""
    _validate_password(password, user)
    user.password = hash_password(password)
    user.save(update_fields=["password"])


def _validate_password(password: str, user: Any = None) -> None:
    if not isinstance(password, Digest):
        with validation_told():
            validate_password(password, user)


def _create_user(given: NewUser, options: dict[str, Any]) -> Any:
    if settings().forbid_client_account_creation:
        raise MeteorError(403, "Signups forbidden")
    password = None if given.password is None else password_of(given.password)
    if password is None and not (given.email and settings().send_verification_email):
        raise MeteorError(400, "Match failed", "options.password: Expected a password")
    told = {name: value for name, value in options.items() if name != "password"}
    told |= {name: getattr(given, name) for name in ("username", "email", "profile")}
    if password is not None:
        _validate_password(password)
    with transaction.atomic():
        answers = signals.create_user.send(
            sender=__name__, request=login.request_of(this.connection), params=told
        )
        user = next((made for _, made in answers if isinstance(made, get_user_model())), None)
        if user is None:
            user = make(told, password)
        elif password is not None:
            _set_password(user, password)
    if given.email and settings().send_verification_email:
        purpose = MailToken.Purpose.ENROLL if password is None else MailToken.Purpose.VERIFY
        send_link(user, purpose, email_of(user))
    if password is None:
        # Whoever has the address may choose a password and log in; who gave it has shown nothing yet.
        raise MeteorError("enrollment-mailed", "A mail with a link was sent; open it to log in")
    return user


def _reset_password(token: str, password: str) -> Any:
    with transaction.atomic():
        row = tokens.find_mail_token(token, MailToken.Purpose.RESET, MailToken.Purpose.ENROLL)
        if row is None or not getattr(row.user, "is_active", True):
            raise MeteorError(403, "Token expired")
        if row.address != email_of(row.user):
            raise MeteorError(403, "Token has invalid email address")
        user = row.user
        _set_password(user, password)
        verify_address(user, row.address)
        MailToken.objects.filter(user=user).delete()  # also what verifies: that logs in, too
        if this.user_id == user.pk:
            this.set_user_id(None)  # or the loss of its token would close this connection, too
        tokens.forget_logins(user)
    signals.password_reset.send(sender=__name__, request=login.request_of(this.connection), user=user)
    return user


def _verify_email(token: str) -> Any:
    with transaction.atomic():
        row = tokens.find_mail_token(token, MailToken.Purpose.VERIFY)
        if row is None:
            raise MeteorError(403, "Verify email link expired")
        if row.address != email_of(row.user):
            raise MeteorError(403, "Verify email link is for unknown address")
        verify_address(row.user, row.address)
        MailToken.objects.filter(
            user=row.user, purpose=MailToken.Purpose.VERIFY, address=row.address
        ).delete()
    return row.user


# -- what clients see -------------------------------------------------------------------------------


def _read_by_documents() -> list[Any]:
    """What the documents of users are made of, beside the users' rows."""
    model: Any = get_user_model()
    relations: list[Any] = ["trigger_ddp_accounts.Account"]
    names = {field.name for field in model._meta.get_fields()}
    if {"groups", "user_permissions"} <= names:
        relations += ["user_permissions", "groups", "groups__permissions"]
    return relations


class _AllBut(frozenset[str]):
    """The names that are not in it."""

    def __contains__(self, name: object) -> bool:
        return not super().__contains__(name)


class UserSerializer(Serializer):
    """Understands ``only("username")`` and the like: what is made of a column stands or falls with it."""

    def __init__(self, collection: Any, model: Any, only: Any = None) -> None:
        super().__init__(collection, model, only)
        if only is not None:
            made_of = {"username": username_field(), "emails": email_field(), "createdAt": "date_joined"}
            self.hidden = _AllBut(name for name, column in made_of.items() if column in only)


class Users(Collection):
    """Users as Meteor's clients know them; see `users.document` for what of them."""

    model = get_user_model()
    name = "users"
    # No column is published as it is, not even to who asks for it by name.
    exclude = frozenset(
        field.name
        for field in (*get_user_model()._meta.concrete_fields, *get_user_model()._meta.many_to_many)
    )
    depends_on = _read_by_documents()
    serializer_class = UserSerializer

    def serialize(self, obj: Any, meteor_ids: Any = None) -> dict[str, Any]:
        """Nothing of the row but what `users.document` tells."""
        return {"fields": document(obj)}

    @api_endpoint
    def update(self, selector: Any, modifier: dict[str, Any], options: dict[str, Any] | None = None) -> int:
        """Change one's own ``profile`` by ``$set`` and ``$unset``; everything else is refused.

        Returns:
            1, the number of documents.
        """
        wanted = selector.get("_id") if isinstance(selector, dict) and len(selector) == 1 else selector
        if this.user is None or wanted != this.user_ddp_id:
            raise MeteorError(403, "Access denied")
        account = account_of(this.user)
        account.profile = modified(account.profile, modifier)
        account.save(update_fields=["profile"])
        return 1

    @api_endpoint("updateAsync")
    def update_async(
        self, selector: Any, modifier: dict[str, Any], options: dict[str, Any] | None = None
    ) -> int:
        """`update`, as Meteor 3 calls it."""
        return self.update(selector, modifier, options)


class OwnUser(Publication):
    """The document of who is logged in, without subscribing, as in Meteor."""

    name = None
    depends_on = [LoginToken]  # its rows are the leases of logins

    def get_queries(self) -> Any:
        """One user, or none."""
        if this.user is None:
            return None
        return get_user_model()._default_manager.filter(pk=this.user_id), "users"


class LoginServiceConfiguration(Publication):
    """Clients wait for it before they offer login services. There are none."""

    name = "meteor.loginServiceConfiguration"
    queries = ()


API.register([Accounts, Users, OwnUser, LoginServiceConfiguration])
API.every(tokens.SWEEP_SECONDS, tokens.sweep)

#: The names that Meteor's own rule limits: five attempts in ten seconds for each connection and method.
LIMITED = frozenset({"login", "createUser", "resetPassword", "forgotPassword"})

#: The rule's id, for `remove_default_rate_limit`.
_default_rule = API.rate_limiter.add_rule(
    {"type": "method", "name": LIMITED.__contains__, "connection_id": lambda connection_id: True}, 5, 10_000
)


def remove_default_rate_limit() -> None:
    """Take away Meteor's default rule, to put others in its place."""
    API.rate_limiter.remove_rule(_default_rule)
