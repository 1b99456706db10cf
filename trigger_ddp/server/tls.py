"""TLS on the listening port: certificates, read again at SIGHUP, and the handshake's time limit."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Awaitable, Callable

import trio

from trigger_ddp.errors import ConfigurationError
from trigger_ddp.server import sockets

logger = logging.getLogger(__name__)

#: Seconds a client has for the handshake, from connecting on.
HANDSHAKE_SECONDS = 10.0


class Certificates:
    """What the server shows who it is by.

    Args:
        certfile: path of a PEM file with the certificate and those above it.
        keyfile: path of its private key, if that is not in the same file.
        ca_certs: path of a PEM file; if given, clients must show a certificate that one of these has signed.

    Raises:
        ConfigurationError: a file can't be read or does not hold what it should.
    """

    def __init__(self, certfile: str, keyfile: str | None = None, ca_certs: str | None = None) -> None:
        self._files = certfile, keyfile, ca_certs
        self._context = self._read()

    def reload(self) -> None:
        """Read the files again, for connections to come; what can't be read leaves things as they were."""
        try:
            self._context = self._read()
        except ConfigurationError as error:
            logger.error("the certificate stays as it was: %s", error)
        else:
            logger.info("certificate %s read again", self._files[0])

    def _read(self) -> ssl.SSLContext:
        certfile, keyfile, ca_certs = self._files
        # Python's defaults for servers: TLS 1.2 and 1.3, no weak ciphers, no compression.
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.set_alpn_protocols(["http/1.1"])
        try:
            # An encrypted key would ask the terminal, where nobody sits: the empty passphrase is refused.
            context.load_cert_chain(certfile, keyfile, password=lambda: b"")
        except (OSError, ssl.SSLError) as error:
            files = certfile if keyfile is None else f"{certfile} and {keyfile}"
            raise ConfigurationError(f"no certificate and key can be read from {files}: {error}") from error
        if ca_certs is not None:
            try:
                context.load_verify_locations(ca_certs)
            except (OSError, ssl.SSLError) as error:
                raise ConfigurationError(f"no certificates can be read from {ca_certs}: {error}") from error
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    async def serve(
        self, stream: trio.SocketStream, handler: Callable[[trio.abc.Stream], Awaitable[object]]
    ) -> None:
        """Shake hands with a client, and have ``handler`` serve what is said inside."""
        # https_compatible: browsers do not say goodbye, and HTTP tells of itself where a message ends.
        inside = trio.SSLStream(stream, self._context, server_side=True, https_compatible=True)
        try:
            with trio.fail_after(HANDSHAKE_SECONDS):
                await inside.do_handshake()
        except (trio.BrokenResourceError, trio.TooSlowError) as error:
            logger.debug("no TLS with %s: %s", sockets.peer_of(stream), error.__cause__ or error)
            return
        await handler(inside)
