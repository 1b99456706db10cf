"""`trio.run` for a server: refusals to start come out as they are, not in a group."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar, TypeVarTuple

import trio

from trigger_ddp.errors import ConfigurationError

#: Seconds after which a thread that computes lets another go on. With Python's 0.005 the event loop would
#: wait that long for its turn after every system call, while a publication or a method computes on a thread.
SWITCH_SECONDS = 0.0005

_T = TypeVar("_T")
_Args = TypeVarTuple("_Args")


def run(main: Callable[[*_Args], Awaitable[_T]], *args: *_Args) -> _T:
    """Run ``main(*args)`` as trio's main task, beside threads that compute.

    Raises:
        ConfigurationError: that is all that any task of it raised.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        return trio.run(main, *args, strict_exception_groups=True)
    except BaseExceptionGroup as group:
        refusals, others = group.split(ConfigurationError)
        if refusals is None or others is not None:
            raise
        raise _first(refusals) from None


def _first(group: BaseExceptionGroup[ConfigurationError]) -> ConfigurationError:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
