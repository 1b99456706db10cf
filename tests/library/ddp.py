"""Publications of every kind, each with parameters that select something of `tests.library.data`.

Windows are ordered totally, by the key at the end: otherwise there is no one right answer. Annotations that
only serve a filter are ``alias()``; those of ``annotate()`` are fields of the documents.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

from django.contrib.auth import get_user_model
from django.db.models import (
    Avg,
    Case,
    Count,
    Exists,
    F,
    FilteredRelation,
    Max,
    OuterRef,
    Q,
    QuerySet,
    Subquery,
    Sum,
    Value,
    When,
    Window,
)  # fmt: skip
from django.db.models.expressions import RawSQL
from django.db.models.functions import Coalesce, Lower, RowNumber

from tests.library.models import Author, Book, BookGenre, Comic, Copy, Genre, Publisher, Review
from trigger_ddp.api import API, APIMixin, Collection, Publication, api_endpoint, this

#: Publication to the lists of parameters with which it is tried.
SAMPLES: dict[str, list[list[Any]]] = {}


def publish(*samples: list[Any], depends_on: tuple[str, ...] = ()) -> Callable[[Any], Any]:
    """Declare a publication by a function of its parameters that gives one queryset, or a list of queries."""

    def declare(function: Any) -> Any:
        name = function.__name__
        SAMPLES[name] = list(samples) or [[]]
        body = {"name": name, "get_queries": staticmethod(function), "depends_on": depends_on}
        API.register(type(name, (Publication,), body))
        return function

    return declare


# -- collections ----------------------------------------------------------------------------------------


def _plain(model: Any) -> None:
    API.register(type(f"{model.__name__}s", (Collection,), {"model": model}))


for _model in (Publisher, Author, Genre, Book, Review, Copy, Comic):
    _plain(_model)


@API.register
class Stock(Collection):
    """With a condition and an order of its own."""

    model = Book
    name = "stock"
    qs_filter = Q(in_stock=True)
    order_by = ["title", "pk"]


@API.register
class Catalogue(Collection):
    """Made by Python, and of another table too."""

    model = Book
    name = "catalogue"
    depends_on = ["author"]
    exclude = ("awards",)

    def serialize(self, obj: Any, meteor_ids: Any = None) -> dict[str, Any]:
        document = super().serialize(obj)
        # Looked up after the row was read: it may be gone by now.
        author = Author.objects.filter(pk=obj.author_id).first()
        document["fields"]["label"] = f"{author and author.name}: {obj.title}"
        return document


@API.register
class Owned(Collection):
    model = Book
    name = "owned"
    user_rel = "owner"


@API.register
class Feedback(Collection):
    """Of one's own books and by oneself, even for superusers."""

    model = Review
    name = "feedback"
    user_rel = ("book__owner", "reviewer")
    always_allow_superusers = False


@API.register
class Reviewed(Collection):
    """Reached over many rows."""

    model = Book
    name = "reviewed"
    user_rel = "reviews__reviewer"


# -- conditions on the model's own columns ----------------------------------------------------------------


@publish()
def all_books() -> Any:
    return Book.objects.all()


@publish(depends_on=("auth.User", "library.Award"))
def everything_else() -> Any:
    """Also gives triggers to tables without a collection, which other publications join."""
    return [Publisher.objects.all(), Author.objects.all(), Genre.objects.all(), Review.objects.all(),
            Copy.objects.all(), Comic.objects.all()]  # fmt: skip


@publish([2020], [2021], [2050])
def books_of_year(year: int) -> Any:
    return Book.objects.filter(year=year)


@publish(["x"], ["X"])
def books_titled(title: str) -> Any:
    return Book.objects.filter(title=title)


@publish(["x"], ["it's"])
def books_titled_in_any_case(title: str) -> Any:
    return Book.objects.filter(title__iexact=title)


@publish(["x"])
def books_lowered(title: str) -> Any:
    return Book.objects.alias(lowered=Lower("title")).filter(lowered=title)


@publish(["it"], ["%"])
def books_beginning(text: str) -> Any:
    return Book.objects.filter(title__startswith=text)


@publish([5], [8.5])
def books_priced(price: float) -> Any:
    return Book.objects.filter(price=price)


@publish(["5"], ["5.000"])
def books_priced_as_text(price: str) -> Any:
    return Book.objects.filter(price=price)


@publish([True], [False])
def books_in_stock(in_stock: bool) -> Any:
    return Book.objects.filter(in_stock=in_stock)


@publish(["a", 1, True], ["a", 2, True], ["b", 1, False])
def books_at(shelf: str, slot: int, in_stock: bool) -> Any:
    return Book.objects.filter(shelf=shelf, slot=slot, in_stock=in_stock)


@publish([[2020, 2021]], [[2021, 2022]], [[]])
def books_among_years(years: list[int]) -> Any:
    return Book.objects.filter(year__in=years)


@publish([True], [False])
def books_without_price(none: bool) -> Any:
    return Book.objects.filter(price__isnull=none)


@publish(["2020-01-01"], [None])
def books_published_on(day: str | None) -> Any:
    return Book.objects.filter(published=day)


@publish([2020], [2021])
def books_published_in(year: int) -> Any:
    return Book.objects.filter(published__year=year)


@publish([6])
def books_published_in_month(month: int) -> Any:
    return Book.objects.filter(published__month=month)


@publish(["2020-06-01"])
def books_published_since(day: str) -> Any:
    since = datetime.date.fromisoformat(day)
    return Book.objects.filter(published__range=(since, since + datetime.timedelta(days=400)))


@publish(["x", 2020], ["y", 2021])
def books_titled_or_of_year(title: str, year: int) -> Any:
    return Book.objects.filter(Q(title=title) | Q(year=year))


@publish([2020], [2021])
def books_not_of_year(year: int) -> Any:
    return Book.objects.exclude(year=year)


@publish([5], [8])
def books_not_priced(price: float) -> Any:
    return Book.objects.filter(~Q(price=price))


@publish([2020])
def books_in_stock_xor_of_year(year: int) -> Any:
    return Book.objects.filter(Q(in_stock=True) ^ Q(year=year))


@publish()
def no_books() -> Any:
    return Book.objects.none()


# -- over foreign keys --------------------------------------------------------------------------------------


@publish([1], [2])
def books_of_author(author: int) -> Any:
    return Book.objects.filter(author=author)


@publish([1], [None])
def books_edited_by(editor: int | None) -> Any:
    return Book.objects.filter(editor=editor)


@publish(["1@x"], ["2@x"])
def books_by_email(email: str) -> Any:
    return Book.objects.filter(author__email=email)


@publish(["1@x"], ["2@x"])
def books_and_author_by_email(email: str) -> Any:
    books = Book.objects.filter(author__email=email)
    return [
        Author.objects.filter(email=email), books.only("title"), (books, "stock"),
        Genre.objects.filter(books__author__email=email).distinct(),
    ]  # fmt: skip


@publish(["ann", 2020], ["bob", 2021])
def books_by_name_and_year(name: str, year: int) -> Any:
    return Book.objects.filter(author__name=name, year=year)


@publish(["de"], ["fr"])
def books_of_country(country: str) -> Any:
    return Book.objects.filter(author__publisher__country=country).select_related("author")


@publish([True], [False])
def books_published_by_active(active: bool) -> Any:
    return Book.objects.filter(author__publisher__active=active)


@publish([True], [False])
def books_without_publisher(none: bool) -> Any:
    return Book.objects.filter(author__publisher__isnull=none)


@publish(["2@x"], ["3@x"])
def books_edited_by_email(email: str) -> Any:
    return Book.objects.filter(editor__email=email)


@publish(["ann"], ["bob"])
def books_written_or_edited_by(name: str) -> Any:
    return Book.objects.filter(Q(author__name=name) | Q(editor__name=name))


@publish(["de"], ["fr"])
def books_unedited_or_edited_in(country: str) -> Any:
    return Book.objects.filter(Q(editor=None) | Q(editor__publisher__country=country))


@publish()
def books_without_active_editor() -> Any:
    return Book.objects.filter(~Q(editor__publisher__active=True))


@publish(["de"], ["fr"])
def books_not_of_country(country: str) -> Any:
    return Book.objects.exclude(author__publisher__country=country)


@publish(["x"], ["y"])
def sequels_of_titled(title: str) -> Any:
    return Book.objects.filter(sequel_of__title=title)


@publish([2020], [2021])
def books_with_sequel_of_year(year: int) -> Any:
    return Book.objects.filter(sequels__year=year)


@publish()
def sequels_by_the_same_author() -> Any:
    return Book.objects.filter(sequel_of__author=F("author"))


@publish([2020], [2021])
def books_of_authors_active_in(year: int) -> Any:
    return Book.objects.filter(author__books__year=year)


@publish([1], [3])
def reviews_with_stars(stars: int) -> Any:
    return Review.objects.filter(stars=stars)


@publish(["1@x"], ["2@x"])
def reviews_of_author(email: str) -> Any:
    return Review.objects.filter(book__author__email=email)


@publish([True], [False])
def reviews_by_active_users(active: bool) -> Any:
    return Review.objects.filter(reviewer__is_active=active)


@publish()
def reviews_by_superusers() -> Any:
    superusers = get_user_model().objects.filter(is_superuser=True)
    return Review.objects.filter(reviewer__in=superusers)


@publish(["new"], ["worn"])
def copies_in_condition(condition: str) -> Any:
    return Copy.objects.filter(condition=condition)


@publish([1, 1], [2, 1])
def copy(book: int, number: int) -> Any:
    return Copy.objects.filter(pk=(book, number))


@publish([2020], [2021])
def copies_of_year(year: int) -> Any:
    return Copy.objects.filter(book__year=year)


@publish([2020, "new"])
def other_copies(year: int, condition: str) -> Any:
    return Copy.objects.exclude(condition=condition).filter(book__year__gte=year)


# -- over reverse keys and many-to-many ---------------------------------------------------------------------


@publish([2020], [2021])
def authors_of_year(year: int) -> Any:
    return Author.objects.filter(books__year=year)


@publish([True], [False])
def authors_without_books(none: bool) -> Any:
    return Author.objects.filter(books__isnull=none)


@publish([3], [5])
def authors_reviewed_with(stars: int) -> Any:
    return Author.objects.filter(books__reviews__stars=stars)


@publish([1], [3])
def authors_never_reviewed_with(stars: int) -> Any:
    return Author.objects.exclude(books__reviews__stars=stars)


@publish()
def books_without_reviews() -> Any:
    return Book.objects.filter(reviews=None)


@publish([3])
def books_reviewed_at_least(stars: int) -> Any:
    return Book.objects.filter(reviews__stars__gte=stars).distinct()


@publish([3], [5])
def books_of_year_reviewed_with(stars: int) -> Any:
    return Book.objects.filter(reviews__stars=stars, year__gte=2020)


@publish(["crime"], ["poetry"])
def books_of_genre(name: str) -> Any:
    return Book.objects.filter(genres__name=name)


@publish(["g1"], ["g2"])
def books_of_genre_id(aid: str) -> Any:
    return Book.objects.filter(genres__aid=aid)


@publish(["crime", "poetry"], ["poetry", "travel"])
def books_of_both_genres(one: str, other: str) -> Any:
    return Book.objects.filter(genres__name=one).filter(genres__name=other)


@publish(["crime", 1], ["crime", 2], ["poetry", 2])
def books_weighing(name: str, weight: int) -> Any:
    return Book.objects.filter(bookgenre__genre__name=name, bookgenre__weight=weight)


@publish(["crime"], ["poetry"])
def books_not_of_genre(name: str) -> Any:
    return Book.objects.exclude(genres__name=name)


@publish()
def books_without_genre() -> Any:
    return Book.objects.filter(genres__isnull=True)


@publish(["crime", 3])
def books_not_of_genre_and_reviewed_with(name: str, stars: int) -> Any:
    return Book.objects.exclude(Q(genres__name=name) & Q(reviews__stars=stars))


@publish(["gold"], ["silver"])
def books_with_award(name: str) -> Any:
    return Book.objects.filter(awards__name=name)


@publish([1])
def books_with_award_number(award: int) -> Any:
    return Book.objects.filter(awards=award)


@publish(["1@x"], ["2@x"])
def genres_of_author(email: str) -> Any:
    return Genre.objects.filter(books__author__email=email)


@publish([2])
def genres_weighing(weight: int) -> Any:
    return Genre.objects.filter(bookgenre__weight__gte=weight).distinct()


@publish(["gold"])
def publishers_with_award(name: str) -> Any:
    return Publisher.objects.filter(authors__books__awards__name=name)


@publish([4])
def books_with_good_reviews(stars: int) -> Any:
    good = FilteredRelation("reviews", condition=Q(reviews__stars__gte=stars))
    return Book.objects.alias(good=good).filter(good__isnull=False)


@publish([4])
def books_without_good_reviews(stars: int) -> Any:
    good = FilteredRelation("reviews", condition=Q(reviews__stars__gte=stars))
    return Book.objects.alias(good=good).filter(good__isnull=True)


# -- some of the fields -------------------------------------------------------------------------------------


@publish([1], [2])
def titles_of_author(author: int) -> Any:
    return Book.objects.filter(author=author).only("title", "author")


@publish(["de"])
def genres_of_books_of_country(country: str) -> Any:
    return Book.objects.filter(author__publisher__country=country).only("genres")


@publish([2020], [2021])
def books_but_their_price(year: int) -> Any:
    return Book.objects.filter(year__gte=year).defer("price", "awards", "genres")


@publish([2020], [2021])
def book_values(year: int) -> Any:
    return Book.objects.filter(year=year).values("id", "title", "in_stock")


@publish(["ann"])
def price_values(name: str) -> Any:
    return Book.objects.filter(author__name=name).values("price")


@publish([True])
def keys_of_books(in_stock: bool) -> Any:
    return Book.objects.filter(in_stock=in_stock).only("pk")


@publish([3])
def cheapest_prices(count: int) -> Any:
    return Book.objects.order_by("price", "pk").only("price")[:count]


# -- windows ------------------------------------------------------------------------------------------------


@publish([2], [4])
def cheapest_books(count: int) -> Any:
    return Book.objects.order_by("price", "pk")[:count]


@publish([2])
def dearest_books(count: int) -> Any:
    return Book.objects.order_by(F("price").desc(nulls_last=True), "-pk")[:count]


@publish([1, 2], [3, 2])
def page_of_books(offset: int, count: int) -> Any:
    return Book.objects.order_by("-year", "pk")[offset : offset + count]


@publish([2])
def books_from(offset: int) -> Any:
    return Book.objects.order_by("title", "pk")[offset:]


@publish([1, 2], [2, 1])
def cheapest_of_author(author: int, count: int) -> Any:
    return Book.objects.filter(author=author).order_by("price", "pk")[:count]


@publish([True, 2])
def page_in_stock(in_stock: bool, count: int) -> Any:
    return Book.objects.filter(in_stock=in_stock).order_by("shelf", "slot", "pk")[1 : 1 + count]


@publish([3])
def books_by_authors_name(count: int) -> Any:
    return Book.objects.order_by("author__name", "-pk")[:count]


@publish(["de", 2], ["fr", 1])
def newest_of_country(country: str, count: int) -> Any:
    return Book.objects.filter(author__publisher__country=country).order_by("-year", "-pk")[:count]


@publish(["crime", 1])
def newest_of_genre(name: str, count: int) -> Any:
    return Book.objects.filter(genres__name=name).order_by("-year", "pk").distinct()[:count]


@publish([2])
def stock_window(count: int) -> Any:
    """The collection's filter and order apply before the slice."""
    return [(Book.objects.all()[:count], "stock")]


@publish([3])
def copies_in_order(count: int) -> Any:
    return Copy.objects.order_by("-number", "book_id")[:count]


@publish([2])
def reviews_of_popular_books(count: int) -> Any:
    return Review.objects.order_by("-book__year", "stars", "pk")[:count]


@publish([2])
def most_reviewed_books(count: int) -> Any:
    return Book.objects.alias(n=Count("reviews")).order_by("-n", "pk")[:count]


@publish([5])
def first_page_twice(count: int) -> Any:
    """Overlapping windows of the same collection."""
    return [Book.objects.order_by("pk")[:count], Book.objects.order_by("-pk")[:count].only("title", "price")]


# -- DISTINCT, subqueries, aggregates -----------------------------------------------------------------------


@publish()
def newest_of_each_author() -> Any:
    return Book.objects.order_by("author_id", "-year", "pk").distinct("author_id")


@publish()
def cheapest_of_each_country() -> Any:
    country = "author__publisher__country"
    return Book.objects.order_by(country, "price", "pk").distinct(country)


@publish([3], [5])
def books_with_review(stars: int) -> Any:
    return Book.objects.filter(Exists(Review.objects.filter(book=OuterRef("pk"), stars=stars)))


@publish([3])
def books_without_review(stars: int) -> Any:
    return Book.objects.filter(~Exists(Review.objects.filter(book=OuterRef("pk"), stars=stars)))


@publish([2])
def books_heavy_in_a_genre(weight: int) -> Any:
    heavy = BookGenre.objects.filter(book=OuterRef("pk"), weight__gte=weight)
    return Book.objects.filter(Exists(heavy), in_stock=True)


@publish([3], [5])
def books_best_reviewed_with(stars: int) -> Any:
    best = Review.objects.filter(book=OuterRef("pk")).order_by("-stars").values("stars")[:1]
    return Book.objects.alias(best=Subquery(best)).filter(best=stars)


@publish(["de"], ["fr"])
def books_of_authors_in(country: str) -> Any:
    return Book.objects.filter(author__in=Author.objects.filter(publisher__country=country))


@publish([1])
def books_of_first_authors(count: int) -> Any:
    return Book.objects.filter(author__in=Author.objects.order_by("name", "pk")[:count])


@publish([3])
def books_of_reviewed_years(stars: int) -> Any:
    return Book.objects.filter(year__in=Book.objects.filter(reviews__stars=stars).values("year"))


@publish()
def books_of_the_newest_year() -> Any:
    newest = Book.objects.order_by("-year").values("year")[:1]
    return Book.objects.filter(year=Subquery(newest))


@publish([1], [2])
def books_with_reviews(count: int) -> Any:
    return Book.objects.alias(n=Count("reviews")).filter(n__gte=count)


@publish([0], [1])
def books_with_good_review_count(count: int) -> Any:
    return Book.objects.alias(n=Count("reviews", filter=Q(reviews__stars__gte=4))).filter(n=count)


@publish([5])
def books_with_stars_in_all(stars: int) -> Any:
    total = Coalesce(Sum("reviews__stars"), 0)
    return Book.objects.alias(total=total).filter(Q(total__gte=stars) | Q(title="y"))


@publish([1], [2])
def authors_with_book_count(count: int) -> Any:
    return Author.objects.alias(n=Count("books")).filter(n=count)


@publish([2])
def publishers_by_average(stars: int) -> Any:
    return Publisher.objects.alias(a=Avg("authors__books__reviews__stars")).filter(a__gt=stars)


@publish([2])
def books_of_productive_years(count: int) -> Any:
    years = Book.objects.values("year").annotate(n=Count("pk")).filter(n__gte=count)
    return Book.objects.filter(year__in=years.values("year"))


@publish([1])
def newest_books_of_each_author(rank: int) -> Any:
    order = [F("year").desc(), F("id").asc()]
    number = Window(RowNumber(), partition_by=F("author"), order_by=order)
    return Book.objects.alias(number=number).filter(number__lte=rank)


@publish([2021])
def authors_last_published_in(year: int) -> Any:
    return Author.objects.alias(last=Max("books__year")).filter(last=year)


# -- expressions, combinations, raw SQL ---------------------------------------------------------------------


@publish()
def books_edited_by_their_author() -> Any:
    return Book.objects.filter(author=F("editor"))


@publish([2019])
def books_with_slot_after(year: int) -> Any:
    return Book.objects.filter(slot__gt=F("year") - year)


@publish()
def books_named_as_their_author() -> Any:
    return Book.objects.filter(Q(title=F("author__name")) | Q(year=F("sequel_of__year")))


@publish(["cheap"], ["dear"], ["unknown"])
def books_of_tier(tier: str) -> Any:
    of = Case(
        When(price__lt=5, then=Value("cheap")), When(price=None, then=Value("unknown")), default=Value("dear")
    )
    return Book.objects.alias(tier=of).filter(tier=tier)


@publish(["de"])
def books_at_home(country: str) -> Any:
    home = Case(When(author__publisher__country=country, then=Value(True)), default=F("in_stock"))
    return Book.objects.alias(home=home).filter(home=True)


def _two(title: str, email: str) -> tuple[QuerySet[Book], QuerySet[Book]]:
    return Book.objects.filter(title=title), Book.objects.filter(author__email=email)


@publish(["x", "2@x"])
def union_of_books(title: str, email: str) -> Any:
    one, other = _two(title, email)
    return one.union(other)


@publish(["x", "1@x"])
def intersection_of_books(title: str, email: str) -> Any:
    one, other = _two(title, email)
    return one.intersection(other)


@publish(["x", "1@x"])
def difference_of_books(title: str, email: str) -> Any:
    one, other = _two(title, email)
    return one.difference(other)


@publish([2020])
def books_by_extra(year: int) -> Any:
    return Book.objects.extra(where=["library_book.year = %s"], params=[year])


@publish([3])
def books_by_raw_fragment(stars: int) -> Any:
    found = RawSQL("SELECT book_id FROM library_review WHERE stars >= %s", [stars])
    return Book.objects.filter(pk__in=found)


# -- multi-table inheritance --------------------------------------------------------------------------------


@publish([True], [False])
def comics_in_colour(colour: bool) -> Any:
    return Comic.objects.filter(colour=colour)


@publish([2021], [2022])
def comics_of_year(year: int) -> Any:
    return Comic.objects.filter(year=year)


@publish(["1@x"], ["2@x"])
def comics_by_email(email: str) -> Any:
    return Comic.objects.filter(author__email=email)


@publish(["ann"], ["bob"])
def comics_drawn_by(name: str) -> Any:
    return Comic.objects.filter(artist__name=name).only("title", "artist")


@publish(["crime"])
def comics_of_genre(name: str) -> Any:
    return Comic.objects.filter(genres__name=name)


@publish([1])
def first_comics(count: int) -> Any:
    return Comic.objects.order_by("title", "pk")[:count]


@publish([True], [False])
def books_that_are_comics(comic: bool) -> Any:
    return Book.objects.filter(comic__isnull=not comic)


@publish([True])
def books_that_are_in_colour(colour: bool) -> Any:
    return Book.objects.filter(comic__colour=colour)


# -- collections with rules of their own, users -------------------------------------------------------------


@publish(["x"], ["y"])
def stock_titled(title: str) -> Any:
    return [(Book.objects.filter(title=title), "stock")]


@publish(["de"])
def catalogue_of_country(country: str) -> Any:
    return [(Book.objects.filter(author__publisher__country=country), "catalogue")]


@publish([2020])
def titles_in_catalogue(year: int) -> Any:
    return [(Book.objects.filter(year__gte=year).only("title", "genres"), "catalogue")]


@publish()
def my_books() -> Any:
    return [(Book.objects.all(), "owned")]


@publish([2])
def my_newest_books(count: int) -> Any:
    return [(Book.objects.order_by("-year", "pk")[:count], "owned")]


@publish()
def my_feedback() -> Any:
    return [(Review.objects.all(), "feedback")]


@publish(["x"])
def my_reviewed_books(title: str) -> Any:
    return [(Book.objects.filter(title=title), "reviewed")]


@publish()
def my_reviews() -> Any:
    """The publication itself asks who it is."""
    return Review.objects.filter(reviewer=this.user_id) if this.user_id else None


@publish([1])
def books_with_counts(count: int) -> Any:
    return Book.objects.annotate(reviewed=Count("reviews")).filter(reviewed__gte=count)


@publish()
def reviews_in_values() -> Any:
    return Book.objects.values("id", "title").annotate(reviewed=Count("reviews"))


@publish(["de"])
def book_titles_with_authors(country: str) -> Any:
    books = Book.objects.filter(author__publisher__country=country)
    return books.annotate(author_name=F("author__name")).values("id", "title", "author_name")


@publish(["x", "2@x", 2])
def slice_of_a_union(title: str, email: str, count: int) -> Any:
    one, other = _two(title, email)
    return one.union(other).order_by("id")[:count]


@publish([2020])
def titles_alone_in_catalogue(year: int) -> Any:
    return [(Book.objects.filter(year__gte=year).only("title"), "catalogue")]


@publish([2020])  # one year: two would give the field of one document two values
def raw_authors(year: int) -> Any:
    books = "SELECT author_id, count(*) AS written FROM library_book WHERE year >= %s GROUP BY 1"
    return Author.objects.raw(
        f"SELECT a.*, b.written FROM library_author a JOIN ({books}) b ON b.author_id = a.id", [year]
    )


class Accounts(APIMixin):
    api_path_prefix = "library/"

    @api_endpoint
    def login(self, user: int | None) -> None:
        this.set_user_id(user)


API.register(Accounts)
