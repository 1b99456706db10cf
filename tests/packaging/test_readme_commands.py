"""The README's two commands, where `python3 -m venv` fails until Debian's python3-venv is installed.

Every program they call is replaced by one that writes down its arguments, so this needs no network.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = dict(
    re.findall(r"<!-- the (\w+) command -->\n```sh\n(.+)\n```", (ROOT / "README.md").read_text("utf-8"))
)
SHELLS = [shell for shell in ("sh", "bash", "dash", "zsh") if shutil.which(shell)]

PROGRAMS = {
    "python3": """
        mkdir -p .venv/bin
        [ -e python3-venv-is-installed ] || { echo "ensurepip is not available" >&2; exit 1; }
        for name in pip python trigger-ddp; do
            printf '#!/bin/sh\\necho %s "$@" >>calls\\n' $name >.venv/bin/$name
            chmod +x .venv/bin/$name
        done
    """,
    "apt-get": """
        [ "$2 $3" != "-y python3-venv" ] || [ -e lists-are-fresh ]
        case $1 in update) touch lists-are-fresh ;; install) touch python3-venv-is-installed ;; esac
    """,
    "sudo": 'exec "$@"',
}


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A directory to run in; `programs` in it is the whole PATH."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, body in PROGRAMS.items():
        program = programs / name
        program.write_text(f'#!/bin/sh -e\necho {name} "$@" >>calls\n{body}')
        program.chmod(0o755)
    for name in ("sh", "mkdir", "touch", "chmod"):
        (programs / name).symlink_to(shutil.which(name) or pytest.fail(f"no {name}"))
    return tmp_path


def calls(machine: Path, shell: str, command: str) -> list[str]:
    """The programs that the command called, with their arguments, in order."""
    done = subprocess.run(
        [shutil.which(shell) or shell, "-c", COMMANDS[command]],
        cwd=machine,
        env={"PATH": str(machine / "programs"), "HOME": os.environ.get("HOME", "/")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return (machine / "calls").read_text().splitlines()


VENV = "python3 -m venv .venv"
ENDS = {
    "demo": ["pip install -e .[demo]", "trigger-ddp demo"],
    "test": ["pip install -e .[test]", "python -m pytest"],
}


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("command", ENDS)
def test_python3_venv_is_installed_where_it_is_missing(machine: Path, command: str, shell: str) -> None:
    assert [call for call in calls(machine, shell, command) if not call.startswith("sudo")] == [
        VENV,
        "apt-get update",
        "apt-get install -y python3-venv",
        VENV,
        *ENDS[command],
    ]


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("command", ENDS)
def test_nothing_is_installed_where_it_is_there(machine: Path, command: str, shell: str) -> None:
    (machine / "python3-venv-is-installed").touch()
    assert calls(machine, shell, command) == [VENV, *ENDS[command]]


@pytest.mark.parametrize("sudo", [True, False], ids=["with sudo", "root without sudo"])
def test_rights_come_from_sudo_if_there_is_one(machine: Path, sudo: bool) -> None:
    if not sudo:
        (machine / "programs" / "sudo").unlink()
    called = calls(machine, "sh", "demo")
    assert any(call.startswith("sudo ") for call in called) is sudo
    assert called[-1] == "trigger-ddp demo"


def test_a_failed_installation_is_not_run(machine: Path) -> None:
    (machine / "programs" / "apt-get").write_text("#!/bin/sh\nexit 100\n")
    with pytest.raises(AssertionError):
        calls(machine, "sh", "demo")
    assert (machine / "calls").read_text().count("pip") == 0
