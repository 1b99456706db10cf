"""Documents of rows with every kind of field, against a real PostgreSQL."""

from __future__ import annotations

import datetime
import decimal
import json
import logging
import math
import uuid
from typing import Any

import psycopg
import pytest
from django.contrib.postgres import signals
from django.db import connection, models
from django.db.backends.postgresql.psycopg_any import DateRange, DateTimeTZRange, NumericRange
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from tests.api.documents import collection_of, decoded, document_of_row, documents
from tests.conftest import Database
from tests.zoo.models import Custom, Every, EveryPostgres, Legs, Point, Size
from trigger_ddp import ejson
from trigger_ddp.api import Collection
from trigger_ddp.api.documents import loaded_fields
from trigger_ddp.api.encoders import form_of
from trigger_ddp.errors import ConfigurationError

UTC = datetime.UTC
MOMENT = datetime.datetime(2024, 2, 29, 12, 30, 15, 123_456, tzinfo=UTC)
NAMES = [
    field.attname for field in Every._meta.concrete_fields if field.attname not in ("id", "unserialized")
]


def one(model: Any, collection: Collection | None = None, **values: Any) -> dict[str, Any]:
    """The document of a new row with these values, as far as they were given."""
    row = model.objects.create(**values)
    found = documents(collection or collection_of(model), model.objects.filter(pk=row.pk))
    return {name: value for name, value in found[str(row.pk)].items() if name in values}


@pytest.mark.parametrize(
    ("field", "value", "published"),
    [
        ("big_integer", 2**53 - 1, 2**53 - 1),
        ("big_integer", 2**53, "9007199254740992"),
        ("big_integer", -(2**63), "-9223372036854775808"),
        ("binary", b"\x00\xff", b"\x00\xff"),
        ("binary", b"", b""),
        ("boolean", True, True),
        ("boolean", False, False),
        ("char", 'é"\\\n\U0001f600', 'é"\\\n\U0001f600'),
        ("char", "", ""),
        ("date", datetime.date(2024, 2, 29), datetime.datetime(2024, 2, 29, tzinfo=UTC)),
        ("date", datetime.date(1, 1, 1), datetime.datetime(1, 1, 1, tzinfo=UTC)),
        ("datetime", MOMENT, MOMENT.replace(microsecond=123_000)),
        (
            "datetime",
            datetime.datetime(1969, 12, 31, 23, 59, tzinfo=UTC),
            datetime.datetime(1969, 12, 31, 23, 59, tzinfo=UTC),
        ),
        ("decimal", decimal.Decimal("1.5"), "1.5000"),
        ("decimal", decimal.Decimal("-1234567890123456.7891"), "-1234567890123456.7891"),
        ("duration", datetime.timedelta(days=1, hours=2, microseconds=3), "1 02:00:00.000003"),
        ("duration", datetime.timedelta(seconds=-1), "-1 23:59:59"),
        ("email", "a@b.example", "a@b.example"),
        ("file", "reports/7.pdf", "reports/7.pdf"),
        ("file", "", ""),
        ("file_path", "/etc", "/etc"),
        ("float", 1.5, 1.5),
        ("float", math.inf, math.inf),
        ("float", -math.inf, -math.inf),
        ("generic_ip_address", "::1", "::1"),
        ("generic_ip_address", "192.0.2.1", "192.0.2.1"),
        ("image", "images/a.png", "images/a.png"),
        ("integer", -7, -7),
        ("json_encoded", {"day": datetime.date(2024, 1, 2)}, {"day": "2024-01-02"}),
        ("positive_big_integer", 2**63 - 1, "9223372036854775807"),
        ("positive_integer", 7, 7),
        ("positive_small_integer", 7, 7),
        ("slug", "a-b", "a-b"),
        ("small_integer", -7, -7),
        ("text", "x" * 100_000, "x" * 100_000),
        ("time", datetime.time(9, 5), "09:05:00"),
        ("time", datetime.time(9, 5, 0, 250), "09:05:00.000250"),
        ("url", "https://example.org/?a=b", "https://example.org/?a=b"),
        ("uuid", uuid.UUID(int=10), "00000000-0000-0000-0000-00000000000a"),
        ("size", Size.LARGE, "l"),
        ("legs", Legs.FOUR, 4),
        ("writer", "me", "me"),
    ],
)
def test_fields(db: Database, field: str, value: Any, published: Any) -> None:
    assert one(Every, **{field: value}) == {field: published}


def test_not_a_number(db: Database) -> None:
    row = Every.objects.create(float=math.nan)
    serializer = collection_of(Every).serializer()
    assert serializer.document_of_instance(row)[1]["float"] == b'{"$InfNaN":0}'
    (values,) = Every.objects.values_list(*(expression for _, expression in serializer.values()))
    assert document_of_row(serializer, values)[1]["float"] == b'{"$InfNaN":0}'


def test_every_field_can_be_null_and_is_published_then_too(db: Database) -> None:
    db.psql("INSERT INTO zoo_every (unserialized) VALUES ('')")
    (document,) = documents(collection_of(Every), Every.objects.all()).values()
    assert document == dict.fromkeys(NAMES)
    assert "unserialized" not in document


def test_generated_fields(db: Database) -> None:
    row = Every.objects.create(char="abc", integer=2**29)
    document = documents(collection_of(Every), Every.objects.all())[str(row.pk)]
    assert (document["shouted"], document["doubled"]) == ("ABC", 2**30)


@pytest.mark.parametrize(
    "value",
    [
        {"a": [1, 1.5, "é", None, True, {}], "b": {"c": []}},
        [],
        {},
        "text",
        "$date",
        0,
        False,
        {"$date": 1},
        [{"$type": "oid", "$value": "x"}, {"$other": {"$binary": "AA=="}}],
        {"$escape": {"$escape": {"$date": 1}}},
        {"a": {"\\$date": 1}},
        {'"$date': {" $date": 1}},
        "with spaces : , kept  ",
    ],
)
def test_json_is_published_as_it_is(db: Database, value: Any) -> None:
    assert one(Every, json=value, json_encoded=value) == {"json": value, "json_encoded": value}


def test_json_null_and_sql_null_are_both_null(db: Database) -> None:
    Every.objects.create(json=models.Value(None, models.JSONField()))
    Every.objects.create(json=None)
    assert Every.objects.filter(json__isnull=True).count() == 1
    assert [found["json"] for found in documents(collection_of(Every), Every.objects.all()).values()] == [
        None,
        None,
    ]


@pytest.mark.parametrize(
    "text",
    [
        "9007199254740993",
        "123456789012345678901234567890",
        '{"$date": 123456789012345678901234567890}',
        "1.50",
        "1e22",
    ],
)
def test_numbers_in_json_keep_their_digits(db: Database, text: str) -> None:
    db.psql(f"INSERT INTO zoo_every (json, unserialized) VALUES ('{text}', '')")
    serializer = collection_of(Every).serializer()
    row = Every.objects.values_list(*(expression for _, expression in serializer.values())).get()
    plain = json.loads(document_of_row(serializer, row)[1]["json"], parse_float=decimal.Decimal)
    wanted = json.loads(text, parse_float=decimal.Decimal)
    assert plain.get("$escape") == wanted if isinstance(wanted, dict) else plain == wanted
    again = json.loads(
        serializer.document_of_instance(Every.objects.get())[1]["json"], parse_float=decimal.Decimal
    )
    assert again == plain


def test_json_is_compact(db: Database) -> None:
    Every.objects.create(json={"a": [1, 2], "b c": ", "})
    serializer = collection_of(Every).serializer()
    row = Every.objects.values_list(*(expression for _, expression in serializer.values())).get()
    assert document_of_row(serializer, row)[1]["json"] == b'{"a":[1,2],"b c":", "}'


def test_json_too_deep_to_read_does_not_keep_other_rows_from_their_readers(
    db: Database, caplog: pytest.LogCaptureFixture
) -> None:
    levels = 3000
    for inner in ("1", '{"$date": 1}'):
        text = "[" * levels + inner + "]" * levels
        db.psql(f"INSERT INTO zoo_every (json, char, unserialized) VALUES ('{text}', 'x', '')")
    serializer = collection_of(Every).serializer()
    with caplog.at_level(logging.ERROR):
        for row in Every.objects.values_list(*(expression for _, expression in serializer.values())):
            document = document_of_row(serializer, row)[1]
            assert document["char"] == b'"x"'
            assert document["json"] == b"null" or document["json"].startswith(b"[[[")
    assert all("null is sent" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(
    ("decimal_as", "text"),
    [("string", b'"1.5000"'), ("number", b"1.5"), ("ejson", b'{"$type":"Decimal","$value":"1.5000"}')],
)
def test_a_collection_chooses_the_form_of_decimals(db: Database, decimal_as: str, text: bytes) -> None:
    Every.objects.create(decimal=decimal.Decimal("1.5"))
    serializer = collection_of(Every, decimal_as=decimal_as).serializer()
    row = Every.objects.values_list(*(expression for _, expression in serializer.values())).get()
    assert document_of_row(serializer, row)[1]["decimal"] == text
    assert serializer.document_of_instance(Every.objects.get())[1]["decimal"] == text


def test_decimals_as_numbers_may_be_nan(db: Database) -> None:
    db.psql("INSERT INTO zoo_everypostgres (decimals, decimal_range) VALUES ('{NaN,1.5,NULL}', '[NaN,NaN]')")
    for decimal_as, nan in (("number", {"$InfNaN": 0}), ("string", "NaN")):
        serializer = collection_of(EveryPostgres, decimal_as=decimal_as).serializer()
        row = EveryPostgres.objects.values_list(*(expression for _, expression in serializer.values())).get()
        assert json.loads(document_of_row(serializer, row)[1]["decimals"])[0] == nan
        assert (
            json.loads(serializer.document_of_instance(EveryPostgres.objects.get())[1]["decimals"])[0] == nan
        )


@pytest.mark.parametrize(
    ("field", "value", "published"),
    [
        ("integers", [], []),
        ("integers", [1, None, 3], [1, None, 3]),
        ("matrix", [[1, 2**53], [-3, 4]], [[1, "9007199254740992"], [-3, 4]]),
        ("dates", [datetime.date(1970, 1, 2), None], [datetime.datetime(1970, 1, 2, tzinfo=UTC), None]),
        ("decimals", [decimal.Decimal("1.50")], ["1.50"]),
        ("texts", ["a,b", "", '{"'], ["a,b", "", '{"']),
        ("jsons", [{"$date": 1}, [2], "x"], [{"$date": 1}, [2], "x"]),
        ("integer_range", NumericRange(1, 5, "[]"), {"lower": 1, "upper": 6, "bounds": "[)"}),
        ("integer_range", NumericRange(None, 5), {"lower": None, "upper": 5, "bounds": "()"}),
        ("integer_range", NumericRange(None, None), {"lower": None, "upper": None, "bounds": "()"}),
        ("integer_range", NumericRange(empty=True), {"empty": True}),
        (
            "big_integer_range",
            NumericRange(2**53, None),
            {"lower": str(2**53), "upper": None, "bounds": "[)"},
        ),
        (
            "decimal_range",
            NumericRange(decimal.Decimal("0.5"), decimal.Decimal(2), "(]"),
            {"lower": "0.5", "upper": "2", "bounds": "(]"},
        ),
        (
            "date_range",
            DateRange(datetime.date(1970, 1, 1), None),
            {"lower": datetime.datetime(1970, 1, 1, tzinfo=UTC), "upper": None, "bounds": "[)"},
        ),
        (
            "datetime_range",
            DateTimeTZRange(MOMENT, MOMENT + datetime.timedelta(1), "[]"),
            {
                "lower": MOMENT.replace(microsecond=123_000),
                "upper": MOMENT.replace(microsecond=123_000) + datetime.timedelta(1),
                "bounds": "[]",
            },
        ),
        ("search", "'cat':3 'fat':2", "'cat':3 'fat':2"),
    ],
)
def test_postgres_fields(db: Database, field: str, value: Any, published: Any) -> None:
    assert one(EveryPostgres, **{field: value}) == {field: published}


def test_every_postgres_field_can_be_null(db: Database) -> None:
    EveryPostgres.objects.create()
    (document,) = documents(collection_of(EveryPostgres), EveryPostgres.objects.all()).values()
    assert set(document.values()) == {None}


@pytest.mark.every_major
def test_hstore_and_citext(db: Database) -> None:
    with db.connect() as raw:
        available = {name for (name,) in raw.execute("SELECT name FROM pg_available_extensions")}
        if missing := {"hstore", "citext"} - available:
            pytest.skip(f"this PostgreSQL has no contrib extension {', '.join(sorted(missing))}")
        raw.execute("CREATE EXTENSION hstore; CREATE EXTENSION citext")
        raw.execute(
            "CREATE TABLE zoo_extended (id serial PRIMARY KEY, store hstore, word citext, stores hstore[])"
        )
        raw.execute("INSERT INTO zoo_extended (store, word) VALUES ('a=>1, b=>NULL, \"é\"=>\"\"', 'CaSe')")
        raw.execute(
            "INSERT INTO zoo_extended (store, stores) VALUES ('$date=>1', ARRAY['$binary=>x'::hstore])"
        )
    # Django looks the types' numbers up when it first connects, before the extension was there.
    forget = [signals.get_hstore_oids.cache_clear, signals.get_citext_oids.cache_clear, connection.close]
    for forget_it in forget:
        forget_it()
    model = _extended_model()
    try:
        found = documents(collection_of(model), model.objects.all())
    finally:
        for forget_it in forget:
            forget_it()
    assert found == {
        "1": {"store": {"a": "1", "b": None, "é": ""}, "word": "CaSe", "stores": None},
        "2": {"store": {"$date": "1"}, "word": None, "stores": [{"$binary": "x"}]},
    }


def _extended_model() -> Any:
    from django.apps.registry import Apps
    from django.contrib.postgres.fields import ArrayField, HStoreField

    class Meta:
        app_label = "zoo"
        db_table = "zoo_extended"
        apps = Apps()

    return type(
        "Extended",
        (models.Model,),
        {
            "__module__": __name__,
            "Meta": Meta,
            "id": models.AutoField(primary_key=True),
            "store": HStoreField(null=True),
            "word": models.CharField(max_length=20, null=True),
            "stores": ArrayField(HStoreField(), null=True),
        },
    )


def test_images_are_files() -> None:
    # Not in the zoo: its check asks for Pillow.
    assert form_of(models.ImageField()) == form_of(models.FileField())


def test_custom_fields(db: Database) -> None:
    row = Custom.objects.create(point=Point(1, -2), seconds=1.5, shouted="HA")
    Custom.objects.create()
    found = documents(collection_of(Custom), Custom.objects.order_by("pk"))
    assert list(found.values()) == [
        {"point": "1;-2", "seconds": 1.5, "shouted": "HA"},
        {"point": None, "seconds": None, "shouted": None},
    ], row


def test_without_time_zone_support_datetimes_are_the_projects(db: Database) -> None:
    with override_settings(USE_TZ=False, TIME_ZONE="America/New_York"):
        connection.close()
        Every.objects.create(datetime=datetime.datetime(2024, 7, 1, 12))
        (document,) = documents(collection_of(Every), Every.objects.all()).values()
        connection.close()
    assert document["datetime"] == datetime.datetime(2024, 7, 1, 16, tzinfo=UTC)


def test_only_and_defer(db: Database) -> None:
    row = Every.objects.create(char="c", text="t", integer=1)
    collection = collection_of(Every)
    queryset = Every.objects.only("char", "text")
    assert loaded_fields(queryset) == {"char", "text"}
    assert documents(collection, queryset, loaded_fields(queryset)) == {
        str(row.pk): {"char": "c", "text": "t"}
    }
    deferring = Every.objects.defer("char")
    (document,) = documents(collection, deferring, loaded_fields(deferring)).values()
    assert set(document) == set(NAMES) - {"char"}
    assert loaded_fields(Every.objects.all()) is None
    assert loaded_fields(Every.objects.only("pk")) == {"id"}


def test_instances_with_deferred_fields_cause_no_queries(db: Database) -> None:
    Every.objects.create(char="c", text="t")
    serializer = collection_of(Every).serializer()
    obj = Every.objects.only("char").get()
    with CaptureQueriesContext(connection) as queries:
        assert decoded(serializer.document_of_instance(obj)[1]) == {"char": "c"}
    assert not queries.captured_queries


def test_exclude(db: Database) -> None:
    Every.objects.create()
    (document,) = documents(collection_of(Every, exclude=["char", "json"]), Every.objects.all()).values()
    assert set(document) == set(NAMES) - {"char", "json"}


def test_own_serialize(db: Database) -> None:
    class Shouting(Collection):
        model = Every

        def serialize(self, obj: models.Model, meteor_ids: Any = None) -> dict[str, Any]:
            data = super().serialize(obj, meteor_ids)
            data["fields"]["loud"] = data["fields"].pop("char").upper()
            data["fields"]["json"] = {"$date": "1970-01-01"}
            data["fields"]["json_encoded"] = {"$date": datetime.date(1970, 1, 1)}
            data["fields"]["when"] = datetime.date(1970, 1, 1)
            return data

    row = Every.objects.create(char="c")
    serializer = Shouting().serializer()
    assert serializer.custom
    assert not collection_of(Every).serializer().custom
    document_id, fields = serializer.document_of_instance(Every.objects.get())
    found = decoded(fields)
    assert document_id == str(row.pk)
    assert set(found) == set(NAMES) - {"char"} | {"loud", "when"}
    assert (found["loud"], found["json"]) == ("C", {"$date": "1970-01-01"})
    assert found["when"] == datetime.datetime(1970, 1, 1, tzinfo=UTC)
    assert found["json_encoded"] == {"$date": "1970-01-01"}, "by the field's own encoder"


def test_own_serialize_may_put_anything_under_a_json_fields_name(db: Database) -> None:
    class Dated(Collection):
        model = Every

        def serialize(self, obj: models.Model, meteor_ids: Any = None) -> dict[str, Any]:
            return {"fields": {"json": {"at": MOMENT.replace(microsecond=0)}}}

    Every.objects.create()
    assert decoded(Dated().serializer().document_of_instance(Every.objects.get())[1]) == {
        "json": {"at": MOMENT.replace(microsecond=0)}
    }


def test_serialize_gives_values_to_go_on_with(db: Database) -> None:
    row = Every.objects.create(
        date=datetime.date(2024, 1, 1), json={"$a": 1}, decimal=decimal.Decimal(1), integer=3
    )
    row.refresh_from_db()
    fields = collection_of(Every).serialize(row)["fields"]
    assert (fields["date"], fields["json"], fields["decimal"], fields["integer"]) == (
        datetime.date(2024, 1, 1), {"$a": 1}, "1.0000", 3,
    )  # fmt: skip


def test_two_fields_of_one_name_are_refused() -> None:
    from django.apps.registry import Apps

    class Meta:
        app_label = "zoo"
        apps = Apps()

    label = type("Label", (models.Model,), {"__module__": __name__, "Meta": Meta})
    body = {"labels": models.ManyToManyField(label), "labels_ids": models.TextField()}
    model = type("Clash", (models.Model,), {"__module__": __name__, "Meta": Meta, **body})
    with pytest.raises(ConfigurationError, match="labels_ids"):
        collection_of(model).serializer()
    assert len(collection_of(model, exclude=["labels_ids"]).serializer().columns) == 1


def test_aliases_serve_to_annotate(db: Database) -> None:
    row = Every.objects.create(char="c")
    serializer = collection_of(Every).serializer()
    values = Every.objects.annotate(**dict(serializer.values())).values_list(
        *(alias for alias, _ in serializer.values())
    )
    assert document_of_row(serializer, values.get())[0] == str(row.pk)


def test_the_wire_is_what_a_raw_connection_stored(db: Database) -> None:
    with psycopg.connect(db.dsn, autocommit=True) as raw:
        raw.execute(
            "SET DateStyle = 'German'; SET IntervalStyle = 'sql_standard'; SET TimeZone = 'Asia/Tokyo'"
        )
        raw.execute(
            "INSERT INTO zoo_every (datetime, duration, date, unserialized) VALUES "
            "('2024-01-01 00:00:00+00', interval '1 day 2 hours', '02.01.2024', '')"
        )
    (document,) = documents(collection_of(Every), Every.objects.all()).values()
    assert document["datetime"] == datetime.datetime(2024, 1, 1, tzinfo=UTC)
    assert document["date"] == datetime.datetime(2024, 1, 2, tzinfo=UTC)
    assert document["duration"] == "1 02:00:00"
    assert ejson.encode(document["date"]) == b'{"$date":1704153600000}'


def test_names_that_an_own_serialize_gives_to_fields() -> None:
    class Named(Collection):
        model = Every
        name = "named"

        def serialize(self, obj: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
            return {"fields": {"text": 1, given[0]: 2}}

    serializer = Named().serializer()
    given: list[Any] = [2024]
    assert serializer.document_of_instance(Every(pk=1))[1] == {"text": b"1", "2024": b"2"}
    for given[0] in (None, True, 1.5):
        with pytest.raises(ejson.EJSONError, match="which is no text"):
            serializer.document_of_instance(Every(pk=1))
