"""Messages from server to client, as JSON bytes in the key order that Meteor's own server has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import msgspec

from trigger_ddp.live.document import Difference, Document, name_text, object_text
from trigger_ddp.protocol.ids import wire_id

PING = b'{"msg":"ping"}'

_json = msgspec.json.Encoder().encode
_NOTHING = b"{}"


@lru_cache(maxsize=4096)  # collections are few, and in every message
def _head(msg: bytes, collection: str) -> bytes:
    return b'{"msg":"%b","collection":%b,"id":' % (msg, name_text(collection))


def added(collection: str, document_id: str, body: bytes) -> bytes:
    """Args: body: the fields, as the text of an object."""
    head, id_text = _head(b"added", collection), _json(wire_id(document_id))
    return b'%b%b,"fields":%b}' % (head, id_text, body) if body != _NOTHING else b"%b%b}" % (head, id_text)


def all_added(collection: str, documents: Iterable[Document]) -> list[bytes]:
    """`added` of each document; thousands come at once, so with as little as can be for each."""
    template = _head(b"added", collection).replace(b"%", b"%%") + b'%b,"fields":%b}'
    return [
        template % (_json(wire_id(one.id)), one.body)
        if one.body != _NOTHING
        else added(collection, one.id, _NOTHING)
        for one in documents
    ]


def changed(collection: str, document_id: str, difference: Difference) -> bytes:
    parts = [_head(b"changed", collection), _json(wire_id(document_id))]
    if difference.fields:
        parts += (b',"fields":', object_text(difference.fields))
    if difference.cleared:
        parts += (b',"cleared":', _json(difference.cleared))
    parts.append(b"}")
    return b"".join(parts)


def removed(collection: str, document_id: str) -> bytes:
    return b"%b%b}" % (_head(b"removed", collection), _json(wire_id(document_id)))


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
