"""Users, whatever the project's model of them: who is meant, who is made, and what clients see."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Iterator, Mapping
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.base_user import BaseUserManager
from django.core.exceptions import FieldDoesNotExist, ValidationError
from django.db import IntegrityError, connection, transaction

from trigger_ddp import ejson
from trigger_ddp.accounts import hooks
from trigger_ddp.accounts.hashers import hash_password
from trigger_ddp.accounts.models import Account
from trigger_ddp.accounts.profile import check_profile
from trigger_ddp.api import get_object
from trigger_ddp.conf import settings
from trigger_ddp.errors import MeteorError

#: What Meteor's server says instead of why, by default.
AMBIGUOUS = "Something went wrong. Please check your credentials."


def refusal(text: str, code: int | str = 403) -> MeteorError:
    """The error of a login or signup that fails; it says why only if the settings allow it."""
    return MeteorError(code, AMBIGUOUS if settings().ambiguous_error_messages else text)


# -- the model --------------------------------------------------------------------------------------


def username_field() -> str | None:
    """The user model's field of user names; None if users are known by their address alone."""
    model: Any = get_user_model()
    return None if email_field() == model.USERNAME_FIELD else str(model.USERNAME_FIELD)


def email_field() -> str | None:
    """The user model's field of mail addresses, if it has one."""
    model: Any = get_user_model()
    name: str = model.get_email_field_name()
    try:
        model._meta.get_field(name)
    except FieldDoesNotExist:
        return None
    return name


def email_of(user: Any) -> str:
    """A user's mail address; empty if there is none."""
    field = email_field()
    return "" if field is None else getattr(user, field) or ""


# -- finding ----------------------------------------------------------------------------------------


def find(selector: Mapping[str, str]) -> Any:
    """The user that ``{"id": …}``, ``{"username": …}`` or ``{"email": …}`` means, or None.

    Names and addresses are matched as they are written, else whatever their case if just one user has it.
    """
    [(kind, value)] = selector.items()
    if "\x00" in value:
        return None  # which PostgreSQL could not even be asked for
    model: Any = get_user_model()
    if kind == "id":
        try:
            return get_object(model, value)
        except (model.DoesNotExist, ValueError, ValidationError, OverflowError):
            return None
    field = email_field() if kind == "email" else username_field()
    if field is None:
        return None
    if kind == "username":
        value = model.normalize_username(value)  # as it was when it was stored
    users = model._default_manager.all()
    exact = list(users.filter(**{field: value})[:2])
    if exact:
        return exact[0] if len(exact) == 1 else None
    similar = list(users.filter(**{f"{field}__iexact": value})[:2])
    return similar[0] if len(similar) == 1 else None


# -- making -----------------------------------------------------------------------------------------


def make(options: Mapping[str, Any], password: str | None) -> Any:
    """A new user as createUser's options have it. Run it in a transaction.

    Args:
        options: ``username``, ``email``, ``profile``.
        password: a text or `hashers.Digest`, or None for a user who can't log in with one.

    Raises:
        MeteorError: such a user may not be.
    """
    username, email = options.get("username"), options.get("email")
    if not username and not email:
        raise MeteorError(400, "Need to set a username or email")
    profile = stored_profile(options.get("profile") or {})
    if "\x00" in f"{username}{email}":
        raise MeteorError(400, "Match failed")  # PostgreSQL has no such text
    _check_domain(email)
    model: Any = get_user_model()
    name_field, mail_field = username_field(), email_field()
    user = model()
    if name_field is None:
        if not email:
            raise MeteorError(400, "Need to set an email")
        setattr(user, model.USERNAME_FIELD, BaseUserManager.normalize_email(email))
    else:
        setattr(user, name_field, model.normalize_username(username or email))
        if email and mail_field is not None:
            setattr(user, mail_field, BaseUserManager.normalize_email(email))
    if password is None:
        user.set_unusable_password()
    else:
        user.password = hash_password(password)
    account = Account(profile=profile)
    user.ddp_account = account
    for function in hooks.registry.creators:
        function({name: value for name, value in options.items() if name != "password"}, user)
    for validator in hooks.registry.new_user_validators:
        if not validator(user):
            raise MeteorError(403, "User validation failed")
    _refuse_second("Username", name_field, user)
    _refuse_second("Email", mail_field, user)
    with validation_told():
        # Uniqueness is the database's business: what is told of it may depend on the settings.
        user.full_clean(exclude=["password"], validate_unique=False, validate_constraints=False)
    try:
        with transaction.atomic():
            user.save()
    except IntegrityError as error:  # somebody else was faster
        raise refusal("Username already exists." if username else "Email already exists.") from error
    account.user = user
    account.save(force_insert=True)
    return user


@contextlib.contextmanager
def validation_told() -> Iterator[None]:
    """A ``with`` block in which the project's own validators speak to the client."""
    try:
        yield
    except ValidationError as error:
        raise MeteorError(400, " ".join(error.messages)) from None


def stored_profile(profile: Mapping[str, Any]) -> dict[str, Any]:
    """A client's profile as the database can have it: EJSON's forms, which its documents show as values.

    Raises:
        MeteorError: 400, it can't be, or is too large.
    """
    stored: dict[str, Any] = ejson.to_json(dict(profile))
    check_profile(stored)
    return stored


def _shown_profile(stored: Any) -> dict[str, Any]:
    if not isinstance(stored, dict):
        return {}
    try:
        shown: dict[str, Any] = ejson.from_json(stored)
    except ejson.EJSONError:  # somebody else's JSON
        return dict(stored)
    return shown


def _check_domain(email: str | None) -> None:
    domain = settings().restrict_creation_by_email_domain
    if not domain:
        return
    if not email:
        raise MeteorError(403, f"@{domain} email required")
    if not email.lower().endswith("@" + domain.lower()):
        raise MeteorError(403, "Email doesn't match the criteria.")


def _refuse_second(label: str, field: str | None, user: Any) -> None:
    value = None if field is None else getattr(user, field)
    if not value:
        return
    with connection.cursor() as cursor:
        # Few models have a constraint for it: until the transaction ends, nobody else makes such a user.
        cursor.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended(upper(%s), 0))", [f"trigger_ddp {label} {value}"]
        )
    if get_user_model()._default_manager.filter(**{f"{field}__iexact": value}).exists():
        raise refusal(f"{label} already exists.")


# -- showing ----------------------------------------------------------------------------------------


def document(user: Any) -> dict[str, Any]:
    """The fields of a user's document: these and no others, whatever the model has.

    Returns:
        ``username``, ``emails``, ``profile``, ``createdAt`` and ``permissions``, as far as there are any, and
        what the application adds by `hooks.extend_user_document`.
    """
    account = getattr(user, "ddp_account", None)
    fields: dict[str, Any] = {}
    name_field, email = username_field(), email_of(user)
    if name_field is not None:
        fields["username"] = getattr(user, name_field)
    if email:
        verified = account is not None and account.verified_address == email
        fields["emails"] = [{"address": email, "verified": verified}]
    profile = _shown_profile(getattr(account, "profile", None))
    full_name = user.get_full_name() if hasattr(user, "get_full_name") else ""
    if isinstance(full_name, str) and full_name:
        profile.setdefault("name", full_name)
    fields["profile"] = profile
    created = getattr(user, "date_joined", None) or getattr(account, "created", None)
    if isinstance(created, datetime.datetime):
        fields["createdAt"] = created
    if hasattr(user, "get_all_permissions"):
        fields["permissions"] = sorted(user.get_all_permissions())
    for function in hooks.registry.documents:
        fields.update(function(user))
    return fields


def account_of(user: Any) -> Account:
    """A user's `Account`, locked until the end of the transaction, made where there is none."""
    Account.objects.get_or_create(pk=user.pk)
    account: Account = Account.objects.select_for_update().get(pk=user.pk)
    return account


def verify_address(user: Any, address: str) -> None:
    """A user has shown that this is its address."""
    account = account_of(user)
    account.verified_address = address
    account.save(update_fields=["verified_address"])
