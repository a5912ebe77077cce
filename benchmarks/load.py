"""A client that costs little: requests written in advance, over connections that are kept. `python -m benchmarks.load PORT SECONDS
CONNECTIONS` posts single readings as fast as it is answered, and prints what it saw as JSON: a process of its own, so that
it takes nothing from what it measures."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from typing import cast

import numpy as np

KEYS = 100


def request(body: bytes, path: str = "/data") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class Connection(asyncio.Protocol):
    """One request at a time; `answered` is called with the status when the answer is whole."""

    def __init__(self, answered: Callable[[Connection, int], None]) -> None:
        self.answered = answered
        self.buffer = b""
        self.free = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def send(self, data: bytes) -> None:
        self.free = False
        self.began = time.perf_counter()
        self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, found, body = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return
        at = head.lower().index(b"content-length:") + 15
        if len(body) < int(head[at:].split(b"\r\n", 1)[0]):
            return
        self.buffer = b""
        self.free = True
        self.answered(self, int(head[9:12]))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.free:
            raise SystemExit(f"the connection was lost: {exc}")


async def connect(port: int, answered: Callable[[Connection, int], None]) -> Connection:
    loop = asyncio.get_running_loop()
    _, made = await loop.create_connection(lambda: Connection(answered), "127.0.0.1", port)
    return made


async def load(port: int, seconds: float, connections: int) -> dict[str, float]:
    requests = [request(json.dumps({"id": f"s{i}", "value": 20 + i / 10}).encode()) for i in range(KEYS)]
    until = time.perf_counter() + seconds
    waits: list[float] = []
    ended = 0
    done = asyncio.Event()

    def answered(connection: Connection, status: int) -> None:
        nonlocal ended
        now = time.perf_counter()
        if status != 201:
            raise SystemExit(f"answered {status}")
        waits.append(now - connection.began)
        if now < until:
            connection.send(requests[len(waits) % KEYS])
            return
        ended += 1
        if ended == connections:
            done.set()

    opened = [await connect(port, answered) for _ in range(connections)]
    began, cpu = time.perf_counter(), time.process_time()
    for i, connection in enumerate(opened):
        connection.send(requests[i % KEYS])
    await done.wait()
    took = time.perf_counter() - began
    p50, p99 = (float(np.percentile(waits, q)) * 1e3 for q in (50, 99))
    return {"rate": len(waits) / took, "p50": p50, "p99": p99, "busy": (time.process_time() - cpu) / took}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(load(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])))))
