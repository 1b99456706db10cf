"""How the rows of a model become documents: what to select, and how the selected values are encoded."""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from django.contrib.postgres.expressions import ArraySubquery
from django.db import models
from django.db.models import F, OuterRef
from django.db.models.functions import Cast

from trigger_ddp import ejson
from trigger_ddp.api.dependencies import resolve_dependency
from trigger_ddp.api.encoders import NULL, TEXT, Form, form_of, is_stock
from trigger_ddp.api.ids import id_fields, id_part, id_text, related_id_path
from trigger_ddp.errors import ConfigurationError

if TYPE_CHECKING:
    from trigger_ddp.api.collection import Collection as DDPCollection

logger = logging.getLogger(__name__)

#: JSON text with a key or string that starts with "$" may have to be escaped.
_MAY_NEED_ESCAPING = re.compile(r'"(?:\$|\\u0024)')


@dataclasses.dataclass(frozen=True, slots=True)
class FieldColumn:
    """One published field: from the column to select to the bytes on the wire.

    Args:
        name: the field's name on the wire, such as "title", "author_id", "tags_ids".
        expression: what to select.
        encode: gives the EJSON text of a selected value; not called for None.
        of_instance: gives the value to publish of a model instance, as `ejson.encode` takes it.
        encode_instance: gives the EJSON text of what ``of_instance`` gave.
        loaded_as: the names by which ``only()`` and ``defer()`` may speak of it.
    """

    name: str
    expression: Any
    encode: Callable[[Any], bytes]
    of_instance: Callable[[Any], Any]
    encode_instance: Callable[[Any], bytes]
    loaded_as: frozenset[str]


class Serializer:
    """The documents of one collection over one model. Immutable; built once, used for every row.

    Attributes:
        columns: the published fields.
        id_paths: what to select for the document id, one or several for a composite primary key.
        custom: whether the collection overrides ``serialize``: then documents come from instances.
        related_models: models, beside the root and its multi-table parents, whose tables the documents read.
        depends_on: the models that the collection's ``depends_on`` names.
        read_paths: the relation paths by which the documents read those: "author__aid", "tags".
        related_paths: what ``prefetch_related_objects`` should load of instances, so that
            `document_of_instance` makes no query of its own.

    Args:
        collection: the collection.
        model: the model of the rows.
        only: names of the fields to publish, as `loaded_fields` gives them; None for all.

    Raises:
        ConfigurationError: two fields would have the same name on the wire, or ``depends_on`` names what is
            not there.
    """

    def __init__(
        self, collection: DDPCollection, model: type[models.Model], only: Collection[str] | None = None
    ) -> None:
        self.collection = collection
        self.model = model
        self.id_fields = id_fields(model)
        self.id_paths = tuple(field.attname for field in self.id_fields)
        self.custom = collection.overrides_serialize
        self.related_models: list[type[models.Model]] = []
        self.read_paths: list[str] = []
        self.related_paths: list[str] = []
        self.columns = list(self._columns(only))
        #: Names of fields that are not to be published although an own ``serialize`` may give them.
        self.hidden = frozenset(self._hidden(only)) if self.custom and only is not None else frozenset()
        self.depends_on = [
            named for entry in collection.depends_on for named in resolve_dependency(entry, model)
        ]
        self._instance_encoders = {column.name: column.encode_instance for column in self.columns}
        names = [column.name for column in self.columns]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ConfigurationError(f"two fields are named {', '.join(sorted(twice))}; `exclude` one")

    def values(self) -> list[tuple[str, Any]]:
        """What to select: (alias, expression) of the id's parts, then of each field.

        The expressions serve as ``qs.values_list(*(expression for _, expression in …))``, and with their
        aliases as ``qs.annotate(**…)``: no alias is the name of a field.
        """
        ids = [(f"_id{index}", F(path)) for index, path in enumerate(self.id_paths)]
        return ids + [(f"_field{index}", column.expression) for index, column in enumerate(self.columns)]

    @property
    def id_is_key(self) -> bool:
        """Whether a document's id is its row's key as PostgreSQL gives it as text."""
        if self.id_fields != tuple(self.model._meta.pk_fields) or len(self.id_fields) > 1:
            return False
        (field,) = self.id_fields
        plain = isinstance(field, models.IntegerField | models.CharField | models.TextField)
        # A char(n) is padded, its text is not.
        return plain and is_stock(field) and type(field).db_type is models.Field.db_type

    def fields(self, columns: Sequence[Sequence[Any]]) -> dict[str, list[bytes]]:
        """The fields of rows' documents, column by column.

        Args:
            columns: for each of the published fields the rows' values, as Django's converters give them.

        Returns:
            For each field the EJSON texts.
        """
        return {
            column.name: encoded_all(column.encode, values)
            for column, values in zip(self.columns, columns, strict=True)
        }

    def document_of_instance(self, obj: models.Model) -> tuple[str, dict[str, bytes]]:
        """The document of a model instance, by the collection's ``serialize`` if it has its own.

        Returns:
            The document id and the EJSON text of each field.

        Raises:
            EJSONError: ``serialize`` gave a value that EJSON has no form for.
        """
        published = self.collection.serialize(obj)["fields"] if self.custom else self.values_of_instance(obj)
        fields = {
            _field_name(name): self._instance_encoders.get(name, ejson.encode)(value)
            for name, value in published.items()
        }
        return id_text([getattr(obj, path) for path in self.id_paths]), fields

    def values_of_instance(self, obj: models.Model) -> dict[str, Any]:
        """The published fields of a model instance as Python values; deferred fields are left out."""
        deferred = obj.get_deferred_fields()
        return {
            column.name: column.of_instance(obj)
            for column in self.columns
            if deferred.isdisjoint(column.loaded_as)
        }

    def _columns(self, only: Collection[str] | None) -> Iterator[FieldColumn]:
        """Also notes what the columns read, in the attributes for that."""
        meta = self.model._meta
        for field in meta.concrete_fields:
            if self._is_published(field, only):
                yield self._relation(field) if field.remote_field else self._column(field)
        for field in meta.many_to_many:
            # An own serialize is not told of `only`; the lists it asks for must be among `related_paths`.
            if self._is_published(field, None if self.custom else only):
                yield self._many_to_many(field)

    def _hidden(self, only: Collection[str]) -> Iterator[str]:
        """What `only` leaves out; an own ``serialize`` knows nothing of it."""
        for column in self.collection.serializer(self.model).columns:
            if column.loaded_as.isdisjoint(only):
                yield column.name

    def _is_published(self, field: Any, only: Collection[str] | None) -> bool:
        names = {field.name, field.attname}
        if not names.isdisjoint(self.collection.exclude):
            return False
        if self.id_fields == (field,) and not field.remote_field:
            return False  # it is the document id itself
        # Django clears `serialize` of primary keys; of those, relations are wanted still.
        if not field.serialize and not (field.primary_key and field.remote_field):
            return False
        return only is None or not names.isdisjoint(only)

    def _column(self, field: Any) -> FieldColumn:
        form = form_of(field, self.collection.decimal_as)

        def of_instance(obj: Any) -> Any:
            value = field.value_from_object(obj)
            return None if value is None else form.publish(value)

        output = field.output_field if isinstance(field, models.GeneratedField) else field
        expression: Any = F(field.attname)
        encode: Callable[[Any], bytes] = form.encode
        encode_instance: Callable[[Any], bytes] = ejson.encode
        if isinstance(output, models.JSONField):
            encode_instance = _encode_json_value(form)
            if type(output).from_db_value is models.JSONField.from_db_value:
                # The text as PostgreSQL gives it: JSON needs no way through Python objects.
                expression, encode = Cast(expression, models.TextField()), _encode_json_text
        return FieldColumn(field.attname, expression, encode, of_instance, encode_instance, _names(field))

    def _relation(self, field: Any) -> FieldColumn:
        path = related_id_path(field)
        if path == field.attname:

            def of_instance(obj: Any) -> Any:
                value = getattr(obj, path)
                return None if value is None else id_part(value)

        else:
            (identifier,) = id_fields(field.related_model)
            self._note(field.related_model)
            self.read_paths.append(path)
            self.related_paths.append(field.name)

            def of_instance(obj: Any) -> Any:
                related = getattr(obj, field.name)
                return None if related is None else id_part(getattr(related, identifier.attname))

        return FieldColumn(field.attname, F(path), _encode_id, of_instance, ejson.encode, _names(field))

    def _many_to_many(self, field: Any) -> FieldColumn:
        through = field.remote_field.through
        source = through._meta.get_field(field.m2m_field_name())
        target = through._meta.get_field(field.m2m_reverse_field_name())
        path = related_id_path(target)
        (identifier,) = id_fields(field.related_model)
        name = f"{field.name}_ids"
        self.related_paths.append(field.name)
        self._note(through)
        if path != target.attname:
            self._note(field.related_model)
            self.read_paths.append(f"{field.name}__{identifier.attname}")
        else:
            self.read_paths.append(field.name)

        def ids(root_key: Any) -> Any:
            rows = through._base_manager.filter(**{source.name: root_key})
            return rows.order_by(f"{target.name}__pk").values_list(path, flat=True)

        def of_instance(obj: Any) -> list[str]:
            annotated = vars(obj).get(name)
            prefetched = getattr(obj, "_prefetched_objects_cache", {}).get(field.name)
            if annotated is not None:
                found = annotated
            elif prefetched is not None:
                targets = sorted(prefetched, key=lambda related: related.pk)
                found = [getattr(related, identifier.attname) for related in targets]
            else:
                found = ids(getattr(obj, source.target_field.attname))
            return _ids_once(found)

        return FieldColumn(
            name, ArraySubquery(ids(OuterRef(source.target_field.attname))), _encode_ids, of_instance,
            ejson.encode, frozenset({field.name}),
        )  # fmt: skip

    def _note(self, model: type[models.Model]) -> None:
        if model not in self.related_models:
            self.related_models.append(model)


def loaded_fields(queryset: models.QuerySet[Any]) -> frozenset[str] | None:
    """The names of the fields that ``only()`` and ``defer()`` leave to load; None for all.

    Many-to-many fields count as deferred unless ``only()`` names them, and as loaded unless ``defer()`` does.
    """
    names, deferred = queryset.query.deferred_loading
    if deferred and not names:
        return None
    meta = queryset.model._meta
    own = {meta.pk.name if name == "pk" else name for name in names}
    if not deferred:
        return frozenset(own)
    fields = (*meta.concrete_fields, *meta.many_to_many)
    return frozenset(field.name for field in fields if own.isdisjoint((field.name, field.attname)))


def encoder_of(field: Any, decimal_as: str) -> Callable[[Any], bytes]:
    """How the values of an expression are encoded, by its output field: as a model's field of that kind is.

    Primary keys and references to them are ids, and so text.

    Returns:
        A function that gives the EJSON text of a value; not for None.
    """
    return _encode_id if field.primary_key or field.remote_field else form_of(field, decimal_as).encode


def encoded_all(encode: Callable[[Any], bytes], values: Sequence[Any]) -> list[bytes]:
    """The EJSON texts of a column's values.

    Args:
        encode: gives the text of a value; not called for None.
        values: of any number of rows.
    """
    return [NULL if value is None else encode(value) for value in values]


def _names(field: Any) -> frozenset[str]:
    return frozenset((field.name, field.attname))


def _encode_id(value: Any) -> bytes:
    return b'"%d"' % value if type(value) is int else TEXT.encode(id_part(value))


def _ids_once(values: Sequence[Any]) -> list[str]:
    """A through model of one's own may relate the same pair more than once."""
    return list(dict.fromkeys([id_part(value) for value in values if value is not None]))


def _encode_ids(values: Sequence[Any]) -> bytes:
    return TEXT.encode(_ids_once(values)) if values else b"[]"


def _encode_json_text(text: str) -> bytes:
    """JSON text as PostgreSQL prints it, without its spaces and with what looks like EJSON escaped."""
    try:
        if _MAY_NEED_ESCAPING.search(text) is None:
            return msgspec.json.format(text.encode(), indent=-1)
        return msgspec.json.encode(ejson.escape(msgspec.json.decode(text)))
    except (msgspec.MsgspecError, RecursionError) as error:
        # Only data made for it gets here: thousands of levels, or numbers of thousands of digits. It must
        # not keep the other rows from their readers.
        logger.error("a JSON value of %d characters can't be published, null is sent: %s", len(text), error)
        return NULL


def _encode_json_value(form: Form) -> Callable[[Any], bytes]:
    def encode(value: Any) -> bytes:
        if value is None:
            return NULL
        try:
            return form.encode(value)
        except TypeError:
            # Not what the field holds: an own serialize has put something else under its name.
            return ejson.encode(value)

    return encode


def _field_name(name: object) -> str:
    """A field's name as an own ``serialize`` gives it; an integer as JavaScript would have it."""
    if isinstance(name, str):
        return name
    if type(name) is int:
        return str(name)
    raise ejson.EJSONError(f"a field is named {name!r}, which is no text")
