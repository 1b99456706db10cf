"""How long to wait before trying again."""

from __future__ import annotations

import random as _random
from collections.abc import Callable


class Backoff:
    """Delays that double from one failure to the next, spread so that many servers do not return at once.

    It looks at no clock: every method is told the time, in seconds of any clock that runs forward.

    Args:
        least: ceiling of the first delay, in seconds.
        most: ceiling of all delays, in seconds.
        steady: seconds that a success must last to count as recovery. One that ends sooner is followed by
            a longer delay still, so that a server which accepts connections and drops them is left alone.
        random: gives numbers in [0, 1); each delay lies between half its ceiling and its ceiling.
    """

    def __init__(
        self,
        *,
        least: float = 0.1,
        most: float = 10.0,
        steady: float = 30.0,
        random: Callable[[], float] = _random.random,
    ) -> None:
        self._least = least
        self._most = most
        self._steady = steady
        self._random = random
        self._ceiling = least
        self._succeeded_at: float | None = None

    def failed(self, now: float) -> float:
        """A try has failed, or what an earlier one achieved has ended: seconds until the next try."""
        if self._succeeded_at is not None and now - self._succeeded_at >= self._steady:
            self._ceiling = self._least
        self._succeeded_at = None
        delay = self._ceiling * (0.5 + self._random() / 2)
        self._ceiling = min(self._ceiling * 2, self._most)
        return delay

    def succeeded(self, now: float) -> None:
        """A try has succeeded; may be repeated while it goes well."""
        if self._succeeded_at is None:
            self._succeeded_at = now
