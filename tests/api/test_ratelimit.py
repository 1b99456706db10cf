"""The rules of `API.rate_limiter` count as those of Meteor's DDPRateLimiter."""

from __future__ import annotations

import dataclasses
import math
import sys
from typing import Any

import pytest
from django.utils.translation import gettext_lazy
from hypothesis import given
from hypothesis import strategies as st

from trigger_ddp.api import API, MeteorError, ratelimit
from trigger_ddp.api.ratelimit import Attempt, RateLimiter, RateLimitResult


class Limiter(RateLimiter):
    """One whose clock stands still."""

    def __init__(self) -> None:
        self.time = 1_000_000
        super().__init__(lambda: self.time)

    def allows(self, **differences: Any) -> bool:
        return self.count(attempt(**differences)).allowed

    def error(self, **differences: Any) -> dict[str, Any]:
        with pytest.raises(MeteorError) as caught:
            self.admit(attempt(**differences))
        return caught.value.as_dict()


def attempt(**differences: Any) -> Attempt:
    usual = Attempt("method", "login", None, "connection1", "192.0.2.1")
    return dataclasses.replace(usual, **differences)


@pytest.fixture
def limiter() -> Limiter:
    return Limiter()


# -- windows --------------------------------------------------------------------------------------


def test_ten_a_second_unless_said_otherwise(limiter: Limiter) -> None:
    limiter.add_rule({"name": "login"})
    assert [limiter.allows() for _ in range(12)] == [True] * 10 + [False] * 2
    limiter.time += 1000
    assert not limiter.allows()  # a window is over only after its last millisecond
    limiter.time += 1
    assert [limiter.allows() for _ in range(11)] == [True] * 10 + [False]


def test_the_first_window_begins_with_the_rule_and_others_with_an_attempt(limiter: Limiter) -> None:
    limiter.add_rule({}, 1, 1000)
    limiter.time += 900
    assert limiter.count(attempt()) == RateLimitResult(True, 100, 0, limiter.count(attempt()).rule_id)
    limiter.time += 5000
    assert limiter.count(attempt()).time_to_reset == 1000
    limiter.time += 999
    assert limiter.count(attempt()).time_to_reset == 1


def test_the_error(limiter: Limiter) -> None:
    limiter.add_rule({"name": "login"}, 1, 10_000)
    limiter.time += 2999
    limiter.admit(attempt())
    reason = "Error, too many requests. Please slow down. You must wait 8 seconds before trying again."
    assert limiter.error() == {
        "isClientSafe": True, "error": "too-many-requests", "reason": reason,
        "details": {"timeToReset": 7001}, "message": f"{reason} [too-many-requests]",
        "errorType": "Meteor.Error",
    }  # fmt: skip
    limiter.time += 1
    assert "You must wait 7 seconds" in limiter.error()["reason"]


def test_what_is_refused_counts(limiter: Limiter) -> None:
    """By another rule too."""
    limiter.add_rule({"client_address": "192.0.2.1"}, 1, 100)
    limiter.add_rule({"name": "login"}, 3, 10_000)
    assert [limiter.allows() for _ in range(3)] == [True, False, False]
    assert not limiter.allows(client_address="192.0.2.2")


# -- what matches, and what is counted together ---------------------------------------------------


def test_a_rule_counts_apart_what_differs_in_the_fields_it_names(limiter: Limiter) -> None:
    limiter.add_rule({"type": "method", "connection_id": lambda _: True, "user_id": None}, 1)
    assert limiter.allows()
    assert not limiter.allows(user_id="1")
    assert not limiter.allows(name="other", client_address="192.0.2.2")
    assert limiter.allows(connection_id="connection2")
    assert limiter.allows(type="subscription")
    assert limiter.allows(type="subscription")


def test_a_literal_and_a_function(limiter: Limiter) -> None:
    seen: list[object] = []

    def is_guest(user_id: object) -> bool:
        seen.append(user_id)
        return user_id is None

    limiter.add_rule({"name": "login", "user_id": is_guest}, 1)
    assert limiter.allows(name="other")
    assert seen == []  # what does not match is asked no further
    assert [limiter.allows() for _ in range(2)] == [True, False]
    assert [limiter.allows(user_id="1") for _ in range(2)] == [True, True]
    assert set(seen) == {None, "1"}


def test_a_matcher_without_fields_counts_everything_together(limiter: Limiter) -> None:
    limiter.add_rule({"name": None}, 1)
    assert limiter.allows()
    assert not limiter.allows(type="subscription", name="x", connection_id="2", client_address="::1")


def test_fields_do_not_run_into_each_other(limiter: Limiter) -> None:
    limiter.add_rule({"name": lambda _: True, "connection_id": lambda _: True}, 1)
    assert limiter.allows(name="ab", connection_id="c")
    assert limiter.allows(name="a", connection_id="bc")
    assert limiter.allows(name="aconnection_idb", connection_id="c")


def test_the_strictest_rule_decides(limiter: Limiter) -> None:
    limiter.add_rule({"name": "login"}, 5, 1000)
    two = limiter.add_rule({"type": "method"}, 2, 5000)
    assert limiter.count(attempt()) == RateLimitResult(True, 5000, 1, two)
    assert limiter.allows()
    assert limiter.count(attempt()) == RateLimitResult(False, 5000, 0, two)


def test_without_a_rule_everything_is_allowed(limiter: Limiter) -> None:
    assert limiter.count(attempt()) == RateLimitResult(True, 0, math.inf, None)


def test_a_removed_rule_limits_no_more(limiter: Limiter) -> None:
    rule = limiter.add_rule({}, 1)
    assert [limiter.allows() for _ in range(2)] == [True, False]
    assert limiter.remove_rule(rule)
    assert not limiter.remove_rule(rule)
    assert limiter.allows()


# -- messages and callbacks -----------------------------------------------------------------------


def test_messages(limiter: Limiter) -> None:
    rule = limiter.add_rule({"name": "login"}, 1)
    limiter.add_rule({"name": "other"}, 1)
    limiter.add_rule({"type": "method"}, 10)  # matches too, but refuses nothing
    assert limiter.allows()
    assert limiter.allows(name="other")
    limiter.set_error_message("Slowly")
    assert limiter.error()["reason"] == "Slowly"
    limiter.set_error_message(lambda result: f"{result.time_to_reset} ms, {result.allowed}")
    assert limiter.error()["reason"] == "1000 ms, False"
    limiter.set_error_message_on_rule(rule, gettext_lazy("Not so fast"))
    assert limiter.error()["reason"] == "Not so fast"
    assert limiter.error(name="other")["reason"] == "1000 ms, False"
    limiter.remove_rule(rule)
    with pytest.raises(KeyError):
        limiter.set_error_message_on_rule(rule, "gone")


def test_callbacks_hear_of_every_attempt_that_matches(limiter: Limiter) -> None:
    heard: list[tuple[bool, float, str | None, Attempt]] = []

    def callback(result: RateLimitResult, tried: Attempt) -> None:
        heard.append((result.allowed, result.num_invocations_left, result.rule_id, tried))

    rule = limiter.add_rule({"name": "login"}, 1, 1000, callback)
    limiter.count(attempt(name="other"))
    limiter.count(attempt())
    limiter.count(attempt(user_id="1"))
    assert heard == [(True, 0, rule, attempt()), (False, 0, rule, attempt(user_id="1"))]


def fail(*arguments: object) -> Any:
    raise RuntimeError("the function's secret")


def leave(*arguments: object) -> Any:
    sys.exit("the function's secret")


@pytest.mark.parametrize("broken", [fail, leave])
def test_functions_that_fail_are_logged_and_limit_all_the_same(
    limiter: Limiter, caplog: pytest.LogCaptureFixture, broken: Any
) -> None:
    rule = limiter.add_rule({"name": broken}, 1, 1000, broken)
    limiter.set_error_message(broken)
    limiter.admit(attempt())
    reason = "Error, too many requests. Please slow down. You must wait 1 seconds before trying again."
    assert limiter.error()["reason"] == reason
    matched = f"rate limit {rule}: a matcher failed on 'login' and counts as matching"
    called_back = f"rate limit {rule}: its callback failed"
    said = f"rate limit {rule}: the function for its message failed"
    assert [record.getMessage() for record in caplog.records] == [
        matched, called_back, matched, called_back, said,
    ]  # fmt: skip
    assert "the function's secret" in caplog.text


def test_a_callback_may_remove_its_rule(limiter: Limiter) -> None:
    rules = [limiter.add_rule({}, 1, 1000, lambda *_: [limiter.remove_rule(rule) for rule in rules])]
    rules.append(limiter.add_rule({}, 1))
    assert [limiter.allows() for _ in range(3)] == [True] * 3


# -- mistakes -------------------------------------------------------------------------------------


async def later(*arguments: object) -> bool:
    return True


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ([{"userId": "1", "name": "x"}], ValueError, "can't name 'userId', only type, name, user_id, conn"),
        ([{"type": "sub"}], ValueError, "'method' or 'subscription', not 'sub'"),
        ([{"user_id": 1}], TypeError, "user_id of a rate limit must be a text, a function or None, not int"),
        ([{"name": later}], TypeError, "name of a rate limit must be a plain function, not an async one"),
        ([{}, 0], ValueError, "requests of a rate limit must be at least 1, not 0"),
        ([{}, 1.5], TypeError, "requests of a rate limit must be a whole number, not float"),
        ([{}, 1, 0], ValueError, "interval_ms of a rate limit must be at least 1"),
        ([{}, 1, 1, "x"], TypeError, "callback of a rate limit must be a plain function, not str"),
        ([{}, 1, 1, later], TypeError, "callback of a rate limit must be a plain function, not an async"),
    ],
)
def test_mistakes_are_named(limiter: Limiter, arguments: list[Any], error: Any, words: str) -> None:
    with pytest.raises(error) as caught:
        limiter.add_rule(*arguments)
    assert words in str(caught.value)
    assert limiter.count(attempt()).rule_id is None
    for wrong in (later, None, 7):
        with pytest.raises(TypeError, match="message of a rate limit"):
            limiter.set_error_message(wrong)  # type: ignore[arg-type]


# -- memory ---------------------------------------------------------------------------------------


def test_counters_are_bounded(limiter: Limiter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ratelimit, "MOST_COUNTERS", 3)
    rule = limiter.add_rule({"connection_id": lambda _: True}, 1)
    for number in range(3):
        assert limiter.allows(connection_id=str(number))
    assert not limiter.allows(connection_id="0")
    assert limiter.allows(connection_id="3")
    assert not limiter.allows(connection_id="2")  # the others keep their counts
    assert limiter.allows(connection_id="0")  # the oldest is forgotten
    assert len(limiter._rules[rule]._counters) == 3
    limiter.time += 1001
    limiter.allows()
    assert len(limiter._rules[rule]._counters) == 1


# -- against a model ------------------------------------------------------------------------------

FIELD_VALUES = {"name": ["a", "b"], "user_id": [None, "1"], "connection_id": ["x", "y"]}
FUNCTIONS = {"any": lambda value: True, "none": lambda value: False, "known": lambda value: value is not None}
rules = st.tuples(
    st.fixed_dictionaries(
        {},
        optional={
            field: st.sampled_from([None, *FUNCTIONS, *(f"={value}" for value in values if value)])
            for field, values in FIELD_VALUES.items()
        },
    ),
    st.integers(1, 4),
    st.integers(1, 50),
)
attempts = st.tuples(
    st.integers(0, 30), st.fixed_dictionaries({n: st.sampled_from(v) for n, v in FIELD_VALUES.items()})
)


def model(
    declared: list[tuple[dict[str, Any], int, int]], tried: list[tuple[int, dict[str, Any]]]
) -> list[tuple[bool, int, float]]:
    """The answers, each found by going through the whole history of each rule."""
    answers, time = [], 0
    history: list[list[tuple[int, tuple[Any, ...]]]] = [[] for _ in declared]
    for wait, values in tried:
        time += wait
        allowed, time_to_reset, left = True, 0, math.inf
        for (matcher, requests, interval), past in zip(declared, history, strict=True):
            named = {field: wanted for field, wanted in matcher.items() if wanted is not None}
            if not all(
                values[field] == wanted[1:] if wanted[0] == "=" else FUNCTIONS[wanted](values[field])
                for field, wanted in named.items()
            ):
                continue
            key = tuple(values[field] for field in named)
            past.append((time, key))
            start, window = 0, list[tuple[Any, ...]]()
            for at, one in past:
                if at > start + interval:
                    start, window = at, []
                window.append(one)
            remaining, wait_for = requests - window.count(key), start + interval - time
            if remaining < 0:
                allowed, time_to_reset, left = False, max(time_to_reset, wait_for), 0
            elif allowed and remaining < left:
                time_to_reset, left = wait_for, remaining
        answers.append((allowed, time_to_reset, left))
    return answers


@given(st.lists(rules, max_size=4), st.lists(attempts, max_size=30))
def test_against_a_model(
    declared: list[tuple[dict[str, Any], int, int]], tried: list[tuple[int, dict[str, Any]]]
) -> None:
    limiter = Limiter()
    for matcher, requests, interval in declared:
        limiter.add_rule(
            {
                field: wanted and (wanted[1:] if wanted[0] == "=" else FUNCTIONS[wanted])
                for field, wanted in matcher.items()
            },
            requests,
            interval,
        )
    answers = []
    for wait, values in tried:
        limiter.time += wait
        result = limiter.count(attempt(**values))
        answers.append((result.allowed, result.time_to_reset, result.num_invocations_left))
    assert answers == model(declared, tried)


# -- the registry ---------------------------------------------------------------------------------


def test_the_registry_restores_rules_and_messages() -> None:
    limiter = API.rate_limiter
    with API.restored():
        kept = limiter.add_rule({"name": "tests/kept"}, 1, 10**9)
        limiter.set_error_message_on_rule(kept, "kept")
        with API.restored():
            limiter.set_error_message("changed")
            limiter.set_error_message_on_rule(kept, "changed too")
            limiter.remove_rule(kept)
            added = limiter.add_rule({"name": "tests/added"})
        assert not limiter.remove_rule(added)
        limiter.admit(attempt(name="tests/kept"))
        with pytest.raises(MeteorError) as caught:
            limiter.admit(attempt(name="tests/kept"))
        assert caught.value.reason == "kept"
    assert not limiter.remove_rule(kept)
    assert limiter._message is ratelimit.default_message
