"""Clients that misbehave, each kind until its standard input is closed: for `benchmarks.hostile`.

A kind prints "begun" once it is at full strength. What the server answers is read where that belongs to the
kind, and not looked at. One that is thrown out comes back, as often as `COME_BACK_SECONDS` allows.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

COME_BACK_SECONDS = 0.05
#: Where they come from: an address of their own.
SOURCE = "127.0.0.2"
SESSIONS = 10_000
SUBSCRIPTIONS = 10_000
HALF_OPEN = 500
#: Of many connections so many are tried before it counts as begun: more than one address may have.
BEGUN = 1100
TRICKLING = 100
HUGE = 100 * 1024 * 1024
LARGE = 8 * 1024 * 1024 - 1000

UPGRADE = (
    b"GET /websocket HTTP/1.1\r\nHost: hostile\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
TEXT, CONTINUATION, PING = 0x81, 0x00, 0x89


class Line:
    """A connection of the attacker's."""

    def __init__(self, address: tuple[str, int], upgrade: bool = True, receive_buffer: int = 0) -> None:
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.bind((SOURCE, 0))
        self.socket.settimeout(10)
        self.socket.connect(address)
        if upgrade:
            self.socket.sendall(UPGRADE)
            head = b""
            while b"\r\n\r\n" not in head:
                if not (data := self.socket.recv(4096)):
                    raise ConnectionError(head)
                head += data
            if b" 101 " not in head:
                raise ConnectionError(head)
            self.say(msg="connect", version="1", support=["1"])

    def say(self, **message: Any) -> None:
        self.text(json.dumps(message).encode())

    def text(self, payload: bytes) -> None:
        self.socket.sendall(framed(TEXT, payload))

    def drain(self) -> None:
        """Read what is there."""
        while True:
            self.socket.setblocking(False)
            try:
                if not self.socket.recv(1 << 18):
                    raise ConnectionError("closed")
            except BlockingIOError:
                return
            finally:
                self.socket.settimeout(10)


def framed(first: int, payload: bytes, announced: int | None = None) -> bytes:
    """A client's frame; its mask is zero. ``announced``: a length that is not the payload's."""
    size = len(payload) if announced is None else announced
    if size < 126:
        length = bytes((0x80 | size,))
    elif size < 1 << 16:
        length = b"\xfe" + size.to_bytes(2, "big")
    else:
        length = b"\xff" + size.to_bytes(8, "big")
    return bytes((first,)) + length + bytes(4) + payload


Address = tuple[str, int]
#: Does something once on one line; called again and again.
Step = Callable[[Line, int], None]


def _numbered(text: str) -> Step:
    return lambda line, number: (line.text((text % number).encode()), line.drain())[0]


def repeating(step: Step, lines: int = 1) -> Callable[[Address], Iterator[None]]:
    """A kind that takes a step after the other on each of its lines."""

    def attack(address: Address) -> Iterator[None]:
        open_lines: list[Line | None] = [None] * lines
        numbers = itertools.count()
        while True:
            for index, line in enumerate(open_lines):
                try:
                    line = open_lines[index] = line or Line(address)
                    step(line, next(numbers))
                except OSError:  # thrown out, or refused
                    open_lines[index] = None
                    if line is not None:
                        line.socket.close()
                    time.sleep(COME_BACK_SECONDS)
            yield

    return attack


def holding(count: int, make: Callable[[Address], Line]) -> Callable[[Address], Iterator[None]]:
    """A kind that wants so many lines, and opens those anew that it is refused or that are closed."""

    def attack(address: Address) -> Iterator[None]:
        lines: list[Line] = []
        for number in range(count):
            with contextlib.suppress(OSError):
                lines.append(make(address))
            if number >= BEGUN:
                yield
        while True:
            yield
            for line in list(lines):
                with contextlib.suppress(OSError):
                    line.socket.setblocking(False)
                    try:
                        if line.socket.recv(65536):
                            continue
                    except BlockingIOError:
                        continue
                line.socket.close()
                lines.remove(line)
            for _ in range(min(20, count - len(lines))):
                with contextlib.suppress(OSError):
                    lines.append(make(address))
            time.sleep(COME_BACK_SECONDS)

    return attack


def never_reading(address: Address) -> Iterator[None]:
    """Ask for 3 MB a second on 20 lines together, which is more than sockets hold after some seconds."""
    lines: list[Line] = []
    while True:
        for _ in range(20 - len(lines)):
            with contextlib.suppress(OSError):
                line = Line(address, receive_buffer=4096)
                line.say(msg="sub", id="s", name="AllBooks", params=[])
                lines.append(line)
        for line in list(lines):
            try:
                line.say(msg="method", id="m", method="echo", params=["x" * 30_000])
            except OSError:
                line.socket.close()
                lines.remove(line)
        yield
        time.sleep(0.2)


def reading_a_byte(address: Address) -> Iterator[None]:
    lines = []
    for _ in range(20):
        line = Line(address, receive_buffer=4096)
        line.say(msg="sub", id="s", name="AllBooks", params=[])
        lines.append(line)
    while True:
        yield
        for line in list(lines):
            try:
                line.socket.recv(1)
            except OSError:
                lines.remove(line)
        time.sleep(1)


def many_subscriptions(address: Address) -> Iterator[None]:
    line = Line(address)
    for number in range(SUBSCRIPTIONS):
        line.say(msg="sub", id=f"s{number}", name="CheapBooks", params=[0.01 * (number % 100)])
        if number % 50 == 0:
            line.drain()
        if number == 500:
            yield
    while True:
        line.drain()
        time.sleep(0.01)
        yield


def trickling(bytes_of: bytes, upgrade: bool) -> Callable[[Address], Iterator[None]]:
    """A kind that sends what it has to say byte by byte, on many lines."""

    def attack(address: Address) -> Iterator[None]:
        lines: list[Line] = []
        position = 0
        while True:
            while len(lines) < TRICKLING:
                lines.append(Line(address, upgrade))
            for line in list(lines):
                try:
                    line.socket.sendall(bytes_of[position % len(bytes_of) :][:1])
                except OSError:
                    line.socket.close()
                    lines.remove(line)
            position += 1
            yield
            time.sleep(0.02)

    return attack


def huge(line: Line, number: int) -> None:
    """As much as the server takes of a message of 100 MB."""
    line.socket.sendall(framed(TEXT, b"", HUGE))
    piece = b"x" * 65536
    for _ in range(HUGE // len(piece)):
        line.socket.sendall(piece)


def never_ending(line: Line, number: int) -> None:
    """Fragments of a message that has no end."""
    line.socket.sendall(framed(0x01 if number % 1000 == 0 else CONTINUATION, b"") * 200)
    line.drain()


def websocket_pings(line: Line, number: int) -> None:
    line.socket.sendall(framed(PING, b"") * 50)
    line.drain()


def _method(params: str) -> bytes:
    return f'{{"msg":"method","id":"1","method":"echo","params":[{params}]}}'.encode()


DEEP = _method("[" * 100_000 + "]" * 100_000)
NESTED = _method("[" * 250 + "]" * 250)
MANY_VALUES = _method("[]," * (LARGE // 3) + "[]")
MOST_VALUES = _method('{"$date":1},' * 24_000 + "1")
LONG_TEXT = _method('"' + "x" * LARGE + '"')
LONG_ID = b'{"msg":"sub","id":"' + b"x" * 1_000_000 + b'","name":"AllTags","params":[]}'


def send(payload: bytes) -> Step:
    return lambda line, _: (line.text(payload), line.drain())[0]


def churn(line: Line, number: int) -> None:
    """Subscribe to what nobody has, and let go of it."""
    line.say(msg="sub", id=str(number), name="CheapBooks", params=[number * 1e-6])
    line.say(msg="unsub", id=str(number))
    line.drain()


ATTACKS: dict[str, Callable[[Address], Iterator[None]]] = {
    "20 that never read": never_reading,
    "20 that read a byte a second": reading_a_byte,
    "10 000 subscriptions on one session": many_subscriptions,
    "subscribing and leaving": repeating(churn),
    "unknown subscriptions": repeating(_numbered('{"msg":"sub","id":"%d","name":"none","params":[]}')),
    "10 000 sessions of one address": holding(SESSIONS, Line),
    "500 half-open sockets": holding(HALF_OPEN, lambda address: Line(address, upgrade=False)),
    "HTTP byte by byte": trickling(b"GET / HTTP/1.1\r\nX: " + b"x" * 10_000, False),
    "WebSocket byte by byte": trickling(framed(TEXT, b"x" * 10_000), True),
    "messages of 100 MB": repeating(huge),
    "messages of 8 MB, many values": repeating(send(MANY_VALUES)),
    "messages of 8 MB, one text": repeating(send(LONG_TEXT)),
    "messages of the most values": repeating(send(MOST_VALUES)),
    "100 000 levels deep": repeating(send(DEEP)),
    "250 levels deep": repeating(send(NESTED)),
    "ids of a megabyte": repeating(send(LONG_ID)),
    "DDP pings": repeating(_numbered('{"msg":"ping","id":"%d"}')),
    "WebSocket pings": repeating(websocket_pings),
    "empty fragments without end": repeating(never_ending),
    "methods": repeating(_numbered('{"msg":"method","id":"%d","method":"echo","params":[1]}')),
    "unknown methods": repeating(_numbered('{"msg":"method","id":"%d","method":"none","params":[]}')),
    "what is no message": repeating(_numbered("[%d")),
}  # fmt: skip


def main() -> None:
    title, host, port = sys.argv[1:]
    told_to_stop = threading.Event()

    def wait_for_end() -> None:
        sys.stdin.read()
        told_to_stop.set()

    threading.Thread(target=wait_for_end, daemon=True).start()
    begun = False
    for _ in ATTACKS[title]((host, int(port))):
        if not begun:
            begun = True
            print("begun", flush=True)
        if told_to_stop.is_set():
            return


if __name__ == "__main__":
    main()
