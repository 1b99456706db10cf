"""One model for every kind of field, key and relation that can be published.

The app has no migrations: its tables are made before those of apps that have, so that foreign keys to
such apps are without a constraint.
"""

from __future__ import annotations

import datetime
from typing import Any

from django.conf import settings
from django.contrib.contenttypes.fields import GenericForeignKey
from django.contrib.contenttypes.models import ContentType
from django.contrib.postgres import fields as postgres
from django.contrib.postgres.search import SearchVectorField
from django.core.serializers.json import DjangoJSONEncoder
from django.db import models
from django.db.models import F
from django.db.models.functions import Upper

from trigger_ddp.api import AleaIdField, AleaIdMixin


class Size(models.TextChoices):
    SMALL = "s", "small"
    LARGE = "l", "large"


class Legs(models.IntegerChoices):
    TWO = 2
    FOUR = 4


class Every(models.Model):
    """Every field of django.db.models that is no relation, all of them nullable."""

    big_integer = models.BigIntegerField(null=True)
    binary = models.BinaryField(null=True)
    boolean = models.BooleanField(null=True)
    char = models.CharField(max_length=100, null=True)
    date = models.DateField(null=True)
    datetime = models.DateTimeField(null=True)
    decimal = models.DecimalField(max_digits=20, decimal_places=4, null=True)
    duration = models.DurationField(null=True)
    email = models.EmailField(null=True)
    file = models.FileField(null=True)
    file_path = models.FilePathField(path="/", null=True)
    float = models.FloatField(null=True)
    generic_ip_address = models.GenericIPAddressField(null=True)
    image = models.FileField(upload_to="images", null=True)  # ImageField needs Pillow to pass Django's checks
    integer = models.IntegerField(null=True)
    json = models.JSONField(null=True)
    json_encoded = models.JSONField(null=True, encoder=DjangoJSONEncoder)
    positive_big_integer = models.PositiveBigIntegerField(null=True)
    positive_integer = models.PositiveIntegerField(null=True)
    positive_small_integer = models.PositiveSmallIntegerField(null=True)
    slug = models.SlugField(null=True)
    small_integer = models.SmallIntegerField(null=True)
    text = models.TextField(null=True)
    time = models.TimeField(null=True)
    url = models.URLField(null=True)
    uuid = models.UUIDField(null=True)
    size = models.CharField(max_length=1, choices=Size.choices, null=True)
    legs = models.IntegerField(choices=Legs.choices, null=True)
    shouted = models.GeneratedField(
        expression=Upper("char"), output_field=models.CharField(max_length=100), db_persist=True, null=True
    )
    doubled = models.GeneratedField(
        expression=F("integer") * 2, output_field=models.BigIntegerField(), db_persist=True
    )
    writer = models.CharField(max_length=10, db_column='odd ""name"" é', null=True)
    unserialized = models.CharField(max_length=10, default="secret", serialize=False)


class EveryPostgres(models.Model):
    """Every field of django.contrib.postgres that needs no extension, all of them nullable."""

    integers = postgres.ArrayField(models.IntegerField(null=True), null=True)
    matrix = postgres.ArrayField(postgres.ArrayField(models.BigIntegerField()), null=True)
    dates = postgres.ArrayField(models.DateField(null=True), null=True)
    decimals = postgres.ArrayField(models.DecimalField(max_digits=10, decimal_places=2), null=True)
    texts = postgres.ArrayField(models.TextField(), size=3, null=True)
    jsons = postgres.ArrayField(models.JSONField(), null=True)
    integer_range = postgres.IntegerRangeField(null=True)
    big_integer_range = postgres.BigIntegerRangeField(null=True)
    decimal_range = postgres.DecimalRangeField(null=True)
    date_range = postgres.DateRangeField(null=True)
    datetime_range = postgres.DateTimeRangeField(null=True)
    search = SearchVectorField(null=True)


class Point:
    """What the custom field makes of its column."""

    def __init__(self, x: int, y: int) -> None:
        self.x, self.y = x, y

    def __str__(self) -> str:
        return f"{self.x};{self.y}"


class PointField(models.CharField):
    """A field of an application's own, as libraries have them: another Python class, stored as text."""

    def from_db_value(self, value: str | None, expression: Any, connection: Any) -> Point | None:
        return None if value is None else Point(*map(int, value.split(",")))

    def get_prep_value(self, value: Point | None) -> str | None:
        return None if value is None else f"{value.x},{value.y}"


class SecondsField(models.Field):
    """A field derived from none of Django's, whose values are of a simple class."""

    def db_type(self, connection: Any) -> str:
        return "interval"

    def from_db_value(
        self, value: datetime.timedelta | None, expression: Any, connection: Any
    ) -> float | None:
        return None if value is None else value.total_seconds()

    def get_prep_value(self, value: float | None) -> datetime.timedelta | None:
        return None if value is None else datetime.timedelta(seconds=value)


class ShoutedField(models.TextField):
    """A subclass whose values stay what its base's are."""


class Custom(models.Model):
    point = PointField(max_length=20, null=True)
    seconds = SecondsField(null=True)
    shouted = ShoutedField(null=True)


class Keeper(AleaIdMixin):
    """Known to clients by its ``aid``."""

    name = models.CharField(max_length=50)
    account = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.CASCADE, null=True, related_name="+", db_constraint=False
    )


class Species(models.Model):
    """A natural primary key."""

    code = models.CharField(primary_key=True, max_length=20)
    latin = models.CharField(max_length=50, unique=True)


class Ticket(models.Model):
    """An AleaIdField as primary key."""

    id = AleaIdField(primary_key=True)
    price = models.DecimalField(max_digits=6, decimal_places=2)


class Cage(models.Model):
    """A UUID as primary key."""

    id = models.UUIDField(primary_key=True)
    label = models.CharField(max_length=10)


class Animal(models.Model):
    """Every kind of relation."""

    name = models.CharField(max_length=50)
    species = models.ForeignKey(Species, models.CASCADE, null=True)
    by_latin_name = models.ForeignKey(Species, models.CASCADE, to_field="latin", null=True, related_name="+")
    keeper = models.ForeignKey(Keeper, models.CASCADE, null=True, related_name="animals")
    cage = models.OneToOneField(Cage, models.CASCADE, null=True)
    mother = models.ForeignKey("self", models.CASCADE, null=True, related_name="children")
    content_type = models.ForeignKey(
        ContentType, models.CASCADE, null=True, related_name="+", db_constraint=False
    )
    object_id = models.PositiveIntegerField(null=True)
    anything = GenericForeignKey()
    friends = models.ManyToManyField("self")
    eats = models.ManyToManyField(Species, related_name="eaten_by")
    admirers = models.ManyToManyField(Keeper, through="Visit", related_name="admires")

    class Meta:
        ordering = ("name",)


class AnimalProxy(Animal):
    class Meta:
        proxy = True


class Visit(models.Model):
    """A through model of its own, which may relate the same pair more than once."""

    animal = models.ForeignKey(Animal, models.CASCADE, db_column="seen")
    keeper = models.ForeignKey(Keeper, models.CASCADE)
    day = models.DateField(default=datetime.date(2024, 1, 1))


class Bird(Animal):
    """Multi-table inheritance."""

    wingspan = models.FloatField()


class Parrot(Bird):
    """Two levels of it."""

    words = models.IntegerField(default=0)
    ticket = models.ForeignKey(Ticket, models.CASCADE, null=True)


class Nest(models.Model):
    """A primary key that is a relation, to a model whose primary key is one too."""

    bird = models.OneToOneField(Bird, models.CASCADE, primary_key=True)
    eggs = models.IntegerField(default=0)


class Stall(models.Model):
    """A composite primary key."""

    pk = models.CompositePrimaryKey("house", "number")
    house = models.CharField(max_length=20)
    number = models.IntegerField()
    animal = models.ForeignKey(Animal, models.CASCADE, null=True)


class Odd(models.Model):
    """Names that need quoting."""

    select = models.IntegerField(db_column="Se'lect ", null=True)
    größe = models.IntegerField(null=True)

    class Meta:
        db_table = 'Zoo ""odd"" Tablé'


class Daily(models.Model):
    """A primary key whose text depends on PostgreSQL's DateStyle."""

    day = models.DateField(primary_key=True)
    visitors = models.IntegerField(default=0)


class Badge(models.Model):
    """Related by another unique column than its key; with a field that is called as an alias might be."""

    code = models.CharField(max_length=10, primary_key=True)
    slug = models.CharField(max_length=10, unique=True)
    f2 = models.IntegerField(default=0)
    keepers = models.ManyToManyField(Keeper, through="BadgeHolder", related_name="+")


class BadgeHolder(models.Model):
    badge = models.ForeignKey(Badge, models.CASCADE, to_field="slug", related_name="+")
    keeper = models.ForeignKey(Keeper, models.CASCADE, related_name="+")
