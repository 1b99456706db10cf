"""Look for bytes that break an entrance: ``python -m tests.fuzz TARGET … --seconds N``.

Without a TARGET all of them, one after the other. The corpus that is committed is read; what is added goes to
a folder of its own, from which ``--merge`` takes the few inputs that reach what no other one reaches.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.fuzz.settings")

import django

django.setup()

from tests.fuzz.targets import FOLDER, TARGETS  # noqa: E402

#: Seconds and bytes that one input may take up; more is a finding.
MOST_SECONDS = 5
MOST_MEGABYTES = 2048
#: Size of an input that is worth committing.
MOST_KEPT_BYTES = 1024


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=int, default=120, help="for each target (120)")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the random changes")
    parser.add_argument("--corpus", type=Path, help="folder of new inputs, kept from run to run")
    parser.add_argument("--merge", action="store_true", help="put what --corpus has into the committed one")
    options = parser.parse_args(arguments)
    unknown = set(options.targets) - TARGETS.keys()
    if unknown:
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory() as scratch:
        kept = options.corpus or Path(scratch)
        for name in options.targets or TARGETS:
            if options.merge:
                merge(name, kept / name)
            else:
                fuzz(name, kept / name, options.seconds, options.seed)
    return report_crashes(options.targets or TARGETS)


def fuzz(name: str, kept: Path, seconds: int, seed: int) -> None:
    """Run one target for some time, and say what that took."""
    target = TARGETS[name]
    kept.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(target.seeds):
        (kept / f"seed{number}").write_bytes(data)
    words = kept.parent / f"{name}.dict"
    words.write_text("".join(f'"{_quoted(word)}"\n' for word in target.words), "utf-8")
    end = time.monotonic() + seconds
    executions, edges, cpu = 0, 0, 0.0
    while (left := int(end - time.monotonic())) > 0:
        # -timeout and -rss_limit_mb end the process, whose input is a finding; so there may be another one.
        done = _child(
            name,
            f"-max_total_time={left}",
            f"-seed={seed}",
            f"-timeout={MOST_SECONDS}",
            f"-rss_limit_mb={MOST_MEGABYTES}",
            f"-max_len={target.most_bytes}",
            "-len_control=20",
            f"-dict={words}",
            "-print_final_stats=1",
            str(kept),
            *([str(FOLDER / "corpus" / name)] if (FOLDER / "corpus" / name).exists() else []),
        )
        cpu += done.cpu
        count = int(done.last(r"stat::number_of_executed_units:\s*(\d+)|^#(\d+)"))
        if not count:
            sys.exit(f"{name}: the fuzzer does not start")
        executions += count
        edges = max(edges, int(done.last(r"cov: (\d+)")))
        seed += 1
    print(
        f"{name}: {executions} executions, {edges} edges, {cpu:.0f} s of CPU, "
        f"{len(list(kept.iterdir()))} inputs kept, seeds up to {seed - 1}",
        flush=True,
    )


def merge(name: str, kept: Path) -> None:
    """Add to the committed corpus the inputs that reach more."""
    corpus = FOLDER / "corpus" / name
    corpus.mkdir(parents=True, exist_ok=True)
    _child(name, "-merge=1", f"-max_len={MOST_KEPT_BYTES}", str(corpus), str(kept))
    print(f"{name}: {len(list(corpus.iterdir()))} inputs in {corpus}", flush=True)


class _Done:
    def __init__(self, output: str, cpu: float) -> None:
        self.output = output
        self.cpu = cpu

    def last(self, pattern: str) -> str:
        found = [next(filter(None, match.groups())) for match in re.finditer(pattern, self.output, re.M)]
        return found[-1] if found else "0"


def _child(name: str, *arguments: str) -> _Done:
    """Run the fuzzer, its output passed on."""
    crashes = FOLDER / "crashes" / name
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.fuzz.child", name, str(crashes), *arguments,
         f"-artifact_prefix={crashes}/"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace",
    )  # fmt: skip
    crashes.mkdir(parents=True, exist_ok=True)
    assert process.stdout is not None
    output = []
    for line in process.stdout:
        print(line, end="", flush=True)
        output.append(line)
    process.wait()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return _Done("".join(output), cpu)


def _quoted(word: str) -> str:
    return "".join(
        chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\x{byte:02x}" for byte in word.encode()
    )


def report_crashes(names: Sequence[str]) -> int:
    """Say which inputs break an entrance as it is now. Returns the exit status."""
    broken = 0
    for name in names:
        for path in sorted((FOLDER / "crashes" / name).glob("*")):
            begun = time.monotonic()
            try:
                TARGETS[name].run(path.read_bytes())
                if (seconds := time.monotonic() - begun) > MOST_SECONDS:
                    raise TimeoutError(f"it takes {seconds:.0f} s")
            except Exception as error:  # noqa: BLE001 - every one is a finding
                broken += 1
                print(
                    f"{name} breaks its promise: {error!r}\n  again: python -m tests.fuzz.once {name} {path}"
                )
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
