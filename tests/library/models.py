"""A small schema with every way that one row can decide about another: what the differential tests write to.

As in tests/zoo there are no migrations, so that keys to users are without a constraint. The others get
``ON UPDATE CASCADE`` and an ``ON DELETE`` by `tests.library.data.prepare`: cascades are PostgreSQL's own.
"""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Deferrable, UniqueConstraint

from trigger_ddp.api import AleaIdMixin


class Publisher(models.Model):
    country = models.CharField(max_length=10)
    active = models.BooleanField(default=True)


class Author(models.Model):
    publisher = models.ForeignKey(Publisher, models.SET_NULL, null=True, related_name="authors")
    name = models.CharField(max_length=20)
    email = models.CharField(max_length=20, unique=True)


class Genre(AleaIdMixin):
    """Known by an id that can move from one row to another."""

    name = models.CharField(max_length=20)


class Award(models.Model):
    name = models.CharField(max_length=20)


class Book(models.Model):
    author = models.ForeignKey(Author, models.CASCADE, related_name="books")
    editor = models.ForeignKey(Author, models.SET_NULL, null=True, related_name="edited")
    sequel_of = models.ForeignKey("self", models.SET_NULL, null=True, related_name="sequels")
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, null=True, related_name="+", db_constraint=False
    )
    title = models.CharField(max_length=20)
    price = models.DecimalField(max_digits=8, decimal_places=2, null=True)
    year = models.IntegerField()
    published = models.DateField(null=True)
    in_stock = models.BooleanField(default=True)
    shelf = models.CharField(max_length=2)
    slot = models.IntegerField()
    genres = models.ManyToManyField(Genre, through="BookGenre", related_name="books")
    awards = models.ManyToManyField(Award, related_name="books")

    class Meta:
        # Deferred, so that one statement can swap two places.
        constraints = (
            UniqueConstraint(fields=["shelf", "slot"], name="library_place", deferrable=Deferrable.DEFERRED),
        )


class BookGenre(models.Model):
    """A through model with a column of its own; a pair may be related more than once."""

    book = models.ForeignKey(Book, models.CASCADE)
    genre = models.ForeignKey(Genre, models.CASCADE)
    weight = models.IntegerField(default=1)


class Review(models.Model):
    book = models.ForeignKey(Book, models.CASCADE, related_name="reviews")
    reviewer = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, null=True, related_name="+", db_constraint=False
    )
    stars = models.IntegerField()


class Copy(models.Model):
    """A composite primary key, a foreign key in it."""

    pk = models.CompositePrimaryKey("book_id", "number")
    book = models.ForeignKey(Book, models.CASCADE, related_name="copies")
    number = models.IntegerField()
    condition = models.CharField(max_length=10)


class Comic(Book):
    """Multi-table inheritance."""

    colour = models.BooleanField(default=True)
    artist = models.ForeignKey(Author, models.SET_NULL, null=True, related_name="drawn")
