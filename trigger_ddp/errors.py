"""The errors of trigger_ddp, ordered by who is to blame.

    TriggerDDPError
    ├── MeteorError            raised by application code for its client: sent as it is, not logged
    ├── EJSONError             a value without an EJSON form, or text that is no EJSON (trigger_ddp.ejson)
    ├── BadRequest             a client's message that DDP does not allow (trigger_ddp.protocol.requests)
    ├── ConfigurationError     the project's settings, declarations or database: shown as one sentence
    │   ├── AlreadyRegistered  two declarations claim one name
    │   ├── TriggersMissing    a table that is to be live has no current trigger
    │   ├── LockTimeout        a table that is to get its trigger is in use (trigger_ddp.capture.install)
    │   └── BundleError        what meteor build made is not there or not whole (trigger_ddp.meteor.bundle)
    └── NotLive                a queryset that can't be kept current as it is written

Errors with a module in brackets are defined there, next to what raises them; the others are defined here.
Beside these there are Python's, Django's and trio's own, where a docstring says so under "Raises". Anything
else that escapes from trigger_ddp is a bug in it.
"""

from __future__ import annotations

from typing import Any

from django.utils.functional import Promise


class TriggerDDPError(Exception):
    """Base class of every error that trigger_ddp raises on purpose."""


class MeteorError(TriggerDDPError):
    """An error that is meant for the client, as Meteor's ``Meteor.Error``.

    Raise it in a method or a publication; the client receives ``error``, ``reason`` and ``details``
    and the server logs nothing.

    Args:
        error: the code that client programs compare: a string, or a number as Meteor's own errors have.
        reason: a short sentence for people; one of ``gettext_lazy`` is put into words when it is sent.
        details: anything JSON can carry, for instance a traceback in development.
    """

    def __init__(self, error: str | int, reason: str | Promise | None = None, details: Any = None) -> None:
        super().__init__(error, reason, details)
        self.error = error
        self.reason = reason
        self.details = details

    @property
    def message(self) -> str:
        """The text Meteor derives: ``reason [code]``, or ``[code]`` without a reason."""
        reason, error = _plain(self.reason or ""), _plain(self.error)
        return f"{reason} [{error}]" if reason else f"[{error}]"

    def as_dict(self) -> dict[str, Any]:
        """The error as it stands on the wire, in the key order Meteor's JSON has."""
        wire: dict[str, Any] = {"isClientSafe": True, "error": _plain(self.error)}
        if self.reason is not None:
            wire["reason"] = _plain(self.reason)
        if self.details is not None:
            wire["details"] = self.details
        wire["message"] = self.message
        wire["errorType"] = "Meteor.Error"
        return wire

    def __str__(self) -> str:
        return self.message


def _plain(value: object) -> str | int:
    """``value`` in JSON's own types: words of a lazy translation, the text of an enum's member."""
    if isinstance(value, int):
        return int(value)
    return str.__str__(value) if isinstance(value, str) else str(value)


class ConfigurationError(TriggerDDPError):
    """The project can't be served as it is; ``str()`` of it is one sentence that says what to do."""


class AlreadyRegistered(ConfigurationError):
    """Two declarations claim the same name."""


class TriggersMissing(ConfigurationError):
    """Tables that are to be live have no current trigger.

    Args:
        tables: the tables, as ``schema.table`` or ``table``.
    """

    def __init__(self, tables: list[str]) -> None:
        super().__init__(tables)
        self.tables = tables

    def __str__(self) -> str:
        some = ", ".join(self.tables[:5]) + (", …" if len(self.tables) > 5 else "")
        return (
            f"triggers are missing or out of date on {some}; "
            "run `manage.py ddp_install_triggers` (`--check` lists the differences)"
        )


class NotLive(TriggerDDPError):
    """A queryset that can't be kept current; ``str()`` says which and why."""
