"""An answer as the vendors' JSON: the chunks of a stream, or one whole object.

    Answer → head (role, filter results), body (one token each), tail (finish, usage)

`Style` is how a compatible server may differ from the book; all of it has been seen in the wild.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.sim.openai.answer import Answer, Json, tokens
from bench.sim.openai.flavour import SAFE, Flavour

Chunk = dict[str, Any]
ANNOTATE_EVERY_CHARS = 1000  # Azure's asynchronous filter checks about that much at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """How an answer is told.

    Args:
        whole_calls: a tool call comes in one chunk. stop_with_calls: finish_reason stop although there are calls.
        omit_role: no role anywhere. content_with_calls: `content: ""` beside tool calls.
        double_finish: the finishing chunk comes twice.
        async_filter: Azure: no waiting for the filter, annotations without delta instead.
        burst_tokens: Azure's waiting filter: that many tokens come at once.
        early_head: the head of the answer is sent before the first token is there.
        comment_every: a comment line after each n events; 0 is none.
        segments: how bytes are written: `event` one write each; `split` each event in two writes, inside a multi-byte
            character where there is one; `bytes` one write a byte; `joined` as few writes as possible.
        crlf: lines end with CR LF, as the standard of event streams allows.
    """

    whole_calls: bool = False
    stop_with_calls: bool = False
    omit_role: bool = False
    content_with_calls: bool = False
    double_finish: bool = False
    async_filter: bool = False
    burst_tokens: int = 1
    early_head: bool = False
    comment_every: int = 0
    segments: str = "event"
    crlf: bool = False

    def __post_init__(self) -> None:
        if self.segments not in ("event", "split", "bytes", "joined"):
            raise ValueError(f"segments: expected event, split, bytes or joined; got {self.segments!r}")


@dataclass(frozen=True, slots=True)
class Told:
    """The chunks of one answer; `body` has one token a chunk."""

    head: list[Chunk]
    body: list[Chunk]
    tail: list[Chunk]


class Teller:
    """Makes the JSON of one answer.

    Args:
        request: the checked body. prompt_tokens, cached_tokens: as counted. first_token_s: for Groq's times.
    """

    __slots__ = ("_answer", "_base", "_dice", "_flavour", "_pieces", "_request", "_style", "_times", "_tokens")

    def __init__(
        self,
        flavour: Flavour,
        style: Style,
        request: Json,
        answer: Answer,
        dice: random.Random,
        *,
        prompt_tokens: int,
        cached_tokens: int,
        first_token_s: float,
        tokens_per_s: float,
    ) -> None:
        self._flavour, self._style, self._request, self._answer, self._dice = flavour, style, request, answer, dice
        self._pieces = tokens(answer.text)
        self._base: Chunk = {
            "id": f"chatcmpl-{dice.getrandbits(100):025x}",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": str(request["model"]),
            "system_fingerprint": "fp_sim",
        }
        if flavour is Flavour.OPENAI:
            self._base["service_tier"] = "default"
        out = len(self._pieces) + sum(4 + len(call.arguments) // 4 for call in answer.calls)
        self._tokens = (prompt_tokens, cached_tokens, out)
        self._times = (first_token_s, out / tokens_per_s if tokens_per_s else 0.0)

    def told(self) -> Told:
        return Told(self._head(), self._body(), self._tail())

    def whole(self) -> Chunk:
        """The answer to a request without `stream`."""
        answer = self._answer
        message: Chunk = {"role": "assistant", "content": answer.text or None, "refusal": answer.refusal or None}
        if answer.calls:
            message["tool_calls"] = [
                {"id": self._call_id(), "type": "function", "function": {"name": one.name, "arguments": one.arguments}}
                for one in answer.calls
            ]
        if self._reasoning():
            message["reasoning"] = self._reasoning()
        choice: Chunk = {"index": 0, "message": message, "logprobs": None, "finish_reason": self._finish()}
        body = self._base | {"object": "chat.completion", "choices": [choice], "usage": self.usage()}
        if self._flavour is Flavour.AZURE:
            choice["content_filter_results"] = SAFE
            body["prompt_filter_results"] = [{"prompt_index": 0, "content_filter_results": SAFE}]
        elif self._flavour is Flavour.GROQ:
            body["x_groq"] = {"id": self._groq_id()}
        return body

    def token(self, text: str) -> Chunk:
        """One chunk of text; an endless answer is made of them."""
        return self._chunk({"content": text})

    def finish(self, reason: str) -> Chunk:
        return self._chunk({}, reason)

    def usage(self) -> Chunk:
        prompt, cached, out = self._tokens
        usage: Chunk = {"prompt_tokens": prompt, "completion_tokens": out, "total_tokens": prompt + out}
        usage["prompt_tokens_details"] = {"cached_tokens": cached}
        if self._flavour is Flavour.GROQ:
            first_s, rest_s = self._times
            queue_s = round(first_s * 0.4, 6)
            times = {"queue_time": queue_s, "prompt_time": round(first_s - queue_s, 6), "completion_time": rest_s}
            return usage | times | {"total_time": round(first_s + rest_s, 6)}
        usage["prompt_tokens_details"]["audio_tokens"] = 0
        usage["completion_tokens_details"] = {
            "reasoning_tokens": len(tokens(self._answer.reasoning)) if self._answer.reasoning else 0,
            "audio_tokens": 0, "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0,
        }  # fmt: skip
        return usage

    # ── Parts ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _head(self) -> list[Chunk]:
        head: list[Chunk] = []
        if self._flavour is Flavour.AZURE:
            results = [{"prompt_index": 0, "content_filter_results": SAFE}]
            empty = {"choices": [], "created": 0, "id": "", "model": "", "object": ""}
            head.append(empty | {"prompt_filter_results": results})
        if self._answer.calls and not self._answer.text:
            return head  # the role comes with the first call
        delta: Chunk = {"content": ""} if self._style.omit_role else {"role": "assistant", "content": ""}
        if self._flavour is not Flavour.GROQ:
            delta["refusal"] = None
        head.append(self._chunk(delta))
        self._mark_groq(head)
        return head

    def _body(self) -> list[Chunk]:
        body = [self._chunk({"reasoning": piece}) for piece in tokens(self._reasoning())]
        body += [self._chunk({"refusal": piece}) for piece in tokens(self._answer.refusal)]
        annotated = at = 0
        for piece in self._pieces:
            body.append(self._chunk({"content": piece}))
            at += len(piece)
            if self._style.async_filter and at - annotated >= ANNOTATE_EVERY_CHARS:
                body.append(self._annotation(annotated, at))
                annotated = at
        if self._style.async_filter and at > annotated:
            body.append(self._annotation(annotated, at))
        body += self._calls()
        if self._answer.calls and not self._answer.text:
            self._mark_groq(body)
        return body

    def _tail(self) -> list[Chunk]:
        tail = [self.finish(self._finish())]
        if self._flavour is Flavour.GROQ:
            tail[0]["x_groq"] = {"id": self._groq_id(), "usage": self.usage()}
        if self._style.double_finish:
            tail.append(dict(tail[0]))
        if self._wants_usage:
            tail.append(self._base | {"choices": [], "usage": self.usage()})
        return tail

    def _calls(self) -> list[Chunk]:
        chunks: list[Chunk] = []
        for index, call in enumerate(self._answer.calls):
            first: Chunk = {"index": index, "id": self._call_id(), "type": "function"}
            delta: Chunk = {}
            if index == 0 and not self._answer.text:
                delta = {"content": "" if self._style.content_with_calls else None}
                if not self._style.omit_role:
                    delta["role"] = "assistant"
            elif self._style.content_with_calls:
                delta = {"content": ""}
            whole = self._style.whole_calls
            first["function"] = {"name": call.name, "arguments": call.arguments if whole else ""}
            chunks.append(self._chunk(delta | {"tool_calls": [first]}))
            rest = "" if whole else call.arguments
            for at in range(0, len(rest), 5):
                piece = {"index": index, "function": {"arguments": rest[at : at + 5]}}
                chunks.append(self._chunk({"tool_calls": [piece]}))
        return chunks

    def _chunk(self, delta: Mapping[str, Any], finish: str | None = None) -> Chunk:
        choice: Chunk = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        chunk = self._base | {"choices": [choice]}
        if self._flavour is Flavour.AZURE:
            quiet = self._style.async_filter or not delta or not delta.get("content")
            choice["content_filter_results"] = {} if quiet else SAFE
        if self._flavour is not Flavour.GROQ and self._wants_usage:
            chunk["usage"] = None
        if self._flavour is Flavour.OPENAI and self._stream_options.get("include_obfuscation", True):
            chunk["obfuscation"] = f"{self._dice.getrandbits(32):08x}"[: 1 + self._dice.getrandbits(3)]
        return chunk

    def _annotation(self, start: int, end: int) -> Chunk:
        offsets = {"check_offset": start, "start_offset": start, "end_offset": end}
        choice = {"index": 0, "finish_reason": None, "content_filter_results": SAFE, "content_filter_offsets": offsets}
        return {"id": "", "object": "", "created": 0, "model": "", "choices": [choice]}

    # ── Small things ──────────────────────────────────────────────────────────────────────────────────────────

    @property
    def _stream_options(self) -> Json:
        return self._request.get("stream_options") or {}

    @property
    def _wants_usage(self) -> bool:
        return bool(self._stream_options.get("include_usage"))

    def _finish(self) -> str:
        if self._answer.finish:
            return self._answer.finish
        return "tool_calls" if self._answer.calls and not self._style.stop_with_calls else "stop"

    def _reasoning(self) -> str:
        request = self._request
        hidden = request.get("reasoning_format") == "hidden" or request.get("include_reasoning") is False
        if self._flavour is not Flavour.GROQ or hidden or request.get("reasoning_effort") == "none":
            return ""
        return self._answer.reasoning

    def _mark_groq(self, chunks: list[Chunk]) -> None:
        if self._flavour is Flavour.GROQ and chunks:
            chunks[0]["x_groq"] = {"id": self._groq_id()}

    def _groq_id(self) -> str:
        return f"req_01{self._base['id'][-24:]}"

    def _call_id(self) -> str:
        return f"call_{self._dice.getrandbits(96):024x}"
