"""How the server logs: one line per event, as text for people or as JSON for machines."""

from __future__ import annotations

import datetime
import logging
import sys
import traceback
from typing import Literal

import msgspec
from django.conf import settings

from trigger_ddp.server import access
from trigger_ddp.server.logcontext import NAMES, ContextFilter

LogFormat = Literal["text", "json"]

#: Attributes that every LogRecord has; what else is on one was passed as ``extra``.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


class JSONFormatter(logging.Formatter):
    """One JSON object per line: time (UTC, ISO 8601), level, logger, message, error, and what else there is:
    what ``extra`` held, and of `logcontext.NAMES` those that `ContextFilter` has found."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "time": datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(
                timespec="milliseconds"
            ),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry.update((name, value) for name, value in vars(record).items() if name not in _STANDARD)
        if record.exc_info:
            entry["error"] = "".join(traceback.format_exception(*record.exc_info))
        return msgspec.json.encode(entry, enc_hook=str).decode()


class TextFormatter(logging.Formatter):
    """Lines for people, with whose work they are about in brackets at the end."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        about = [f"{name}={_word(getattr(record, name))}" for name in NAMES if hasattr(record, name)]
        line = super().formatMessage(record)
        return f"{line} [{' '.join(about)}]" if about else line


def _word(value: object) -> str:
    """A value in one word. Clients choose some: none may look like more than that, or like another line."""
    text = str(value)
    return text if text.isprintable() and not set(text) & set(' "[]=') else ascii(text)


def configure(
    verbosity: int, log_format: LogFormat, worker: int | None = None, *, access_log: bool = False
) -> None:
    """Send the log to standard error.

    Loggers that the project's LOGGING setting configures keep their levels.

    Args:
        verbosity: 0 warnings only, 1 what a person running the server wants to see, 2 and more everything
            of trigger_ddp, 3 everything of everyone.
        log_format: ``text`` or ``json``.
        worker: the number of this process, if it is one of several.
        access_log: a line for each HTTP request.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        JSONFormatter()
        if log_format == "json"
        else TextFormatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    )
    handler.addFilter(ContextFilter(worker))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.DEBUG if verbosity >= 3 else logging.WARNING)
    ours = logging.getLogger("trigger_ddp")
    ours.setLevel({0: logging.WARNING, 1: logging.INFO}.get(verbosity, logging.DEBUG))
    ours.propagate = True
    access.logger.setLevel(logging.INFO if access_log else logging.WARNING)


def replace_djangos_console() -> None:
    """Take away the handler by which Django writes to standard error where DEBUG is set: ours does, too.

    Call it after the last ``django.setup()``. What a ``LOGGING`` setting says of ``django`` stands.
    """
    if "django" in getattr(settings, "LOGGING", {}).get("loggers", {}):
        return
    logger = logging.getLogger("django")
    for handler in [handler for handler in logger.handlers if type(handler) is logging.StreamHandler]:
        logger.removeHandler(handler)
