"""Keeps database queries off the thread that must never wait: the one all clients are served from."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any, NoReturn

from django.core.exceptions import ImproperlyConfigured, SynchronousOnlyOperation
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

logger = logging.getLogger(__name__)

#: What a connection is asked for before anything goes over the wire; transactions begin with the last.
_GUARDED = ("cursor", "chunked_cursor", "connect", "ensure_connection")

_SENTENCE = (
    "a query on the server's event loop would stop every client; "
    "run it with `await this.in_thread(function, …)`"
)


@contextlib.contextmanager
def no_queries_on_this_thread() -> Iterator[None]:
    """Have Django's connections of the calling thread refuse queries, transactions and connecting.

    What is refused raises `django.core.exceptions.SynchronousOnlyOperation`, and nothing is sent.
    Connections that are open stay open. Other threads are not affected, nor this one after the block.
    """
    with contextlib.ExitStack() as stack:
        for connection in _connections_of_this_thread():
            for name in _GUARDED:
                stack.enter_context(_replaced(connection, name, _refuse))
            # For cursors that were opened before.
            stack.enter_context(connection.execute_wrapper(_refuse))
        yield


def _connections_of_this_thread() -> Iterator[BaseDatabaseWrapper]:
    """One for each database; Django makes one object per thread and keeps it, connected or not."""
    for alias in connections:
        try:
            yield connections[alias]
        except (ImproperlyConfigured, ImportError) as error:
            # Not ours to refuse: it can't be queried from any thread.
            logger.warning("database %r can't be used: %s", alias, " ".join(str(error).split()))


@contextlib.contextmanager
def _replaced(connection: BaseDatabaseWrapper, method: str, substitute: Any) -> Iterator[None]:
    """Hide a method of one object; another substitute that hides it already comes back afterwards."""
    attributes = vars(connection)
    outer = attributes.get(method)
    attributes[method] = substitute
    try:
        yield
    finally:
        if outer is None:
            del attributes[method]
        else:
            attributes[method] = outer


def _refuse(*args: Any, **kwargs: Any) -> NoReturn:
    raise SynchronousOnlyOperation(_SENTENCE)
