"""A request's body, bounded. Its deadline belongs to http_adapter.py."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The whole body. Raises HTTPException 413 as soon as it is, or says it is, longer than `max_bytes`."""
    stated = request.headers.get("content-length", "")
    if stated.isdecimal() and int(stated[:20]) > max_bytes:
        raise HTTPException(413, f"the body may have {max_bytes} bytes")
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > max_bytes:
            raise HTTPException(413, f"the body may have {max_bytes} bytes")
    return bytes(body)
