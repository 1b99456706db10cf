"""Addresses, listeners and the accept loop."""

from __future__ import annotations

import errno
import logging
import socket
import stat
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.server.network import errors, in_mock_time, in_trio, until
from trigger_ddp.errors import ConfigurationError
from trigger_ddp.server import sockets
from trigger_ddp.server.sockets import TCPAddress, UnixAddress


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8000", TCPAddress("127.0.0.1", 8000)),
        ("localhost:0", TCPAddress("localhost", 0)),
        (":8000", TCPAddress(None, 8000)),
        ("8000", TCPAddress(None, 8000)),
        ("[::1]:65535", TCPAddress("::1", 65535)),
        ("unix:/run/ddp.sock", UnixAddress("/run/ddp.sock")),
        ("unix:ddp.sock", UnixAddress("ddp.sock")),
        ("./ddp.sock", UnixAddress("./ddp.sock")),
        ("/run/with:colon/8000", UnixAddress("/run/with:colon/8000")),
    ],
)
def test_bind_values(text: str, address: sockets.Address) -> None:
    assert sockets.parse_bind(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "localhost",
        "localhost:",
        "localhost:http",
        "1:65536",
        "::1:80",
        "unix:",
        "a:-1",
        "a:²",
        "[a]:1",
        "[]:1",
    ],
)
def test_wrong_bind_values_say_what_is_wanted(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is not an address to listen on"):
        sockets.parse_bind(text)


@in_trio
async def test_the_port_the_kernel_picked_is_told() -> None:
    (listener,) = await sockets.open_listeners(["127.0.0.1:0"])
    port = listener.socket.getsockname()[1]
    assert port != 0
    assert sockets.describe(listener) == f"127.0.0.1:{port}"
    assert sockets.url(listener) == f"http://127.0.0.1:{port}/"
    await listener.aclose()


@in_trio
async def test_every_interface_is_shown_as_localhost() -> None:
    (listener,) = await sockets.open_listeners(["0.0.0.0:0"])
    assert sockets.url(listener).startswith("http://localhost:")
    await listener.aclose()


@in_trio
async def test_a_name_with_several_addresses_gets_one_port(monkeypatch: pytest.MonkeyPatch) -> None:
    real = trio.open_tcp_listeners

    async def two_addresses(port: int, *, host: str | None) -> list[trio.SocketListener]:
        if host != "both.test":
            return await real(port, host=host)
        return [*await real(port, host="127.0.0.1"), *await real(port, host="127.0.0.2")]

    monkeypatch.setattr(trio, "open_tcp_listeners", two_addresses)
    listeners = await sockets.open_listeners(["both.test:0"])
    names = [listener.socket.getsockname() for listener in listeners]
    assert [name[0] for name in names] == ["127.0.0.1", "127.0.0.2"]
    assert names[0][1] == names[1][1] != 0
    for listener in listeners:
        await listener.aclose()


@in_trio
async def test_an_address_in_use_is_named_and_nothing_stays_open() -> None:
    (taken,) = await sockets.open_listeners(["127.0.0.1:0"])
    (spare,) = await sockets.open_listeners(["127.0.0.1:0"])
    free = sockets.describe(spare)
    await spare.aclose()
    where = sockets.describe(taken)
    with pytest.raises(ConfigurationError, match=rf"^address {where} is already in use; .*--bind$"):
        await sockets.open_listeners([free, where])
    (again,) = await sockets.open_listeners([free])
    await again.aclose()
    await taken.aclose()


@pytest.mark.parametrize(
    ("bind", "told"),
    [
        ("192.0.2.1:0", "is not one of this machine's"),
        ("no-such-host.invalid:0", "can't be resolved"),
        ("/no/such/directory/sock", "can't listen on unix:/no/such/directory/sock: No such file"),
    ],
)
def test_other_troubles_are_named(bind: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        trio.run(sockets.open_listeners, [bind])


@in_trio
async def test_a_unix_socket_is_open_to_its_mode_and_goes_with_its_listener(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    (listener,) = await sockets.open_listeners([f"unix:{path}"], unix_mode=0o660)
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert sockets.describe(listener) == sockets.url(listener) == f"unix:{path}"
    client = await trio.open_unix_socket(path)
    accepted = await listener.accept()
    assert sockets.peer_of(accepted) == ("unix", None)
    await client.aclose()
    await accepted.aclose()
    await listener.aclose()
    assert not path.exists()


@in_trio
async def test_a_unix_socket_in_use_is_left_alone_and_a_stale_one_replaced(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    (listener,) = await sockets.open_listeners([str(path)])
    with pytest.raises(ConfigurationError, match="is already in use"):
        await sockets.open_listeners([str(path)])
    assert path.exists()
    listener.socket.close()  # as if the process had been killed: the file stays
    (successor,) = await sockets.open_listeners([str(path)])
    await listener.aclose()  # must not take the successor's file away
    assert path.exists()
    await (await trio.open_unix_socket(path)).aclose()
    await successor.aclose()
    assert not path.exists()


@in_trio
async def test_a_file_that_is_no_socket_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(ConfigurationError, match="is already in use"):
        await sockets.open_listeners([str(path)])
    assert path.read_text() == "data"


@in_trio
async def test_accepted_sockets_send_at_once_and_a_failing_handler_ends_only_itself(
    caplog: pytest.LogCaptureFixture,
) -> None:
    (listener,) = await sockets.open_listeners(["127.0.0.1:0"])
    delays = []

    async def handler(stream: trio.SocketStream) -> None:
        delays.append(stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        raise ValueError("of this connection")

    async with trio.open_nursery() as nursery:
        await nursery.start(sockets.accept_forever, [listener], handler)
        for _ in range(3):
            client = await trio.testing.open_stream_to_socket_listener(listener)
            assert await client.receive_some() == b""
            await client.aclose()
        nursery.cancel_scope.cancel()
    assert delays == [1, 1, 1]
    assert errors(caplog) == ["a connection's handler failed"] * 3
    assert "of this connection" in caplog.text


class FlakyListener(trio.abc.Listener[trio.SocketStream]):
    """A listener whose process has run out of file descriptors a few times."""

    def __init__(self, listener: sockets.Listener, failures: int) -> None:
        self.socket = listener.socket
        self.failures = failures
        self._listener = listener

    async def accept(self) -> trio.SocketStream:
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return await self._listener.accept()

    async def aclose(self) -> None:
        await self._listener.aclose()


@in_mock_time
async def test_running_out_of_file_descriptors_is_survived_and_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    (listener,) = await sockets.open_listeners(["127.0.0.1:0"])
    flaky = FlakyListener(listener, failures=50)

    async def handler(stream: trio.SocketStream) -> None:
        await stream.send_all(b"served")

    async with trio.open_nursery() as nursery:
        await nursery.start(sockets.accept_forever, [flaky], handler)
        client = await trio.testing.open_stream_to_socket_listener(listener)
        assert await client.receive_some() == b"served"
        await client.aclose()
        nursery.cancel_scope.cancel()
    assert flaky.failures == 0
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
    assert "Too many open files" in caplog.text


@in_trio
async def test_cancelling_closes_the_listeners(tmp_path: Path) -> None:
    listeners = await sockets.open_listeners(["127.0.0.1:0", str(tmp_path / "sock")])
    where = sockets.describe(listeners[0])

    async def handler(stream: trio.SocketStream) -> None: ...

    async with trio.open_nursery() as nursery:
        await nursery.start(sockets.accept_forever, listeners, handler)
        nursery.cancel_scope.cancel()
    assert not (tmp_path / "sock").exists()
    (again,) = await sockets.open_listeners([where])
    await again.aclose()


@in_trio
async def test_the_kernel_looks_whether_clients_are_still_there() -> None:
    options: list[int] = []

    async def look(stream: trio.SocketStream) -> None:
        options.append(stream.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
        options.append(stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE))

    (listener,) = await sockets.open_listeners(["127.0.0.1:0"])
    address = sockets.address_of(listener)
    assert isinstance(address, sockets.TCPAddress)
    async with trio.open_nursery() as nursery:
        await nursery.start(sockets.accept_forever, [listener], look)
        async with await trio.open_tcp_stream("127.0.0.1", address.port):
            await until(lambda: len(options) == 2, "a connection")
        nursery.cancel_scope.cancel()
    assert options == [1, 60]
