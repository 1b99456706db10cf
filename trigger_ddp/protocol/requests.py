"""Messages from client to server: parsed, checked, and turned into what the session is asked to do."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import msgspec

from trigger_ddp import ejson
from trigger_ddp.errors import TriggerDDPError

#: What Meteor's server says where decoding a message failed; it names no offending message then.
PARSE_ERROR = "Parse error"

#: The versions of DDP spoken here, the best first.
VERSIONS = ("1", "pre2", "pre1")

#: Containers nested deeper than this are refused. What is parsed has to be told as well, as the offending
#: message of an error, and how deep the interpreter can go depends on how deep its stack is already.
MOST_DEPTH = 2 * ejson.MAX_DEPTH

#: Characters of a method's random seed: Meteor's have 20, and hashing them is no quick work.
MOST_SEED_CHARACTERS = 1000

#: Characters of the ids of methods and subscriptions: Meteor's have 17 at most, and they are kept.
MOST_ID_CHARACTERS = 1000

#: Messages that are shorter are decoded at once.
_SHORT = 4096
#: Characters that are looked at at a time by who counts.
_PIECE = 65536
_NO_BACKSLASH = re.compile(r"[^\\]")


class BadRequest(TriggerDDPError):
    """The client sent what DDP does not allow; it is told so and the session goes on.

    Args:
        reason: the text that Meteor's server sends for it.
        offending: the message as far as it could be parsed.
    """

    def __init__(self, reason: str, offending: Any = None) -> None:
        super().__init__(reason, offending)
        self.reason = reason
        self.offending = offending


@dataclasses.dataclass(frozen=True, slots=True)
class Subscribe:
    """Start publication ``name`` with ``params`` as subscription ``id``; ``size``: characters of it all."""

    id: str
    name: str
    params: list[Any]
    size: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Unsubscribe:
    """End subscription ``id``."""

    id: str


@dataclasses.dataclass(frozen=True, slots=True)
class Call:
    """Run ``method`` with ``params`` as invocation ``id``."""

    id: str
    method: str
    params: list[Any]
    random_seed: str | None


Request = Subscribe | Unsubscribe | Call

Message = dict[str, Any]


class _Head(msgspec.Struct):
    """What has to be known of a message before its turn."""

    msg: Any = None
    id: Any = msgspec.UNSET


_head_of = msgspec.json.Decoder(_Head).decode


def head(text: str) -> Message:
    """A message without what it carries, if it is a long one: that is looked at when its turn comes.

    Raises:
        BadRequest: as `parse`.
    """
    message = head_only(text) if len(text) > _SHORT else {}
    return message if message.get("msg") in ("method", "sub", "unsub") else parse(text)


def head_only(text: str) -> Message:
    """``msg`` and, if it has one, ``id`` of a message; nothing of what is no message.

    It takes a fraction of the time of `parse`.
    """
    try:
        found = _head_of(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return {}
    message = {"msg": found.msg} if found.msg else {}
    return message if found.id is msgspec.UNSET else {**message, "id": found.id}


def values_in(text: str, enough: int) -> int:
    """How many values a JSON text holds; where that is more than ``enough``, any number above.

    Decoding takes time for each value, be it as short as ``0,``, and for nobody else meanwhile. Counted are
    the commas and brackets that are not inside of strings.
    """
    count, start, inside = 0, 0, 0
    while start < len(text) and count <= enough:
        found = _NO_BACKSLASH.search(text, start + _PIECE)  # an escape sequence is not cut in two
        end = found.end() if found else len(text)
        parts = text[start:end].replace("\\\\", "").replace('\\"', "").split('"')
        count += sum(map(_values, parts[inside::2]))
        inside = (inside + len(parts) - 1) % 2
        start = end
    return count


def _values(text: str) -> int:
    return text.count(",") + text.count("[") + text.count("{")


def parse(text: str) -> Message:
    """One message off the wire, its ``params`` still JSON.

    Raises:
        BadRequest: it is not a JSON object with a ``msg``, or nested too deeply.
    """
    try:
        message = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise BadRequest("Bad request") from None
    if not isinstance(message, (dict, list)):
        raise BadRequest("Bad request")
    if text.count("[") + text.count("{") > MOST_DEPTH and _is_too_deep(message):
        raise BadRequest("Bad request")
    if not isinstance(message, dict) or not message.get("msg"):
        raise BadRequest("Bad request", message)
    return message


def _is_too_deep(message: Any) -> bool:
    level = [message]
    for _ in range(MOST_DEPTH):
        level = [
            child
            for container in level
            for child in (container.values() if isinstance(container, dict) else container)
            if isinstance(child, (dict, list))
        ]
    return bool(level)


def decode_values(message: Message) -> Message:
    """``message`` with EJSON decoded where DDP has it: ``fields``, ``params`` and ``result``.

    Raises:
        BadRequest: some value claims a type that nobody knows, or ``cleared`` is not an array.
    """
    if "cleared" in message and not isinstance(message["cleared"], list):
        raise BadRequest(PARSE_ERROR)
    try:
        return {
            name: ejson.from_json(value) if name in ("fields", "params", "result") else value
            for name, value in message.items()
        }
    except ejson.EJSONError:
        raise BadRequest(PARSE_ERROR) from None


def request_of(message: Message, size: int = 0) -> Request:
    """What a message of so many characters, as `decode_values` gives it, asks for.

    Raises:
        BadRequest: it is malformed, or not a request at all; without the offending message, which the
            caller has as it came.
    """
    kind = message["msg"]
    if kind == "sub":
        if not (_has_id(message) and _is_text(message, "name") and _has_params(message)):
            raise BadRequest("Malformed subscription")
        return Subscribe(message["id"], message["name"], message.get("params", []), size)
    if kind == "unsub" and _is_text(message, "id"):
        return Unsubscribe(message["id"])
    if kind == "method":
        if not (
            _has_id(message)
            and _is_text(message, "method")
            and _has_params(message)
            and isinstance(seed := message.get("randomSeed", ""), str)
            and len(seed) <= MOST_SEED_CHARACTERS
        ):
            raise BadRequest("Malformed method invocation")
        return Call(message["id"], message["method"], message.get("params", []), message.get("randomSeed"))
    raise BadRequest("Bad request")


def _is_text(message: Message, name: str) -> bool:
    return isinstance(message.get(name), str)


def _has_id(message: Message) -> bool:
    return _is_text(message, "id") and len(message["id"]) <= MOST_ID_CHARACTERS


def _has_params(message: Message) -> bool:
    return isinstance(message.get("params", []), list)


def agreed_version(message: Message) -> tuple[str, bool]:
    """The version to speak after a ``connect``, and whether the client asked for just that one."""
    version, support = message.get("version"), message.get("support")
    if not (
        isinstance(version, str)
        and isinstance(support, list)
        and all(isinstance(one, str) for one in support)
        and version in support
    ):
        return VERSIONS[0], False
    best = next((one for one in support if one in VERSIONS), VERSIONS[0])
    return best, version == best
