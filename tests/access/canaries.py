"""Who was allowed to see what and when, and whether what a client was sent is within that.

Every text written is a canary: ``canary-KIND-OWNER-NUMBER.``, which stands in one field of one row for some
time. A `Ledger` notes that time, and those in which users have rights; a `Recorder` notes every frame that a
client was sent, and when. All times are `time.monotonic()` of one process.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import re
import time
from collections.abc import Iterable
from typing import Any

from tests.ddp import RawWire

CANARY = re.compile(r"canary-([A-Z])-(\d+)-(\d+)\.")
KEEPER, EMAIL, AUTHOR, USERNAME, NEVER = "KEANX"

#: By kind of canary: in documents of which collection, by which publication it may be sent.
PUBLISHED = {
    (KEEPER, "owned-keepers"): {"MyKeepers"},
    (KEEPER, "zoo.keeper"): {"MyKeepersStrictly"},
    (AUTHOR, "bookstore.author"): {"access/authors", "access/author-names"},
    (EMAIL, "bookstore.author"): {"access/authors"},
    (USERNAME, "auth.user"): {"access/names"},
}


@dataclasses.dataclass
class Span:
    """From not later than ``begun`` to not earlier than ``ended``: errs on the side of what is allowed."""

    begun: float
    ended: float = math.inf


def _overlap(*spans: Span) -> bool:
    return max(span.begun for span in spans) <= min(span.ended for span in spans)


class Recorder(RawWire):
    """A wire that notes the text of every frame and when it was received."""

    def __init__(self) -> None:
        self.frames: list[tuple[float, str]] = []

    def unpack(self, text: str) -> list[str]:
        self.frames.append((time.monotonic(), text))
        return [text]

    def text(self) -> str:
        return "\n".join(text for _, text in self.frames)


class Ledger:
    """What was in the database, when.

    Attributes:
        lives: when each canary could be read.
        rights: by right and user, when the user had it.
    """

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self.lives: dict[str, Span] = {}
        self.rights: dict[tuple[str, int], list[Span]] = {}

    def canary(self, kind: str, owner: int = 0) -> str:
        """A new one, which never lives unless `commit` says so."""
        return f"canary-{kind}-{owner}-{next(self._numbers)}."

    def commit(self, before: float, new: Iterable[str], old: Iterable[str] = ()) -> None:
        """A transaction has been committed that wrote ``new`` in place of ``old``."""
        for canary in new:
            self.lives[canary] = Span(before)
        for canary in old:
            if canary in self.lives:
                self.lives[canary].ended = time.monotonic()

    def give(self, before: float, right: str, user: int, given: bool) -> None:
        """A transaction has been committed that gave a user a right, or took it."""
        spans = self.rights.setdefault((right, user), [])
        if given:
            spans.append(Span(before))
        elif spans:
            spans[-1].ended = time.monotonic()


@dataclasses.dataclass
class Story:
    """What one client did: calls and subscriptions by their ids.

    Attributes:
        logins: id of the method call, user (0: nobody), when it was sent.
        calls: when each method call was sent.
        subscriptions: id, publication, when it was sent.
    """

    recorder: Recorder
    logins: list[tuple[str, int, float]] = dataclasses.field(default_factory=list)
    calls: dict[str, float] = dataclasses.field(default_factory=dict)
    subscriptions: dict[str, tuple[str, float]] = dataclasses.field(default_factory=dict)


class Judge:
    """Judges what one client was sent.

    A right that a row gives and another takes is in force for as long as that row says so. One that the
    user's own row, or its groups, give ends for a client at the latest at `updated` of the next method that
    it calls, as what `get_queries` returns has to be asked for again.
    """

    def __init__(self, story: Story, ledger: Ledger) -> None:
        self._ledger = ledger
        updated: dict[str, float] = {}
        failed: set[str] = set()
        ended: dict[str, float] = {}
        self._messages: list[tuple[float, str, dict[str, Any]]] = []
        for at, text in story.recorder.frames:
            message = json.loads(text)
            self._messages.append((at, text, message))
            if message.get("msg") == "updated":
                updated.update(dict.fromkeys(message["methods"], at))
            elif message.get("msg") == "result" and "error" in message:
                failed.add(message["id"])
            elif message.get("msg") == "nosub":
                ended[message["id"]] = at
        self._barriers = sorted(
            (sent, updated[call]) for call, sent in story.calls.items() if call in updated
        )
        self._users = [(0, Span(-math.inf))]
        for call, user, sent in story.logins:
            if call not in failed:
                self._users[-1][1].ended = updated.get(call, math.inf)
                self._users.append((user, Span(sent)))
        self._subscriptions = [
            (name, Span(sent, ended.get(subscription, math.inf)))
            for subscription, (name, sent) in story.subscriptions.items()
        ]

    @property
    def seen(self) -> set[str]:
        """The kinds of canaries that there were."""
        return {match[1] for _, text, _ in self._messages for match in CANARY.finditer(text)}

    def leaks(self) -> list[str]:
        """What the client was never to be sent, a line for each frame."""
        found: list[str] = []
        for at, text, message in self._messages:
            found += [
                f"{at:.6f} {match[0]} in {text[:200]}"
                for match in CANARY.finditer(text)
                if not self._allowed(match, message.get("collection", ""), at)
            ]
        return found

    def _allowed(self, canary: re.Match[str], collection: str, at: float) -> bool:
        life = self._ledger.lives.get(canary[0])
        names = PUBLISHED.get((canary[1], collection))
        if life is None or names is None:
            return False
        return any(
            _overlap(life, user_span, subscribed, right, Span(-math.inf, at))
            for user, user_span in self._users
            if user_span.begun <= at <= user_span.ended
            for name, subscribed in self._subscriptions
            if name in names and subscribed.begun <= at <= subscribed.ended
            for right in self._rights(user, canary[1], int(canary[2]), name)
        )

    def _rights(self, user: int, kind: str, owner: int, publication: str) -> Iterable[Span]:
        if kind in (AUTHOR, USERNAME):
            yield Span(-math.inf)
        elif user and kind == EMAIL:
            yield from self._held("reader", user)
        elif user and kind == KEEPER:
            if owner == user:
                yield from self._held("active", user)
            if publication == "MyKeepers":
                yield from self._held("superuser", user)

    def _held(self, right: str, user: int) -> Iterable[Span]:
        for span in self._ledger.rights.get((right, user), ()):
            later = (updated for sent, updated in self._barriers if sent >= span.ended)
            yield Span(span.begun, span.ended if span.ended == math.inf else min(later, default=math.inf))
