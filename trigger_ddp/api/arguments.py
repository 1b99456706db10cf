"""A client's params against the signature and type hints of the Python function they are for."""

from __future__ import annotations

import functools
import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from trigger_ddp import ejson
from trigger_ddp.api.days import DayFinder
from trigger_ddp.errors import MeteorError
from trigger_ddp.matching import convert


class _NoRule(Exception):
    """A hint names a class that params are never instances of, such as a model."""


class _Mismatch(TypeError):
    """A value is not of the class hinted; unlike what an application's class raises, fit for the client."""


def bind(function: Callable[..., Any], params: Sequence[Any]) -> tuple[Any, ...]:
    """``params`` as the positional arguments for ``function``, checked against its signature and hints.

    Nothing is converted between JSON's own types: "1" is no int. Strings do become what has no JSON
    form of its own, such as UUID; dates, which arrive as ``datetime``, become ``date`` where that is the
    hint; and objects become dataclasses and msgspec's Structs. Hints that can't be checked are ignored.

    Args:
        function: a function or bound method, ``async`` or not.
        params: the decoded params of a ``method`` or ``sub`` message.

    Raises:
        MeteorError: 400 "Match failed"; the details name the parameter, and the path to what does not fit
            in it, such as "order.lines[0].count".
    """
    signature, hints = _plan(function)
    try:
        bound = signature.bind(*params)
    except TypeError as error:
        raise MeteorError(400, "Match failed", str(error)) from None
    return tuple(
        _convert(parameter.name, value, hints.get(parameter.name))
        for parameter, value in _positional(signature, bound.arguments)
    )


def _positional(
    signature: inspect.Signature, arguments: Mapping[str, Any]
) -> typing.Iterator[tuple[inspect.Parameter, Any]]:
    for name, value in arguments.items():
        parameter = signature.parameters[name]
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            for item in value:
                yield parameter, item
        else:
            yield parameter, value


@functools.lru_cache(maxsize=1024)
def _plan(function: Callable[..., Any]) -> tuple[inspect.Signature, dict[str, tuple[Any, DayFinder]]]:
    """The signature, and the hints of those parameters that have one msgspec can check."""
    signature = inspect.signature(function)
    innermost = inspect.unwrap(function)
    while isinstance(innermost, functools.partial):
        innermost = inspect.unwrap(innermost.func)
    namespace = getattr(innermost, "__globals__", {})
    hints: dict[str, tuple[Any, DayFinder]] = {}
    for parameter in signature.parameters.values():
        if parameter.annotation is not inspect.Parameter.empty:
            hint = _resolve(parameter.annotation, namespace)
            if hint is not Any and _has_rules(hint):
                hints[parameter.name] = hint, DayFinder(hint)
    return signature, hints


def _resolve(annotation: Any, namespace: dict[str, Any]) -> Any:
    """The type an annotation stands for; Any if it is a string that can't be evaluated at run time."""
    holder = types.SimpleNamespace(__annotations__={"hint": annotation})
    try:
        return typing.get_type_hints(holder, namespace, include_extras=True)["hint"]
    except (NameError, AttributeError, SyntaxError, TypeError):
        # A name imported under TYPE_CHECKING only, for instance.
        return Any


def _has_rules(hint: Any) -> bool:
    try:
        msgspec.inspect.type_info(hint)
    except (TypeError, NameError):
        return False
    return True


def _convert(name: str, value: Any, rule: tuple[Any, DayFinder] | None) -> Any:
    if rule is None:
        return value
    hint, days = rule
    try:
        return convert(days.convert(value), hint, dec_hook=_custom)
    except msgspec.ValidationError as error:
        raise MeteorError(400, "Match failed", _explained(name, error)) from None
    except _NoRule:
        return value


def _explained(name: str, error: msgspec.ValidationError) -> str:
    """What does not fit and where: "order.lines[0].count: Expected `int`, got `str`"."""
    problem, found, path = str(error).rpartition(" - at `$")
    if not found:
        problem, path = path, ""
    if error.__cause__ is not None and not isinstance(error.__cause__, _Mismatch):
        problem = "Invalid value"  # in the words of an application's class, which may say anything
    return f"{name}{path.removesuffix('`')}: {problem}"


def _custom(kind: type, value: Any) -> Any:
    """msgspec's hook for the classes it has no rules for."""
    if isinstance(value, kind):
        return value
    if ejson.decodes_to(kind) or kind is re.Pattern:  # patterns arrive as ejson.RegExp, never compiled
        raise _Mismatch(f"Expected `{kind.__name__}`, got `{type(value).__name__}`")
    raise _NoRule
