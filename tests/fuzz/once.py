"""Feed one file to one entrance: ``python -m tests.fuzz.once TARGET FILE``, to see again what was found."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.fuzz.settings")

import django

django.setup()

from tests.fuzz.targets import TARGETS  # noqa: E402

if __name__ == "__main__":
    logging.basicConfig(level=logging.DEBUG)
    TARGETS[sys.argv[1]].run(Path(sys.argv[2]).read_bytes())
