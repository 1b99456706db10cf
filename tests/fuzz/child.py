"""One process of the fuzzer: ``python -m tests.fuzz.child TARGET FOLDER_OF_FINDINGS LIBFUZZER_ARGUMENT…``.

It goes on after a finding and keeps the input of each, once for each place that it is raised at.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import sys
import traceback
from pathlib import Path
from typing import Any

import atheris

os.environ["DJANGO_SETTINGS_MODULE"] = "tests.fuzz.settings"

#: Whose branches count besides ours: of those who read the bytes first, where that is what is tried.
_READERS = {"http": ["h11"], "wsgi": ["h11"], "websocket": ["wsproto", "trio_websocket"]}

with atheris.instrument_imports(include=["trigger_ddp", *_READERS.get(sys.argv[1], [])]):
    import django

    django.setup()
    from tests.fuzz.targets import TARGETS


def place(error: BaseException) -> str:
    """Where an error comes from: its kind, and the last lines of ours on its way."""
    while error.__cause__ is not None or isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error.__cause__
    frames = traceback.extract_tb(error.__traceback__)
    return " ".join(
        [type(error).__name__, *(f"{Path(one.filename).name}:{one.lineno}" for one in frames[-4:])]
    )


def main() -> None:
    name, findings, *arguments = sys.argv[1:]
    run, folder = TARGETS[name].run, Path(findings)
    known: set[str] = set()

    def one(data: bytes) -> Any:
        try:
            run(data)
        except Exception as error:  # noqa: BLE001 - every one is a finding
            where = place(error)
            if where not in known:
                known.add(where)
                folder.mkdir(parents=True, exist_ok=True)
                path = folder / hashlib.sha256(data).hexdigest()[:12]
                path.write_bytes(data)
                print(f"FOUND {where}\n  {data[:300]!r}\n  in {path}", file=sys.stderr)
                traceback.print_exc()
                sys.stderr.flush()

    # libFuzzer merges in further processes, which it starts by a shell with what stands here first.
    again = shlex.join([sys.executable, "-m", "tests.fuzz.child", name, findings])
    atheris.Setup([again, *arguments], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
