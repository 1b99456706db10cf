"""Modules that a client imports when it needs them: a tree of names comes in, a tree of sources goes out."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from trigger_ddp.meteor.bundle import File, Program

logger = logging.getLogger(__name__)


def sources(program: Program, tree: Any) -> Any:
    """The sources of the modules that a tree names.

    Only modules that the manifest has are read, and each once, however often the tree names it: a
    small request must not get a huge answer.

    Args:
        program: whose modules.
        tree: as the client sent it, ``{"imports": {"a.js": 1}}``.

    Returns:
        The same tree with sources for leaves; names that there are no modules for are left out, and None
        stands for a tree of nothing else.
    """
    return _walk(dict(program.modules), tree, "dynamic")


def _walk(left: dict[str, File], node: Any, path: str) -> Any:
    if not node:
        return None
    if not isinstance(node, Mapping):
        file = left.pop(path, None)
        return None if file is None else _read(file)
    found = {}
    for name, below in node.items():
        # Meteor writes the colon of a package's name as an underscore.
        source = _walk(left, below, f"{path}/{name.replace(':', '_')}")
        if source is not None:
            found[name] = source
    return found or None


def _read(file: File) -> str | None:
    try:
        with file.open() as stream:
            return stream.read().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        logger.warning("a module of the bundle can't be read: %s", error)
        return None
