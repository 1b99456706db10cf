"""``manage.py ddp_explain``: what the server does to keep a publication live, and what that costs."""

from __future__ import annotations

import difflib
import json
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Iterable, Iterator
from typing import Any

import sqlparse
from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.db import connections
from django.test.utils import CaptureQueriesContext
from psycopg import sql

from trigger_ddp import conf
from trigger_ddp.api import API, Collection, Publication, get_meteor_id, this
from trigger_ddp.capture.install import status
from trigger_ddp.capture.tables import Table
from trigger_ddp.errors import ConfigurationError, MeteorError, NotLive
from trigger_ddp.live.compile import compile_queryset
from trigger_ddp.live.compiled import CompiledQuery
from trigger_ddp.live.evaluation import Bound, Row
from trigger_ddp.live.explain import plan_of, read_whole

DESCRIPTION = """\
Show what keeps a publication live: for each of its querysets the SQL that looks at changed rows, what was
lifted out of it so that subscriptions with other parameters share it, the tables whose changes matter and how
they lead to rows, whether these have their triggers, and PostgreSQL's plan for one changed row. Warns of what
will be slow or is not live. Reads only.
"""

EXAMPLES = """\
examples:
  manage.py ddp_explain                                      the publications there are
  manage.py ddp_explain AllBooks
  manage.py ddp_explain BooksByAuthorEmail janet@example.com
  manage.py ddp_explain BooksOfShops '[1, 2]' '{"open": true}'
                                                             parameters are JSON, or else text
  manage.py ddp_explain MyBooks --user 7                     as the user with this primary key sees it
"""

#: Rows that are serialised to see which queries that makes.
SAMPLE = 20


class Command(BaseCommand):
    help = "Shows the SQL, dependencies and plans by which a publication is kept live."

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> Any:
        parser = super().create_parser(prog_name, subcommand, **kwargs)
        parser.description = DESCRIPTION
        parser.epilog = EXAMPLES
        parser.formatter_class = RawDescriptionHelpFormatter
        return parser

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("publication", nargs="?", help="its name; without one, all are listed")
        parser.add_argument("params", nargs="*", metavar="param", help="its parameters: JSON, or else text")
        parser.add_argument("--user", metavar="PK", help="primary key of the subscriber; default: nobody")

    def handle(self, *args: str, **options: Any) -> None:
        if options["publication"] is None:
            for name in sorted(API.publications):
                self.stdout.write(name)
            for publication in API.universal_publications:
                self.stdout.write(f"{publication.label} (universal)")
            return
        self.connection = connections[conf.settings().database]
        publication = find_publication(options["publication"])
        if publication.publish is not None:
            raise CommandError(
                f"{publication.label} is a function that tells its documents itself; it has no SQL to explain"
            )
        params = [parameter(text) for text in options["params"]]
        self.warnings = 0
        self.user = options["user"]
        shown = ", ".join(json.dumps(value, ensure_ascii=False) for value in params)
        self.write(f"{publication.label}({shown})", bold=True)
        for number, (collection, queryset) in enumerate(querysets(publication, params, options["user"]), 1):
            self.write("")
            self.explain(number, publication, collection, queryset)
        self.write("")
        count = "1 warning" if self.warnings == 1 else f"{self.warnings or 'no'} warnings"
        self.write(count, bold=True)

    # -- one queryset ---------------------------------------------------------------------------

    def explain(self, number: int, publication: Publication, collection: Collection, queryset: Any) -> None:
        label = queryset.model._meta.label
        self.write(f"{number}. {label} as collection {collection.name}", bold=True)
        try:
            compiled = compile_queryset(collection, queryset, publication.depends_on)
        except NotLive as error:
            self.warn(f"it can't be kept live, and subscriptions end with an error: {error}")
            return
        except Exception as error:
            raise CommandError(f"it can't be compiled: {type(error).__name__}: {error}") from error
        shape = compiled.shape
        if shape.load is None and not shape.tables:
            self.write("   matches nothing, whatever is in the database")
            if self.user is None and collection.user_rels:
                self.write(
                    f"   for nobody, because of user_rel {', '.join(collection.user_rels)}: try --user PK"
                )
            return
        own = ", and what its own serialize adds" if collection.overrides_serialize else ""
        self.write(f"   fields: {', '.join(shape.fields) or 'none'}{own}")
        root = shape.tables[Table.from_model(queryset.model).name]
        if not shape.by_keys:
            self.write(f"   kept live: by running it again, since {shape.rerun_because}")
        elif root.links is None:
            self.write("   kept live: by running it again, since a subquery or raw SQL reads its own table")
        else:
            self.write("   kept live: by looking at the changed rows")
        self.lifted(compiled)
        self.dependencies(compiled)
        self.statements(compiled, queryset.model)
        if collection.overrides_serialize:
            self.serialising(compiled)

    def lifted(self, compiled: CompiledQuery) -> None:
        lifted = compiled.shape.lifted
        if not lifted:
            self.write("   lifted: nothing; each different SQL below is a statement of its own")
            return
        self.write("   lifted: subscriptions that differ in these constants only share the statements below")
        for position, expression in enumerate(lifted):
            values = sorted({str(route[position]) for route in compiled.routes})
            self.write(f"      {expression} = {' or '.join(values)}")

    def dependencies(self, compiled: CompiledQuery) -> None:
        tables = [dependency.table for dependency in compiled.shape.tables.values()]
        report = status(self.connection, tables)
        width = max(len(table.name) for table in tables)
        self.write("   depends on:")
        stale = []
        for name, dependency in compiled.shape.tables.items():
            current = report.is_current(dependency.table)
            stale += [] if current else [name]
            state = "trigger installed" if current else "NO CURRENT TRIGGER"
            self.write(f"      {name:{width}}  {state}; {dependency.strategy}")
        if stale:
            self.warn(
                f"without triggers on {', '.join(stale)} subscriptions are refused: "
                "run `manage.py ddp_install_triggers`, and name in depends_on what it does not find by itself"
            )
        everything = [name for name, one in compiled.shape.tables.items() if one.links is None]
        if everything:
            self.warn(
                f"each change of {', '.join(everything)} runs the whole query again, for every subscription "
                f"to it, at most every {conf.settings().requery_interval:g} s (DDP_REQUERY_INTERVAL)"
            )
        elif not compiled.shape.by_keys:
            self.warn(
                "changed rows that match, or are in it, run the whole query again, at most every "
                f"{conf.settings().requery_interval:g} s (DDP_REQUERY_INTERVAL)"
            )

    def statements(self, compiled: CompiledQuery, model: Any) -> None:
        shape = compiled.shape
        if shape.load is None:
            self.write("   loaded by Django, which evaluates the queryset itself")
            return
        load = self.composed(shape.load.about(compiled.routes))
        key = self.some_key(model)
        if shape.look is None:
            self.show("run again by", load)
            return
        look = self.composed(shape.look.about([key]))
        if shape.by_keys:
            self.show("a changed row is looked at by", look)
        else:
            self.show("whom a changed row concerns is told by", look)
            self.show("and these are run again by", load)
        self.write("   plan for one changed row:")
        for line in plan_of(self.connection, look):
            self.write(f"      {line}")
        self.warn_of_scans(look, "looking at one changed row")
        for name, dependency in shape.tables.items():
            for link in dependency.links or ():
                if link.find is not None:
                    find = self.composed(link.find.about([("0",)]))
                    self.show(f"a change of {name} leads to rows by", find)
                    self.warn_of_scans(find, f"a change of {name}")

    def warn_of_scans(self, text: str, occasion: str) -> None:
        try:
            scanned = read_whole(self.connection, text)
        except Exception as error:  # noqa: BLE001 - the made-up key is none of this type
            self.write(f"      (no plan: {str(error).splitlines()[0]})")
            return
        if scanned:
            self.warn(f"{occasion} reads all of {', '.join(sorted(scanned))}: no index finds the rows")

    def serialising(self, compiled: CompiledQuery) -> None:
        rows = self.sample(compiled, SAMPLE)
        if not rows:
            self.write("   serialising: no rows to try it on")
            return
        one, many = (self.queries_of(compiled, some) for some in (rows[:1], rows))
        self.write(f"   serialising {len(rows)} rows makes {len(many)} queries of its own")
        for statement in dict.fromkeys(many[: len(one) + 1]):
            self.write(f"      {shortened(statement)}")
        if len(many) > len(one):
            self.warn(
                "serialising makes more queries for more rows; a relation that depends_on names is loaded "
                'for all rows at once: depends_on = ["author"]'
            )

    # -- asking ---------------------------------------------------------------------------------

    def composed(self, question: Bound) -> str:
        operations: Any = self.connection.ops
        text: str = operations.compose_sql(*question)
        return text

    def sample(self, compiled: CompiledQuery, most: int) -> list[Row]:
        if compiled.shape.load is None:
            return []
        text = self.composed(compiled.shape.load.about(compiled.routes))
        with self.connection.cursor() as cursor:
            cursor.execute(text)
            rows: list[Row] = cursor.fetchmany(most)
            return rows

    def some_key(self, model: Any) -> tuple[Any, ...]:
        """The key of some row of the model, for a plan; a made-up one if there is none."""
        root = Table.from_model(model)
        columns = sql.SQL(", ").join([column.as_text(None) for column in root.primary_key])
        query = sql.SQL("SELECT {} FROM {} LIMIT 1").format(columns, root.identifier)
        with self.connection.cursor() as cursor:
            cursor.execute(query)
            return tuple(cursor.fetchone() or ["0" for _ in root.primary_key])

    def queries_of(self, compiled: CompiledQuery, rows: list[Row]) -> list[str]:
        with CaptureQueriesContext(self.connection) as queries:
            compiled.shape.read(rows, set(compiled.routes))
        return [query["sql"] for query in queries.captured_queries]

    # -- writing --------------------------------------------------------------------------------

    def write(self, text: str, *, bold: bool = False) -> None:
        self.stdout.write(self.style.MIGRATE_HEADING(text) if bold else text)

    def warn(self, text: str) -> None:
        self.warnings += 1
        self.stdout.write(self.style.WARNING(f"   WARNING: {text}"))

    def show(self, title: str, text: str) -> None:
        self.write(f"   {title}:")
        for line in sqlparse.format(text, reindent=True, keyword_case="upper").splitlines():
            self.write(f"      {line}")


def find_publication(name: str) -> Publication:
    """The publication called ``name``."""
    known = {**{one.label: one for one in API.universal_publications}, **API.publications}
    publication = known.get(name)
    if publication is None:
        close = difflib.get_close_matches(name, known, 3)
        shown = close or sorted(known)[:10]
        more = f", … ({len(known) - 10} more)" if not close and len(known) > 10 else ""
        raise CommandError(f"there is no publication {name!r}; there is: {', '.join(shown)}{more}")
    return publication


def parameter(text: str) -> Any:
    """A parameter as a client would send it: JSON where it is JSON, else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def querysets(
    publication: Publication, params: list[Any], user_pk: str | None
) -> Iterable[tuple[Collection, Any]]:
    """The publication's querysets, each narrowed to what the user may see."""
    user = None if user_pk is None else find_user(user_pk)
    try:
        return list(_visible(publication, params, user))
    except MeteorError as error:
        details = f": {error.details}" if error.details else ""
        raise CommandError(f"{publication.label} refuses: {error.message}{details}") from error
    except ConfigurationError as error:
        raise CommandError(f"{publication.label}: {error}") from error
    except Exception as error:
        raise CommandError(f"{publication.label} raises {type(error).__name__}: {error}") from error


def _visible(publication: Publication, params: list[Any], user: Any) -> Iterator[tuple[Collection, Any]]:
    with this.bound(user=user, user_id=getattr(user, "pk", None), user_ddp_id=get_meteor_id(user)):
        for query in publication.user_queries(user, *params):
            queryset, collection = API.qs_and_collection(query)
            yield collection, collection.objects_for_user(user, queryset)


def find_user(pk: str) -> Any:
    """The user with this primary key."""
    model: Any = get_user_model()
    try:
        return model._default_manager.get(pk=pk)
    except (model.DoesNotExist, ValueError, ValidationError) as error:
        raise CommandError(f"there is no user with primary key {pk!r}") from error


def shortened(statement: str) -> str:
    """A statement on one line that fits a screen."""
    line = " ".join(statement.split())
    return line if len(line) <= 150 else line[:147] + "…"
