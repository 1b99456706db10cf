"""`this`: who is asking, for the code of a publication or method."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Any

from trigger_ddp.alea import SECURE, Random, RandomStream

_NOBODY: Mapping[str, Any] = {"user": None, "user_id": None, "user_ddp_id": None}

_bound: ContextVar[Mapping[str, Any]] = ContextVar("trigger_ddp.this", default=_NOBODY)
_random: ContextVar[RandomStream | None] = ContextVar("trigger_ddp.random", default=None)


class This:
    """Names bound for the publication or method that runs now, in this task or thread only.

    ``user`` is the client's user or None, ``user_id`` its primary key or None, ``user_ddp_id`` the id
    of its document. While the server calls a method or publication it binds more: ``connection``, and
    ``in_thread``, with which async code runs blocking code such as the ORM's:
    ``await this.in_thread(function, *args)``. Methods also have ``random_seed``, and ``set_user_id``, which
    logs the client in as a user or, with None, out: ``this.set_user_id(user.pk)`` in a plain function,
    ``await this.set_user_id(user.pk)`` in an async one. With ``lease=row`` the login lasts as long as that
    row of a watched model is there: once somebody has deleted it, by SQL as well, the connection is closed.
    """

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        bound = _bound.get()
        if name not in bound:
            raise AttributeError(
                f"this.{name} is not bound here; bound are {', '.join(sorted(bound))}. "
                "Outside of publications and methods bind it with `with this.bound(…):`.",
                name=name,
                obj=self,
            )
        return bound[name]

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(
            f"this.{name} can't be assigned; use `with this.bound({name}=…):`", name=name, obj=self
        )

    def __dir__(self) -> list[str]:
        return sorted({"bound", "random_stream", *_bound.get()})

    @contextlib.contextmanager
    def bound(self, **values: Any) -> Iterator[None]:
        """Bind ``values`` for the length of a ``with`` block, on top of what is bound already.

        With a ``random_seed`` the values of `random_stream` begin anew.
        """
        seed, stream = values.get("random_seed"), _random.get()
        if "random_seed" in values:
            stream = RandomStream(seed) if seed else None
        token, random_token = _bound.set({**_bound.get(), **values}), _random.set(stream)
        try:
            yield
        finally:
            _bound.reset(token)
            _random.reset(random_token)

    def rebind(self, **values: Any) -> None:
        """Bind other values until the end of the ``with`` block around: a method may change its user."""
        _bound.set({**_bound.get(), **values})

    def random_stream(self, name: str | None = None) -> Random:
        """Meteor's ``DDP.randomStream(name)``: random values that the client's stub of the method has too.

        The same for all that one invocation of a method runs, whichever threads run it. Where no client
        has sent a seed, as outside of methods, the values are unguessable.

        Args:
            name: each name's values are independent. Those of "/collection/…" are the ids of new documents.
        """
        stream = _random.get()
        return SECURE if stream is None else stream(name)


this = This()


def meteor_random_id(name: str | None = None, length: int = 17) -> str:
    """A document id as Meteor's ``Random.id`` makes them.

    Args:
        name: of the running method's `random_stream` to draw from; without a name the id is unguessable.
        length: number of characters; 17 have 98 bits.
    """
    return (SECURE if name is None else this.random_stream(name)).id(length)
