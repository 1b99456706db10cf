"""The ``DDP_*`` settings: defaults, types, and the system check that explains a wrong one.

Read them with ``conf.settings()``; the value is built once and rebuilt when Django's
``setting_changed`` signal fires (as ``override_settings`` does in tests).
"""

from __future__ import annotations

import dataclasses
import re
from functools import cache
from typing import Any

from django.conf import settings as django_settings
from django.core import checks
from django.core.signals import setting_changed

#: As browsers send it, or with a star in place of the first labels of its host.
_ORIGIN = re.compile(
    r"(?!http://.*:80$|https://.*:443$)"
    r"[a-z][a-z0-9+.-]*://(?:(?:\*\.)?[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(?::[1-9]\d{0,4})?"
)


def _setting(
    default: Any, doc: str, *, least: float | None = None, each: re.Pattern[str] | None = None
) -> Any:
    return dataclasses.field(default=default, metadata={"doc": doc, "least": least, "each": each})


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """Every setting of trigger_ddp. In Django's settings each is named ``DDP_`` + its name in capitals."""

    database: str = _setting("default", "alias of the database whose changes are published")
    listen_dsn: str = _setting(
        "",
        "libpq connection string of the listening connection; empty: as DATABASES has it. "
        "LISTEN does not survive pgbouncer's transaction pooling, so name the server itself here",
    )
    bulk_threshold: int = _setting(
        5000, "keys of one statement above which its trigger sends one 'bulk' notification", least=1
    )
    allow_stale: bool = _setting(
        False, "serve queries on tables without a current trigger, although they will not be live"
    )
    trigger_check_seconds: float = _setting(
        10.0,
        "seconds between two looks whether the tables in use still have their triggers, which nothing tells; "
        "0 looks only when a table comes into use",
        least=0,
    )
    threads: int = _setting(
        8, "threads for publications and methods, each with a database connection of its own", least=1
    )
    evaluation_threads: int = _setting(
        4, "threads that ask the database for live queries, each with a connection of its own", least=1
    )
    wsgi_threads: int = _setting(
        8, "threads for requests to the Django project, each with database connections of its own", least=1
    )
    wsgi_max_waiting: int = _setting(
        1000, "requests that may wait for one of these threads; further ones are answered 503", least=0
    )
    wsgi_max_body_bytes: int = _setting(
        100 * 1024 * 1024,
        "size of the largest body of a request to the Django project, in bytes; 0: there is no limit",
        least=0,
    )
    forwarded_count: int = _setting(
        0,
        "proxies before the server that append to X-Forwarded-For: a client's address is that many from the "
        "right of it, and everything left of that is not believed",
        least=0,
    )
    heartbeat_interval: float = _setting(
        15.0, "seconds of silence after which a client is sent a DDP ping; 0 turns pings off", least=0
    )
    heartbeat_timeout: float = _setting(
        15.0, "seconds a client has to answer a ping before it is disconnected", least=0.001
    )
    max_message_bytes: int = _setting(
        8 * 1024 * 1024, "size of the largest message a client may send, in bytes", least=1024
    )
    max_message_values: int = _setting(
        50_000,
        "values that one message may hold (numbers, texts …; empty objects and arrays count double); "
        "decoding takes time for each",
        least=100,
    )
    max_connections: int = _setting(
        10_000,
        "connections that one process has at a time; fewer where it may not open as many files",
        least=1,
    )
    max_connections_per_address: int = _setting(
        1000, "most of them with one IP address; behind proxies see DDP_FORWARDED_COUNT", least=1
    )
    connect_timeout: float = _setting(
        60.0, "seconds that a client has to say `connect` once its connection is open", least=0.1
    )
    max_pending_messages: int = _setting(
        1000,
        "messages of one session waiting for their turn before its socket is no longer read; "
        "they may not be larger together than DDP_MAX_MESSAGE_BYTES either",
        least=1,
    )
    max_running_methods: int = _setting(
        20, "methods of one session that run at a time once they have called this.unblock()", least=1
    )
    atomic_methods: bool = _setting(
        True,
        "run each plain (not async) method in a transaction; @transaction.non_atomic_requests exempts one",
    )
    allowed_origins: tuple[str, ...] = _setting(
        (),
        "origins of the pages whose scripts may connect, the application's own among them: "
        "'https://app.example.org', or 'https://*.example.org' for all hosts below that one; empty: any",
        each=_ORIGIN,
    )
    disconnect_grace_period: float = _setting(
        15.0,
        "seconds for which a client whose connection was lost may come back to its session; 0 turns that off",
        least=0,
    )
    resume_bytes: int = _setting(
        64 * 1024, "bytes kept for a client that is away above which its session ends", least=0
    )
    max_resumable: int = _setting(
        10_000, "sessions kept for clients that are away; those away for longest end first", least=0
    )
    max_subscriptions: int = _setting(1000, "subscriptions one session may hold", least=1)
    max_session_share: float = _setting(
        0.2,
        "share of the server's event loop that the messages of one session may take in the long run; who "
        "sends more is read more slowly; 1: there is no limit",
        least=0.001,
    )
    max_subscription_bytes: int = _setting(
        1024 * 1024, "size of the messages that asked for one session's subscriptions together", least=1024
    )
    outbox_bytes: int = _setting(
        64 * 1024 * 1024, "bytes waiting for one slow client above which it is disconnected", least=1024
    )
    outbox_total_bytes: int = _setting(
        1024 * 1024 * 1024,
        "bytes waiting for all clients of one process above which those are disconnected for whom most wait",
        least=1024,
    )
    outbox_seconds: float = _setting(
        30.0, "seconds the oldest byte may wait for a slow client before it is disconnected", least=0.1
    )
    sockjs_disconnect_delay: float = _setting(
        60.0,
        "seconds after which a SockJS client without a WebSocket that has asked for nothing is lost",
        least=0.1,
    )
    sockjs_sessions: int = _setting(10_000, "most sessions of SockJS clients without a WebSocket", least=0)
    sockjs_sessions_per_address: int = _setting(
        1000,
        "most of them with clients of one IP address; behind proxies see DDP_FORWARDED_COUNT",
        least=0,
    )
    sockjs_url: str = _setting(
        "https://cdn.jsdelivr.net/npm/sockjs-client@1.6.1/dist/sockjs.min.js",
        "where SockJS's iframe page loads sockjs-client from, in the release that the application uses",
    )
    sockjs_cookie: bool = _setting(
        False, "set the cookie JSESSIONID, by which some load balancers send a SockJS client to one process"
    )
    sockjs_websocket: bool = _setting(
        True,
        "whether SockJS clients try a WebSocket first; False where a proxy opens them in vain",
    )
    requery_interval: float = _setting(
        0.05, "least seconds between two runs of a live query that can only be re-run whole", least=0
    )
    linger: float = _setting(
        5.0,
        "seconds for which a live query is kept current after its last subscription ended, so that the next "
        "page finds it loaded",
        least=0,
    )
    root_url: str = _setting(
        "http://localhost:8000/", "where clients find the application; the links in mails begin with it"
    )
    ambiguous_error_messages: bool = _setting(
        True, "tell clients whose login fails nothing of why, so that nobody learns who has an account"
    )
    forbid_client_account_creation: bool = _setting(False, "refuse clients that call createUser")
    restrict_creation_by_email_domain: str = _setting(
        "", "domain that the mail addresses of new users must have; empty: any"
    )
    send_verification_email: bool = _setting(
        False, "mail new users a link that verifies their address, or lets them set a password"
    )
    login_expiration_days: float = _setting(90.0, "days for which a login token is good", least=0.001)
    password_reset_token_expiration_days: float = _setting(
        3.0,
        "days for which the link of a mail is good that resets a password or verifies an address",
        least=0.001,
    )
    password_enroll_token_expiration_days: float = _setting(
        30.0, "days for which the link of a mail is good that lets a new user set a password", least=0.001
    )
    api_endpoint_decorators: tuple[str, ...] = _setting(
        (), "dotted paths of decorator factories applied to every @api_endpoint, as in django-ddp"
    )


def _misfits(values: Any, pattern: re.Pattern[str]) -> list[Any]:
    return [one for one in values if not isinstance(one, str) or not pattern.fullmatch(one)]


def _read() -> tuple[Settings, list[checks.CheckMessage]]:
    values: dict[str, Any] = {}
    problems: list[checks.CheckMessage] = []
    for field in dataclasses.fields(Settings):
        name = f"DDP_{field.name.upper()}"
        if not hasattr(django_settings, name):
            continue
        value = getattr(django_settings, name)
        if isinstance(field.default, tuple) and isinstance(value, list):
            value = tuple(value)
        if isinstance(field.default, float) and type(value) is int:
            value = float(value)
        hint = f"{name}: {field.metadata['doc']}. Default: {field.default!r}."
        if type(value) is not type(field.default):
            wanted, got = type(field.default).__name__, type(value).__name__
            problems.append(
                checks.Error(f"{name} must be of type {wanted}, not {got}.", hint=hint, id="trigger_ddp.E001")
            )
            continue
        least = field.metadata["least"]
        if least is not None and value < least:
            problems.append(
                checks.Error(
                    f"{name} must be at least {least}, not {value}.", hint=hint, id="trigger_ddp.E002"
                )
            )
            continue
        each = field.metadata["each"]
        wrong = [] if each is None else _misfits(value, each)
        if wrong:
            problems.append(
                checks.Error(f"{name} must not contain {wrong[0]!r}.", hint=hint, id="trigger_ddp.E003")
            )
            continue
        values[field.name] = value
    known = {f"DDP_{field.name.upper()}" for field in dataclasses.fields(Settings)}
    for name in sorted(vars(django_settings._wrapped) if django_settings.configured else ()):
        if name.startswith("DDP_") and name not in known:
            hint = "Known: " + ", ".join(sorted(known)) + "."
            problem = f"{name} is not a setting of trigger_ddp."
            problems.append(checks.Warning(problem, hint=hint, id="trigger_ddp.W001"))
    return Settings(**values), problems


@cache
def settings() -> Settings:
    """The settings in force. A wrong one counts as not set: ``manage.py check`` and ``serve`` name it."""
    return _read()[0]


def check_settings(**kwargs: Any) -> list[checks.CheckMessage]:
    """Django system check of every ``DDP_*`` setting."""
    return _read()[1]


def _forget(*, setting: str, **kwargs: Any) -> None:
    if setting.startswith("DDP_"):
        settings.cache_clear()


setting_changed.connect(_forget)
