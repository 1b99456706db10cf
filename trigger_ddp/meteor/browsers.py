"""Modern or not: which of a bundle's programs a browser gets, by its User-Agent header.

The least versions are those that Meteor 3's core packages ask for together (meteor/meteor,
packages/modern-browsers, ecmascript-runtime-client, fetch). Who is not known gets the legacy program, which
runs everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Container

MODERN = "web.browser"
LEGACY = "web.browser.legacy"

_NEVER = (10**9, 0)

#: The first that is found in the header decides. Browsers name those that they descend from, so the children
#: come first.
_LEAST: tuple[tuple[re.Pattern[str], tuple[int, int]], ...] = tuple(
    (re.compile(pattern), least)
    for pattern, least in (
        (r"(?:bot|crawler|spider|SamsungBrowser|PhantomJS|FxiOS|MSIE|Trident)\b", _NEVER),
        (r"\bElectron/(\d+)(?:\.(\d+))?", (1, 6)),
        (r"\b(?:OPR|Opera)/(\d+)(?:\.(\d+))?", (38, 0)),
        (r"\bEdg(?:e|A|iOS)?/(\d+)(?:\.(\d+))?", (14, 0)),
        (r"(?:Chrome|Chromium|CriOS)/(\d+)(?:\.(\d+))?", (49, 0)),
        (r"\bFirefox/(\d+)(?:\.(\d+))?", (45, 0)),
        (r"\bVersion/(\d+)(?:\.(\d+))?.* Mobile/\S+ Safari/", (10, 3)),
        (r"\b(?:iPhone|iPad|iPod)\b.* OS (\d+)(?:_(\d+))?", (10, 3)),
        (r"\bVersion/(\d+)(?:\.(\d+))?.* Safari/", (10, 1)),
    )
)


def is_modern(user_agent: str) -> bool:
    """Whether a browser understands what the modern program is written in."""
    for pattern, least in _LEAST:
        if found := pattern.search(user_agent[:512]):
            numbers = [int(group or 0) for group in found.groups()] or [0, 0]
            return tuple(numbers) >= least
    return False


def choose(user_agent: str, available: Container[str]) -> str:
    """The architecture for a browser: the one that suits it, or else the other.

    Returns:
        One that is not available, where neither is.
    """
    wanted, other = (MODERN, LEGACY) if is_modern(user_agent) else (LEGACY, MODERN)
    return other if wanted not in available and other in available else wanted
