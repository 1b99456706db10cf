"""Entrances that are plain functions: notifications, EJSON, the accounts' options, addresses."""

from __future__ import annotations

import contextlib
import dataclasses

from trigger_ddp import ejson
from trigger_ddp.accounts import options, profile
from trigger_ddp.changes.change import Change, Gap
from trigger_ddp.changes.decode import decode
from trigger_ddp.errors import ConfigurationError, MeteorError
from trigger_ddp.server import forwarded, sockets


@dataclasses.dataclass(frozen=True)
class Written:
    """A table, as much of it as is needed to read its notifications."""

    name: str = "thing"
    version: str = "0123abcd"
    primary_key: tuple[object, ...] = ("a", "b")
    width: int = 3


_TABLE = Written()

NOTIFICATIONS = (
    b'["0123abcd","I",[[1,"x",null]]]',
    b'["0123abcd","U",[[1,2,3],["4","5",null]],[[1,2,4]]]',
    b'["0123abcd","D",[["\\u00e9",-9223372036854775808,9223372036854775807]]]',
    b'["0123abcd","B"]',
    b'["0123abcd","T",[],[]]',
    b'["ffffffff","I",[[1,2,3]]]',
    b'{"0123abcd":[1.5,true]}',
)
NOTIFICATION_WORDS = (
    '"0123abcd"',
    '"I"',
    '"U"',
    '"D"',
    '"B"',
    '"T"',
    "null",
    "true",
    "1.5",
    "[]",
    "[[",
    "]]",
)


def notification(data: bytes) -> None:
    found = decode(_TABLE, data.decode("utf-8", "surrogateescape"))
    assert found.table == _TABLE.name
    if isinstance(found, Gap):
        assert found.reason in ("bulk", "truncate", "version", "undecodable")
        return
    assert isinstance(found, Change)
    assert found.rows or found.old
    assert found.op == "U" or not found.old
    for row in (*found.rows, *found.old):
        assert len(row) == _TABLE.width
        assert isinstance(row[0], str)
        assert isinstance(row[1], str)
        assert row[2] is None or isinstance(row[2], str)
        # as a parameter of a query
        assert all(value is None or value.encode() is not None for value in row)


EJSON_TEXTS = (
    b'{"$date":1234567890123}',
    b'{"$binary":"aGVsbG8="}',
    b'[{"$InfNaN":0},{"$InfNaN":-1}]',
    b'{"$type":"Decimal","$value":"1.50"}',
    b'{"$type":"oid","$value":"0123456789abcdef01234567"}',
    b'{"$regexp":"a+","$flags":"gi"}',
    b'{"$escape":{"$date":{"$escape":{"$type":1,"$value":2}}}}',
    b'{"a":[1,-2.5e3,true,false,null,"\\u00e9\\n"]}',
)
EJSON_WORDS = (
    '"$date":', '"$binary":', '"$InfNaN":', '"$type":', '"$value":', '"$regexp":', '"$flags":', '"$escape":',
    '"Decimal"', '"oid"', "null", "1e308", "9007199254740993", "18446744073709551616", "\\\\u0000", "sNaN",
    "Infinity", "-62135596800000", "253402300799999",
)  # fmt: skip


def ejson_text(data: bytes) -> None:
    try:
        value = ejson.decode(data)
    except ejson.EJSONError as error:
        assert str(error)
        return
    told = ejson.encode(value)
    # Compared as texts: NaN is not equal to itself. The first time round, floats and numbers that JavaScript
    # can't hold change their form.
    assert ejson.encode(ejson.decode(told)) == told
    assert ejson.decode(told.decode()) is not None or value is None
    plain = ejson.to_json(value)
    ejson.encode(ejson.decode(ejson.encode(ejson.escape(plain))))


ACCOUNTS = (
    b'[{"user":{"username":"ada"},"password":{"digest":"' + b"0a" * 32 + b'","algorithm":"sha-256"}}]',
    b'[{"user":{"email":"ada@x"},"password":"secret"}]',
    b'[{"resume":"token"}]',
    b'[{"username":"ada","email":"a@x","password":"p","profile":{"name":{"$date":0}}}]',
    b'[{"$set":{"profile.a.b":1,"profile.c":{"$escape":{"$date":1}}}},{"a":{"b":2}}]',
    b'[{"$unset":{"profile.a.b":""}},{"a":{"b":[1]}}]',
    b'[{"$set":{"profile":{"$type":"Decimal","$value":"1"}}},{}]',
)
ACCOUNTS_WORDS = (
    '"user":', '"username":', '"email":', '"id":', '"password":', '"digest":', '"algorithm":', '"sha-256"',
    '"resume":', '"profile":', '"$set":', '"$unset":', '"profile.a"', "profile.", "\\\\u0000",
)  # fmt: skip
_KINDS = (options.ByPassword, options.ByToken, options.NewUser)


def accounts(data: bytes) -> None:
    """The arguments of methods as EJSON: options first, then a profile as it may be stored."""
    try:
        arguments = ejson.decode(data)
    except ejson.EJSONError:
        return
    if not isinstance(arguments, list) or not arguments:
        return
    for kind in _KINDS:
        try:
            matched = options.match(arguments[0], kind)
        except MeteorError as refusal:
            assert refusal.error == 400
            continue
        password = getattr(matched, "password", None)
        if password is not None:
            assert options.password_of(password)
        if isinstance(matched, options.ByPassword):
            assert len(matched.user.as_dict()) == 1
        if isinstance(matched, options.NewUser) and matched.profile is not None:
            _check_profile(matched.profile)
    if isinstance(arguments[0], dict):
        stored = arguments[1] if len(arguments) > 1 and isinstance(arguments[1], dict) else {}
        try:
            stored = ejson.to_json(stored)
            result = profile.modified(stored, arguments[0])
        except (MeteorError, ejson.EJSONError):
            return
        assert ejson.from_json(result) is not None


def _check_profile(value: dict[str, object]) -> None:
    with contextlib.suppress(MeteorError, ejson.EJSONError):
        profile.check_profile(ejson.to_json(value))


ADDRESSES = (
    b"127.0.0.1:8000\n1.2.3.4, 5.6.7.8\nhttps, http",
    b"[::1]:0\n[2001:db8::1]:443\nHTTPS",
    b"unix:/run/x.sock\n1.2.3.4:99\n",
    b":8000\n,,\n,",
)
ADDRESSES_WORDS = ("unix:", "[::1]", "65535", ", ", "https", "http", "127.0.0.1", "\xb2", "\u0661")


def addresses(data: bytes) -> None:
    """One value of --bind, one of X-Forwarded-For, one of X-Forwarded-Proto."""
    text, told, proto = (*data.decode("latin-1").split("\n", 2), "", "")[:3]
    for bind in (text, data.decode("utf-8", "replace")):
        try:
            address = sockets.parse_bind(bind)
        except ConfigurationError as error:
            assert str(error)
        else:
            if isinstance(address, sockets.TCPAddress):
                assert 0 <= address.port < 65536
                assert sockets.parse_bind(str(address)) == address
            else:
                assert address.path
    headers = {"x-forwarded-for": told, "x-forwarded-proto": proto}
    assert forwarded.client_address(headers, "peer", 0) == "peer"
    assert forwarded.scheme(headers, "own", 0) == "own"
    for count in (1, 2, 3):
        seen = forwarded.client_address(headers, "peer", count)
        assert seen
        assert seen.isprintable()
        forged = {"x-forwarded-for": f"6.6.6.6, {told}", "x-forwarded-proto": proto}
        if told.count(",") + 1 >= count:
            assert forwarded.client_address(forged, "peer", count) == seen
        assert forwarded.scheme(headers, "own", count) in ("own", "http", "https")
