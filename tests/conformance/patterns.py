"""What a message must look like: JSON values with placeholders in them, which may remember what they met."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

#: The characters that Meteor makes ids of.
UNMISTAKABLE = "23456789ABCDEFGHJKLMNPQRSTWXYZabcdefghijkmnopqrstuvwxyz"

Variables = dict[str, Any]


class Mismatch(Exception):
    """A value is not as the pattern wants it; `str` says where and how."""


class Pattern:
    """Stands in an expected message for a value that is not known beforehand."""

    def match(self, value: Any, variables: Variables, where: str) -> None:
        """Raises Mismatch unless the value will do."""
        raise NotImplementedError


class Which(Pattern):
    """Any value for which a test holds.

    Args:
        description: for people.
        test: gets the value.
    """

    def __init__(self, description: str, test: Callable[[Any], object]) -> None:
        self._description = description
        self._test = test

    def match(self, value: Any, variables: Variables, where: str) -> None:
        if not self._test(value):
            raise Mismatch(f"{where} is to be {self._description}, not {value!r}")

    def __repr__(self) -> str:
        return f"<{self._description}>"


class Var(Pattern):
    """The value that a `Capture` of this name, or the run itself, has set; also in what is sent."""

    def __init__(self, name: str) -> None:
        self.name = name

    def match(self, value: Any, variables: Variables, where: str) -> None:
        match(variables[self.name], value, variables, where)

    def __repr__(self) -> str:
        return f"<{self.name}>"


class Capture(Pattern):
    """Remembers the value as a variable, if it is as the inner pattern wants it."""

    def __init__(self, name: str, inner: Any) -> None:
        self._name = name
        self._inner = inner

    def match(self, value: Any, variables: Variables, where: str) -> None:
        match(self._inner, value, variables, where)
        variables[self._name] = value

    def __repr__(self) -> str:
        return f"<{self._name}: {self._inner!r}>"


class Has(Pattern):
    """An object with at least these members."""

    def __init__(self, members: Mapping[str, Any]) -> None:
        self._members = members

    def match(self, value: Any, variables: Variables, where: str) -> None:
        if not isinstance(value, dict):
            raise Mismatch(f"{where} is to be an object, not {value!r}")
        for name, member in self._members.items():
            if name not in value:
                raise Mismatch(f"{where} lacks {name!r}")
            match(member, value[name], variables, f"{where}.{name}")

    def __repr__(self) -> str:
        return f"<with {self._members!r}>"


class Ordered(Pattern):
    """An object with just these members, in this order."""

    def __init__(self, members: Mapping[str, Any]) -> None:
        self._members = members

    def match(self, value: Any, variables: Variables, where: str) -> None:
        match(dict(self._members), value, variables, where)
        if list(value) != list(self._members):
            raise Mismatch(f"{where} has the keys {list(value)}, not in this order: {list(self._members)}")

    def __repr__(self) -> str:
        return f"<in this order {self._members!r}>"


class OneOf(Pattern):
    """A value that one of several patterns will take."""

    def __init__(self, *choices: Any) -> None:
        self._choices = choices

    def match(self, value: Any, variables: Variables, where: str) -> None:
        for choice in self._choices:
            tried = dict(variables)
            try:
                match(choice, value, tried, where)
            except Mismatch:
                continue
            variables.update(tried)
            return
        raise Mismatch(f"{where} is to be one of {self._choices!r}, not {value!r}")

    def __repr__(self) -> str:
        return f"<one of {self._choices!r}>"


def match(pattern: Any, value: Any, variables: Variables, where: str = "message") -> None:
    """Raises Mismatch unless the value is what the pattern says; sets the variables that it captures."""
    if isinstance(pattern, Pattern):
        pattern.match(value, variables, where)
    elif isinstance(pattern, dict) and isinstance(value, dict):
        for missing in pattern.keys() - value.keys():
            raise Mismatch(f"{where} lacks {missing!r}")
        for extra in value.keys() - pattern.keys():
            raise Mismatch(f"{where} has {extra!r}: {value[extra]!r}, which is not expected")
        for name, member in pattern.items():
            match(member, value[name], variables, f"{where}.{name}")
    elif isinstance(pattern, list) and isinstance(value, list) and len(pattern) == len(value):
        for number, (member, actual) in enumerate(zip(pattern, value, strict=True)):
            match(member, actual, variables, f"{where}[{number}]")
    elif pattern != value or isinstance(pattern, bool) != isinstance(value, bool):
        raise Mismatch(f"{where} is to be {pattern!r}, not {value!r}")


def filled(value: Any, variables: Variables) -> Any:
    """What is sent: ``value`` with each `Var` replaced."""
    if isinstance(value, Var):
        return variables[value.name]
    if isinstance(value, dict):
        return {name: filled(member, variables) for name, member in value.items()}
    if isinstance(value, list):
        return [filled(member, variables) for member in value]
    return value


def is_id(value: Any) -> bool:
    """Whether it is 17 of the characters that Meteor makes ids of."""
    return isinstance(value, str) and len(value) == 17 and not set(value) - set(UNMISTAKABLE)


ID = Which("17 unmistakable characters", is_id)
ANYTHING = Which("anything", lambda value: True)
TEXT = Which("a text", lambda value: isinstance(value, str) and value)
TOKEN = Which("43 characters", lambda value: isinstance(value, str) and re.fullmatch(r"[\w-]{43}", value))
