"""`this`: who is asking, for the code of a publication or method."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Any

from trigger_ddp.alea import Random, random_stream, seeded

_NOBODY: Mapping[str, Any] = {"user": None, "user_id": None, "user_ddp_id": None}

_bound: ContextVar[Mapping[str, Any]] = ContextVar("trigger_ddp.this", default=_NOBODY)


class This:
    """Names bound for the publication or method that runs now, in this task or thread only.

    ``user`` is the client's user or None, ``user_id`` its primary key or None, ``user_ddp_id`` the id
    of its document. While the server calls a method or publication it binds more: ``connection``, and
    ``in_thread``, with which async code runs blocking code such as the ORM's:
    ``await this.in_thread(function, *args)``. Methods also have ``random_seed``; ``unblock()``, after which
    the client's next message need not wait for the method's end; and ``set_user_id``, which
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
        anew = seeded(values["random_seed"]) if "random_seed" in values else contextlib.nullcontext()
        token = _bound.set({**_bound.get(), **values})
        try:
            with anew:
                yield
        finally:
            _bound.reset(token)

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
        return random_stream(name)


this = This()
