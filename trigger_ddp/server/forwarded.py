"""Who is at the other end where proxies stand between, as Meteor's ``HTTP_FORWARDED_COUNT`` has it.

Each proxy appends the address that it was called from to ``X-Forwarded-For``. Only the last ones, as many
as there are proxies of our own, can be believed: those before came from outside, where anybody may write
anything.
"""

from __future__ import annotations

from collections.abc import Mapping


def client_address(headers: Mapping[str, str], peer: str, count: int) -> str:
    """The client's address.

    Args:
        headers: of the request, by lower-case name; repeated ones joined by commas.
        peer: the address at the other end of the socket.
        count: how many proxies stand before this server; 0: none, and headers say nothing.

    Returns:
        The address that the outermost of our proxies was called from; ``peer`` if the headers lack it, or
        have something there that is not printable ASCII.
    """
    addresses = [part.strip() for part in headers.get("x-forwarded-for", "").split(",")]
    if not count or len(addresses) < count:
        return peer
    address = _without_port(addresses[-count])
    # It stands in the log and in the database, where what a misled proxy passes on must not do harm.
    return address if address.isascii() and address.isprintable() and address else peer


def scheme(headers: Mapping[str, str], own: str, count: int) -> str:
    """How the client speaks to the outermost of our proxies: "https" or "http".

    Args:
        headers, count: as of `client_address`.
        own: how this server is spoken to.
    """
    told = [part.strip().lower() for part in headers.get("x-forwarded-proto", "").split(",")]
    if not count or told[-1:] == [""]:
        return own
    first = told[-count] if len(told) >= count else told[0]
    return first if first in ("http", "https") else own


def _without_port(address: str) -> str:
    """``1.2.3.4:5`` and ``[::1]:5``, which some proxies write, without the port."""
    if address.startswith("["):
        return address[1:].partition("]")[0]
    return address.partition(":")[0] if address.count(":") == 1 else address
