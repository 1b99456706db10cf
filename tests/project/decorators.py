"""Decorator factories for DDP_API_ENDPOINT_DECORATORS."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

logger = logging.getLogger("tests")

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def naming() -> Decorator:
    """Logs every call; a plain function whatever it decorates, and without functools.wraps."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            logger.warning("%s was called", function.__name__)
            return function(*args)

        return call

    return decorate


def wrapping() -> Decorator:
    """Does nothing, as most decorators do it."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any) -> Any:
            return function(*args)

        return wrapper

    return decorate
