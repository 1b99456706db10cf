"""The SQL scripts and migration templates, wherever they were installed to.

In a checkout they stand at its top level (``sql/``, ``migrations_templates/``), where people who read SQL
look for them; a wheel carries them inside the package (``_sql/``, ``_migrations_templates/``).
"""

from __future__ import annotations

import dataclasses
import re
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

from psycopg import sql

_HEADER = re.compile(
    r"\A-- name: (?P<name>\S+)\n"
    r"-- description: (?P<description>.+(?:\n--   .+)*)\n"
    r"-- version: (?P<version>\d+)\n"
)


@dataclasses.dataclass(frozen=True, slots=True)
class Script:
    """One file of ``sql/``: its header and the text below it.

    Args:
        name: the file's name without ``.sql``.
        description: what the SQL is for, in one paragraph.
        version: raised by hand whenever the text's meaning changes.
        text: the SQL, with ``{placeholders}``.
    """

    name: str
    description: str
    version: int
    text: str

    def fill(self, **values: sql.Composable) -> sql.Composed:
        """The SQL with every placeholder filled in.

        Only values that know how to quote themselves are accepted, so no text can become SQL by accident.

        Raises:
            KeyError: a placeholder of the script was not given.
            TypeError: a value is not Composable, or no placeholder asks for it.
        """
        if unasked := values.keys() - _placeholders(self.text):
            raise TypeError(f"sql/{self.name}.sql has no placeholder for {', '.join(sorted(unasked))}")
        for name, value in values.items():
            if not isinstance(value, sql.Composable):
                raise TypeError(f"{name} must be a psycopg.sql.Composable, not {type(value).__name__}")
        return sql.SQL(self.text).format(**values)


@cache
def _placeholders(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"(?<!\{)\{(\w+)\}(?!\})", text))


def _directory(packaged: str, checkout: str) -> Traversable:
    package = files("trigger_ddp")
    inside = package / packaged
    if inside.is_dir():
        return inside
    return package / ".." / checkout


@cache
def script(name: str) -> Script:
    """The script ``sql/<name>.sql``.

    Raises:
        FileNotFoundError: there is none.
        ValueError: its header is not ``-- name``, ``-- description``, ``-- version``, or names another file.
    """
    text = (_directory("_sql", "sql") / f"{name}.sql").read_text(encoding="utf-8")
    header = _HEADER.match(text)
    if header is None or header["name"] != name:
        raise ValueError(f"sql/{name}.sql lacks its header of name, description and version")
    description = " ".join(line.removeprefix("--").strip() for line in header["description"].splitlines())
    return Script(name, description, int(header["version"]), text[header.end() :].strip("\n"))


def script_names() -> list[str]:
    """The names of all scripts, sorted."""
    found = _directory("_sql", "sql").iterdir()
    return sorted(entry.name.removesuffix(".sql") for entry in found if entry.name.endswith(".sql"))


@cache
def migration_template(name: str) -> str:
    """The text of ``migrations_templates/<name>``, a ``string.Template``."""
    directory = _directory("_migrations_templates", "migrations_templates")
    return (directory / name).read_text(encoding="utf-8")
