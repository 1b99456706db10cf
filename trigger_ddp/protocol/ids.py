"""Document ids on the wire, as Meteor's ``MongoID.idStringify`` writes strings (packages/mongo-id/id.js)."""

from __future__ import annotations

import re

_OBJECT_ID = re.compile(r"[0-9a-f]{24}")


def wire_id(document_id: str) -> str:
    """The id as clients parse it: what would read as another kind of id gets a ``-`` in front."""
    if "." < document_id < "{" and len(document_id) != 24:
        return document_id  # as nearly all; the characters below begin in neither of these ways
    if document_id[:1] in ("-", "~", "{") or (len(document_id) == 24 and _OBJECT_ID.fullmatch(document_id)):
        return f"-{document_id}"
    return document_id
