"""What users install: the sdist, the wheel built from it, and both ways to install."""

from __future__ import annotations

import email
import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

import trigger_ddp

ROOT = Path(__file__).resolve().parents[2]
DATA = {"sql": "trigger_ddp/_sql", "migrations_templates": "trigger_ddp/_migrations_templates"}


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """What the command prints; fails the test with what it says if it fails."""
    environ = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, cwd=cwd, env=environ)
    assert done.returncode == 0, f"{command} failed:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def pip(*arguments: str | Path) -> None:
    run(sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments)


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("sdist")
    pip("install", "--target", directory / "backend", "hatchling")
    program = f"import sys; sys.path.insert(0, {str(directory / 'backend')!r})\n"
    program += f"import hatchling.build; hatchling.build.build_sdist({str(directory)!r})"
    run(sys.executable, "-c", program, cwd=ROOT)
    (built,) = directory.glob("*.tar.gz")
    return built


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the sdist, as a user's pip does where it is given one."""
    directory = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--wheel-dir", directory, sdist)
    (built,) = directory.glob("*.whl")
    return built


@pytest.fixture(params=["wheel", "editable"])
def installed(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The `bin` directory of a new environment with trigger_ddp in it, and our dependencies in reach."""
    environment = tmp_path / "environment"
    run(sys.executable, "-m", "venv", "--without-pip", environment)
    python = environment / "bin" / "python"
    what = ["-e", ROOT] if request.param == "editable" else [request.getfixturevalue("wheel")]
    pip("--python", python, "install", "--no-deps", *what)
    # Ours comes after its own on the path, so what is looked at is what was just installed.
    own = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    (own / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return environment / "bin"


def files_below(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }


def test_the_wheel_has_the_package_its_data_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        metadata = email.message_from_bytes(
            archive.read(next(n for n in archive.namelist() if n.endswith("/METADATA")))
        )
    wanted = {f"trigger_ddp/{name}" for name in files_below(ROOT / "trigger_ddp")}
    for source, place in DATA.items():
        below = files_below(ROOT / source)
        assert below, f"{source}/ is empty"
        wanted |= {f"{place}/{name}" for name in below}
    assert names == wanted
    assert "trigger_ddp/py.typed" in names
    assert metadata["Version"] == trigger_ddp.__version__
    assert metadata["License-Expression"] == "MIT"


def test_the_sdist_can_be_tested_and_has_nothing_that_was_built(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames()}
    assert {
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "tests/conftest.py",
        "tests/clients/package-lock.json",
    } <= names
    assert [name for name in names if {"node_modules", ".venv", "__pycache__"} & set(name.split("/"))] == []


def test_the_data_is_found(installed: Path, tmp_path: Path) -> None:
    program = """if True:
        import json, sys
        from trigger_ddp.capture import resources
        scripts = [resources.script(name) for name in resources.script_names()]
        templates = [resources.migration_template(name) for name in sys.argv[1:]]
        print(json.dumps([[script.text for script in scripts], templates]))
    """
    files = {source: sorted((ROOT / source).iterdir()) for source in DATA}
    names = [path.name for path in files["migrations_templates"]]
    scripts, templates = json.loads(run(installed / "python", "-c", program, *names, cwd=tmp_path))
    for text, path in zip(scripts, files["sql"], strict=True):
        assert text in path.read_text("utf-8")
    assert templates == [path.read_text("utf-8") for path in files["migrations_templates"]]


def test_the_console_script_and_the_module_are_one_program(installed: Path, tmp_path: Path) -> None:
    version = run(installed / "trigger-ddp", "--version", cwd=tmp_path)
    assert trigger_ddp.__version__ in version
    assert run(installed / "python", "-m", "trigger_ddp", "--version", cwd=tmp_path) == version


def test_type_checkers_are_told_of_our_types(installed: Path, tmp_path: Path) -> None:
    program = "import importlib.resources as r; print(r.files('trigger_ddp').joinpath('py.typed').is_file())"
    assert run(installed / "python", "-c", program, cwd=tmp_path) == "True\n"
