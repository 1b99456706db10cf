"""The entrances by name, each with what it promises and with inputs to begin with."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from tests.fuzz import arguments, ddp, http, sockjs_http, values, web, websocket

FOLDER = Path(__file__).parent


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """One entrance.

    Args:
        run: feeds it some bytes. What it raises, whatever it is, is a finding.
        promise: what holds whatever the bytes are.
        seeds: inputs to begin with.
        words: what a random change may well put in.
        most_bytes: size of the largest input that is tried.
    """

    run: Callable[[bytes], None]
    promise: str
    seeds: tuple[bytes, ...]
    words: tuple[str, ...] = ()
    most_bytes: int = 4096


TARGETS = {
    "notification": Target(
        values.notification,
        "whatever a role notifies, it becomes a change or a gap of the table, and nothing is raised",
        values.NOTIFICATIONS,
        values.NOTIFICATION_WORDS,
        8000,
    ),
    "ejson": Target(
        values.ejson_text,
        "whatever text comes in, it is a value or an EJSONError, and the value survives the way out and back",
        values.EJSON_TEXTS,
        values.EJSON_WORDS,
    ),
    "arguments": Target(
        arguments.feed,
        "whatever a client gives as an argument or as the value of a field, it becomes one of the type that "
        "is asked for, or is refused with a MeteorError or Unfit",
        arguments.SEEDS,
        arguments.WORDS,
    ),
    "accounts": Target(
        values.accounts,
        "whatever options a login, a new user or a profile has, they match or are refused with a MeteorError",
        values.ACCOUNTS,
        values.ACCOUNTS_WORDS,
    ),
    "addresses": Target(
        values.addresses,
        "whatever --bind and X-Forwarded-* say, it is an address or a ConfigurationError, "
        "and what comes from outside of our proxies is not believed",
        values.ADDRESSES,
        values.ADDRESSES_WORDS,
        512,
    ),
    "http": Target(
        http.feed,
        "whatever bytes come in whatever pieces, what is sent back is well-formed HTTP, the connection "
        "ends, and no error is logged",
        http.SEEDS,
        http.WORDS,
    ),
    "wsgi": Target(
        web.feed,
        "whatever bytes come in whatever pieces, the Django project's application is called by the rules of "
        "PEP 3333, what is sent back is well-formed HTTP, the connection ends, and no error is logged",
        web.SEEDS,
        http.WORDS,
    ),
    "websocket": Target(
        websocket.feed,
        "whatever frames come, messages are taken as another implementation takes them, a client that breaks "
        "the protocol is told so, the connection ends, and no error is logged",
        websocket.SEEDS,
        websocket.WORDS,
    ),
    "sockjs": Target(
        sockjs_http.feed,
        "whatever the requests of SockJS's sessions, each is answered in SockJS's words, every session ends, "
        "and no error is logged",
        sockjs_http.SEEDS,
        sockjs_http.WORDS,
    ),
    "ddp": Target(
        ddp.feed,
        "whatever a browser sends, over connections that break and are made anew, the session answers or "
        "closes, what it tells makes sense, it ends when nobody comes back, and no error is logged",
        ddp.SEEDS,
        ddp.WORDS,
    ),
}
