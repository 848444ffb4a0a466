"""HTTP/1.1 over a bare socket, as plainly as a test needs to be rude, to count or to be cut off."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import NamedTuple, Self

HOST = "127.0.0.1"
ANSWER_SECONDS = 60.0  # for a busy machine; no test waits this long for what it expects


class Answer(NamedTuple):
    """A response; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Connection:
    """One connection to a server, kept alive for request after request."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int) -> Self:
        """Connect; raises OSError where nobody listens."""
        return cls(*await asyncio.open_connection(HOST, port))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a request and return its answer; raises EOFError or OSError when there is none."""
        await self.send(message(method, path, body, headers))
        return await self.answer()

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._writer.write(data)
        await self._writer.drain()

    def end(self) -> None:
        """Say that nothing more will be sent, and go on reading."""
        self._writer.write_eof()

    async def answer(self) -> Answer:
        """Read the next answer; raises EOFError or OSError when there is none."""
        async with asyncio.timeout(ANSWER_SECONDS):
            head = await self._reader.readuntil(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").rstrip().split("\r\n")
            pairs = (line.partition(":") for line in lines)
            headers = {name.lower(): value.strip() for name, _, value in pairs}
            body = b""
            if headers.get("transfer-encoding") == "chunked":
                while size := int(await self._reader.readuntil(b"\r\n"), 16):
                    body += (await self._reader.readexactly(size + 2))[:-2]
                await self._reader.readexactly(2)
            else:
                body = await self._reader.readexactly(int(headers.get("content-length", "0")))
        return Answer(int(first.split()[1]), headers, body)


def message(
    method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> bytes:
    """Return a request as it goes over the wire."""
    lines = {"Host": "mallard.test", "Content-Length": str(len(body)), **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body
