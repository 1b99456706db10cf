"""The imports of trigger_ddp are held against the layout that its docstring draws."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import trigger_ddp
import trigger_ddp.api

PACKAGE = Path(trigger_ddp.__file__).parent
STAGES = [
    {"__init__", "__version__", "errors", "conf", "ejson", "alea", "matching"},
    {"api"},
    {"capture"},
    {"changes"},
    {"live"},
    {"protocol"},
    {"server"},
    {"accounts"},
    {"meteor"},
    {"management", "cli", "__main__", "apps", "demo"},
]
#: Where alone these may be imported: a folder, a file, or nowhere.
ONLY_IN = {
    "trio": "server",
    "trio_websocket": "server/websocket.py",
    "h11": "server",
    "asyncio": "-",
    "asgiref": "-",
}
ASYNC = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)
OPENS_CONNECTION = re.compile(r"(psycopg|Connection)\.connect\(")
CONNECTING_FILE = "server/link.py"
SOURCES = {
    path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text("utf-8")) for path in PACKAGE.rglob("*.py")
}


def stage(name: str) -> int:
    """The stage's number of a name inside the package: "live/engine.py", "live.engine.Engine"."""
    return {part: number for number, parts in enumerate(STAGES) for part in parts}[re.split("[./]", name)[0]]


def imports(file: str) -> set[str]:
    """Every name that a file imports, anywhere in it, as an absolute dotted name."""
    package = ["trigger_ddp", *file.split("/")[:-1]]
    found = set()
    for node in ast.walk(SOURCES[file]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            found |= {".".join([*above, *filter(None, [node.module]), alias.name]) for alias in node.names}
    return found


def test_a_stage_imports_itself_and_earlier_ones() -> None:
    assert [
        f"{file} imports {name}"
        for file in SOURCES
        for name in imports(file)
        if name.startswith("trigger_ddp.") and stage(name.removeprefix("trigger_ddp.")) > stage(file)
    ] == []


def test_sockets_stay_in_the_server() -> None:
    assert [
        f"{file} imports {name}"
        for file in SOURCES
        for name in imports(file)
        if (place := ONLY_IN.get(name.split(".")[0])) is not None and not f"{file}/".startswith(f"{place}/")
    ] == []


#: Beside the server's own, publications as applications write them, by the public API.
ASYNC_IN = ("server/", "meteor/ddp.py")


def test_async_stays_in_the_server() -> None:
    assert [
        f"{file}:{node.lineno}"
        for file, tree in SOURCES.items()
        for node in ast.walk(tree)
        if isinstance(node, ASYNC) and not file.startswith(ASYNC_IN)
    ] == []


def test_one_file_opens_database_connections_of_its_own() -> None:
    assert [
        f"{file}:{node.lineno}"
        for file, tree in SOURCES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and OPENS_CONNECTION.search(ast.unparse(node))
        and file != CONNECTING_FILE
    ] == []
    assert [file for file in SOURCES if "psycopg.connect" in imports(file)] == []


def test_declaring_and_installing_need_no_trio() -> None:
    """A web worker or a migration has trigger_ddp in INSTALLED_APPS and must not pay for the server."""
    program = """if True:
        import sys, django
        from django.conf import settings
        settings.configure(INSTALLED_APPS=["django.contrib.contenttypes", "trigger_ddp"])
        django.setup()
        import trigger_ddp.api, trigger_ddp.capture.install
        sys.exit(", ".join(sys.modules.keys() & {"trio", "trio_websocket", "h11"}) or 0)
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_public_names() -> None:
    assert sorted(trigger_ddp.api.__all__) == [
        "API",
        "APIMixin",
        "AleaIdField",
        "AleaIdMixin",
        "AlreadyRegistered",
        "Collection",
        "Handle",
        "MeteorError",
        "Publication",
        "api_endpoint",
        "get_meteor_id",
        "get_meteor_ids",
        "get_object",
        "get_object_id",
        "get_object_ids",
        "meteor_random_id",
        "this",
    ]
    assert all(hasattr(trigger_ddp.api, name) for name in trigger_ddp.api.__all__)
