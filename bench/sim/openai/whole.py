"""An answer in one piece on its way: a head that tells its length, the body, and what a fault makes of either.

Here `after_tokens` of a fault counts bytes of the body; 0 strikes before the head.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from aiohttp import web

from bench.sim.openai.fault import Fault, FaultBox
from bench.sim.openai.seen import Seen
from bench.sim.openai.stream import hang_up, hold

_LATE = ("slow_first_token", "stall")
_MUTE = ("silence", "comments")
_TORN = ("stream_reset", "stream_cut")
_SPOILT = ("garbage", "bad_utf8", "endless")
_AND_SO_ON = b"and so on, " * 6000


class WholeAnswer:
    """Call `before_head`, make the body, then `send` it."""

    __slots__ = ("_box", "_fault", "_request", "_seen")

    def __init__(self, request: web.BaseRequest, seen: Seen, fault: Fault | None, box: FaultBox) -> None:
        self._request, self._seen, self._fault, self._box = request, seen, fault, box

    async def before_head(self) -> bool:
        """The faults that strike before anything is said. True: nothing more is to be said."""
        fault = self._fault
        if fault is None or fault.kind not in (*_LATE, *_MUTE, *_TORN) or self._is_inside(fault):
            return False
        self._struck()
        return await self._strike(fault)

    async def send(self, raw: bytes, headers: Mapping[str, str]) -> web.StreamResponse:
        """Say `raw`, which is JSON, as far as the fault lets us."""
        fault = self._fault
        response = web.StreamResponse(headers={**headers, "content-type": "application/json"})
        self._seen.status = 200
        if fault is None or (fault.kind not in _SPOILT and not self._is_inside(fault)):
            response.content_length = len(raw)
            await response.prepare(self._request)
            await self._write(response, raw)
        else:
            self._struck()
            if await self._send_spoilt(response, raw, fault):
                self._seen.end("fault")
                return response
        await response.write_eof()
        self._seen.end("done")
        return response

    @staticmethod
    def _is_inside(fault: Fault) -> bool:
        return fault.after_tokens > 0 and fault.kind in (*_LATE[1:], *_MUTE[:1], *_TORN)

    async def _send_spoilt(self, response: web.StreamResponse, raw: bytes, fault: Fault) -> bool:
        """True: it is over, without a proper end."""
        if fault.kind == "endless":
            await response.prepare(self._request)
            await self._write(response, b'{"text":"')
            while self._seen.sent_bytes < fault.endless_bytes:
                await self._write(response, _AND_SO_ON)
                await asyncio.sleep(0)
            return True
        if fault.kind in ("garbage", "bad_utf8"):
            raw = {"garbage": b'{"text":"word <html>', "bad_utf8": b'{"text":"word \xc3\x28"}'}[fault.kind]
            fault = Fault(kind="stall", delay_ms=0)
        response.content_length = len(raw)
        await response.prepare(self._request)
        # The last byte is never said before the fault has struck.
        at = min(fault.after_tokens, len(raw) - 1)
        await self._write(response, raw[:at])
        if await self._strike(fault):
            return True
        await self._write(response, raw[at:])
        return False

    async def _strike(self, fault: Fault) -> bool:
        if fault.kind in _LATE:
            await asyncio.sleep(fault.delay_ms / 1000)
            return False
        if fault.kind in _MUTE:
            await hold()
        else:
            self._seen.end("fault")
            hang_up(self._request, reset=fault.kind == "stream_reset")
        return True

    async def _write(self, response: web.StreamResponse, part: bytes) -> None:
        await response.write(part)
        self._seen.sent_bytes += len(part)

    def _struck(self) -> None:
        assert self._fault is not None
        self._seen.fault = self._fault.kind
        self._box.carried_out(self._fault)
