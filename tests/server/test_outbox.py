"""The outbox: order and bounds, over sockets that are full, slow or gone."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.server.network import in_mock_time, in_trio, until
from trigger_ddp.server import sockets
from trigger_ddp.server.outbox import Outbox

MANY = 1 << 40


@contextlib.asynccontextmanager
async def over_tcp(
    max_bytes: int = MANY, max_seconds: float = 1e6, replay: bytes = b""
) -> AsyncIterator[tuple[Outbox, socket.socket, trio.Nursery]]:
    """An outbox over a TCP connection with small buffers, and the client's (blocking) end."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        client.connect(server.getsockname())
        accepted, _ = server.accept()
    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(accepted))
    with client:
        async with trio.open_nursery() as nursery:
            outbox = Outbox(stream, nursery, max_bytes=max_bytes, max_seconds=max_seconds, replay=replay)
            yield outbox, client, nursery
            outbox.abort("the test is over")
            nursery.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def over_memory(
    max_bytes: int = MANY, max_seconds: float = 1e6
) -> AsyncIterator[tuple[Outbox, trio.abc.Stream, trio.Nursery]]:
    """An outbox over a stream without a socket, whose send_all() waits until all was received."""
    ours, theirs = trio.testing.lockstep_stream_pair()
    async with trio.open_nursery() as nursery:
        outbox = Outbox(ours, nursery, max_bytes=max_bytes, max_seconds=max_seconds)
        yield outbox, theirs, nursery
        outbox.abort("the test is over")
        nursery.cancel_scope.cancel()


def fill(outbox: Outbox) -> int:
    """Append until the socket takes no more; returns the number of bytes appended."""
    appended = 0
    while not outbox.bytes_waiting:
        outbox.append(b"x" * 65536)
        appended += 65536
        outbox.flush()
    return appended


def drain(client: socket.socket) -> None:
    """Receive until the end."""
    while client.recv(1 << 20):
        pass


@in_trio
async def test_what_fits_is_with_the_kernel_when_flush_returns() -> None:
    async with over_tcp() as (outbox, client, nursery):
        outbox.append(b"one ")
        outbox.append(b"two")
        assert outbox.statistics().bytes_waiting == 7
        client.setblocking(False)
        with pytest.raises(BlockingIOError):
            client.recv(100)
        outbox.flush()
        # no await between flush and here: nothing but flush can have sent it
        assert client.recv(100) == b"one two"
        assert (outbox.bytes_waiting, outbox.bytes_sent) == (0, 7)
        assert not nursery.child_tasks


steps = st.lists(
    st.tuples(st.sampled_from(["append", "flush", "send_all", "yield"]), st.integers(0, 60_000)), max_size=25
)


@given(steps, st.booleans())
@settings(max_examples=40, deadline=None)
def test_bytes_leave_in_the_order_of_the_appends(script: list[tuple[str, int]], plain_socket: bool) -> None:
    pieces = [bytes([index % 251]) * size for index, (_, size) in enumerate(script)]
    expected = b"".join(
        piece for (step, _), piece in zip(script, pieces, strict=True) if step in ("append", "send_all")
    )

    async def scenario() -> None:
        received = bytearray()

        async def read(stream: trio.abc.ReceiveStream) -> None:
            while len(received) < len(expected):
                data = await stream.receive_some(5000)
                assert data
                received.extend(data)

        async def play(outbox: Outbox) -> None:
            for (step, _), piece in zip(script, pieces, strict=True):
                match step:
                    case "append":
                        outbox.append(piece)
                    case "flush":
                        outbox.flush()
                    case "yield":
                        await trio.lowlevel.checkpoint()
                    case _:
                        await outbox.send_all(piece)
            await outbox.wait_send_all_might_not_block()
            assert outbox.bytes_waiting == 0
            assert outbox.bytes_sent == len(expected)

        with trio.fail_after(30):
            async with trio.open_nursery() as clients:
                if plain_socket:
                    async with over_tcp() as (outbox, client, nursery):
                        theirs = trio.SocketStream(trio.socket.from_stdlib_socket(client.dup()))
                        clients.start_soon(read, theirs)
                        await play(outbox)
                        await until(lambda: len(received) == len(expected), "all received")
                        assert not nursery.child_tasks
                        await theirs.aclose()
                else:
                    async with over_memory() as (outbox, stream, nursery):
                        clients.start_soon(read, stream)
                        await play(outbox)
                        await until(lambda: len(received) == len(expected), "all received")
                        assert not nursery.child_tasks
        assert received == expected

    trio.run(scenario)


@in_trio
async def test_a_client_that_falls_behind_in_bytes_is_reset() -> None:
    async with over_tcp(max_bytes=10_000_000) as (outbox, client, nursery):
        fill(outbox)
        failures = []

        async def sender() -> None:
            try:
                await outbox.send_all(b"and this")
            except trio.BrokenResourceError as error:
                failures.append(str(error))

        async def receiver() -> None:
            try:
                await outbox.receive_some()
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                failures.append(type(error).__name__)

        nursery.start_soon(sender)
        nursery.start_soon(receiver)
        await trio.testing.wait_all_tasks_blocked()
        while not outbox.ended.is_set():
            outbox.append(b"x" * 100_000)
            assert outbox.bytes_waiting <= 10_000_000
        assert outbox.end_reason is not None
        assert "too slow" in outbox.end_reason
        assert outbox.bytes_waiting == 0
        await until(lambda: len(failures) == 2, "both tasks woken")
        assert sorted(failures) == sorted(["ClosedResourceError", outbox.end_reason])
        outbox.append(b"ignored")
        outbox.flush()
        outbox.abort("ignored too")
        assert outbox.bytes_waiting == 0
        with pytest.raises(trio.BrokenResourceError, match="too slow"):
            await outbox.send_all(b"x")
        with pytest.raises(trio.BrokenResourceError, match="too slow"):
            await outbox.receive_some()
        await outbox.aclose()
        with pytest.raises(ConnectionResetError):
            drain(client)


@in_mock_time
async def test_a_client_that_takes_nothing_in_for_too_long_is_reset() -> None:
    async with over_tcp(max_seconds=30) as (outbox, _, nursery):
        begun = trio.current_time()
        fill(outbox)
        await trio.sleep(20)
        outbox.append(b"younger")
        outbox.flush()
        assert 20 <= outbox.statistics().oldest_seconds < 30
        await outbox.ended.wait()
        assert 30 <= trio.current_time() - begun < 31
        assert outbox.end_reason is not None
        assert "the oldest for 30 seconds" in outbox.end_reason
        await trio.testing.wait_all_tasks_blocked()
        assert not nursery.child_tasks


@in_mock_time
async def test_a_client_that_is_slow_but_takes_each_byte_in_in_time_stays() -> None:
    async with over_memory(max_seconds=30) as (outbox, client, _):
        received = b""
        for number in range(20):  # every byte waits for about 20 seconds, some always wait
            outbox.append(bytes([number]))
            outbox.flush()
            await trio.sleep(10)
            if number % 2:
                while len(received) <= number:
                    received += await client.receive_some(1)
        assert outbox.end_reason is None
        assert received == bytes(range(20))


@in_mock_time
async def test_without_a_socket_a_client_is_cut_off_after_the_same_time() -> None:
    async with over_memory(max_seconds=30) as (outbox, client, _):
        begun = trio.current_time()
        outbox.append(b"half of this will be read, the rest never")
        outbox.flush()
        assert await client.receive_some(10) == b"half of th"
        await outbox.ended.wait()
        assert 30 <= trio.current_time() - begun < 31
        with pytest.raises(trio.BrokenResourceError):
            await outbox.send_all(b"x")
        assert await client.receive_some() in (b"", b"is will be read, the rest never")


@in_trio
async def test_a_client_that_is_gone_ends_the_outbox_and_raises_nothing() -> None:
    async with over_tcp() as (outbox, client, _):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()

        def flushed_into_the_void() -> bool:
            outbox.append(b"x")
            outbox.flush()
            return outbox.ended.is_set()

        await until(flushed_into_the_void, "noticed that the client is gone")
        assert outbox.end_reason is not None
        assert "the connection was lost" in outbox.end_reason


@in_trio
async def test_a_client_that_goes_while_bytes_wait_for_it_ends_the_outbox() -> None:
    async with over_tcp() as (outbox, client, nursery):
        fill(outbox)
        client.close()  # with unread input: a reset
        await outbox.ended.wait()
        assert outbox.end_reason is not None
        assert "the connection was lost" in outbox.end_reason
        await until(lambda: not nursery.child_tasks, "its task gone")


@in_trio
async def test_cancelling_a_send_leaves_the_stream_whole() -> None:
    async with over_tcp() as (outbox, client, _):
        sent = fill(outbox)
        with trio.CancelScope() as scope:
            scope.cancel()
            await outbox.send_all(b"A" * 5000)
        assert scope.cancelled_caught
        outbox.append(b"B" * 7000)
        outbox.flush()
        received = b""
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(client.dup()))
        while len(received) < sent + 12000:
            received += await stream.receive_some(65536)
        await stream.aclose()
        assert received == b"x" * sent + b"A" * 5000 + b"B" * 7000


@in_trio
async def test_replay_comes_before_the_socket() -> None:
    async with over_tcp(replay=b"first second") as (outbox, client, _):
        client.sendall(b"third")
        assert await outbox.receive_some(6) == b"first "
        assert await outbox.receive_some() == b"second"
        assert await outbox.receive_some() == b"third"


@in_trio
async def test_closing_in_order_lets_the_client_read_the_last_words() -> None:
    async with over_tcp() as (outbox, client, _):
        client.sendall(b"unread input would make a plain close a reset")
        await outbox.send_all(b"last words")
        async with trio.open_nursery() as closing:
            closing.start_soon(outbox.aclose)
            stream = trio.SocketStream(trio.socket.from_stdlib_socket(client.dup()))
            assert await stream.receive_some() == b"last words"
            assert await stream.receive_some() == b""
            await stream.send_eof()
        await stream.aclose()
        assert outbox.end_reason is None
        with pytest.raises(trio.ClosedResourceError):
            await outbox.send_all(b"x")
        with pytest.raises(trio.ClosedResourceError):
            await outbox.receive_some()
        await outbox.aclose()


@in_mock_time
async def test_closing_in_order_waits_a_moment_and_no_longer() -> None:
    async with over_tcp() as (outbox, _, _):
        begun = trio.current_time()
        await outbox.aclose()  # the client never closes its side
        assert 0 < trio.current_time() - begun < 2


@in_trio
async def test_wait_at_most_paces_a_sender() -> None:
    async with over_tcp(max_bytes=1_000_000) as (outbox, client, _):
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(client.dup()))
        total = 0

        async def read() -> None:
            nonlocal total
            while total < 10_000_000:
                total += len(await stream.receive_some(65536))

        async with trio.open_nursery() as reading:
            reading.start_soon(read)
            for _ in range(100):
                outbox.append(b"x" * 100_000)
                await outbox.wait_at_most(500_000)
                assert outbox.end_reason is None
        assert total == 10_000_000
        await stream.aclose()


@in_mock_time
async def test_what_was_said_last_arrives_where_nothing_is_written_at_once() -> None:
    async with over_memory() as (outbox, theirs, nursery):
        outbox.append(b"goodbye")
        outbox.flush()
        nursery.start_soon(outbox.aclose)
        await trio.testing.wait_all_tasks_blocked()
        outbox.append(b"and nothing after it")
        with pytest.raises(trio.ClosedResourceError):
            await outbox.send_all(b"nor this")
        assert await theirs.receive_some(100) == b"goodbye"
        assert await theirs.receive_some(100) == b""


@in_mock_time
async def test_closing_does_not_wait_for_one_who_does_not_read() -> None:
    async with over_memory() as (outbox, _, _nursery):
        outbox.append(b"goodbye")
        outbox.flush()
        begun = trio.current_time()
        await outbox.aclose()
        assert trio.current_time() - begun < 2.5 * sockets.LINGER_SECONDS
        assert outbox.end_reason is None


@in_trio
async def test_send_is_append_and_flush() -> None:
    async with over_tcp() as (outbox, client, _):
        outbox.send(b"one ")
        assert (outbox.bytes_waiting, outbox.bytes_sent) == (0, 4)
        outbox.append(b"two ")
        outbox.send(b"three ")  # behind what waits
        assert client.recv(100) == b"one two three "
        filled = fill(outbox)
        waiting = outbox.bytes_waiting
        outbox.send(b"!")
        assert outbox.bytes_waiting == waiting + 1
        got = b""
        while len(got) < filled + 1:
            got += await trio.to_thread.run_sync(client.recv, 1 << 20)
        assert got == b"x" * filled + b"!"


@in_trio
async def test_a_message_that_the_socket_takes_in_parts() -> None:
    async with over_tcp() as (outbox, client, _):
        data = bytes(range(256)) * 40_000
        outbox.send(data)
        assert 0 < outbox.bytes_sent < len(data)
        assert outbox.bytes_sent + outbox.bytes_waiting == len(data)
        got = b""
        while len(got) < len(data):
            got += await trio.to_thread.run_sync(client.recv, 1 << 20)
        assert got == data


@in_trio
async def test_nothing_is_sent_once_it_is_sealed() -> None:
    async with over_tcp() as (outbox, client, _):
        outbox.seal()
        outbox.send(b"too late")
        outbox.append(b"the close frame")
        outbox.flush()
        assert client.recv(100) == b"the close frame"
    async with over_memory() as (outbox, _, _):
        outbox.seal()
        outbox.send(b"too late")
        assert outbox.bytes_waiting == 0


@in_trio
async def test_nothing_is_sent_after_the_end() -> None:
    async with over_tcp() as (outbox, _, _):
        outbox.abort("over")
        # Whoever gets the file descriptor next must not be written to.
        with socket.create_server(("127.0.0.1", 0)) as server:
            other = socket.create_connection(server.getsockname())
            accepted, _ = server.accept()
        with other, accepted:
            outbox.send(b"for somebody else")
            for sock in (other, accepted):
                sock.setblocking(False)
                with pytest.raises(BlockingIOError):
                    sock.recv(100)
        assert outbox.bytes_sent == 0


@in_trio
async def test_trio_still_lets_its_socket_be_written_to_directly() -> None:
    """`_write_of` does without, but slower."""
    async with over_tcp() as (outbox, _, _):
        assert outbox._write is not None
        assert outbox._write.__name__ == "send"


def test_a_client_that_reads_in_the_moment_in_which_it_is_cut_off() -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        with theirs:
            async with trio.open_nursery() as nursery:
                outbox = Outbox(stream, nursery, max_bytes=10_000_000, max_seconds=60)
                outbox.append(bytes(3_000_000))
                outbox.flush()

                async def cut_off() -> None:
                    await trio.lowlevel.wait_readable(ours)
                    outbox.abort("enough")

                nursery.start_soon(cut_off)
                await trio.testing.wait_all_tasks_blocked()
                theirs.send(b"x")  # both tasks are woken in one turn of the loop, in whichever order
                with contextlib.suppress(BlockingIOError):
                    while theirs.recv(1 << 20):
                        pass

    for _ in range(20):
        trio.run(main)
