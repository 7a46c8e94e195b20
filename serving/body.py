"""The bodies of requests, read whole within a size and a time, never unpacked. What they mean is read in wire.py."""

from __future__ import annotations

import asyncio

import anyio
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive

from oddlog.settings import ServeSettings
from serving.refusal import Refusal

READ_ON = 4
"""A body that is too large is read on up to so many times the limit: an answer before its end gets lost on the way."""


async def read_body(request: Request, settings: ServeSettings) -> bytes:
    """The whole body.

    Raises Refusal: 400 where the client went away, 408 where the body took too long, 413 where it is larger than
    `settings.max_bytes`, 415 where it is compressed."""
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in {"", "identity"}:
        raise Refusal(
            415,
            f"content encoding {encoding[:40]!r}",
            expected="a body as it is: nobody here has to unpack a bomb",
            mend="send it without Content-Encoding",
        )
    most = settings.max_bytes
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > most and "expect" in request.headers:
        raise _too_large(most)
    try:
        async with asyncio.timeout(settings.body_seconds):  # anyio's takes three times as long, in every request
            return await _read(request, most)
    except TimeoutError:
        raise Refusal(
            408,
            f"the body had not arrived after {settings.body_seconds:g} s",
            expected="the whole body by then",
            mend="send less at once, or raise ODDLOG_SERVE__BODY_SECONDS of the service",
            headers={"connection": "close"},
        ) from None
    except ClientDisconnect:
        raise Refusal(
            400, "the client went away in the middle of the body", expected="a whole body", mend="send it again"
        ) from None


async def drain(receive: Receive, settings: ServeSettings) -> None:
    """Read a body that nobody wants, so that its sender is there to read why; gives up as `read_body` does."""
    size = 0
    with anyio.move_on_after(settings.body_seconds):
        while size <= READ_ON * settings.max_bytes:
            message = await receive()
            if message["type"] != "http.request" or not message.get("more_body", False):
                return
            size += len(message.get("body", b""))


async def _read(request: Request, most: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= most:
            chunks.append(chunk)
        else:
            chunks.clear()
            if size > READ_ON * most:
                break
    if size > most:
        raise _too_large(most)
    return b"".join(chunks)


def _too_large(most: int) -> Refusal:
    return Refusal(
        413,
        f"a body of more than {most:,} bytes",
        expected=f"at most {most:,} bytes",
        mend="send several requests, or raise ODDLOG_SERVE__MAX_BYTES of the service",
    )
