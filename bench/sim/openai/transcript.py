"""A transcription that is told while it is written: deltas of a word each, then all of it (gpt-4o-transcribe's kin).

Here `after_tokens` of a fault counts deltas.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from bench.sim.openai.chunk import Style
from bench.sim.openai.fault import Fault, FaultBox
from bench.sim.openai.flavour import Flavour, error_body, refuse
from bench.sim.openai.seen import Seen
from bench.sim.openai.stream import SseWriter, hang_up, hold, sse

_KINDS = frozenset({
    "stall", "garbage", "silence", "stream_reset", "stream_cut", "error_event", "early_end", "endless",
})  # fmt: skip


class TranscriptStream:
    """One streamed transcription."""

    __slots__ = ("_box", "_fault", "_request", "_seen", "_writer")

    def __init__(self, request: web.BaseRequest, seen: Seen, fault: Fault | None, box: FaultBox) -> None:
        self._request, self._seen, self._fault, self._box = request, seen, fault, box

    async def run(self, text: str, headers: Mapping[str, str], style: Style) -> web.StreamResponse:
        response = web.StreamResponse(headers={**headers, "content-type": "text/event-stream; charset=utf-8"})
        self._seen.status = 200
        await response.prepare(self._request)
        self._writer = SseWriter(response, style, self._seen)
        words = text.split(" ")
        for at, word in enumerate(words):
            if self._fault is not None and at == min(self._fault.after_tokens, len(words) - 1) and await self._strike():
                return response
            await self._tell("delta", delta=word if at == 0 else f" {word}", logprobs=[])
            self._seen.tokens += 1
        logprobs = [{"token": word, "logprob": -0.2} for word in words]
        await self._tell("done", text=text, logprobs=logprobs, usage={"type": "duration", "seconds": 1})
        await response.write_eof()
        self._seen.end("done")
        return response

    async def _tell(self, kind: str, **fields: Any) -> None:
        await self._writer.send((sse({"type": f"transcript.text.{kind}", **fields}),))

    async def _strike(self) -> bool:
        """Carry out the fault. True: the stream is over."""
        fault, self._fault = self._fault, None
        assert fault is not None
        if fault.kind not in _KINDS:
            return False  # a fault of another kind of answer
        self._seen.fault = fault.kind
        self._box.carried_out(fault)
        match fault.kind:
            case "stall":
                await asyncio.sleep(fault.delay_ms / 1000)
                return False
            case "garbage":
                await self._writer.send((b'data: {"type":"transcript <html>\n\n',))
                return False
            case "silence":
                await hold()
            case "stream_reset" | "stream_cut":
                hang_up(self._request, reset=fault.kind == "stream_reset")
            case "error_event":
                await self._writer.send((sse(error_body(refuse("server_error", Flavour.OPENAI), Flavour.OPENAI)),))
            case "endless":
                while self._seen.sent_bytes < fault.endless_bytes:
                    await self._tell("delta", delta=" and so on" * 100, logprobs=[])
        self._seen.end("fault")
        return True
