"""The application that tests/conformance converses with. A Meteor application offering the same would do.

Whoever wants to point the suite at another server builds this there. Names are exact.

Collection ``conformance.items``, stored in the database: ``_id`` a text of 17 characters made by the server
where none is given, ``group`` and ``text``. Items may have an owner, a user, which clients are not told.

Users have a ``username``; see ``conformance.person``.

Publications:

- without a name (universal): ``added("conformance.universal", "motd", {text: "hello"})``, then ready.
- ``conformance.items(group)``: a cursor over the items of a group.
- ``conformance.mine(group)``: a cursor over the items of a group that belong to the client's user, which are
  none where nobody is logged in.
- ``conformance.members()``: throws ``Meteor.Error("members-only", "Members only")`` where nobody is logged
  in, otherwise is ready without documents.
- ``conformance.byUser(table)``: ``added`` of every ``[collection, id, fields]`` of ``table.somebody`` where
  somebody is logged in, of ``table.nobody`` otherwise; then ready.
- ``conformance.script(name, steps)``: calls the methods of its ``this`` that the steps name, one after the
  other, with the arguments they give, for instance ``["added", "things", "a", {"x": 1}]`` or ``["ready"]``.
  Of ``changed`` a further argument lists fields to clear (in Meteor: give them the value undefined).
  ``["error", code, reason]`` calls ``this.error`` with such a ``Meteor.Error``, ``["throw"]`` throws a plain
  Error, and ``["wait", milliseconds]`` waits. It returns nothing, so it is ready when a step says so.
  ``name`` is for ``conformance.drive``.
- ``conformance.wrong()``: returns ``[7]``, which is no cursor.

Methods:

- ``conformance.echo(value)`` returns the value; ``conformance.nothing()`` returns undefined.
- ``conformance.fail(code, reason, details)`` throws a ``Meteor.Error`` made with just the arguments it was
  given; ``conformance.broken()`` throws a plain Error with the text "secret".
- ``conformance.checked(value)`` does ``check(value, Number)`` and returns it.
- ``conformance.slow(milliseconds, value)`` returns the value after that time;
  ``conformance.unblocked(milliseconds, value)`` calls ``this.unblock()`` before it waits.
- ``conformance.insert(group, text, username)`` inserts an item and returns its id; the username may be left
  out, else the item belongs to that user. ``conformance.update(id, text)``, ``conformance.remove(id)``.
- ``conformance.person(username)`` makes sure that there is a user of that name, without a password, and
  returns its id.
- ``conformance.loginAs(username)`` calls ``this.setUserId`` with that user's id, with null for null.
  ``conformance.setUserId(value)`` calls it with the value; ``conformance.unblockAndLogin(username)`` after
  ``this.unblock()``. ``conformance.whoami()`` returns the username of ``this.userId``, or null.
- ``conformance.drive(name, step)`` does a step of a running ``conformance.script`` of that name.
- ``conformance.hangUp()`` calls ``this.connection.close()``.

Accounts (facts 37 to 40) are those of Meteor's ``accounts-password`` with ``ambiguousErrorMessages`` and
signups as by default, and ``ddp-rate-limiter`` with its default rule.
"""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User

from tests.conformance.app.models import Item
from trigger_ddp.api import API, APIMixin, Collection, Handle, MeteorError, Publication, api_endpoint, this

#: The handles of running scripts by their names.
handles: dict[str, Handle] = {}


class Items(Collection):
    model = Item
    name = "conformance.items"
    exclude = ["owner"]


class ItemsOfGroup(Publication):
    name = "conformance.items"

    def get_queries(self, group: str) -> list[Any]:
        return [(Item.objects.filter(group=group), "conformance.items")]


class MyItems(Publication):
    name = "conformance.mine"

    def get_queries(self, group: str) -> list[Any]:
        if this.user_id is None:
            return []
        return [(Item.objects.filter(group=group, owner_id=this.user_id), "conformance.items")]


class Members(Publication):
    name = "conformance.members"

    def get_queries(self) -> list[Any]:
        if this.user is None:
            raise MeteorError("members-only", "Members only")
        return []


class Wrong(Publication):
    name = "conformance.wrong"

    def get_queries(self) -> list[Any]:
        return [7]


@API.publish(None)
async def motd(handle: Handle) -> None:
    handle.added("conformance.universal", "motd", {"text": "hello"})
    handle.ready()


@API.publish("conformance.byUser")
async def by_user(handle: Handle, table: dict[str, list[list[Any]]]) -> None:
    for collection, document_id, fields in table["nobody" if handle.user_id is None else "somebody"]:
        handle.added(collection, document_id, fields)
    handle.ready()


@API.publish("conformance.script")
async def script(handle: Handle, name: str, steps: list[list[Any]]) -> None:
    import trio  # not needed where the project only declares, for instance in a migration

    handles[name] = handle
    for step, *arguments in steps:
        if step == "wait":
            await trio.sleep(arguments[0] / 1000)
        elif step == "throw":
            raise RuntimeError("secret")
        else:
            do(handle, step, arguments)


def do(handle: Handle, step: str, arguments: list[Any]) -> None:
    if step == "error":
        handle.error(MeteorError(*arguments))
    else:
        getattr(handle, step)(*arguments)


class Methods(APIMixin):
    api_path_prefix = "conformance."

    @api_endpoint
    def echo(self, value: Any) -> Any:
        return value

    @api_endpoint
    def nothing(self) -> None:
        pass

    @api_endpoint
    def fail(self, *arguments: Any) -> None:
        raise MeteorError(*arguments)

    @api_endpoint
    def broken(self) -> None:
        raise RuntimeError("secret")

    @api_endpoint
    def checked(self, value: float) -> float:
        return value

    @api_endpoint
    async def slow(self, milliseconds: float, value: Any) -> Any:
        import trio

        await trio.sleep(milliseconds / 1000)
        return value

    @api_endpoint
    async def unblocked(self, milliseconds: float, value: Any) -> Any:
        import trio

        this.unblock()
        await trio.sleep(milliseconds / 1000)
        return value

    @api_endpoint
    def insert(self, group: str, text: str, username: str | None = None) -> str:
        owner = None if username is None else User.objects.get(username=username)
        return str(Item.objects.create(group=group, text=text, owner=owner).pk)

    @api_endpoint
    def update(self, item: str, text: str) -> None:
        Item.objects.filter(pk=item).update(text=text)

    @api_endpoint
    def remove(self, item: str) -> None:
        Item.objects.filter(pk=item).delete()

    @api_endpoint
    def person(self, username: str) -> str:
        return str(User.objects.get_or_create(username=username)[0].pk)

    @api_endpoint("loginAs")
    def login_as(self, username: str | None) -> None:
        this.set_user_id(None if username is None else User.objects.get(username=username).pk)

    @api_endpoint("setUserId")
    def set_user_id(self, value: Any) -> None:
        this.set_user_id(value)

    @api_endpoint("unblockAndLogin")
    def unblock_and_login(self, username: str) -> None:
        this.unblock()
        this.set_user_id(User.objects.get(username=username).pk)

    @api_endpoint
    def whoami(self) -> str | None:
        return None if this.user is None else str(this.user.username)

    @api_endpoint
    async def drive(self, name: str, step: list[Any]) -> None:
        do(handles[name], step[0], step[1:])

    @api_endpoint("hangUp")
    def hang_up(self) -> None:
        this.connection.close()


API.register([Items, ItemsOfGroup, MyItems, Members, Wrong, Methods])
