"""How the server logs: one line per event, as text for people or as JSON for machines."""

from __future__ import annotations

import datetime
import logging
import sys
import traceback
from typing import Literal

import msgspec

from trigger_ddp.server import access

LogFormat = Literal["text", "json"]

#: Attributes that every LogRecord has; what else is on one was passed as ``extra``.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


class JSONFormatter(logging.Formatter):
    """One JSON object per line: time (UTC, ISO 8601), level, logger, message, what ``extra`` held, error."""

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


def configure(verbosity: int, log_format: LogFormat, *, access_log: bool = False) -> None:
    """Send the log to standard error.

    Loggers that the project's LOGGING setting configures keep their levels.

    Args:
        verbosity: 0 warnings only, 1 what a person running the server wants to see, 2 and more everything
            of trigger_ddp, 3 everything of everyone.
        log_format: ``text`` or ``json``.
        access_log: a line for each HTTP request.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        JSONFormatter()
        if log_format == "json"
        else logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.DEBUG if verbosity >= 3 else logging.WARNING)
    ours = logging.getLogger("trigger_ddp")
    ours.setLevel({0: logging.WARNING, 1: logging.INFO}.get(verbosity, logging.DEBUG))
    ours.propagate = True
    access.logger.setLevel(logging.INFO if access_log else logging.WARNING)
