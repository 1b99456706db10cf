"""Methods that do what they should not, or at the worst moment."""

from __future__ import annotations

import gc
import sys
import threading
from typing import Any

from tests.project.publishing import gates
from tests.zoo.models import Keeper
from trigger_ddp.api import API, APIMixin, MeteorError, Publication, api_endpoint, this
from trigger_ddp.demo.bookstore.models import Author


class SlowForUsers(Publication):
    def get_queries(self, gate: str) -> list[Any]:
        if this.user is not None:
            assert gates.setdefault(gate, threading.Event()).wait(20)
        return [Author.objects.all()]


class Abuse(APIMixin):
    api_path_prefix = "abuse/"

    @api_endpoint
    async def sessions(self) -> int:
        """How many sessions there are in memory."""
        from trigger_ddp.protocol.session import Session

        gc.collect()
        return sum(isinstance(one, Session) for one in gc.get_objects())

    @api_endpoint
    async def exit_in_nursery(self) -> None:
        import trio

        async def leave() -> None:
            sys.exit("in a child task")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave)

    @api_endpoint
    def tell(self, what: str) -> None:
        raise MeteorError("told", "Told", {"thing": object()} if what == "object" else "\ud800")

    @api_endpoint
    async def return_half(self) -> str:
        return "\ud800"

    @api_endpoint
    def login_while_made_and_wait(self, user_id: Any, name: str, gate: str) -> None:
        """Log in with a row that is not committed yet, let others go on, and take one's time."""
        this.set_user_id(user_id, lease=Keeper.objects.create(name=name))
        this.unblock()
        assert gates.setdefault(gate, threading.Event()).wait(20)

    @api_endpoint
    def login_while_of_text(self, user_id: Any, keeper_id: int) -> None:
        """As where a row is made with a UUID's text as its key."""
        this.set_user_id(user_id, lease=Keeper(pk=str(keeper_id)))

    @api_endpoint
    async def login_and_leave(self, user_id: Any, keeper_id: int | None = None) -> str:
        """Give up waiting for a switch that goes on."""
        import trio

        lease = None
        if keeper_id is not None:
            lease = await this.in_thread(lambda: Keeper.objects.get(pk=keeper_id))
        with trio.move_on_after(0.2):
            await this.in_thread(lambda: this.set_user_id(user_id, lease=lease))
            return "done"
        return "left"

    @api_endpoint
    async def stay(self, gate: str) -> None:
        """Not to be cancelled."""
        import trio

        with trio.CancelScope(shield=True):
            while not gates.setdefault(gate, threading.Event()).is_set():
                await trio.sleep(0.01)


API.register([SlowForUsers, Abuse])
