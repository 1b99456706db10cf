"""Publications that are functions, universal ones, and what depends on who is logged in."""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

from django.contrib.auth.models import Group, Permission, User
from django.db import connection, transaction

from tests.zoo.models import Keeper, Visit
from trigger_ddp.api import API, APIMixin, Collection, Handle, MeteorError, Publication, api_endpoint, this
from trigger_ddp.demo.bookstore.models import Author

logger = logging.getLogger("tests")

#: The handles of running `script`s by their names.
handles: dict[str, Handle] = {}


# -- functions ------------------------------------------------------------------------------------


@API.publish("script")
async def script(handle: Handle, name: str, steps: list[list[Any]]) -> Any:
    """Do what the client asks for, and stay in reach of `drive`."""
    import trio  # not needed where the project only declares, for instance in a migration

    handles[name] = handle
    handle.on_stop(lambda: logger.warning("script %s was stopped", name))
    for step, *arguments in steps:
        if step == "authors":
            return Author.objects.filter(name__in=arguments)
        if step == "nothing in particular":
            return 7
        if step == "sleep":
            await trio.sleep_forever()
        if step == "nobody goes no further":
            if this.user is None:
                handle.added("things", "of nobody", {})
                handle.ready()
                await trio.sleep_forever()
            continue
        do(handle, step, arguments)
        await trio.lowlevel.checkpoint()
    return None


def do(handle: Handle, step: str, arguments: list[Any]) -> None:
    match step:
        case "raise":
            raise RuntimeError("the publication's secret")
        case "refuse":
            raise MeteorError("members-only", "Members only")
        case "exit":
            sys.exit(3)
        case "error":
            handle.error(MeteorError("enough", "Enough"))
        case "failing on_stop":
            handle.on_stop(lambda: sys.exit("the callback's secret"))
        case "who":
            username = None if this.user is None else this.user.username
            assert (handle.user, handle.user_id) == (this.user, this.user_id)
            handle.added(
                "who", "me", {"name": username, "id": this.user_ddp_id, "session": this.connection.id}
            )
        case _:
            getattr(handle, step)(*arguments)


class Ticks(Publication):
    """Never ends by itself."""

    name = "ticks"

    async def publish(self, handle: Handle, start: int = 0) -> None:
        import trio

        handle.added("ticks", "tick", {"count": start})
        handle.ready()
        try:
            while True:
                await trio.sleep(0.001)
                start += 1
                handle.changed("ticks", "tick", {"count": start})
        finally:
            logger.warning("ticks were cancelled")


class FunctionMethods(APIMixin):
    api_path_prefix = "handles/"

    @api_endpoint
    async def drive(self, name: str, step: str, *arguments: Any) -> str | None:
        """Let a function's handle do something although the function has returned."""
        try:
            do(handles[name], step, list(arguments))
        except (LookupError, TypeError, ValueError) as error:
            return f"{type(error).__name__}: {error}"
        return None


# -- users ----------------------------------------------------------------------------------------


class Users(Collection):
    model = User
    exclude = ["password", "groups", "user_permissions"]


class Groups(Collection):
    model = Group
    name = "groups"
    exclude = ["permissions"]


class OwnedKeepers(Collection):
    model = Keeper
    name = "owned-keepers"
    user_rel = "account"


class OwnedKeepersEvenOfSuperusers(OwnedKeepers):
    name = "zoo.keeper"  # the default: of several collections of a model one is to have it
    user_rel = "account"
    always_allow_superusers = False


class OwnedVisits(Collection):
    model = Visit
    name = "owned-visits"
    user_rel = "keeper__account"


class MyKeepers(Publication):
    def get_queries(self) -> list[Any]:
        return [(Keeper.objects.all(), "owned-keepers")]


class MyKeepersStrictly(Publication):
    def get_queries(self) -> list[Any]:
        return [(Keeper.objects.all(), "zoo.keeper")]


class MyVisits(Publication):
    def get_queries(self) -> list[Any]:
        return [(Visit.objects.all(), "owned-visits")]


class MyGroups(Publication):
    def get_queries(self) -> list[Any]:
        """Read when it is called: live only because the user's groups are."""
        names = [] if this.user is None else list(this.user.groups.values_list("name", flat=True))
        return [(Group.objects.filter(name__in=names), "groups")]


class Members(Publication):
    def get_queries(self) -> list[Any]:
        if this.user is None:
            raise MeteorError("members-only", "Members only")
        return [Author.objects.all()]


class AuthorsOfMyLetter(Publication):
    """Authors whose names begin as the user's does; some are seen by two users."""

    def get_queries(self) -> list[Any]:
        letters = "" if this.user is None else this.user.first_name
        return [Author.objects.filter(name__in=list(letters))]


class UserMethods(APIMixin):
    api_path_prefix = ""

    @api_endpoint
    def become(self, user_id: Any) -> Any:
        this.set_user_id(user_id)
        return this.user_ddp_id

    @api_endpoint
    async def login_async(self, user_id: Any) -> None:
        await this.set_user_id(user_id)

    @api_endpoint
    def login_and_look(self, user_id: Any) -> list[Any]:
        before = this.user_id
        this.set_user_id(user_id)
        return [before, this.user_id, this.user and this.user.pk]

    @api_endpoint
    async def login_and_look_async(self, user_id: Any) -> list[Any]:
        before = this.user_id
        await this.set_user_id(user_id)
        return [before, this.user_id, this.user and this.user.pk]

    @api_endpoint
    async def login_without_await(self, user_id: Any) -> None:
        this.set_user_id(user_id).close()

    @api_endpoint
    async def login_in_thread(self, user_id: Any) -> None:
        await this.in_thread(this.set_user_id, user_id)

    @api_endpoint
    def login_while(self, user_id: Any, keeper_id: int) -> None:
        this.set_user_id(user_id, lease=Keeper.objects.get(pk=keeper_id))

    @api_endpoint
    async def login_while_async(self, user_id: Any, keeper_id: int) -> None:
        keeper = await this.in_thread(lambda: Keeper.objects.get(pk=keeper_id))
        await this.set_user_id(user_id, lease=keeper)

    @api_endpoint
    def login_while_made(self, user_id: Any, name: str, fail: bool = False) -> None:
        this.set_user_id(user_id, lease=Keeper.objects.create(name=name))
        if fail:
            raise MeteorError("failed", "Failed")

    @api_endpoint
    def login_while_deleted(self, user_id: Any, keeper_id: int) -> None:
        keeper = Keeper.objects.get(pk=keeper_id)
        Keeper.objects.filter(pk=keeper_id).delete()
        this.set_user_id(user_id, lease=keeper)

    @api_endpoint
    def login_while_permitted(self, user_id: Any) -> None:
        this.set_user_id(user_id, lease=Permission.objects.first())

    @api_endpoint
    def login_while_true(self, user_id: Any) -> None:
        this.set_user_id(user_id, lease=True)

    @api_endpoint
    def logout_and_delete(self, keeper_id: int) -> None:
        this.set_user_id(None)
        Keeper.objects.filter(pk=keeper_id).delete()

    @api_endpoint
    def become_nobody(self) -> None:
        this.set_user_id(None)

    @api_endpoint
    def who(self) -> Any:
        return None if this.user is None else [this.user_id, this.user_ddp_id, this.user.username]

    @api_endpoint
    def sign_up(self, username: str, fail: bool = False) -> None:
        this.set_user_id(User.objects.create(username=username).pk)
        if fail:
            raise MeteorError("changed-my-mind")

    @api_endpoint
    def promote_me(self) -> None:
        this.user.is_superuser = True
        this.user.save()

    @api_endpoint
    def connection(self) -> Any:
        this.connection.on_close(lambda: logger.warning("the connection has ended"))
        headers = this.connection.http_headers
        return [this.connection.id, this.connection.client_address, headers["upgrade"]]

    @api_endpoint
    def hang_up(self) -> None:
        this.connection.close()


API.register(
    [
        Ticks, FunctionMethods, Users, Groups, OwnedKeepers, OwnedKeepersEvenOfSuperusers, OwnedVisits,
        MyKeepers, MyKeepersStrictly, MyVisits, MyGroups, Members, AuthorsOfMyLetter, UserMethods,
    ]
)  # fmt: skip


# -- universal ones, which other tests' clients are to be without ---------------------------------

if os.environ.get("TDDP_TEST_UNIVERSAL"):

    @API.register
    class OwnUser(Publication):
        name = None

        def get_queries(self) -> list[Any]:
            if this.user is None:
                raise MeteorError("nobody")
            return [User.objects.filter(pk=this.user_id)]

    @API.publish(None)
    async def motd(handle: Handle) -> None:
        handle.added("motd", "today", {"text": f"Hello {handle.user or 'stranger'}"})

    @API.publish(None)
    async def never_ready(handle: Handle) -> None:
        import trio

        handle.unblock()
        await trio.sleep_forever()


# -- what the documentation declares, for the test that follows it --------------------------------

if os.environ.get("TDDP_TEST_DOCS"):
    text = (Path(__file__).resolve().parents[2] / "docs" / "publications.md").read_text("utf-8")
    blocks = [
        block.replace("from bookstore.models", "from trigger_ddp.demo.bookstore.models")
        .replace('name = "users"', 'name = "documented-users"')
        .replace('pk=this.user_id), "users"', 'pk=this.user_id), "documented-users"')
        for block in re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    ]
    exec("\n".join(blocks), globals())


# -- methods that let others go on ------------------------------------------------------------------

#: Gates that `wait_at_gate` waits for and `open_gate` opens, by their names.
gates: dict[str, threading.Event] = {}
#: How often `count` was called, by what it was called with.
counts: Counter[str] = Counter()


class Gates(APIMixin):
    api_path_prefix = "gates/"

    @api_endpoint
    def wait(self, name: str, unblock: bool = False) -> str:
        if unblock:
            this.unblock()
            this.unblock()
        assert gates.setdefault(name, threading.Event()).wait(20)
        return name

    @api_endpoint
    async def wait_async(self, name: str, unblock: bool = False) -> str:
        if unblock:
            this.unblock()
        gate = gates.setdefault(name, threading.Event())
        assert await this.in_thread(gate.wait, 20)
        return name

    @api_endpoint
    def count(self, name: str) -> int:
        counts[name] += 1
        return counts[name]

    @api_endpoint
    def open(self, name: str) -> None:
        gates.setdefault(name, threading.Event()).set()

    @api_endpoint
    def login_after_unblock(self, user_id: Any) -> None:
        this.unblock()
        this.set_user_id(user_id)

    @api_endpoint
    async def login_after_unblock_async(self, user_id: Any) -> None:
        this.unblock()
        await this.set_user_id(user_id)

    @api_endpoint
    def in_transaction(self) -> bool:
        return connection.in_atomic_block

    @api_endpoint
    @transaction.non_atomic_requests
    def not_in_transaction(self) -> bool:
        return connection.in_atomic_block

    @api_endpoint
    def close(self, result: str) -> str:
        this.connection.on_close(lambda: logger.warning("%s: closed", result))
        this.connection.close()
        return result

    @api_endpoint
    def watch_close(self, name: str) -> None:
        this.connection.on_close(lambda: logger.warning("%s: closed", name))

    @api_endpoint
    def close_session(self, name: str) -> None:
        """Close the connection of the handle that `script` calls so."""
        handles[name].connection.close()


API.register(Gates)
