"""Clients of an HTTP service that wait for each answer before they ask again: what was answered, and how soon.

Plain sockets and requests that are made before: a client library would take more time than what is measured.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import numpy as np

Check = Callable[[int, bytes], str | None]
"""Of a status and a body: what is wrong with them, or None."""


def post(url: str, body: bytes, media: str) -> bytes:
    """A whole request, to be sent again and again over one connection."""
    parts = urlsplit(url)
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    head = (
        f"POST {path} HTTP/1.1\r\nhost: {parts.netloc}\r\ncontent-type: {media}\r\n"
        f"content-length: {len(body)}\r\naccept: */*\r\n\r\n"
    )
    return head.encode() + body


def succeeded(status: int, body: bytes) -> str | None:
    """The check that asks no more than 200."""
    return None if status == 200 else f"status {status}: {body[:200]!r}"


class Connection:
    """One connection, one question at a time. Raises OSError where it breaks."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self._socket = socket.create_connection((parts.hostname, parts.port or 80), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self._socket.makefile("rb", buffering=1 << 20)

    def ask(self, request: bytes) -> tuple[int, bytes]:
        """Status and body of the answer."""
        self._socket.sendall(request)
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = self._file.readline()
            if not line:
                raise ConnectionError("the connection was closed")
            head += line
        status, length = _read_head(head)
        return status, self._file.read(length)

    def close(self) -> None:
        """Close it."""
        self._file.close()
        self._socket.close()


@dataclass
class Load:
    """What became of the requests of many clients, in the order of their ends."""

    begun: list[float] = field(default_factory=list)
    """When each was sent: `time.monotonic()`."""
    seconds: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    lasted: float = 0.0

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.seconds) / self.lasted

    def milliseconds(self, quantile: float) -> float:
        """A quantile (0 to 100) of the time to an answer."""
        return float(np.percentile(self.seconds, quantile)) * 1e3 if self.seconds else float("nan")


async def load(
    url: str, requests: list[bytes], clients: int, until: Callable[[], bool], check: Check = succeeded
) -> Load:
    """Keep `clients` connections busy until `until` says so, each with the requests in turn."""
    found = Load()
    begun = time.monotonic()
    await asyncio.gather(*(_client(url, requests[n:] + requests[:n], until, check, found) for n in range(clients)))
    found.lasted = time.monotonic() - begun
    return found


def load_for(url: str, requests: list[bytes], clients: int, seconds: float, check: Check = succeeded) -> Load:
    """The same for some seconds. Raises TimeoutError where an answer has not come a minute later."""
    end = time.monotonic() + seconds
    asked = load(url, requests, clients, lambda: time.monotonic() >= end, check)
    return asyncio.run(asyncio.wait_for(asked, seconds + 60.0))


async def _client(url: str, requests: list[bytes], until: Callable[[], bool], check: Check, found: Load) -> None:
    parts = urlsplit(url)
    number = 0
    reader: asyncio.StreamReader | None = None
    writer: asyncio.StreamWriter | None = None
    while not until():
        begun = time.monotonic()
        try:
            if reader is None or writer is None:
                reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=1 << 24)
            writer.write(requests[number % len(requests)])
            status, length = _read_head(await reader.readuntil(b"\r\n\r\n"))
            problem = check(status, await reader.readexactly(length))
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
            problem = f"{type(error).__name__}: {error}"
            if writer is not None:
                writer.close()
            reader = writer = None
        number += 1
        if problem is None:
            found.begun.append(begun)
            found.seconds.append(time.monotonic() - begun)
        else:
            found.failed.append(problem)
            await asyncio.sleep(0.01)  # a service that is away answers at once, and would be asked all the time
    if writer is not None:
        writer.close()


def _read_head(head: bytes) -> tuple[int, int]:
    """Status and length of the body. Raises ValueError for an answer without a length."""
    lines = head.split(b"\r\n")
    status = int(lines[0].split(b" ", 2)[1])
    for line in lines[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return status, int(value)
    raise ValueError(f"an answer without content-length: {head[:200]!r}")
