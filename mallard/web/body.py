"""Reads a request's body, bounded in bytes and in time, before and after decompression.

Invariants: no more than the limit and one message is ever held. What a client announces as too
large is refused before a byte of it is read. A decompressor is never asked for more than the
limit and one byte, so a bomb costs no more than a full body.
"""

from __future__ import annotations

import asyncio
import zlib

from starlette.types import Receive

from mallard.errors import InvalidInput, PayloadTooLarge, SlowRequest, UnsupportedEncoding

BODY_SECONDS_MAX = 10.0  # for all of it; a phone on a bad line sends an event in one or two

_ENCODINGS = {b"gzip": 16 + zlib.MAX_WBITS, b"x-gzip": 16 + zlib.MAX_WBITS, b"deflate": 0}


async def read_body(
    headers: dict[bytes, bytes], receive: Receive, bytes_max: int, seconds_max: float
) -> bytes | None:
    """Return the body, decompressed; None if the client has gone.

    Raises PayloadTooLarge, SlowRequest, UnsupportedEncoding, and InvalidInput for a body that
    is not what its Content-Encoding says.
    """
    length = headers.get(b"content-length", b"")
    if length.isdigit() and (len(length) > 18 or int(length) > bytes_max):
        raise _too_large(bytes_max)
    encoding = headers.get(b"content-encoding", b"").strip().lower()
    if encoding and encoding != b"identity" and encoding not in _ENCODINGS:
        raise UnsupportedEncoding(
            "The Content-Encoding of the body is one that this server does not read.",
            field="Content-Encoding",
            rule="gzip, deflate, or none",
        )
    try:
        async with asyncio.timeout(seconds_max):
            body = await _read(receive, bytes_max)
    except TimeoutError:
        raise SlowRequest(f"The body did not arrive within {seconds_max:g} seconds.") from None
    if body is not None and encoding in _ENCODINGS:
        return inflate(body, encoding, bytes_max)
    return body


async def _read(receive: Receive, bytes_max: int) -> bytes | None:
    message = await receive()
    if message["type"] == "http.disconnect":
        return None
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        if len(body) > bytes_max:
            raise _too_large(bytes_max)
        return body
    pieces = bytearray(body)
    while message.get("more_body", False):
        if len(pieces) > bytes_max:
            break
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        pieces += message.get("body", b"")
    if len(pieces) > bytes_max:
        raise _too_large(bytes_max)
    return bytes(pieces)


def inflate(body: bytes, encoding: bytes, bytes_max: int) -> bytes:
    """Return a gzip or deflate body as it was; with deflate, also without the zlib header.

    Source: RFC 9110, section 8.4.1; browsers of old sent deflate bare, and so do some libraries.
    """
    window_bits = _ENCODINGS[encoding]
    if not window_bits:
        is_zlib = len(body) >= 2 and body[0] & 0x0F == 8 and (body[0] << 8 | body[1]) % 31 == 0
        window_bits = zlib.MAX_WBITS if is_zlib else -zlib.MAX_WBITS
    inflater = zlib.decompressobj(window_bits)
    try:
        text = inflater.decompress(body, bytes_max + 1)
    except zlib.error:
        text, complete = b"", False
    else:
        if len(text) > bytes_max:
            raise _too_large(bytes_max)
        complete = inflater.eof and not inflater.unused_data
    if not complete:
        raise InvalidInput(
            "The body is not what its Content-Encoding says.",
            field="Content-Encoding",
            rule="one whole gzip or deflate stream",
        )
    return text


def _too_large(bytes_max: int) -> PayloadTooLarge:
    return PayloadTooLarge(
        "The body is too large.", rule=f"at most {bytes_max} bytes, also after decompression"
    )
