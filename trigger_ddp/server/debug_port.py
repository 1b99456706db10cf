"""Where the debug console may be: on the loopback interface."""

from __future__ import annotations

import ipaddress

from trigger_ddp.errors import ConfigurationError
from trigger_ddp.server.sockets import TCPAddress, parse_bind


def parse(text: str) -> TCPAddress:
    """Read ``--debug-port``.

    Args:
        text: ``PORT``, ``127.0.0.1:PORT``, ``[::1]:PORT`` or ``localhost:PORT``.

    Returns:
        The address, which is on the loopback interface.

    Raises:
        ConfigurationError: it is something else, an address that others can reach, for instance.
    """
    try:
        address = parse_bind(text)
    except ConfigurationError:
        address = None
    if not isinstance(address, TCPAddress):
        raise ConfigurationError(f"--debug-port takes PORT or 127.0.0.1:PORT, not {text!r}")
    host = "127.0.0.1" if text.isdigit() or address.host == "localhost" else address.host
    if not _is_loopback(host):
        raise ConfigurationError(
            f"--debug-port {text!r} is refused: the console asks for no password, so that it can only be on "
            "the loopback interface, 127.0.0.1 or [::1]"
        )
    return TCPAddress(host, address.port)


def _is_loopback(host: str | None) -> bool:
    try:
        return host is not None and ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
