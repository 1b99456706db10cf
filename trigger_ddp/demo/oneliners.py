"""The commands that change the demo's tables from outside, exactly as they are to be pasted in a shell."""

from __future__ import annotations

import dataclasses
import importlib
import os
import shlex
import subprocess
import sys
from pathlib import Path

from trigger_ddp.demo.embedded import Postgres

DATABASE = "bookstore"


@dataclasses.dataclass(frozen=True)
class OneLiner:
    """One shell command: `program` is the part that all of its kind share, `argument` what it does."""

    kind: str
    title: str
    program: str
    argument: str

    @property
    def text(self) -> str:
        return f"{self.program} {self.argument}"


SQL = {
    "Raise one price": "UPDATE bookstore_book SET price = price + 1 WHERE title = 'The Salt Road'",
    "Change several rows": "UPDATE bookstore_book SET in_stock = NOT in_stock WHERE title LIKE 'Murder%'",
    "Rename an author": "UPDATE bookstore_author SET name = CASE name WHEN 'Oscar Bellamy' THEN 'O. Bellamy' "
    "ELSE 'Oscar Bellamy' END WHERE email = 'oscar@bellamy.example'",
    "Add a book": "INSERT INTO bookstore_book (title, author_id, price, published, in_stock) "
    "SELECT 'Added by psql', min(id), 9.99, current_date, true FROM bookstore_author",
    "Delete it again": "DELETE FROM bookstore_book WHERE title = 'Added by psql'",
}

#: Sent twice a second, until Ctrl-C.
MOVING_SQL = (
    "UPDATE bookstore_book SET price = round((5 + random() * 25)::numeric, 2) "
    "WHERE id = (SELECT id FROM bookstore_book ORDER BY random() LIMIT 1)"
)

CHEAPER_SQL = "UPDATE bookstore_book SET price = price * 0.9"

ORM = (
    "book = Book.objects.order_by('?').first(); book.price = (book.price or 0) + 1; book.save(); "
    "print(book, 'costs', book.price)"
)


def one_liners(postgres: Postgres) -> list[OneLiner]:
    """The commands for this run's server, in the order of the page."""
    conninfo = postgres.conninfo(DATABASE)
    psql = f"{quoted(str(postgres.programs.psql))} -X {quoted(conninfo)} -c"
    loop = f"while sleep 0.5; do {psql}"
    python = f"{_python_path('psycopg')}{quoted(sys.executable)} -c"
    script = f"import psycopg; psycopg.connect({conninfo!r}, autocommit=True).execute({CHEAPER_SQL!r})"
    shell = (
        f"TRIGGER_DDP_DEMO={quoted(str(postgres.socket_directory))} "
        f"{_python_path('trigger_ddp', 'django', 'psycopg')}{quoted(sys.executable)} "
        "-m django shell --settings=trigger_ddp.demo.settings -v0 -c"
    )
    return [
        *(OneLiner("psql", title, psql, quoted(statement)) for title, statement in SQL.items()),
        OneLiner("psql", "Keep it moving until Ctrl-C", loop, f"{quoted(MOVING_SQL)}; done"),
        OneLiner("Python", "Every price down 10 % with psycopg", python, quoted(script)),
        OneLiner("Python", "One random book with Django's ORM", shell, quoted(ORM)),
    ]


def quoted(text: str) -> str:
    """`text` as one word of a POSIX shell, in double quotes where that is easier to read."""
    if shlex.quote(text) != text and not set(text) & set('"$`\\!'):
        return f'"{text}"'
    return shlex.quote(text)


def _python_path(*modules: str) -> str:
    """Nothing where the modules are installed; else, as in a checkout, the PYTHONPATH a new shell needs."""
    program = (
        "import sys, importlib.util; print(*[m for m in sys.argv[1:] if not importlib.util.find_spec(m)])"
    )
    answer = subprocess.run(  # noqa: S603
        [sys.executable, "-I", "-c", program, *modules], capture_output=True, text=True, check=True, cwd="/"
    )
    found = [importlib.import_module(missing).__file__ for missing in answer.stdout.split()]
    directories = dict.fromkeys(str(Path(file).parents[1]) for file in found if file)
    return f"PYTHONPATH={quoted(os.pathsep.join(directories))} " if directories else ""
