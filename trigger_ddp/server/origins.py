"""The pages whose scripts may connect: ``DDP_ALLOWED_ORIGINS``.

An Origin header protects the user of a browser from pages that she visits, since browsers don't let scripts
choose it. Of other programs it says nothing: they send what they like, or none. Nothing here trusts a cookie,
so by default every page may connect, and is nobody until it logs in.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterable

import trio

from trigger_ddp.server import sockjs
from trigger_ddp.server.exchange import Request

logger = logging.getLogger(__name__)

#: Seconds for which it is enough to have told of a refused page once.
_TELL_EVERY = 60.0
_MOST_CHARACTERS = 100

#: What a star stands for: one label of a host name, or several.
_LABELS = r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*"
#: SockJS's transports made of scripts, forms and frames: browsers send no Origin header then, or did not.
_WITHOUT_ORIGIN = re.compile(r"/sockjs/[^/]+/[^/]+/(?:jsonp|jsonp_send|htmlfile)/?")


class Origins:
    """Judges the pages that requests come from.

    Args:
        allowed: as the setting has them, ``https://app.example.org`` or ``https://*.example.org``; none: any.

    Attributes:
        any: whether every page may connect.
    """

    def __init__(self, allowed: Iterable[str] = ()) -> None:
        patterns = [re.escape(one.lower()).replace(r"\*", _LABELS) for one in allowed]
        self.any = not patterns
        self._pattern = re.compile("|".join(patterns))
        self._told_at = -math.inf

    def allow(self, origin: str) -> bool:
        """Whether pages of this origin, as an Origin header has it, may connect."""
        return self.any or self._pattern.fullmatch(origin.lower()) is not None

    def admit(self, request: Request) -> bool:
        """Whether a WebSocket handshake or a request of SockJS is to be answered; the log is told if not.

        One without an Origin header comes from no page, or from a GET of a page of this very server. Only
        where browsers leave it out for others' pages, too, the Referer header has to say where it is from.
        """
        if self.any:
            return True
        headers = request.http_headers
        origin = headers.get("origin")
        if origin is None:
            if not _WITHOUT_ORIGIN.fullmatch(request.raw_path):
                # By way of the iframe page every page could be one of this very server.
                return not sockjs.is_iframe(request.raw_path)
            origin = _origin_of(headers.get("referer", ""))
        if self.allow(origin):
            return not sockjs.is_iframe(request.raw_path)
        self._tell(origin, request)
        return False

    def _tell(self, origin: str, request: Request) -> None:
        now = trio.current_time()
        level = logging.DEBUG  # a client that asks again and again does not fill the log
        if now >= self._told_at + _TELL_EVERY:
            self._told_at, level = now, logging.INFO
        shown = ascii(origin[:_MOST_CHARACTERS])
        logger.log(level, "%s is refused: DDP_ALLOWED_ORIGINS does not have %s", request.client, shown)


def _origin_of(url: str) -> str:
    scheme, mark, rest = url.partition("://")
    return scheme + mark + rest.partition("/")[0]
