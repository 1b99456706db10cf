"""The delays between tries, without a clock."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trigger_ddp.server.backoff import Backoff


def test_delays_double_up_to_the_most() -> None:
    backoff = Backoff(least=1, most=10, random=lambda: 1.0)
    assert [backoff.failed(0) for _ in range(6)] == [1, 2, 4, 8, 10, 10]


def test_a_delay_is_at_least_half_its_ceiling() -> None:
    backoff = Backoff(least=1, most=10, random=lambda: 0.0)
    assert [backoff.failed(0) for _ in range(6)] == [0.5, 1, 2, 4, 5, 5]


def test_a_success_that_lasts_starts_over() -> None:
    backoff = Backoff(least=1, most=100, steady=30, random=lambda: 1.0)
    assert [backoff.failed(0), backoff.failed(1)] == [1, 2]
    backoff.succeeded(5)
    assert backoff.failed(35) == 1


def test_repeated_successes_count_from_the_first() -> None:
    backoff = Backoff(least=1, most=100, steady=30, random=lambda: 1.0)
    assert [backoff.failed(0), backoff.failed(1)] == [1, 2]
    for now in range(5, 36):
        backoff.succeeded(now)
    assert backoff.failed(35.5) == 1


def test_a_success_that_does_not_last_does_not() -> None:
    backoff = Backoff(least=1, most=100, steady=30, random=lambda: 1.0)
    delays = []
    for now in (0, 10, 20, 30):
        backoff.succeeded(now)
        delays.append(backoff.failed(now + 9))
    assert delays == [1, 2, 4, 8]


def test_a_new_success_is_needed_after_each_failure() -> None:
    backoff = Backoff(least=1, most=100, steady=30, random=lambda: 1.0)
    backoff.succeeded(0)
    assert [backoff.failed(40), backoff.failed(100), backoff.failed(200)] == [1, 2, 4]


@given(
    st.lists(st.tuples(st.booleans(), st.floats(0, 1000)), max_size=2000),
    st.floats(0, 1, exclude_max=True),
)
def test_whatever_happens_delays_stay_between_half_the_least_and_the_most(
    history: list[tuple[bool, float]], chance: float
) -> None:
    backoff = Backoff(least=0.1, most=10, steady=30, random=lambda: chance)
    now = 0.0
    for success, elapsed in history:
        now += elapsed
        if success:
            backoff.succeeded(now)
        else:
            assert 0.05 <= backoff.failed(now) <= 10
