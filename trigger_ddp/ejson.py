"""EJSON: JSON that also carries dates, bytes, infinities, regular expressions and custom types.

`encode` and `decode` are the wire; `to_json` and `from_json` do the same between Python values and
plain JSON values. The special forms and the rule for ``$escape`` are those of Meteor's ``ejson``
package. What becomes of each Python type:

    None, bool, str                   as in JSON
    int                               a number up to ±(2**53 - 1); beyond that, where JavaScript would
                                      silently round it, its digits as a string
    float                             a number; infinities and NaN as {"$InfNaN": 1 | -1 | 0}
    datetime                          {"$date": milliseconds}; naive ones are taken as UTC; decoded aware
    date                              {"$date": milliseconds} of its midnight UTC; decoded as datetime
    bytes, bytearray, memoryview      {"$binary": base64}; decoded as bytes
    RegExp, re.Pattern                {"$regexp": source, "$flags": letters}; decoded as RegExp
    Decimal                           {"$type": "Decimal", "$value": text}, as Meteor's mongo-decimal reads it
    ObjectID                          {"$type": "oid", "$value": hex}
    what `add_type` registered        {"$type": name, "$value": …}
    UUID, time, timedelta             canonical string, ISO string, Django's duration string
    Enum                              the member's value
    dict, list, tuple                 object, array; keys may be str or int
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import datetime
import decimal
import enum
import math
import re
import uuid
from collections.abc import Callable
from typing import Any

import msgspec
from django.utils.duration import duration_string
from django.utils.functional import Promise

from trigger_ddp.errors import AlreadyRegistered, TriggerDDPError

#: Containers nested deeper than this are refused: no client means it, and the interpreter's stack is finite.
MAX_DEPTH = 256

#: The greatest integer n for which JavaScript tells n and n + 1 apart.
MAX_SAFE_INTEGER = 2**53 - 1

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MILLISECOND = datetime.timedelta(milliseconds=1)
_SINGLE_KEY_FORMS = frozenset({"$date", "$InfNaN", "$binary", "$escape"})
_PYTHON_FLAGS = {"i": re.IGNORECASE, "m": re.MULTILINE, "s": re.DOTALL}
_CONTAINERS = frozenset({dict, list})
_DECODED_FLAGS = frozenset("gimuy")  # Meteor's choice; it drops the others, "s" among them

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder()


class EJSONError(TriggerDDPError):
    """A value that EJSON can't carry, or text that is not EJSON; ``str()`` says what and why."""


class ObjectID(str):
    """A MongoDB ObjectID as clients send it: 24 lower-case hexadecimal digits.

    Raises:
        ValueError: the text is not an ObjectID.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> ObjectID:
        if not re.fullmatch("[0-9a-f]{24}", text.lower(), re.ASCII):
            raise ValueError(f"not an ObjectID: {text!r}")
        return super().__new__(cls, text.lower())

    def __repr__(self) -> str:
        return f"ObjectID({str.__repr__(self)})"


@dataclasses.dataclass(frozen=True, slots=True)
class RegExp:
    """A regular expression of JavaScript's, as the text it is written in.

    It stays text since a client wrote it: compiling it takes as long as the client likes, and Python's
    syntax is another.

    Args:
        source: what stands between the slashes in JavaScript.
        flags: JavaScript's letters, such as "gi".
    """

    source: str
    flags: str = ""

    def compile(self) -> re.Pattern[str]:
        """The source taken for Python's syntax, with the flags Python has: i, m and s.

        Call it on a worker thread, and set a limit to the source's length first: neither compiling nor
        matching a hostile expression ends in reasonable time.

        Raises:
            re.error: it is no regular expression of Python's.
            RecursionError, OverflowError: it is nested too deeply, or repeats too often.
        """
        flags = re.NOFLAG
        for letter, flag in _PYTHON_FLAGS.items():
            if letter in self.flags:
                flags |= flag
        return re.compile(self.source, flags)


def encode(value: Any) -> bytes:
    """``value`` as EJSON text in UTF-8.

    Raises:
        EJSONError: ``value`` holds something EJSON has no form for.
    """
    try:
        return _encoder.encode(_to_json(value, 0))
    except UnicodeEncodeError as error:
        raise EJSONError("a string with half a surrogate pair can't be encoded") from error
    except RecursionError as error:
        raise EJSONError("nested too deeply") from error
    except TypeError as error:
        raise EJSONError(f"a custom type's to_json gave what JSON can't carry: {error}") from error


def decode(text: bytes | str) -> Any:
    """The value that EJSON ``text`` stands for.

    Raises:
        EJSONError: ``text`` is not JSON, or a special form in it is malformed or of an unknown ``$type``.
    """
    try:
        return _from_json(_decoder.decode(text), 0)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise EJSONError(f"not JSON: {error}") from error
    except RecursionError as error:
        raise EJSONError("nested too deeply") from error


def to_json(value: Any) -> Any:
    """``value`` in terms of dict, list, str, int, float, bool and None.

    Raises:
        EJSONError: ``value`` holds something EJSON has no form for.
    """
    try:
        return _to_json(value, 0)
    except RecursionError as error:
        raise EJSONError("nested too deeply") from error


def from_json(value: Any) -> Any:
    """What the plain JSON ``value`` stands for; ``value`` itself is left as it is.

    Raises:
        EJSONError: a special form in it is malformed or of an unknown ``$type``.
    """
    try:
        return _from_json(value, 0)
    except RecursionError as error:
        raise EJSONError("nested too deeply") from error


def add_type(
    name: str, python_type: type, to_json: Callable[[Any], Any], from_json: Callable[[Any], Any]
) -> None:
    """Carry a class and its subclasses as ``{"$type": name, "$value": …}``; Meteor's ``EJSON.addType``.

    Args:
        name: the name under which the client has registered the type too.
        python_type: the class of the values.
        to_json: gives the ``$value`` of a value: plain JSON, in which special forms are not looked for.
        from_json: the inverse; a ValueError, TypeError or ArithmeticError it raises refuses the message.

    Raises:
        AlreadyRegistered: the name or the class is taken.
    """
    if name in _factories:
        raise AlreadyRegistered(f"EJSON type {name!r} is already registered")
    if python_type in _atoms:
        raise AlreadyRegistered(f"{python_type.__qualname__} already has an EJSON form")
    _factories[name] = from_json
    _decoded.add(python_type)
    _atoms[python_type] = lambda value: {"$type": name, "$value": to_json(value)}


def decodes_to(python_type: type) -> bool:
    """Whether values of ``python_type`` come out of `decode` by a ``$type`` or ``$regexp`` form."""
    return not _decoded.isdisjoint(python_type.__mro__)


def escape(value: Any) -> Any:
    """A plain JSON value so that `decode` gives it back as it is: nothing in it is meant as a special form.

    Unlike in `to_json` numbers stay numbers, however many digits they have. ``value`` may be changed.
    """
    root = [value]
    pending: list[tuple[Any, Any, Any]] = [(root, 0, value)]
    # Its own stack instead of recursion: stored JSON may be nested deeper than clients' messages may.
    while pending:
        parent, key, item = pending.pop()
        if isinstance(item, dict):
            if _is_special(item):
                parent[key] = {"$escape": item}
            pending.extend((item, name, child) for name, child in item.items())
        elif isinstance(item, list):
            pending.extend((item, index, child) for index, child in enumerate(item))
    return root[0]


def _to_json(value: Any, depth: int) -> Any:
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return value
    atom = _atoms.get(kind)
    if atom is not None:
        return atom(value)
    if isinstance(value, dict | list | tuple):
        if depth >= MAX_DEPTH:
            raise EJSONError("nested too deeply")
        if not isinstance(value, dict):
            return [_to_json(item, depth + 1) for item in value]
        converted = {_key(key): _to_json(item, depth + 1) for key, item in value.items()}
        return {"$escape": converted} if _is_special(converted) else converted
    # A subclass, or nothing we know: its nearest base class with a form decides.
    for base in kind.__mro__:
        if base in _atoms:
            return _atoms[base](value)
    raise EJSONError(f"{kind.__module__}.{kind.__qualname__} has no EJSON form")


def _key(key: Any) -> str:
    if type(key) is str:
        return key
    if isinstance(key, str):
        return str.__str__(key)
    if isinstance(key, int) and not isinstance(key, bool):
        return int.__repr__(key)
    raise EJSONError(f"a key must be str or int, not {type(key).__qualname__}")


def _is_special(value: dict[str, Any]) -> bool:
    """Whether a decoder would take this plain object for a special form."""
    if len(value) == 1:
        return next(iter(value)) in _SINGLE_KEY_FORMS
    if len(value) == 2:
        return ("$type" in value and "$value" in value) or ("$regexp" in value and "$flags" in value)
    return False


def _int(value: int) -> int | str:
    # int() and int.__repr__ rather than str(), which gives the name of an enum's member.
    if -MAX_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER:
        return int(value)
    try:
        return int.__repr__(value)
    except ValueError as error:
        raise EJSONError("an integer with too many digits to print") from error


def _float(value: float) -> Any:
    if math.isfinite(value):
        return float(value)
    return {"$InfNaN": 0 if math.isnan(value) else 1 if value > 0 else -1}


def _datetime(value: datetime.datetime) -> dict[str, int]:
    aware = value if value.utcoffset() is not None else value.replace(tzinfo=datetime.UTC)
    return {"$date": (aware - _EPOCH) // _MILLISECOND}


def _date(value: datetime.date) -> dict[str, int]:
    return {"$date": (value.toordinal() - _EPOCH.toordinal()) * 86_400_000}


def _binary(value: bytes | bytearray | memoryview) -> dict[str, str]:
    return {"$binary": base64.b64encode(value).decode("ascii")}


def _regexp(value: RegExp) -> dict[str, str]:
    return {"$regexp": value.source, "$flags": value.flags}


def _pattern(value: re.Pattern[Any]) -> dict[str, str]:
    if isinstance(value.pattern, bytes) or value.flags & re.VERBOSE:
        raise EJSONError("a bytes or verbose regular expression has no JavaScript form")
    flags = "".join(letter for letter, flag in _PYTHON_FLAGS.items() if value.flags & flag)
    return {"$regexp": value.pattern, "$flags": flags}


#: What becomes of a value that is neither a container nor None, by its class.
_atoms: dict[type, Callable[[Any], Any]] = {
    str: str.__str__,
    bool: bool,
    int: _int,
    float: _float,
    datetime.datetime: _datetime,
    datetime.date: _date,
    datetime.time: datetime.time.isoformat,
    datetime.timedelta: duration_string,
    bytes: _binary,
    bytearray: _binary,
    memoryview: _binary,
    RegExp: _regexp,
    re.Pattern: _pattern,
    uuid.UUID: str,
    enum.Enum: lambda member: to_json(member.value),
    Promise: str,  # gettext_lazy
}


def _from_json(value: Any, depth: int) -> Any:
    kind = type(value)
    if kind is not dict and kind is not list:
        return value
    if depth >= MAX_DEPTH:
        raise EJSONError("nested too deeply")
    if kind is list:
        return [_from_json(item, depth + 1) if type(item) in _CONTAINERS else item for item in value]
    if not _is_special(value):
        return {
            key: _from_json(item, depth + 1) if type(item) in _CONTAINERS else item
            for key, item in value.items()
        }
    if "$date" in value:
        return _from_date(value["$date"])
    if "$binary" in value:
        return _from_binary(value["$binary"])
    if "$InfNaN" in value:
        return _from_inf_nan(value["$InfNaN"])
    if "$regexp" in value:
        return _from_regexp(value["$regexp"], value["$flags"])
    if "$type" in value:
        return _from_custom(value["$type"], value["$value"])
    escaped = value["$escape"]
    if type(escaped) is not dict:
        raise EJSONError("$escape of something that is not an object")
    return {key: _from_json(item, depth + 1) for key, item in escaped.items()}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _from_date(milliseconds: Any) -> datetime.datetime:
    if not _is_number(milliseconds):
        raise EJSONError("$date is not a number of milliseconds")
    try:
        return _EPOCH + datetime.timedelta(milliseconds=milliseconds)
    except (OverflowError, ValueError) as error:
        raise EJSONError(f"$date {milliseconds} is outside the years 1 to 9999") from error


def _from_binary(text: Any) -> bytes:
    if not isinstance(text, str):
        raise EJSONError("$binary is not a string")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise EJSONError("$binary is not base64") from error


def _from_inf_nan(sign: Any) -> float:
    if not _is_number(sign):
        raise EJSONError("$InfNaN is not a number")
    if not sign:
        return math.nan
    return math.inf if sign > 0 else -math.inf  # by comparison: an int may be too large for a float


def _from_regexp(source: Any, flags: Any) -> RegExp:
    """The expression with those of its flags that Meteor keeps, each once, in JavaScript's order."""
    if not isinstance(source, str) or not isinstance(flags, str):
        raise EJSONError("$regexp or $flags is not a string")
    return RegExp(source, "".join(sorted(_DECODED_FLAGS.intersection(flags[:50]))))


def _from_custom(name: Any, value: Any) -> Any:
    factory = _factories.get(name) if isinstance(name, str) else None
    if factory is None:
        raise EJSONError(f"unknown $type {name!r}")
    try:
        return factory(value)
    except (ValueError, TypeError, ArithmeticError) as error:
        raise EJSONError(f"not a value of $type {name!r}") from error


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("not a string")
    return value


_factories: dict[str, Callable[[Any], Any]] = {}
_decoded: set[type] = {RegExp}

add_type("Decimal", decimal.Decimal, str, lambda value: decimal.Decimal(_string(value)))
add_type("oid", ObjectID, str.__str__, lambda value: ObjectID(_string(value)))
