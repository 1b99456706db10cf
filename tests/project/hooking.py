"""Rate limits, hooks and callbacks of connections, which clients of the tests start and stop by methods."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any

from trigger_ddp.api import API, APIMixin, Handle, MeteorError, api_endpoint, this
from trigger_ddp.api.ratelimit import Attempt, RateLimitResult
from trigger_ddp.demo.bookstore.models import Author

logger = logging.getLogger("tests")

#: `this.connection` of every client that has asked for `connections/note_end`, by its session.
connections: dict[str, Any] = {}


# -- rate limits ----------------------------------------------------------------------------------


def note(result: RateLimitResult, attempt: Attempt) -> None:
    logger.warning("%s: %s", "allowed" if result.allowed else "refused", attempt)


class Limits(APIMixin):
    api_path_prefix = "limits/"

    @api_endpoint
    def add(self, matcher: dict[str, Any], requests: int, interval: int) -> str:
        """A matcher's ``true`` is a function to which everything matches."""
        functions = {name: (lambda _: True) if one is True else one for name, one in matcher.items()}
        return API.rate_limiter.add_rule(functions, requests, interval, note)

    @api_endpoint
    def remove(self, rule: str) -> bool:
        return API.rate_limiter.remove_rule(rule)

    @api_endpoint
    def say(self, rule: str, message: str) -> None:
        API.rate_limiter.set_error_message_on_rule(rule, message)

    @api_endpoint
    def of_a_number(self, number: int) -> int:
        return number


@API.publish("of a number")
async def of_a_number(handle: Handle, number: int) -> None:
    handle.ready()


# -- hooks ----------------------------------------------------------------------------------------


def note_connection(connection: Any) -> None:
    assert connection.id == this.connection.id
    logger.warning("connected: %s from %s as %s", connection.id, connection.client_address, this.user_id)
    session = connection.id
    connection.on_close(lambda: logger.warning("gone: %s", session))


def close_connection(connection: Any) -> None:
    connection.close()


def exit_on_connection(connection: Any) -> None:
    sys.exit("the hook's secret")


def query_on_connection(connection: Any) -> None:
    Author.objects.count()


async def count_on_connection(connection: Any) -> None:
    logger.warning("%s authors for %s", await this.in_thread(Author.objects.count), connection.id)


async def fail_on_connection(connection: Any) -> None:
    await this.in_thread(Author.objects.count)
    raise RuntimeError("the hook's secret")


async def exit_later_on_connection(connection: Any) -> None:
    await this.in_thread(Author.objects.count)
    sys.exit("the hook's secret")


async def stay_on_connection(connection: Any) -> None:
    import trio  # not needed where the project only declares, for instance in a migration

    try:
        await trio.sleep_forever()
    finally:
        logger.warning("no more need to stay with %s", connection.id)


def note_message(message: dict[str, Any], connection: Any) -> None:
    logger.warning("message of %s: %s", connection.id, message)


def fail_on_message(message: dict[str, Any], connection: Any) -> None:
    raise RuntimeError("the hook's secret")


async def stay_on_message(message: dict[str, Any], connection: Any) -> None:
    await stay_on_connection(connection)


HOOKS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        note_connection, close_connection, exit_on_connection, query_on_connection, count_on_connection,
        fail_on_connection, exit_later_on_connection, stay_on_connection, note_message, fail_on_message,
        stay_on_message,
    )
}  # fmt: skip


class Hooks(APIMixin):
    api_path_prefix = "hooks/"

    @api_endpoint
    def start(self, name: str) -> None:
        (API.on_message if "message" in name else API.on_connection)(HOOKS[name])

    @api_endpoint
    def stop(self, name: str) -> bool:
        return API.off(HOOKS[name])


# -- connections ----------------------------------------------------------------------------------


def what_is_known(connection: Any) -> list[Any]:
    return [connection.id, connection.client_address, connection.http_headers.get("x-test")]


class Connections(APIMixin):
    api_path_prefix = "connections/"

    @api_endpoint
    def known(self) -> list[Any]:
        return what_is_known(this.connection)

    @api_endpoint
    async def known_async(self) -> list[Any]:
        return what_is_known(this.connection)

    @api_endpoint
    def close(self) -> str:
        this.connection.close()
        return "closing"

    @api_endpoint
    async def close_async(self) -> str:
        this.connection.close()
        this.connection.close()
        return "closing"

    @api_endpoint
    def close_and_fail(self) -> None:
        this.connection.close()
        raise MeteorError("enough", "Enough")

    @api_endpoint
    def note_end(self) -> None:
        connection = connections[this.connection.id] = this.connection
        connection.on_close(lambda: sys.exit("the callback's secret"))
        connection.on_close(lambda: logger.warning("the end of %s", connection.id))

    @api_endpoint
    def note_end_of(self, session: str) -> None:
        connections[session].on_close(lambda: logger.warning("long over: %s", session))

    @api_endpoint
    def close_other(self, session: str) -> None:
        connections[session].close()


API.register([Limits, Hooks, Connections])


@API.publish("known of the connection")
async def known_of_the_connection(handle: Handle) -> None:
    session, address, header = what_is_known(this.connection)
    handle.added("connections", session, {"address": address, "header": header})
    handle.ready()


@API.publish("closes the connection")
async def closes_the_connection(handle: Handle) -> None:
    handle.added("connections", "last", {})
    handle.ready()
    handle.connection.close()
