"""`API.rate_limiter`: how often clients may call methods and subscribe, as Meteor's DDPRateLimiter counts."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from django.utils.functional import Promise

from trigger_ddp.alea import meteor_random_id
from trigger_ddp.errors import MeteorError

logger = logging.getLogger("trigger_ddp.limits")

#: Counters that one rule keeps at a time. Above that the oldest is forgotten: who can come under this many
#: names, with the allowance of each, gains nothing worth having by one of them starting anew.
MOST_COUNTERS = 50_000


@dataclasses.dataclass(frozen=True, slots=True)
class Attempt:
    """What rules look at: a client that calls a method or subscribes.

    Args:
        type: "method" or "subscription".
        name: the method's or publication's name. Unknown ones are refused before anything is counted.
        user_id: the document id of the client's user, as ``this.user_ddp_id``; None: nobody is logged in.
        connection_id: the session's id, as ``this.connection.id``.
        client_address: as ``this.connection.client_address``.
    """

    type: str
    name: str
    user_id: str | None
    connection_id: str
    client_address: str


@dataclasses.dataclass(frozen=True, slots=True)
class RateLimitResult:
    """What rules say of an attempt.

    Args:
        allowed: whether it is let through.
        time_to_reset: milliseconds until it will be, or until the rule that allows least starts anew.
        num_invocations_left: how many more of the kind would be let through; infinite where no rule matches.
        rule_id: the rule that refuses, the last if several do; otherwise the last one that matches, or None.
    """

    allowed: bool = True
    time_to_reset: int = 0
    num_invocations_left: float = math.inf
    rule_id: str | None = None


Matcher = str | None | Callable[[Any], object]
ErrorMessage = str | Promise | Callable[[RateLimitResult], str | Promise]
Callback = Callable[[RateLimitResult, Attempt], object]

#: What a matcher may name.
FIELDS = tuple(field.name for field in dataclasses.fields(Attempt))
TYPES = ("method", "subscription")


def default_message(result: RateLimitResult) -> str:
    """The sentence that Meteor's clients know."""
    return (
        "Error, too many requests. Please slow down. You must wait "
        f"{math.ceil(result.time_to_reset / 1000)} seconds before trying again."
    )


class _Rule:
    """One rule with its counters."""

    def __init__(
        self, matcher: dict[str, Matcher], requests: int, interval: int, callback: Callback | None, now: int
    ) -> None:
        self.id = meteor_random_id()
        self.matcher = matcher
        self.requests = requests
        self.interval = interval
        self.callback = callback
        self.message: ErrorMessage | None = None
        self._counters: OrderedDict[tuple[str | None, ...], int] = OrderedDict()
        self._reset_at = now

    def matches(self, attempt: Attempt) -> bool:
        for field, wanted in self.matcher.items():
            value = getattr(attempt, field)
            if not (self._ask(wanted, value) if callable(wanted) else wanted == value):
                return False
        return True

    def _ask(self, function: Callable[[Any], object], value: object) -> bool:
        try:
            return bool(function(value))
        except (Exception, SystemExit, KeyboardInterrupt):
            # It is to protect something, so that it does when in doubt.
            logger.exception("rate limit %s: a matcher failed on %r and counts as matching", self.id, value)
            return True

    def count(self, attempt: Attempt, now: int) -> int:
        """How many attempts of this kind there are in this window, with this one."""
        if now - self._reset_at > self.interval:
            self._counters.clear()
            self._reset_at = now
        key = tuple(getattr(attempt, field) for field in self.matcher)
        count = self._counters[key] = self._counters.get(key, 0) + 1
        if len(self._counters) > MOST_COUNTERS:
            self._counters.popitem(last=False)
        return count

    def judge(self, count: int, now: int, result: RateLimitResult) -> RateLimitResult:
        """The result of the rules before this one, with this one's."""
        left = self.requests - count
        time_to_reset = self._reset_at + self.interval - now
        if left < 0:
            return RateLimitResult(False, max(result.time_to_reset, time_to_reset), 0, self.id)
        if not result.allowed:
            return result
        if left < result.num_invocations_left:
            return RateLimitResult(True, time_to_reset, left, self.id)
        return dataclasses.replace(result, rule_id=self.id)

    def call_back(self, result: RateLimitResult, attempt: Attempt) -> None:
        if self.callback is not None:
            try:
                self.callback(result, attempt)
            except (Exception, SystemExit, KeyboardInterrupt):
                # A callback's sys.exit() must not end the server. Signals don't arrive as KeyboardInterrupt.
                logger.exception("rate limit %s: its callback failed", self.id)


class RateLimiter:
    """Rules about how often something may be attempted. Counts in memory, each server process by itself.

    Args:
        now: the time in milliseconds, since any moment; never goes back.
    """

    def __init__(self, now: Callable[[], int] = lambda: time.monotonic_ns() // 1_000_000) -> None:
        self._now = now
        self._rules: dict[str, _Rule] = {}
        self._message: ErrorMessage = default_message

    def add_rule(
        self,
        matcher: Mapping[str, Matcher],
        requests: int = 10,
        interval_ms: int = 1000,
        callback: Callback | None = None,
    ) -> str:
        """Limit the attempts that match; Meteor's ``DDPRateLimiter.addRule``.

        Attempts are counted apart where they differ in a field that the matcher names, and together where
        they don't. An attempt that is refused counts too. All counts of a rule start anew at its first
        matching attempt after ``interval_ms`` are over. An attempt must be allowed by every rule it matches.

        Args:
            matcher: by name (``type``, ``name``, ``user_id``, ``connection_id``, ``client_address``) the
                value that an attempt must have, or a function of the value that says whether it matches.
                A None is as if the name was not there. A function that raises counts as matching, and is
                logged.
            requests: how many are allowed in a window.
            interval_ms: length of the window in milliseconds.
            callback: called with the result so far and the attempt whenever the rule has matched, allowed or
                not. It runs on the server's event loop, as the matcher's functions do, and must not wait.
                What it raises is logged.

        Returns:
            The rule's id, for `remove_rule` and `set_error_message_on_rule`.

        Raises:
            ValueError: the matcher names something unknown, or a number is below 1.
            TypeError: something is neither of the types above, or is an async function.
        """
        rule = _Rule(
            _checked_matcher(matcher),
            _checked_number("requests", requests),
            _checked_number("interval_ms", interval_ms),
            None if callback is None else _checked_function("callback", callback),
            self._now(),
        )
        self._rules[rule.id] = rule
        return rule.id

    def remove_rule(self, rule_id: str) -> bool:
        """Remove a rule, with its counts and message. Returns whether there was one with this id."""
        return self._rules.pop(rule_id, None) is not None

    def set_error_message(self, message: ErrorMessage) -> None:
        """Have refused clients told this ``reason``: a text, or a plain function of the `RateLimitResult`.

        Raises:
            TypeError: it is neither.
        """
        self._message = _checked_message(message)

    def set_error_message_on_rule(self, rule_id: str, message: ErrorMessage) -> None:
        """Have clients that this rule refuses told this ``reason``.

        Raises:
            KeyError: there is no such rule.
            TypeError: the message is neither a text nor a plain function.
        """
        self._rules[rule_id].message = _checked_message(message)

    def count(self, attempt: Attempt) -> RateLimitResult:
        """Count an attempt, and say whether it is allowed."""
        now, result = self._now(), RateLimitResult()
        # All of them before any is counted; a callback may remove rules, and threads may add some.
        matching = [rule for rule in tuple(self._rules.values()) if rule.matches(attempt)]
        counts = [rule.count(attempt, now) for rule in matching]
        for rule, count in zip(matching, counts, strict=True):
            result = rule.judge(count, now, result)
            rule.call_back(result, attempt)
        return result

    def admit(self, attempt: Attempt) -> None:
        """Count an attempt.

        Raises:
            MeteorError: too-many-requests, with the milliseconds to wait as ``details["timeToReset"]``.
        """
        result = self.count(attempt)
        if not result.allowed:
            raise MeteorError(
                "too-many-requests", self._reason(result), {"timeToReset": result.time_to_reset}
            )

    def _reason(self, result: RateLimitResult) -> str | Promise:
        rule = self._rules.get(result.rule_id or "")
        message = self._message if rule is None or rule.message is None else rule.message
        if isinstance(message, str | Promise):
            return message
        try:
            return message(result)
        except (Exception, SystemExit, KeyboardInterrupt):
            logger.exception("rate limit %s: the function for its message failed", result.rule_id)
            return default_message(result)

    @contextlib.contextmanager
    def restored(self) -> Iterator[None]:
        """A ``with`` block whose changes to rules and messages are undone at its end; for tests."""
        rules, message = dict(self._rules), self._message
        messages = {rule.id: rule.message for rule in rules.values()}
        try:
            yield
        finally:
            self._rules, self._message = rules, message
            for rule in rules.values():
                rule.message = messages[rule.id]


def _checked_matcher(matcher: Mapping[str, Matcher]) -> dict[str, Matcher]:
    unknown = [field for field in matcher if field not in FIELDS]
    if unknown:
        names = ", ".join(map(repr, unknown))
        raise ValueError(f"a matcher of a rate limit can't name {names}, only {', '.join(FIELDS)}")
    for field, wanted in matcher.items():
        if callable(wanted):
            _checked_function(field, wanted)
        elif not isinstance(wanted, str | None):
            raise TypeError(
                f"{field} of a rate limit must be a text, a function or None, not {type(wanted).__name__}"
            )
    kind = matcher.get("type")
    if isinstance(kind, str) and kind not in TYPES:
        raise ValueError(f"type of a rate limit is {' or '.join(map(repr, TYPES))}, not {kind!r}")
    return {field: wanted for field, wanted in matcher.items() if wanted is not None}


def _checked_number(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} of a rate limit must be a whole number, not {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{name} of a rate limit must be at least 1, not {value}")
    return value


def _checked_message(message: ErrorMessage) -> ErrorMessage:
    return message if isinstance(message, str | Promise) else _checked_function("message", message)


def _checked_function(name: str, function: Any) -> Any:
    if not callable(function) or inspect.iscoroutinefunction(function):
        kind = "an async one" if callable(function) else type(function).__name__
        raise TypeError(f"{name} of a rate limit must be a plain function, not {kind}")
    return function
