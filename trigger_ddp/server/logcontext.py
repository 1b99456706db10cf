"""Whose work a line of the log is about: context variables, which tasks and worker threads inherit.

What serves one client enters its session here; a `logging.Filter` then adds to every record, Django's and
the application's own included, which session, user, subscription and method it is about. Work that clients
share is to begin outside of all that: see `Service`.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:  # a process without a project logs, too
    from trigger_ddp.protocol.session import Session, Subscription

#: Characters of what a client has chosen, such as the id of a subscription, that are logged.
MOST_CHARACTERS = 100

#: Attributes that records may get, in the order in which a line shows them.
NAMES = ("worker", "session", "user", "subscription", "publication", "method")

_session: ContextVar[Session | None] = ContextVar("trigger_ddp.log.session", default=None)
_subscription: ContextVar[Subscription | None] = ContextVar("trigger_ddp.log.subscription", default=None)
_method: ContextVar[str] = ContextVar("trigger_ddp.log.method", default="")

#: What `leave` returned.
Scope: TypeAlias = "tuple[Session | None, Subscription | None, str]"


def enter_session(session: Session) -> None:
    """From here on this task works for a session, whoever is its user when something is logged."""
    _session.set(session)


def enter_subscription(subscription: Subscription) -> None:
    """From here on this task works for a subscription of its session."""
    _subscription.set(subscription)
    _method.set("")  # a method may have begun it, as where it changed the user


def enter_method(name: str) -> None:
    """From here on this task runs a method for its session."""
    _method.set(name)


@contextlib.contextmanager
def subscription_of(subscription: Subscription) -> Iterator[None]:
    """A block that works for a subscription."""
    before = _subscription.set(subscription)
    try:
        yield
    finally:
        _subscription.reset(before)


def scope() -> Scope:
    """What is entered here, for `enter` in a task that does not inherit it."""
    return _session.get(), _subscription.get(), _method.get()


def enter(scope: Scope) -> None:
    """Enter what is entered where `scope` was called."""
    for variable, value in zip((_session, _subscription, _method), scope, strict=True):
        variable.set(value)  # type: ignore[attr-defined]  # of three types


class ContextFilter(logging.Filter):
    """Lets every record through, with attributes of `NAMES`. Those that it has already, it keeps.

    Args:
        worker: the number of this process, if it is one of several.
    """

    def __init__(self, worker: int | None = None) -> None:
        super().__init__()
        self._process: dict[str, object] = {} if worker is None else {"worker": worker}

    def filter(self, record: logging.LogRecord) -> bool:
        for name, value in {**self._process, **_context()}.items():
            if not hasattr(record, name):
                setattr(record, name, value)
        return True


def _context() -> dict[str, object]:
    context: dict[str, object] = {}
    if (session := _session.get()) is not None and session.id:
        context["session"] = session.id
        if session.user is not None:
            context["user"] = session.user.pk
    if (subscription := _subscription.get()) is not None:
        if not subscription.universal:
            context["subscription"] = subscription.id[:MOST_CHARACTERS]
        context["publication"] = subscription.name[:MOST_CHARACTERS]
    if method := _method.get():
        context["method"] = method[:MOST_CHARACTERS]
    return context
