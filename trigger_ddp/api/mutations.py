"""Meteor's ``insert``, ``update`` and ``remove`` of collections whose ``allow`` names them.

What a client may write is decided in this order: the collection allows it at all; the user has Django's
permission; the fields are published and writable; the user may see the object; the collection's rule agrees;
``full_clean`` does; and the user may see the object afterwards. Until a rule is asked, an object
that the user may not see is answered as one that is not there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from django.contrib.auth import get_user_model
from django.core.exceptions import ObjectDoesNotExist
from django.db import DataError, IntegrityError, OperationalError, connections, models, router, transaction

from trigger_ddp.alea import meteor_random_id
from trigger_ddp.api.context import this
from trigger_ddp.api.fields import AleaIdField
from trigger_ddp.api.ids import get_meteor_id, get_object, id_fields, key_of
from trigger_ddp.api.incoming import UNWRITABLE, Unfit, document_id, document_ids, python_value
from trigger_ddp.errors import MeteorError

if TYPE_CHECKING:
    from trigger_ddp.api.collection import Collection

ACTIONS = ("insert", "update", "remove")

#: The class of PostgreSQL's errors that this is.
PROGRAM_LIMIT_EXCEEDED = "54"

Collections = Callable[[], Mapping[str, "Collection"]]


def endpoints(collection: Collection, collections: Collections) -> Iterator[tuple[str, Callable[..., Any]]]:
    """The method names of what ``collection`` allows, and the functions that answer.

    Args:
        collection: the collection.
        collections: gives all registered collections by their names.
    """
    mutations = Mutations(collection, collections)
    for action in ACTIONS:
        if action in collection.allow:
            for name in (action, f"{action}Async"):
                function = getattr(mutations, action)
                # Meteor's refusals name the method that was called.
                named = function if action == "insert" else partial(function, name)
                yield f"/{collection.name}/{name}", named


class Mutations:
    """What clients do to one collection. Every method runs in a transaction, which a refusal rolls back."""

    def __init__(self, collection: Collection, collections: Collections) -> None:
        self._collection = collection
        self._collections = collections

    def insert(self, document: dict[str, Any]) -> str | None:
        """Make an object of a document.

        Returns:
            The new document's id.

        Raises:
            MeteorError: 400 for a value that does not fit, 403 for what is not permitted, 409 for an id or
                unique value that is taken.
            ValidationError: from ``full_clean``.
        """
        collection, model = self._collection, self._collection.model
        user = self._permitted("insert")
        identifier = self._own_id_field()
        values = {name: value for name, value in document.items() if name != "_id"}
        key: dict[str, Any] = {}
        if identifier is not None:
            key[identifier.attname] = self._new_id(identifier, document)
        elif "_id" in document:
            raise _refused("The server gives documents of this collection their _id.")
        obj = model(**key)
        with self._written():
            fields, lists = self._decoded(values, user)
            _apply(obj, fields)
            self._ask(collection.can_insert(user, obj))
            if key and model._base_manager.filter(**key).exists():
                raise MeteorError(409, "Duplicate _id")
            obj.full_clean()
            obj.save(force_insert=True)
            _apply_lists(obj, lists)
            self._see(user, obj)
        return get_meteor_id(obj)

    def update(
        self, name: str, selector: Any, modifier: dict[str, Any], options: dict[str, Any] | None = None
    ) -> int:
        """Change the object with an id by ``$set`` and ``$unset``.

        Args:
            name: of the method, as the client called it.
            selector: an id, or ``{"_id": id}``.
            modifier: whole fields to set, and to set back to their defaults.
            options: ``upsert`` is refused; others have no meaning here.

        Returns:
            The number of objects: 1, or 0 if there is none that the user may see.

        Raises:
            MeteorError, ValidationError: as of `insert`.
        """
        document = _only_id(selector, name)
        user = self._permitted("update")
        if options and options.get("upsert"):
            raise _refused("Upserts not allowed in a restricted collection.")
        values = self._modified(modifier)
        with self._written():
            fields, lists = self._decoded(values, user)
            obj = self._locked(user, document)
            if obj is None:
                return 0
            self._ask(self._collection.can_update(user, obj, {**fields, **lists}))
            _apply(obj, fields)
            obj.full_clean(exclude=_left_empty(obj, fields))
            obj.save(force_update=True)
            _apply_lists(obj, lists)
            self._see(user, obj)
        return 1

    def remove(self, name: str, selector: Any) -> int:
        """Delete the object with an id.

        Args:
            name, selector: as of `update`.

        Returns:
            The number of objects: 1, or 0 if there is none that the user may see.

        Raises:
            MeteorError: 403 for what is not permitted, 409 if other rows need the object.
        """
        document = _only_id(selector, name)
        user = self._permitted("remove")
        with self._written():
            obj = self._locked(user, document)
            if obj is None:
                return 0
            self._ask(self._collection.can_remove(user, obj))
            obj.delete()
        return 1

    # -- who ------------------------------------------------------------------------------------

    def _permitted(self, action: str) -> Any:
        """The user, if they have the permission."""
        user = this.user
        if user is not None:
            # As it is now: an instance remembers the permissions it has been asked for.
            user = get_user_model()._default_manager.filter(pk=user.pk).first()
            if not getattr(user, "is_active", user is not None):
                user = None
        if not self._collection.has_permission(user, action):
            raise _refused()
        return user

    def _ask(self, agrees: Any) -> None:
        if not agrees:
            raise _refused()

    def _locked(self, user: Any, document: str) -> Any:
        """The object, kept from others until the transaction ends; None if the user may not see it."""
        model = self._collection.model
        try:
            found = get_object(model, document_id(document))
        except (model.DoesNotExist, Unfit, ValueError, OverflowError):
            return None
        obj = model._base_manager.select_for_update().filter(pk=found.pk).first()
        # Looked at again: whoever held the lock may have given it to somebody else.
        if obj is None or get_meteor_id(obj) != document or not self._sees(user, obj):
            return None
        return obj

    def _sees(self, user: Any, obj: models.Model) -> bool:
        return self._collection.objects_for_user(user).filter(pk=obj.pk).exists()

    def _see(self, user: Any, obj: models.Model) -> None:
        """What has been written must not be out of its writer's sight, unless a rule says so."""
        if not self._sees(user, obj):
            self._ask(self._collection.can_hide(user, obj))

    # -- what -----------------------------------------------------------------------------------

    def _own_id_field(self) -> AleaIdField | None:
        (identifier, *others) = self._collection.serializer().id_fields
        return identifier if not others and isinstance(identifier, AleaIdField) else None

    def _new_id(self, field: AleaIdField, document: dict[str, Any]) -> str:
        # Drawn first, before a rule can draw from the same stream: the client's stub does so too.
        if "_id" not in document:
            return meteor_random_id(f"/collection/{self._collection.name}", field.max_length or 17)
        if not document["_id"]:
            raise _misfit("_id", "Expected a document's id")
        key: str = _fit("_id", document_id, document["_id"])
        return key

    def _modified(self, modifier: dict[str, Any]) -> dict[str, Any]:
        """Field names on the wire with their new values, `_UNSET` for their defaults."""
        values: dict[str, Any] = {}
        for operator, named in modifier.items():
            if operator not in ("$set", "$unset"):
                raise MeteorError(400, "Only $set and $unset are possible here", operator)
            if not isinstance(named, dict):
                raise _misfit(operator, "Expected an object")
            for name, value in named.items():
                if name in values:
                    raise _misfit(name, "Expected one operator")
                values[name] = value if operator == "$set" else _UNSET
        if not modifier:
            raise MeteorError(400, "Only $set and $unset are possible here", "nothing")
        return values

    def _decoded(
        self, values: dict[str, Any], user: Any
    ) -> tuple[dict[str, Any], dict[str, list[models.Model]]]:
        """What to set by attribute name, and the many-to-many lists by field name."""
        writable = writable_fields(self._collection)
        fields: dict[str, Any] = {}
        lists: dict[str, list[models.Model]] = {}
        for name, value in values.items():
            field = writable.get(name)
            if field is None:
                raise _refused(f"Field '{name}' can't be written.")
            if field.many_to_many:
                ids = [] if value is _UNSET else _fit(name, document_ids, value)
                lists[field.name] = self._related(name, field, ids, user)
            elif value is _UNSET:
                fields[field.attname] = _unset(field)
            elif field.remote_field and value is not None:
                (related,) = self._related(name, field, [_fit(name, document_id, value)], user)
                fields[field.attname] = getattr(related, field.target_field.attname)
            else:
                fields[field.attname] = _fit(name, partial(python_value, field), value)
        return fields, lists

    def _related(self, name: str, field: Any, ids: list[str], user: Any) -> list[models.Model]:
        """The objects that document ids refer to, if the user may see all of them."""
        model = field.related_model
        (identifier,) = id_fields(model)
        try:
            keys = [key_of(model, one)[identifier.attname] for one in ids]
        except ObjectDoesNotExist:
            raise _misfit(name, "There is no such document") from None
        wanted = model._default_manager.filter(**{f"{identifier.attname}__in": keys})
        concrete = model._meta.concrete_model
        publishing = [
            one
            for one in self._collections().values()
            if one.model is not None and one.model._meta.concrete_model is concrete
        ]
        found: dict[str | None, models.Model] = {}
        for queryset in [one.objects_for_user(user, wanted) for one in publishing] or [wanted]:
            found.update((get_meteor_id(obj), obj) for obj in queryset)
        if not found.keys() >= set(ids):
            raise _misfit(name, "There is no such document")
        return [found[one] for one in ids]

    @contextlib.contextmanager
    def _written(self) -> Iterator[None]:
        """A block that writes all or nothing; what PostgreSQL objects is told in words of our own."""
        database = router.db_for_write(self._collection.model)
        try:
            with transaction.atomic(using=database):
                yield
                # Django's foreign keys are looked at when the transaction ends: too late to say this.
                connections[database].check_constraints()
        except IntegrityError as error:  # ProtectedError and RestrictedError are such
            raise MeteorError(409, "Conflicts with other documents") from error
        except DataError as error:
            raise MeteorError(400, "Match failed") from error
        except OperationalError as error:
            if str(getattr(error.__cause__, "sqlstate", None))[:2] != PROGRAM_LIMIT_EXCEEDED:
                raise
            raise MeteorError(400, "Match failed") from error  # for instance too long for an index


class _Unset:
    """In place of a value: the field's default."""


_UNSET = _Unset()


def writable_fields(collection: Collection) -> dict[str, Any]:
    """The fields that clients may set, by their names on the wire.

    Those are the published ones that are editable, or of them what ``writable`` names. Never among them
    are keys, files, and many-to-many fields with a through model of their own.
    """
    serializer, named = collection.serializer(), collection.writable
    if named is None and serializer.custom:
        return {}
    published = {column.name for column in serializer.columns}
    meta, fields = collection.model._meta, {}
    for field in (*meta.concrete_fields, *meta.many_to_many):
        name = f"{field.name}_ids" if field.many_to_many else field.attname
        wanted = name in published and (named is None or name in named or field.name in named)
        if wanted and field.editable and not _is_key(field, serializer.id_fields):
            if isinstance(field, UNWRITABLE):
                continue
            if not field.many_to_many or field.remote_field.through._meta.auto_created:
                fields[name] = field
    return fields


def _is_key(field: Any, id_fields: tuple[Any, ...]) -> bool:
    parent_link = field.remote_field is not None and getattr(field.remote_field, "parent_link", False)
    return field.primary_key or field in id_fields or parent_link


def _unset(field: Any) -> Any:
    return None if field.null and not field.has_default() else field.get_default()


def _left_empty(obj: models.Model, fields: dict[str, Any]) -> set[str]:
    """Fields that stay NULL: forms may demand a value for them, but it is another's change to give one."""
    return {
        field.name
        for field in obj._meta.concrete_fields
        if field.null and field.attname not in fields and getattr(obj, field.attname) is None
    }


def _apply(obj: models.Model, fields: dict[str, Any]) -> None:
    for name, value in fields.items():
        setattr(obj, name, value)


def _apply_lists(obj: Any, lists: dict[str, list[models.Model]]) -> None:
    for name, related in lists.items():
        getattr(obj, name).set(related)


def _only_id(selector: Any, name: str) -> str:
    """The id that a selector consists of."""
    if isinstance(selector, dict) and set(selector) == {"_id"}:
        selector = selector["_id"]
    if not isinstance(selector, str):
        raise MeteorError(403, f"Not permitted. Untrusted code may only {name} documents by ID.")
    return str.__str__(selector)


def _fit(name: str, convert: Callable[[Any], Any], value: Any) -> Any:
    try:
        return convert(value)
    except Unfit as problem:
        raise _misfit(name, f"Expected {problem}") from None


def _misfit(name: str, problem: str) -> MeteorError:
    return MeteorError(400, "Match failed", f"{name}: {problem}")


def _refused(why: str = "") -> MeteorError:
    return MeteorError(403, f"Access denied. {why}" if why else "Access denied")
