from pathlib import Path

import pytest
from psycopg import sql

import trigger_ddp
from trigger_ddp.capture import resources
from trigger_ddp.capture.resources import Script, script, script_names

CHECKOUT = Path(trigger_ddp.__file__).parent.parent


def test_every_sql_file_has_its_header() -> None:
    assert script_names() == sorted(path.stem for path in (CHECKOUT / "sql").glob("*.sql"))
    for name in script_names():
        found = script(name)
        assert found.name == name
        assert found.version >= 1
        assert len(found.description) > 20
        assert not found.text.startswith("-- name")


def test_the_packaged_copy_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "trigger_ddp"
    (package / "_sql").mkdir(parents=True)
    (package / "_sql" / "only_here.sql").write_text(
        "-- name: only_here\n-- description: packaged\n-- version: 7\nSELECT 1"
    )
    monkeypatch.setattr(resources, "files", lambda name: package)
    assert script_names() == ["only_here"]
    assert resources.script.__wrapped__("only_here") == Script("only_here", "packaged", 7, "SELECT 1")


def test_a_file_without_its_header_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "_sql").mkdir()
    (tmp_path / "_sql" / "bare.sql").write_text("SELECT 1")
    monkeypatch.setattr(resources, "files", lambda name: tmp_path)
    with pytest.raises(ValueError, match="lacks its header"):
        resources.script.__wrapped__("bare")


def test_only_values_that_quote_themselves_become_sql() -> None:
    template = Script("t", "", 1, "SELECT {value} AS {name}, '{{}}'")
    filled = template.fill(value=sql.Literal("it's"), name=sql.Identifier('a"b'))
    assert filled.as_string(None) == """SELECT 'it''s' AS "a""b", '{}'"""
    with pytest.raises(TypeError, match="Composable"):
        template.fill(value="1; DROP TABLE x", name=sql.Identifier("n"))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="no placeholder for other"):
        template.fill(value=sql.Literal(1), name=sql.Identifier("n"), other=sql.Literal(1))
    with pytest.raises(KeyError):
        template.fill(value=sql.Literal(1))
