"""A WSGI application and its clients: those that go or are slow, busy threads, the end, the access log."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
import trio
import trio.testing

from tests.server import network
from tests.server.network import WireClient, errors, in_mock_time, in_trio, masked, until, upgrade
from tests.server.test_http import request
from tests.server.web import PATIENCE, TEXT, Body, Client, Environ, echo, in_memory, saying, site
from trigger_ddp.server import http, wsgi
from trigger_ddp.server.workers import Workers
from trigger_ddp.server.wsgi import Gateway

# Clients that go, and clients that stay


@in_trio
async def test_a_response_ends_with_its_client(caplog: pytest.LogCaptureFixture) -> None:
    go_on = threading.Semaphore(0)
    body = Body([])

    def parts() -> Iterator[bytes]:
        yield b"first"
        assert go_on.acquire(timeout=PATIENCE)
        yield b"second"
        raise AssertionError("nobody is there for a third")

    def application(environ: Environ, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", TEXT)
        body.parts = parts()
        return body

    async with in_memory(application) as client:
        await client.send(request("GET /"))
        await client.head()
        assert await client.part() == b"first"
        await client.stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        go_on.release()
        await until(lambda: body.closed, "the response closed")
    assert errors(caplog) == []


@in_trio
async def test_an_application_that_reads_from_a_client_who_has_gone(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[BaseException] = []
    called = threading.Event()

    def application(environ: Environ, start_response: Any) -> Iterable[bytes]:
        called.set()
        try:
            environ["wsgi.input"].read()
        except OSError as error:
            seen.append(error)
            raise ValueError("as frameworks do") from error
        return []

    async with site(application) as web:
        client = await web.connect()
        await client.send(request("POST /", "Content-Length: 1000000") + b"x" * 100_000)
        await until(called.is_set, "the application called")
        await client.stream.aclose()
        await until(lambda: seen, "the error")
        await web.served.until_idle()
    assert errors(caplog) == []


@in_trio
async def test_a_client_that_only_closes_its_side_is_answered() -> None:
    go_on = threading.Event()

    def application(environ: Environ, start_response: Any) -> Iterable[bytes]:
        assert go_on.wait(PATIENCE)
        start_response("200 OK", TEXT)
        return [b"x" * 300_000]

    async with in_memory(application) as client:
        await client.send(request("GET /"))
        assert isinstance(client.stream, trio.StapledStream)
        await client.stream.send_eof()
        await trio.testing.wait_all_tasks_blocked()
        go_on.set()
        answer = await client.answer()
        assert (len(answer.body), answer.complete) == (300_000, True)
        assert await client.is_closed()


@in_trio
async def test_a_connection_that_is_lost_frees_what_is_no_thread() -> None:
    go_on = threading.Event()

    def application(environ: Environ, start_response: Any) -> Iterable[bytes]:
        assert go_on.wait(PATIENCE)
        start_response("200 OK", TEXT)
        return [b"late"]

    async with site(application, threads=1) as web:
        clients = [await web.connect() for _ in range(3)]
        for client in clients:
            await client.send(request("GET /"))
        await until(lambda: web.workers.statistics().waiting == 2, "two waiting")
        for client in clients:
            assert isinstance(client.stream, trio.SocketStream)
            client.stream.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SO_LINGER of 0: a reset
            await client.stream.aclose()
        await web.served.until_idle()
        assert web.answering.active == 0
        go_on.set()
        await until(lambda: not web.workers.statistics().running, "the thread free")
        assert (await (await web.connect()).ask(request("GET /"))).body == b"late"


@in_trio
async def test_who_reads_slowly_does_not_hold_a_thread() -> None:
    size = wsgi.SEND_BEHIND_BYTES
    async with Workers(1) as workers:
        app = http.Application(network.echo, web=Gateway(saying(b"x" * size), workers))
        ours, theirs = trio.testing.lockstep_stream_pair()  # which takes nothing that is not read
        others, mine = trio.testing.memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(http.serve_stream, ours, app)
            nursery.start_soon(http.serve_stream, others, app)
            await theirs.send_all(request("GET /"))
            for _ in range(2):
                assert len((await Client(mine).ask(request("GET /"))).body) == size
            assert len((await Client(theirs).answer()).body) == size
            await theirs.aclose()
            await mine.aclose()


@in_trio
async def test_a_response_without_end_waits_for_its_reader() -> None:
    made = 0

    def parts() -> Iterator[bytes]:
        nonlocal made
        while True:
            made += 1
            yield b"x" * 100_000

    async with Workers(1) as workers:
        app = http.Application(network.echo, web=Gateway(saying_from(parts), workers))
        ours, theirs = trio.testing.lockstep_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(http.serve_stream, ours, app)
            await theirs.send_all(request("GET /"))
            client = Client(theirs)
            await client.head()
            got = 0
            while got < 1_000_000:
                got += len(await client.part())
            await trio.sleep(0.05)
            assert made <= 14
            await theirs.aclose()


def saying_from(parts: Callable[[], Iterator[bytes]]) -> Callable[..., Any]:
    def application(environ: Environ, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", TEXT)
        return parts()

    return application


@in_trio
async def test_busy_threads_make_requests_wait_and_too_many_come_again() -> None:
    go_on = threading.Event()

    def application(environ: Environ, start_response: Any) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/hangs":
            assert go_on.wait(PATIENCE)
        return echo(environ, start_response)

    async with site(application, threads=2, max_waiting=1) as web:
        hanging = [await web.connect() for _ in range(2)]
        for client in hanging:
            await client.send(request("GET /hangs"))
        await until(lambda: web.workers.statistics().running == 2, "both threads busy")
        waiting = await web.connect()
        await waiting.send(request("GET /waits"))
        await until(lambda: web.workers.statistics().waiting == 1, "one waiting")
        client = await web.connect()
        answer = await client.ask(request("GET /refused"))
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        # what is not the application's needs no thread of it
        wire = WireClient(await web.served.connect())
        await wire.send(upgrade() + masked(network.TEXT, b"hello"))
        assert (await wire.head()).startswith("HTTP/1.1 101 ")
        go_on.set()
        for client, path in ((hanging[0], b"/hangs"), (hanging[1], b"/hangs"), (waiting, b"/waits")):
            assert (await client.answer()).body == b"GET " + path + b" "
        assert (await waiting.ask(request("GET /again"))).status == 200


@in_trio
async def test_requests_that_run_are_finished_before_the_end() -> None:
    go_on = threading.Event()

    def application(environ: Environ, start_response: Any) -> Iterable[bytes]:
        assert go_on.wait(PATIENCE)
        return echo(environ, start_response)

    async with site(application) as web, trio.open_nursery() as nursery:
        client = await web.connect()
        await client.send(request("GET /"))
        await until(lambda: web.answering.active, "the request")
        drained = trio.Event()

        async def drain() -> None:
            await web.answering.drained()
            drained.set()

        nursery.start_soon(drain)
        await trio.testing.wait_all_tasks_blocked()
        assert not drained.is_set()
        go_on.set()
        answer = await client.answer()
        assert (answer.body, answer.headers["connection"]) == (b"GET / ", "close")
        assert await client.is_closed()
        await drained.wait()


@pytest.mark.parametrize("at_once", [False, True])
def test_the_end_of_the_server_lets_no_thread_wait(at_once: bool) -> None:
    outcome: list[BaseException] = []
    called, go_on = threading.Event(), threading.Event()

    def application(environ: Environ, start_response: Any) -> Iterable[bytes]:
        called.set()
        assert go_on.wait(PATIENCE)
        try:
            environ["wsgi.input"].read()
        except OSError as error:
            outcome.append(error)
            raise
        return []

    @in_trio
    async def scenario() -> None:
        async with Workers(1) as workers:
            app = http.Application(network.echo, web=Gateway(application, workers))
            ours, theirs = trio.testing.memory_stream_pair()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(http.serve_stream, ours, app)
                await theirs.send_all(request("POST /", "Content-Length: 1000000") + b"x" * 100_000)
                await until(called.is_set, "the application called")
                go_on.set()
                if at_once:
                    time.sleep(0.01)  # what the thread asks for comes together with the end
                else:
                    await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
            await until(lambda: outcome, "the application's end")

    for _ in range(20 if at_once else 1):
        outcome.clear()
        called.clear()
        go_on.clear()
        scenario()


@in_mock_time
async def test_a_client_that_is_too_slow_for_the_rest_of_its_request(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def application(environ: Environ, start_response: Any) -> Iterable[bytes]:
        write = start_response("200 OK", TEXT)
        write(b"some")
        return [environ["wsgi.input"].read()]

    async with in_memory(application) as client:
        await client.send(request("POST /", "Content-Length: 100000") + b"x" * 70_000)
        answer = await client.answer()
        assert (answer.status, answer.body, answer.complete) == (200, b"some", False)
        assert await client.is_closed()
    assert errors(caplog) == []


@in_trio
async def test_the_context_of_one_request_is_not_that_of_the_next() -> None:
    import contextvars

    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")

    def application(environ: Environ, start_response: Any) -> Iterable[bytes]:
        before = variable.get()
        variable.set(environ["PATH_INFO"])
        start_response("200 OK", TEXT)
        return [before.encode()]

    async with site(application, threads=1) as web:
        client = await web.connect()
        assert [(await client.ask(request("GET /a"))).body for _ in range(2)] == [b"unset"] * 2


# The access log


@in_trio
async def test_every_request_has_a_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trigger_ddp.access")
    async with site(echo, served={"forwarded_count": 1}, max_body_bytes=10) as web:
        client = await web.connect()
        forged = 'X-Forwarded-For: 1.2.3.4"\x85\x9b31m'.encode("latin-1")
        await client.ask(request("GET /a?b=%22"))
        await client.ask(request("GET /sockjs"))
        await client.ask(request('GET /"\\', "X: y").replace(b"X: y", forged))
        await client.ask(request("POST /", "Content-Length: 11"))
        await (await web.connect()).ask(b"nonsense\r\n\r\n")
        wire = WireClient(await web.served.connect())
        await wire.send(upgrade())
        await wire.head()
        await wire.stream.aclose()
        with contextlib.suppress(trio.BrokenResourceError):
            await (await web.served.connect()).aclose()
        await web.served.until_idle()
    records = [record for record in caplog.records if record.name == "trigger_ddp.access"]
    fields = ("http_method", "target", "status", "bytes")
    assert sorted(tuple(getattr(record, name) for name in fields) for record in records) == sorted(
        [
            ("GET", "/a?b=%22", 200, len(b"GET /a ")),
            ("GET", "/sockjs", 200, len(b"Welcome to SockJS!\n")),
            ("GET", "/\\x22\\x5c", 200, len(b'GET /"\\ ')),
            ("POST", "/", 413, len(b"413 Content Too Large\n")),
            ("-", "-", 400, len(b"400 Bad Request\n")),
            ("GET", "/websocket", 101, 0),
        ]
    )
    # No address is taken from a proxy that is none.
    [forger] = [record.client for record in records if record.target == "/\\x22\\x5c"]  # type: ignore[attr-defined]
    assert forger.startswith("127.0.0.1:")
    assert all(record.seconds >= 0 for record in records)  # type: ignore[attr-defined]
    assert all(record.getMessage().isprintable() for record in records)
