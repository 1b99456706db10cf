"""Messages from server to client, as JSON bytes in the key order that Meteor's own server has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from trigger_ddp.live.document import Difference, Fields
from trigger_ddp.protocol.ids import wire_id

PING = b'{"msg":"ping"}'

_json = msgspec.json.Encoder().encode
_name = lru_cache(maxsize=4096)(_json)  # field and collection names: few, and in every message


def _object(fields: Fields) -> bytes:
    return b"{" + b",".join([_name(name) + b":" + value for name, value in fields.items()]) + b"}"


def _data(
    msg: bytes, collection: str, document_id: str, fields: Fields, cleared: Sequence[str] = ()
) -> bytes:
    parts = [
        b'{"msg":"', msg, b'","collection":', _name(collection), b',"id":', _json(wire_id(document_id)),
    ]  # fmt: skip
    if fields:
        parts += (b',"fields":', _object(fields))
    if cleared:
        parts += (b',"cleared":', _json(list(cleared)))
    parts.append(b"}")
    return b"".join(parts)


def added(collection: str, document_id: str, fields: Fields) -> bytes:
    return _data(b"added", collection, document_id, fields)


def changed(collection: str, document_id: str, difference: Difference) -> bytes:
    return _data(b"changed", collection, document_id, difference.fields, difference.cleared)


def removed(collection: str, document_id: str) -> bytes:
    return _data(b"removed", collection, document_id, {})


def connected(session: str) -> bytes:
    return _json({"msg": "connected", "session": session})


def failed(version: str) -> bytes:
    return _json({"msg": "failed", "version": version})


def ready(subscriptions: Iterable[str]) -> bytes:
    return _json({"msg": "ready", "subs": list(subscriptions)})


def nosub(subscription: str, error: Mapping[str, Any] | None = None) -> bytes:
    """Args: error: as `MeteorError.as_dict` gives it; None for a subscription that ended as asked."""
    message: dict[str, Any] = {"msg": "nosub", "id": subscription}
    return _json(message) if error is None else _with_error(message, error)


def result(method: str, value: bytes | None) -> bytes:
    """Args: value: the result as EJSON; None leaves it out, as Meteor does for ``undefined``."""
    message: dict[str, Any] = {"msg": "result", "id": method}
    if value is not None:
        message["result"] = msgspec.Raw(value)
    return _json(message)


def result_error(method: str, error: Mapping[str, Any]) -> bytes:
    """Args: error: as `MeteorError.as_dict` gives it."""
    return _with_error({"msg": "result", "id": method}, error)


def _with_error(message: dict[str, Any], error: Mapping[str, Any]) -> bytes:
    """``message`` with an error; of its details, which the application chose, what JSON lacks is str()."""
    try:
        return msgspec.json.encode({**message, "error": error}, enc_hook=str)
    except (TypeError, ValueError, RecursionError):  # keys that are no text, surrogates, a circle
        plain = {name: value for name, value in error.items() if name != "details"}
        return msgspec.json.encode({**message, "error": plain}, enc_hook=str)


def updated(methods: Iterable[str]) -> bytes:
    return _json({"msg": "updated", "methods": list(methods)})


def pong(message: Mapping[str, Any]) -> bytes:
    """The answer to a ping, with its id if it had one."""
    answer: dict[str, Any] = {"msg": "pong"}
    if "id" in message:
        answer["id"] = message["id"]
    return _json(answer)


def error(reason: str, offending: Any = None) -> bytes:
    """A protocol error. Args: offending: the client's message as parsed; left out if it says nothing."""
    message: dict[str, Any] = {"msg": "error", "reason": reason}
    if offending or isinstance(offending, (dict, list)):
        message["offendingMessage"] = offending
    return _json(message)
