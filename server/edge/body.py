"""A request's body, bounded. Its deadline belongs to http_adapter.py."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The whole body.

    Raises:
        HTTPException: 413 as soon as it is, or says it is, longer than `max_bytes`; 400 when the peer leaves.
    """
    stated = request.headers.get("content-length", "")
    if stated.isdecimal() and int(stated[:20]) > max_bytes:
        raise HTTPException(413, f"the body may have {max_bytes} bytes")
    body = bytearray()
    try:
        async for part in request.stream():
            body += part
            if len(body) > max_bytes:
                raise HTTPException(413, f"the body may have {max_bytes} bytes")
    except ClientDisconnect as error:
        # Nobody reads the answer; but it is not a fault of ours, and is not logged as one.
        raise HTTPException(400, "the body did not come") from error
    return bytes(body)
