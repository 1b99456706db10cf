"""What a client is told of an exception that a method or publication raised."""

from __future__ import annotations

import logging
from typing import Any

from django.core.exceptions import NON_FIELD_ERRORS, ObjectDoesNotExist, PermissionDenied, ValidationError
from django.http import Http404

from trigger_ddp.errors import MeteorError

logger = logging.getLogger(__name__)


def as_meteor_error(error: BaseException) -> MeteorError | None:
    """The error to tell the client, or None: then it is "Internal server error", and a case for the log.

    Of Django's exceptions only a ValidationError's messages are told, which are made for users. The text
    of the others may name what the client is not to know of: models, and queries on them.
    """
    if isinstance(error, MeteorError):
        return error
    told: MeteorError | None = None
    if isinstance(error, ValidationError):
        # As Meteor's package mdg:validation-error has it, by which forms find their fields.
        told = MeteorError("validation-error", "Validation failed", _details(error))
    elif isinstance(error, PermissionDenied):
        told = MeteorError(403, "Access denied")
    elif isinstance(error, ObjectDoesNotExist | Http404):
        told = MeteorError(404, "Not found")
    if told is not None:
        # quoted: it may repeat what the client sent, line breaks included
        logger.info("%s: %r; the client is told %s", type(error).__qualname__, str(error), told)
    return told


def _details(error: ValidationError) -> list[dict[str, Any]]:
    """``{"name": field, "type": code, "message": text}`` for each problem."""
    named = error.error_dict if hasattr(error, "error_dict") else {NON_FIELD_ERRORS: error.error_list}
    return [
        {"name": name, "type": problem.code or "invalid", "message": message}
        for name, problems in named.items()
        for problem in problems
        for message in problem.messages
    ]
