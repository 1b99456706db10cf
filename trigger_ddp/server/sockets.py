"""Where the server listens: `--bind` values, listeners, the accept loop, and how a stream is let go."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import logging
import os
import socket
import stat
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path

import trio

from trigger_ddp.errors import ConfigurationError
from trigger_ddp.server.shares import Shares

logger = logging.getLogger(__name__)

#: Seconds to wait before accepting again once the process or the system has run out of something.
ACCEPT_PAUSE = 0.1
#: Seconds for which a worker whose turn it is tries to accept what others may have taken.
TURN_SECONDS = 0.001
#: Seconds a connection that is done may take to close its own side.
LINGER_SECONDS = 1.0

#: Seconds of silence after which TCP asks the other side, between two questions, and how many are asked.
_KEEP_ALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}
_PORT_ZERO_ATTEMPTS = 10
_READ_SIZE = 65536


@dataclasses.dataclass(frozen=True, slots=True)
class TCPAddress:
    """A host and port to listen on; host None: every interface; port 0: one the kernel picks."""

    host: str | None
    port: int

    def __str__(self) -> str:
        host = self.host or ""
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"


@dataclasses.dataclass(frozen=True, slots=True)
class UnixAddress:
    """The path of a Unix socket to listen on."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


Address = TCPAddress | UnixAddress


def parse_bind(text: str) -> Address:
    """Read one `--bind` value.

    Args:
        text: ``127.0.0.1:8000``, ``[::1]:8000``, ``localhost:0``, ``:8000`` or ``8000`` (every interface),
            ``unix:/path/sock``, or a path with a ``/`` in it.

    Raises:
        ConfigurationError: it is none of these.
    """
    if text.startswith("unix:") or "/" in text:
        path = text.removeprefix("unix:")
        if not path:
            raise ConfigurationError(f"{text!r} is not an address to listen on: the path is missing")
        return UnixAddress(path)
    host, _, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if bracketed:
        host = host[1:-1]
    if not (port.isascii() and port.isdigit() and int(port) < 65536) or (":" in host) is not bracketed:
        raise ConfigurationError(
            f"{text!r} is not an address to listen on; "
            "write HOST:PORT, PORT, [IPV6]:PORT or unix:/path/of/socket, with a port of 0 to 65535"
        )
    return TCPAddress(host or None, int(port))


class UnixListener(trio.abc.Listener[trio.SocketStream]):
    """A listening Unix socket that takes its file with it when it is closed."""

    def __init__(self, listener: trio.SocketListener, path: Path) -> None:
        self.socket = listener.socket
        self._listener = listener
        self._path = path

    async def accept(self) -> trio.SocketStream:
        """As `trio.SocketListener.accept`."""
        return await self._listener.accept()

    async def aclose(self) -> None:
        """Close the socket, and remove its file unless another server has put its own there."""
        self.socket.close()
        # Who listens there now is asked of the socket: the file's inode number may be used again at once.
        _remove_stale_socket(self._path)
        await self._listener.aclose()


Listener = trio.SocketListener | UnixListener


async def open_listeners(binds: Iterable[str], *, unix_mode: int = 0o666) -> list[Listener]:
    """Listen on every address given. Connections queue from now on; `accept_forever` takes them.

    Args:
        binds: values as `parse_bind` reads them.
        unix_mode: permissions of Unix sockets. A proxy that runs as another user must be able to write.

    Returns:
        One listener per socket; a host name may stand for several. With port 0 they share one port.

    Raises:
        ConfigurationError: one of them can't be listened on; none is open then.
    """
    addresses = [parse_bind(text) for text in binds]
    listeners: list[Listener] = []
    try:
        for address in addresses:
            try:
                if isinstance(address, UnixAddress):
                    listeners.append(await _open_unix(Path(address.path), unix_mode))
                else:
                    listeners.extend(await _open_tcp(address))
            except OSError as error:
                raise ConfigurationError(_explain(address, error)) from error
    except BaseException:
        for listener in listeners:
            await trio.aclose_forcefully(listener)
        raise
    return listeners


async def _open_tcp(address: TCPAddress) -> Sequence[trio.SocketListener]:
    listeners = await trio.open_tcp_listeners(address.port, host=address.host)
    if address.port or len(listeners) < 2:
        return listeners
    # The kernel picked a port for each of the host's addresses: move all to the first one's.
    for _ in range(_PORT_ZERO_ATTEMPTS):
        names = [listener.socket.getsockname() for listener in listeners]
        for other in listeners[1:]:
            await other.aclose()
        moved = listeners[:1]
        try:
            for name in names[1:]:
                moved += await trio.open_tcp_listeners(names[0][1], host=name[0])
        except OSError as error:
            for listener in moved:
                await listener.aclose()
            if error.errno != errno.EADDRINUSE:
                raise
            listeners = await trio.open_tcp_listeners(0, host=address.host)
        else:
            return moved
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


async def _open_unix(path: Path, mode: int) -> UnixListener:
    _remove_stale_socket(path)
    sock = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        await sock.bind(str(path))
        # Before listen() nobody can connect, so there is no moment of wrong permissions.
        path.chmod(mode)
        sock.listen(socket.SOMAXCONN)
        return UnixListener(trio.SocketListener(sock), path)
    except BaseException:
        sock.close()
        raise


def _remove_stale_socket(path: Path) -> None:
    """Remove a socket that nobody listens on; leave anything else to bind(), which refuses."""
    try:
        if not stat.S_ISSOCK(path.stat().st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except BlockingIOError:
            pass  # somebody listens, with a full queue
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)


def _explain(address: Address, error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return f"host name of {address} can't be resolved: {error.strerror}"
    match error.errno:
        case errno.EADDRINUSE:
            return (
                f"address {address} is already in use; "
                "stop the program that listens there or choose another with --bind"
            )
        case errno.EADDRNOTAVAIL:
            return f"address {address} is not one of this machine's"
        case errno.EACCES | errno.EPERM:
            return f"address {address} may not be used by this user (ports below 1024 need a privilege)"
        case _:
            return f"can't listen on {address}: {error.strerror or error}"


def address_of(listener: Listener) -> Address:
    """Where a listener really listens: with port 0 asked for, the port the kernel picked."""
    name = listener.socket.getsockname()
    if listener.socket.family == socket.AF_UNIX:
        return UnixAddress(os.fsdecode(name))
    return TCPAddress(name[0], name[1])


def describe(listener: Listener) -> str:
    """``127.0.0.1:8000``, ``[::1]:8000`` or ``unix:/path``, for the log."""
    return str(address_of(listener))


def url(listener: Listener, *, tls: bool = False) -> str:
    """What to type into a browser: ``http://127.0.0.1:8000/``; for a Unix socket as `describe`."""
    address = address_of(listener)
    if isinstance(address, UnixAddress):
        return str(address)
    if address.host in ("0.0.0.0", "::"):  # noqa: S104  every interface: this machine is one of them
        address = TCPAddress("localhost", address.port)
    return f"{'https' if tls else 'http'}://{address}/"


def socket_beneath(stream: trio.abc.Stream) -> trio.socket.SocketType | None:
    """The socket that carries a stream, if one does: of a `SocketStream`, or of TLS over one."""
    while isinstance(stream, trio.SSLStream):
        stream = stream.transport_stream
    return stream.socket if isinstance(stream, trio.SocketStream) else None


def peer_of(stream: trio.abc.Stream) -> tuple[str, int | None]:
    """Who is at the other end: ``("127.0.0.1", 54321)``, ``("unix", None)``, or ``("unknown", None)``."""
    sock = socket_beneath(stream)
    if sock is None:
        return "unknown", None
    if sock.family == socket.AF_UNIX:
        return "unix", None
    try:
        name = sock.getpeername()
    except OSError:  # gone before it was looked at
        return "unknown", None
    return name[0], name[1]


def own_address_of(stream: trio.abc.Stream) -> tuple[str, int] | None:
    """Host and port at our end of a stream; None if it has none, as Unix sockets."""
    sock = socket_beneath(stream)
    if sock is None or sock.family == socket.AF_UNIX:
        return None
    name = sock.getsockname()
    return name[0], name[1]


async def accept_forever(
    listeners: Sequence[Listener],
    handler: Callable[[trio.SocketStream], Awaitable[object]],
    *,
    handler_nursery: trio.Nursery | None = None,
    shares: Shares | None = None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run `handler(stream)` as a task for every connection, until cancelled; then close the listeners.

    The tasks run in `handler_nursery` if there is one, and then outlive this call; else they are cancelled
    along with it. With `shares` connections are left to workers that have fewer tasks in `handler_nursery`.

    An exception that escapes `handler` ends its connection, is logged, and nothing else. Every stream
    is closed when its handler returns. Sockets have TCP_NODELAY set (`trio.SocketStream` sees to it).
    """
    async with trio.open_nursery() as nursery:
        handlers = handler_nursery or nursery
        for listener in listeners:
            name = f"accept {describe(listener)}"
            nursery.start_soon(_accept, listener, handler, handlers, shares, name=name)
        if shares is not None:
            nursery.start_soon(shares.refresh, handlers)
        task_status.started()


async def _accept(
    listener: Listener,
    handler: Callable[[trio.SocketStream], Awaitable[object]],
    nursery: trio.Nursery,
    shares: Shares | None,
) -> None:
    failing = 0  # the errno that accept() keeps failing with
    async with listener:
        while True:
            try:
                if shares is None:
                    stream = await listener.accept()
                else:
                    stream = await _accept_in_turn(listener, shares, nursery)
            except OSError as error:
                # Out of file descriptors or memory: those who wait stay in the queue until others leave.
                if error.errno != failing:
                    logger.error("can't accept connections on %s: %s", describe(listener), error)
                failing = error.errno or 0
                await trio.sleep(ACCEPT_PAUSE)
                continue
            if failing:
                logger.warning("accepting connections on %s again", describe(listener))
                failing = 0
            _keep_alive(stream.socket)
            nursery.start_soon(_handle, handler, stream, name=f"connection {peer_of(stream)}")


def _keep_alive(sock: trio.socket.SocketType) -> None:
    """Have the kernel find out when the other side has gone without a word; not all clients are pinged."""
    if sock.family == socket.AF_UNIX:
        return
    with contextlib.suppress(OSError):  # it has gone already
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEP_ALIVE.items():
            if hasattr(socket, name):  # macOS has not all of them
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


async def _accept_in_turn(listener: Listener, shares: Shares, nursery: trio.Nursery) -> trio.SocketStream:
    """Accept a connection that no worker with fewer connections was quicker to accept."""
    while True:
        await trio.lowlevel.wait_readable(listener.socket)
        await shares.wait_for_others(len(nursery.child_tasks))
        # If others have taken all, this worker's turn is over: whose the next is has to be asked again.
        with trio.move_on_after(TURN_SECONDS):
            return await listener.accept()


async def _handle(
    handler: Callable[[trio.SocketStream], Awaitable[object]], stream: trio.SocketStream
) -> None:
    try:
        await handler(stream)
    except* Exception:
        logger.exception("a connection's handler failed")
    finally:
        await trio.aclose_forcefully(stream)


async def close_gently(stream: trio.abc.Stream) -> None:
    """Close a stream so that what was sent last can still be read.

    Closing a TCP socket that has unread input resets the connection, and a reset makes the other side
    forget what it has received but not yet read, such as the answer that says what was wrong. So: say
    that nothing more will be sent, take in what comes until the other side closes too, and close.
    Nothing else may read from the stream meanwhile. Takes at most `LINGER_SECONDS`; raises nothing.
    """
    try:
        with trio.move_on_after(LINGER_SECONDS):
            if isinstance(stream, trio.abc.HalfCloseableStream):
                await stream.send_eof()
                while await stream.receive_some(_READ_SIZE):
                    pass
            else:
                await stream.aclose()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass  # gone already, which is as good
    finally:
        await close_at_once(stream)


async def close_at_once(stream: trio.abc.Stream) -> None:
    """Close a stream without a word, whatever state it is in; raises nothing."""
    try:
        await trio.aclose_forcefully(stream)
    except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
        logger.debug("a stream was broken when it was closed", exc_info=True)
