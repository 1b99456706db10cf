"""Who may write to collections, to which objects, and what the database has to say of it."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, Group, Permission, User
from django.core.exceptions import ValidationError
from django.db import connection
from django.db.models import Q

from tests.api.mutating import DENIED, ann, call, nothing_required, refused, register, registry
from tests.zoo.models import (
    Every,
    Keeper,
)
from trigger_ddp.alea import SECURE
from trigger_ddp.api import MeteorError, this
from trigger_ddp.demo.bookstore.models import Author, Book, Tag

__all__ = ["ann", "nothing_required", "registry"]


# -- who ------------------------------------------------------------------------------------------


def attempts(key: str) -> list[tuple[Any, ...]]:
    return [("insert", {"name": "b"}), ("update", key, {"$set": {"name": "c"}}), ("remove", key)]


@pytest.mark.parametrize("who", ["nobody", "anonymous", "no permissions", "inactive", "deleted"])
def test_who_may_not(ann: User, who: str) -> None:
    register(Tag)
    key = str(Tag.objects.create(name="a").pk)
    user: Any = {"nobody": None, "anonymous": AnonymousUser()}.get(who, ann)
    if who == "no permissions":
        ann.has_perm("bookstore.add_tag")  # remembered by the instance, which lives as long as the session
        ann.user_permissions.clear()
    elif who == "inactive":
        User.objects.filter(pk=ann.pk).update(is_active=False)
    elif who == "deleted":
        User.objects.all().delete()
    with this.bound(user=user):
        for attempt in attempts(key):
            assert refused(*attempt) == DENIED
    assert list(Tag.objects.values_list("name", flat=True)) == ["a"]


@pytest.mark.parametrize(("permission", "allowed"), [("add", 0), ("change", 1), ("delete", 2)])
def test_each_action_has_its_permission(ann: User, permission: str, allowed: int) -> None:
    register(Tag)
    key = str(Tag.objects.create(name="a").pk)
    group = Group.objects.create(name="some")
    group.permissions.set(Permission.objects.filter(codename=f"{permission}_tag"))
    ann.user_permissions.clear()
    ann.groups.add(group)
    for number, attempt in enumerate(attempts(key)):
        if number == allowed:
            call(*attempt)
        else:
            assert refused(*attempt) == DENIED


def test_a_superuser_may(ann: User) -> None:
    register(Tag)
    root = User.objects.create(username="root", is_superuser=True)
    with this.bound(user=root):
        key = call("insert", {"name": "a"})
        assert call("remove", key) == 1


def test_an_own_has_permission(ann: User) -> None:
    register(Tag, has_permission=lambda self, user, action: user is None and action == "insert")
    key = str(Tag.objects.create(name="a").pk)
    with this.bound(user=None):
        assert call("insert", {"name": "b"})
        assert refused("remove", key) == DENIED
    assert refused("insert", {"name": "c"}) == DENIED


def test_rules(ann: User) -> None:
    seen: list[Any] = []

    def may_not(self: Any, user: Any, obj: Any, *fields: Any) -> bool:
        seen.append((user, obj.title, *fields))
        return False

    register(Book, can_insert=may_not, can_update=may_not, can_remove=may_not)
    author = Author.objects.create(name="a", email="a@x.org")
    book = Book.objects.create(title="old", author=author)
    tag = Tag.objects.create(name="t")
    assert refused("insert", {"title": "new", "author_id": str(author.pk)}) == DENIED
    change = {"title": "new", "author_id": str(author.pk), "tags_ids": [str(tag.pk)]}
    assert refused("update", str(book.pk), {"$set": change}) == DENIED
    assert refused("remove", str(book.pk)) == DENIED
    fields = {"title": "new", "author_id": author.pk, "tags": [tag]}
    assert seen == [(ann, "new"), (ann, "old", fields), (ann, "old")]
    assert Book.objects.get().title == "old"


def test_a_rule_may_say_whose_it_is_and_why_not(ann: User) -> None:
    def mine(self: Any, user: Any, obj: Any) -> bool:
        if obj.name == "no":
            raise MeteorError("not-so", "Not so")
        obj.account = user
        return True

    register(Keeper, user_rel="account", can_insert=mine)
    key = call("insert", {"name": "a"})
    assert Keeper.objects.get(aid=key).account == ann
    assert refused("insert", {"name": "no"}) == ("not-so", "Not so")


# -- out of sight ---------------------------------------------------------------------------------


def test_what_the_user_does_not_see_is_not_there(ann: User) -> None:
    ben = User.objects.create(username="ben")
    mine = Keeper.objects.create(name="a", account=ann)
    others = [Keeper.objects.create(name="b", account=ben), Keeper.objects.create(name="hidden", account=ann)]
    asked: list[Any] = []
    register(Keeper, user_rel="account", qs_filter=~Q(name="hidden"),
             can_update=lambda self, user, obj, fields: asked.append(obj) or True)  # fmt: skip
    for keeper in others:
        for modifier in ({"$set": {"name": "c"}}, {"$set": {"name": "x" * 99}}, {"$unset": {"name": ""}}):
            assert call("update", keeper.aid, modifier) == call("update", "x" * 17, modifier) == 0
        assert call("remove", keeper.aid) == 0
    assert not asked
    assert call("update", mine.aid, {"$set": {"name": "c"}}) == 1
    assert Keeper.objects.filter(name="c").count() == 1
    assert Keeper.objects.count() == 3


def test_nothing_is_moved_out_of_sight(ann: User, nothing_required: None) -> None:
    ben = User.objects.create(username="ben")
    mine = Keeper.objects.create(name="a", account=ann)
    hide: list[bool] = []
    register(Keeper, user_rel="account", can_hide=lambda self, user, obj: bool(hide))
    away = {"$set": {"account_id": str(ben.pk)}}
    assert refused("update", mine.aid, away) == DENIED
    assert refused("insert", {"name": "b"}) == DENIED
    assert refused("insert", {"name": "b", "account_id": str(ben.pk)}) == DENIED
    mine.refresh_from_db()
    assert (mine.account, Keeper.objects.count()) == (ann, 1)
    hide.append(True)
    assert call("update", mine.aid, away) == 1
    assert call("insert", {"name": "b"})
    assert call("update", mine.aid, away) == 0


# -- the database ---------------------------------------------------------------------------------


def test_unique_values(ann: User) -> None:
    register(Tag)
    call("insert", {"name": "a"})
    key = call("insert", {"name": "b"})
    for attempt in (("insert", {"name": "a"}), ("update", key, {"$set": {"name": "a"}})):
        with pytest.raises(ValidationError) as caught:
            call(*attempt)
        assert caught.value.error_dict["name"][0].code == "unique"


def test_what_only_the_database_knows(ann: User) -> None:
    register(Tag)
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE bookstore_tag ADD CONSTRAINT secret CHECK (name <> 'x')")
    assert refused("insert", {"name": "x"}) == (409, "Conflicts with other documents")
    key = call("insert", {"name": "a"})
    assert refused("update", key, {"$set": {"name": "x"}}) == (409, "Conflicts with other documents")
    assert call("update", key, {"$set": {"name": "b"}}) == 1


def test_what_the_database_looks_at_last(ann: User) -> None:
    """Deferred constraints, as those of foreign keys are, fail where it can still be said what of it."""
    register(Author)
    with connection.cursor() as cursor:
        cursor.execute(
            "ALTER TABLE bookstore_author ADD CONSTRAINT late UNIQUE (name) DEFERRABLE INITIALLY DEFERRED"
        )
    call("insert", {"name": "a", "email": "a@x.org"})
    key = call("insert", {"name": "b", "email": "b@x.org"})
    conflict = (409, "Conflicts with other documents")
    assert refused("insert", {"name": "a", "email": "c@x.org"}) == conflict
    assert refused("update", key, {"$set": {"name": "a"}}) == conflict
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE fan (author bigint REFERENCES bookstore_author DEFERRABLE INITIALLY DEFERRED);"
            f"INSERT INTO fan VALUES ({key})"
        )
    assert refused("remove", key) == conflict


def test_what_is_too_long_for_an_index(ann: User, nothing_required: None) -> None:
    register(Every)
    with connection.cursor() as cursor:
        cursor.execute("CREATE INDEX ON zoo_every (text)")
    assert refused("insert", {"text": SECURE.hex_string(20_000)}) == (400, "Match failed")
    assert call("insert", {"text": "short"})


def locks_are_waited_for() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
        return bool(cursor.fetchone()[0])


def test_two_at_once(ann: User) -> None:
    """The second waits for the first, and changes what that has left: no field of it is lost."""
    inside, go = threading.Event(), threading.Event()

    def slowly(self: Any, user: Any, obj: Any, fields: Any) -> bool:
        if "name" in fields:
            inside.set()
            assert go.wait(20)
        return True

    register(Author, can_update=slowly)
    author = Author.objects.create(name="a", email="a@x.org")
    key, results = str(author.pk), []

    def change(**values: str) -> None:
        with this.bound(user=ann):
            results.append(call("update", key, {"$set": values}))
        connection.close()

    first = threading.Thread(target=change, kwargs={"name": "b"})
    second = threading.Thread(target=change, kwargs={"email": "b@x.org"})
    first.start()
    assert inside.wait(20)
    second.start()
    try:
        while not locks_are_waited_for():
            assert second.is_alive()
    finally:
        go.set()
        first.join()
        second.join()
    author.refresh_from_db()
    assert (results, author.name, author.email) == ([1, 1], "b", "b@x.org")
