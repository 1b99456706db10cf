"""Random values as Meteor makes them: unguessable ones, and ones that client and server can both foretell.

A Meteor client runs a method's stub before the server runs the method. Both seed the generator "Alea" with
the ``randomSeed`` of the method message, and so the stub's new documents have the ids that the server's get.

Alea and its hash "Mash" are Johannes Baagøe's, of 2010. Meteor's packages ``random`` and ``ddp-common`` say
how they are seeded and read. Each float operation rounds, so that none may be rearranged.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import TypeVar

#: Letters and digits that people don't mistake for one another; Meteor's ids consist of them.
UNMISTAKABLE = "23456789ABCDEFGHJKLMNPQRSTWXYZabcdefghijkmnopqrstuvwxyz"

_HEXADECIMAL = "0123456789abcdef"
_BASE64 = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"

_TO_FRACTION = 2.3283064365386963e-10  # 2 ** -32

T = TypeVar("T")


class Random(ABC):
    """A source of random values, with the methods of Meteor's ``Random``."""

    @abstractmethod
    def fraction(self) -> float:
        """A number from 0 up to, but not including, 1."""

    def id(self, length: int = 17) -> str:
        """A document id; one of 17 characters has 98 bits."""
        return self._text(length, UNMISTAKABLE)

    def hex_string(self, digits: int) -> str:
        """``digits`` lower-case hexadecimal digits."""
        return self._text(digits, _HEXADECIMAL)

    def secret(self, length: int = 43) -> str:
        """A text of 6 bits for each character. Only that of a `SecureRandom` is a secret."""
        return self._text(length, _BASE64)

    def choice(self, options: Sequence[T]) -> T:
        """One of ``options``.

        Raises:
            IndexError: there are none.
        """
        return options[int(self.fraction() * len(options))]

    def _text(self, length: int, alphabet: str) -> str:
        return "".join([self.choice(alphabet) for _ in range(length)])


class SecureRandom(Random):
    """Unguessable values, from the operating system."""

    def fraction(self) -> float:
        return secrets.randbits(53) * 2.0**-53


class AleaRandom(Random):
    """The values of Meteor's ``Random.createWithSeeds(...seeds)``. Threads may share one.

    Whoever knows the seeds knows the values: not for secrets.
    """

    def __init__(self, *seeds: str | int) -> None:
        mash = _Mash()
        state = [mash(" "), mash(" "), mash(" ")]
        for seed in seeds:
            for index in range(3):
                state[index] -= mash(str(seed))
                if state[index] < 0:
                    state[index] += 1
        self._state = tuple(state)
        self._carry = 1
        self._lock = threading.RLock()  # values of two threads may alternate, but not the digits of ids

    def fraction(self) -> float:
        with self._lock:
            first, second, third = self._state
            total = 2091639 * first + self._carry * _TO_FRACTION
            self._carry = int(total)
            value = total - self._carry
            self._state = (second, third, value)
            return value

    def _text(self, length: int, alphabet: str) -> str:
        with self._lock:
            return super()._text(length, alphabet)


class _Mash:
    """A hash of all the texts so far, as a fraction."""

    def __init__(self) -> None:
        self._n: float = 0xEFC8249D

    def __call__(self, text: str) -> float:
        n = self._n
        # JavaScript's characters are UTF-16 code units.
        for code in memoryview(text.encode("utf-16-le", "surrogatepass")).cast("H"):
            n += code
            product = 0.02519603282416938 * n
            whole = int(product)
            product = (product - whole) * whole
            whole = int(product)
            n = whole + (product - whole) * 0x100000000
        self._n = n
        return (int(n) & 0xFFFFFFFF) * _TO_FRACTION


class RandomStream:
    """The random values of one method invocation: an independent `AleaRandom` for each name.

    The same names with the same seed give the same values, whatever is drawn by other names between.

    Args:
        seed: the ``randomSeed`` that the client sent.
    """

    def __init__(self, seed: str) -> None:
        self._seed = seed
        self._sequences: dict[str, AleaRandom] = {}

    def __call__(self, name: str | None = None) -> AleaRandom:
        """The generator called ``name``; without a name the one that Meteor calls "default"."""
        name = name or "default"
        # One step even where two threads ask at once: both get the same.
        return self._sequences.get(name) or self._sequences.setdefault(name, AleaRandom(self._seed, name))


#: What is unguessable and can't be foretold.
SECURE = SecureRandom()


#: The stream of the method that runs now, if its client sent a seed.
_running: ContextVar[RandomStream | None] = ContextVar("trigger_ddp.random", default=None)


@contextlib.contextmanager
def seeded(seed: str | None) -> Iterator[None]:
    """A ``with`` block in which `random_stream` begins anew with a client's seed, or has none."""
    token = _running.set(RandomStream(seed) if seed else None)
    try:
        yield
    finally:
        _running.reset(token)


def random_stream(name: str | None = None) -> Random:
    """The values called ``name`` of the method that runs now; unguessable ones where no seed was sent."""
    stream = _running.get()
    return SECURE if stream is None else stream(name)


def meteor_random_id(name: str | None = None, length: int = 17) -> str:
    """A document id as Meteor's ``Random.id`` makes them.

    Args:
        name: of the running method's `random_stream` to draw from; without a name the id is unguessable.
        length: number of characters; 17 have 98 bits.
    """
    return (SECURE if name is None else random_stream(name)).id(length)


def hex_string(digits: int) -> str:
    """``digits`` random lower-case hexadecimal digits, as Meteor's ``Random.hexString``."""
    return SECURE.hex_string(digits)
