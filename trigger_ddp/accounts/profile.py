"""``Meteor.users.update(Meteor.userId(), …)``: Meteor lets users change their ``profile``, nothing else."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

from trigger_ddp import ejson
from trigger_ddp.errors import MeteorError

#: Characters of JSON that a profile may have: it is in a document that each of its user's clients holds.
MOST_CHARACTERS = 64 * 1024


def modified(profile: Mapping[str, Any], modifier: Mapping[str, Any]) -> dict[str, Any]:
    """What a stored profile becomes by ``$set`` and ``$unset`` of ``profile`` and ``profile.a.b``.

    Raises:
        MeteorError: 400 for other modifiers and paths that lead nowhere, 403 for other fields.
    """
    holder: dict[str, Any] = {"profile": copy.deepcopy(dict(profile))}
    if not modifier or set(modifier) - {"$set", "$unset"}:
        raise MeteorError(400, "Only $set and $unset are supported")
    for operator, fields in modifier.items():
        if not isinstance(fields, dict):
            raise MeteorError(400, "Match failed", f"{operator}: Expected `object`")
        for path, value in fields.items():
            _modify(holder, path, ejson.to_json(value), unset=operator == "$unset")
    if not isinstance(holder.get("profile", {}), dict):
        raise MeteorError(400, "Match failed", "profile: Expected `object`")
    result: dict[str, Any] = holder.get("profile", {})
    check_profile(result)
    return result


def check_profile(stored: Mapping[str, Any]) -> None:
    """Whether a profile can be stored, and shown in a document afterwards.

    Raises:
        MeteorError: 400, it can't.
    """
    text = json.dumps(stored)
    if "\\u0000" in text:
        raise MeteorError(400, "Match failed", "profile: NUL characters can't be stored")
    if len(text) > MOST_CHARACTERS:
        raise MeteorError(400, "Match failed", f"profile: more than {MOST_CHARACTERS} characters")
    try:
        ejson.encode(ejson.from_json(stored))
    except ejson.EJSONError as error:
        raise MeteorError(400, "Match failed", f"profile: {error}") from None


def _modify(holder: dict[str, Any], path: str, value: Any, *, unset: bool) -> None:
    *parts, last = path.split(".")
    if (parts or [last])[0] != "profile":
        raise MeteorError(403, "Access denied")
    if len(parts) > ejson.MAX_DEPTH or any(not part or part.startswith("$") for part in (*parts, last)):
        raise MeteorError(400, "Match failed", f"{path[:100]!r} is no path")
    inner: Any = holder
    for part in parts:
        if unset and part not in inner:
            return
        inner = inner.setdefault(part, {})
        if not isinstance(inner, dict):
            raise MeteorError(400, "Match failed", f"{path!r}: {part!r} is no object")
    if unset:
        inner.pop(last, None)
    else:
        inner[last] = value
