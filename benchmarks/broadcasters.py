"""Servers that send the same text to all their clients, and nothing else: for `benchmarks.fanout`.

``python -m benchmarks.broadcasters KIND PAYLOAD`` prints its port and waits for clients. For each line
``COUNT JOINED`` on its standard input it sends the text so many times to everybody, and prints "done" and to
how many clients. The node program of `NODE` does the same. A loop of plain sends, and that of node, put
JOINED of these texts into one write; the others have no way to.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import threading
from typing import Any

import trio
import trio_websocket
from websockets.asyncio.server import ServerConnection, broadcast, serve

HOST = "127.0.0.1"
BACKLOG = 2048


def bare(payload: bytes) -> None:
    """The floor: a loop of non-blocking sends of a frame that is ready, to plain sockets."""
    listener = socket.create_server((HOST, 0), backlog=BACKLOG)
    sockets: list[socket.socket] = []

    def accept() -> None:
        while True:
            client, _ = listener.accept()
            client.setblocking(False)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sockets.append(client)

    threading.Thread(target=accept, daemon=True).start()
    print(listener.getsockname()[1], flush=True)
    frame = bytes((0x81, 126)) + len(payload).to_bytes(2, "big") + payload
    for line in sys.stdin:
        count, joined = map(int, line.split())
        for start in range(0, count, joined):
            frames = frame * min(joined, count - start)
            for client in sockets:
                # A full socket would need more than this; none is, since its client reads.
                client.send(frames)
        print("done", len(sockets), flush=True)


async def _with_trio(payload: bytes) -> None:
    text = payload.decode()
    clients: list[trio_websocket.WebSocketConnection] = []

    async def hold(request: trio_websocket.WebSocketRequest) -> None:
        websocket = await request.accept()
        clients.append(websocket)
        with contextlib.suppress(trio_websocket.ConnectionClosed):
            await websocket.get_message()

    async with trio.open_nursery() as nursery:
        server: Any = await nursery.start(trio_websocket.serve_websocket, hold, HOST, 0, None)
        print(server.port, flush=True)
        while line := await trio.to_thread.run_sync(sys.stdin.readline):
            for _ in range(int(line.split()[0])):
                for websocket in clients:
                    await websocket.send_message(text)
                await trio.sleep(0)
            print("done", len(clients), flush=True)
        nursery.cancel_scope.cancel()


async def _with_asyncio(payload: bytes) -> None:
    text = payload.decode()
    clients: list[ServerConnection] = []

    async def hold(websocket: ServerConnection) -> None:
        clients.append(websocket)
        await websocket.wait_closed()

    async with serve(hold, HOST, 0, compression=None, ping_interval=None, backlog=BACKLOG) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            for _ in range(int(line.split()[0])):
                broadcast(clients, text)
                await asyncio.sleep(0)
            print("done", len(clients), flush=True)


#: Node's ws: a Buffer that is ready, as text, without compression.
NODE = """
const { WebSocketServer } = require("ws");
const payload = Buffer.from(process.argv[2]);
const server = new WebSocketServer({ host: "127.0.0.1", port: 0, perMessageDeflate: false, backlog: 2048 });
server.on("listening", () => console.log(server.address().port));
require("readline").createInterface({ input: process.stdin }).on("line", (line) => {
  const [count, joined] = line.split(" ").map(Number);
  let left = count;
  const step = () => {
    const now = Math.min(joined, left);
    for (const client of server.clients) {
      if (now > 1) client._socket.cork();
      for (let n = 0; n < now; n++) client.send(payload, { binary: false });
      if (now > 1) client._socket.uncork();
    }
    left -= now;
    if (left) setImmediate(step);
    else console.log("done " + server.clients.size);
  };
  step();
}).on("close", () => process.exit(0));
"""

KINDS = {
    "bare": bare,
    "trio-websocket": lambda payload: trio.run(_with_trio, payload),
    "websockets": lambda payload: asyncio.run(_with_asyncio(payload)),
}

if __name__ == "__main__":
    KINDS[sys.argv[1]](sys.argv[2].encode())
