"""How many connections there may be, in a process and with one address; who comes beyond that is told so."""

from __future__ import annotations

import ipaddress
import logging
import math
import resource
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import trio

from trigger_ddp.server.exchange import Response
from trigger_ddp.server.metrics import Metrics

logger = logging.getLogger(__name__)

#: What `sockets.peer_of` says of clients that have no IP address; one proxy may stand for all of them.
NOWHERE = frozenset({"unix", "unknown"})
#: File descriptors that connections of clients leave to the database, siblings and whoever is being refused.
RESERVED_FILES = 200
#: Clients that are told at a time that they are refused; who comes beyond that is cut without a word.
MOST_TOLD = 100
#: Seconds for which it is enough to have warned once.
_WARN_EVERY = 60.0

_FULL = Response.text(503, "This server has too many connections.\n", ("Retry-After", "10"))
_TOO_MANY = Response.text(429, "This address has too many connections.\n", ("Retry-After", "10"))


def file_limit(most: int) -> int:
    """``most`` connections, or as many fewer as this process may open files."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return most
    possible = max(files - RESERVED_FILES, files // 2)
    if possible < most:
        logger.info("at most %d connections, since the process may open %d files", possible, files)
    return min(most, possible)


class Admission:
    """Counts the connections of a process.

    Args:
        most: connections at a time.
        most_per_address: of them with one IP address; of IPv6 with one network of 64 bits, since whoever
            has one address has all of these.
        metrics: where refusals are counted.
    """

    def __init__(self, most: float, most_per_address: float, metrics: Metrics) -> None:
        self._most = most
        self._most_per_address = most_per_address
        self._metrics = metrics
        self._count = 0
        self._of_address: Counter[str] = Counter()
        self._told = 0
        self._warned_at = -math.inf

    @contextmanager
    def connection(self, address: str | None) -> Iterator[Response | None]:
        """A ``with`` block that serves a connection.

        Args:
            address: whose it is; None: that can't be told yet, see `of_address`.

        Yields:
            None, or what the client is to be told instead of being served.
        """
        if self._count >= self._most:
            self._refused("too_many_connections", "DDP_MAX_CONNECTIONS are open")
            yield _FULL
            return
        if address is not None and (refusal := self.refusal(address)) is not None:
            yield refusal
            return
        self._count += 1
        try:
            with self.of_address(address):
                yield None
        finally:
            self._count -= 1

    def refusal(self, address: str) -> Response | None:
        """What a client of this address is to be told instead of being served; None: it is served."""
        if address in NOWHERE or self._of_address[_network(address)] < self._most_per_address:
            return None
        self._refused(
            "too_many_of_address",
            f"DDP_MAX_CONNECTIONS_PER_ADDRESS are open with {address}; if that is a proxy, "
            "DDP_FORWARDED_COUNT has to count it",
        )
        return _TOO_MANY

    @contextmanager
    def of_address(self, address: str | None) -> Iterator[None]:
        """A ``with`` block for which there is one more connection with this address."""
        if address is None or address in NOWHERE:
            yield
            return
        network = _network(address)
        self._of_address[network] += 1
        try:
            yield
        finally:
            self._of_address[network] -= 1
            if not self._of_address[network]:
                del self._of_address[network]

    @contextmanager
    def telling(self) -> Iterator[bool]:
        """A ``with`` block that tells a client that it is refused; False: there are too many of these."""
        self._told += 1
        try:
            yield self._told <= MOST_TOLD
        finally:
            self._told -= 1

    def _refused(self, reason: str, why: str) -> None:
        self._metrics.refusals[reason] += 1
        now = trio.current_time()
        if now >= self._warned_at + _WARN_EVERY:
            self._warned_at = now
            logger.warning("connections are refused: %s", why)


def _network(address: str) -> str:
    if ":" not in address:
        return address
    try:
        parsed = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:  # whatever a proxy has written
        return address
    return str(parsed.ipv4_mapped or ipaddress.IPv6Network((parsed, 64), strict=False))
