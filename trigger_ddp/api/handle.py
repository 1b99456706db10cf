"""What an async publication function gets in its hand: the `this` of a Meteor publish function."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any


class Handle(ABC):
    """One running publication of one client, as its function sees it.

    All methods return at once, and belong to the server's event loop: don't call them in a thread.
    What is published here is merged with what else the session publishes, per field in order of arrival.
    Once the subscription has ended, every call but `on_stop` does nothing.

    Attributes:
        user_id: the primary key of the client's user, or None.
        user: that user, or None. Its fields are loaded; a relation asks the database, so follow it in a
            thread: ``await this.in_thread(function, …)``.
        connection: as ``this.connection``.
    """

    user_id: Any
    user: Any
    connection: Any

    @abstractmethod
    def added(self, collection: str, document_id: Any, fields: Mapping[str, Any]) -> None:
        """Publish a document. If this publication shows it already, the fields that it lacks are added.

        Args:
            collection: any name; no `Collection` need be declared for it.
            document_id: a text, an int or a UUID.
            fields: values as `ejson.encode` takes them. ``_id`` is left out.

        Raises:
            EJSONError: a value has no EJSON form; nothing is published then.
            TypeError: an argument is of another type.
        """

    @abstractmethod
    def changed(
        self,
        collection: str,
        document_id: Any,
        fields: Mapping[str, Any] | None = None,
        cleared: Iterable[str] = (),
    ) -> None:
        """Give fields of a document other values, and clear those named by ``cleared``.

        Raises:
            LookupError: this publication does not show the document.
            EJSONError, TypeError: as of `added`.
        """

    @abstractmethod
    def removed(self, collection: str, document_id: Any) -> None:
        """Take a document back.

        Raises:
            LookupError: this publication does not show the document.
        """

    @abstractmethod
    def ready(self) -> None:
        """Tell the client that the initial documents are there, and let its next message be dealt with."""

    @abstractmethod
    def unblock(self) -> None:
        """Let the client's next message be dealt with, although this publication is not ready."""

    @abstractmethod
    def stop(self) -> None:
        """End the subscription: its documents are removed, and the client is told that it is over."""

    @abstractmethod
    def error(self, error: BaseException) -> None:
        """End the subscription with an error.

        Args:
            error: a `MeteorError` is sent as it is, some of Django's as `as_meteor_error` has them; of
                anything else the client is told "Internal server error", and the log the rest.
        """

    @abstractmethod
    def on_stop(self, callback: Callable[[], object]) -> None:
        """Have a plain function called once when the subscription ends, however it does; at once if it has.

        It runs on the event loop and must not wait. What it raises is logged.

        Raises:
            TypeError: it is an ``async`` function; put what has to be awaited into a ``finally``.
        """
