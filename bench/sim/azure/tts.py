"""One turn of synthesis: SSML or streamed text in, audio and metadata out, at the pace of a profile."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Iterator
from typing import Any

from bench.sim.azure import wire
from bench.sim.azure.fault import Fault
from bench.sim.azure.outbox import Close, Outbox
from bench.sim.azure.render import FORMATS, Format, Rendered, render, riff_head
from bench.sim.azure.seen import TtsTurn
from bench.sim.azure.ssml import Script, SsmlError, read_ssml, read_text
from bench.sim.profile import Profile

CHUNK_MS = (40, 260)
"""Pieces of audio are this long, and of odd sizes (an assumption: the service's are not published)."""
_ENDS = re.compile(r"(?<=[.!?;:])\s+|(?<=[,])\s+(?=\S{3,}\s)")


class Synthesis:
    """Begins with the synthesis.context; `speak` (SSML) or `piece` and `finish` (streamed text) follow."""

    def __init__(
        self, turn: TtsTurn, profile: Profile, dice: random.Random, outbox: Outbox, fault: Fault | None, is_cold: bool
    ) -> None:
        self.turn, self.over = turn, False
        self._profile, self._dice, self._out, self._fault = profile, dice, outbox, fault
        self._wait_ms = profile.first_audio.sample_ms(dice) + (profile.cold_ms if is_cold else 0)
        self._stall = profile.stalls(dice)
        synthesis = turn.context.get("synthesis") or {}
        audio = synthesis.get("audio") or {}
        turn.output_format = str(audio.get("outputFormat", "raw-16khz-16bit-mono-pcm"))
        self._wants = audio.get("metadataOptions") or {}
        self._input = synthesis.get("input") or {}
        self._stream_id = f"{dice.getrandbits(128):032X}"
        self._begun = False
        self._pending = ""
        self._begun_ms = 0.0  # of audio in earlier pieces of a streamed text
        self._sent_ms = 0.0

    @property
    def is_streamed(self) -> bool:
        return bool(self._input.get("bidirectionalStreamingMode"))

    async def speak(self, ssml: str) -> None:
        self.turn.ssml = ssml
        try:
            script = read_ssml(ssml)
            await self._say(script)
        except SsmlError as error:
            self._refuse(error)
            return
        self._end()

    async def piece(self, text: str) -> None:
        """Whole sentences are spoken at once, the rest waits."""
        self.turn.pieces.append(text)
        *whole, self._pending = _ENDS.split(self._pending + text)
        await self._say_text(" ".join(whole))

    async def finish(self) -> None:
        rest, self._pending = self._pending, ""
        await self._say_text(rest)
        if not self.over:
            self._begin()
            self._end()

    async def _say_text(self, text: str) -> None:
        if self.over or not text.strip():
            return
        try:
            await self._say(read_text(text, str(self._input.get("voiceName", ""))))
        except SsmlError as error:
            self._refuse(error)

    # ── What it answers ───────────────────────────────────────────────────────────────────────────────────────────

    async def _say(self, script: Script) -> None:
        turn = self.turn
        if turn.output_format not in FORMATS:
            raise SsmlError(f"Unsupported audio format {turn.output_format}.")
        turn.text = f"{turn.text} {script.text}".strip()
        turn.voices = tuple(dict.fromkeys((*turn.voices, *script.voices)))
        turn.said += script.parts
        turn.lexicons += script.lexicons
        # Rendering takes longer than a loop may be held.
        rendered = await asyncio.to_thread(render, script, turn.output_format)
        self._begin()
        turn.audio += rendered.audio
        self._send_audio(self._damaged(rendered), rendered)
        self._begun_ms += rendered.ms

    def _begin(self) -> None:
        if self._begun:
            return
        self._begun = True
        tag = f"{self._dice.getrandbits(128):032x}"
        self._send("turn.start", {"context": {"serviceTag": tag}})
        stream = {"type": "inline", "streamId": self._stream_id}
        self._send("response", {"context": {"serviceTag": tag}, "audio": stream})

    def _send_audio(self, audio: bytes, rendered: Rendered) -> None:
        form = rendered.format
        events = self._events(rendered)
        event = next(events, None)
        at_ms = 0.0
        for chunk in self._chunks(audio, form):
            while event is not None and event[0] <= at_ms:
                self._send("audio.metadata", {"Metadata": [event[1]]}, self._wait_ms)
                event = next(events, None)
            if self._strike(self._begun_ms + at_ms):
                return
            self._out.put(wire.audio(self.turn.request_id, self._stream_id, chunk), self._wait_ms)
            self.turn.sent_bytes += len(chunk)
            at_ms += len(chunk) / form.bytes_per_ms
            if self._profile.audio_times:
                self._wait_ms += len(chunk) / form.bytes_per_ms / self._profile.audio_times
            if self._stall:
                self._stall = False
                self._wait_ms += self._profile.stall_ms
        while event is not None:
            self._send("audio.metadata", {"Metadata": [event[1]]}, self._wait_ms)
            event = next(events, None)

    def _chunks(self, audio: bytes, form: Format) -> Iterator[bytes]:
        at = 0
        while at < len(audio):
            size = max(1, round(self._dice.uniform(*CHUNK_MS) * form.bytes_per_ms))
            yield audio[at : at + size]
            at += size

    def _events(self, rendered: Rendered) -> Iterator[tuple[float, dict[str, Any]]]:
        """Boundaries and bookmarks with their time in this piece, in order."""
        found: list[tuple[float, dict[str, Any]]] = []
        if self._wants.get("wordBoundaryEnabled"):
            for word in rendered.words:
                core = word.text.strip(",.;:?!¿¡")
                if core:
                    found.append((word.start_ms, self._boundary(core, "WordBoundary", word.start_ms, word.end_ms)))
                if self._wants.get("punctuationBoundaryEnabled") and word.text[-1] in ",.;:?!":
                    mark = self._boundary(word.text[-1], "PunctuationBoundary", word.end_ms, word.end_ms + 50)
                    found.append((word.end_ms, mark))
        if self._wants.get("sentenceBoundaryEnabled") and rendered.words:
            text = " ".join(word.text for word in rendered.words)
            found.append((0.0, self._boundary(text, "SentenceBoundary", 0.0, rendered.words[-1].end_ms)))
        if self._wants.get("bookmarkEnabled"):
            for name, ms in rendered.marks:
                data = {"Offset": wire.ticks(self._begun_ms + ms), "Bookmark": name}
                found.append((ms, {"Type": "Bookmark", "Data": data}))
        return iter(sorted(found, key=lambda one: one[0]))

    def _boundary(self, text: str, kind: str, start_ms: float, end_ms: float) -> dict[str, Any]:
        return {
            "Type": "SentenceBoundary" if kind == "SentenceBoundary" else "WordBoundary",
            "Data": {
                "Offset": wire.ticks(self._begun_ms + start_ms),
                "Duration": wire.ticks(end_ms - start_ms),
                "text": {"Text": text, "Length": len(text), "BoundaryType": kind},
            },
        }

    def _end(self) -> None:
        if self.over:
            return
        self.over = True
        if self._wants.get("sessionEndEnabled", True):
            end = {"Type": "SessionEnd", "Data": {"Offset": wire.ticks(self._begun_ms)}}
            self._send("audio.metadata", {"Metadata": [end]}, self._wait_ms)
        self._out.put(wire.audio(self.turn.request_id, self._stream_id, b""), self._wait_ms)
        if self._fault is not None and self._fault.kind == "no_turn_end":
            self._struck()
            return
        self._send("turn.end", {}, self._wait_ms)
        self._out.put(self._done)

    def _refuse(self, error: SsmlError) -> None:
        self.over = True
        self.turn.refusal = str(error)
        self.turn.ended = "refused"
        self._out.put(Close(error.code, str(error)))

    def _done(self) -> None:
        if not self.turn.ended:
            self.turn.ended = "fault" if self._out.muted else "done"

    def _send(self, path: str, body: dict[str, Any], after_ms: float = 0.0) -> None:
        self._out.put(wire.text(path, self.turn.request_id, body), after_ms)

    # ── Faults ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _damaged(self, rendered: Rendered) -> bytes:
        """The audio as a fault leaves it."""
        audio, form = rendered.audio, rendered.format
        match self._fault.kind if self._fault is not None else "":
            case "empty":
                audio = b""
            case "short":
                audio = audio[: len(audio) // 10]
            case "noise":
                audio = random.Random(len(audio)).randbytes(len(audio))
            case "flat":
                audio = {"mulaw": b"\xff", "alaw": b"\xd5", "pcm": b"\0"}[form.coding] * len(audio)
            case "riff_head":
                audio = riff_head(form, len(audio)) + audio
            case "wrong_rate":
                width = 2 if form.coding == "pcm" else 1
                audio = b"".join(audio[at : at + width] * 2 for at in range(0, len(audio), width))
            case "oversize" if self._fault is not None:
                body = (audio or b"\0") * (self._fault.size_bytes // max(1, len(audio)) + 1)
                self._out.put(
                    wire.audio(self.turn.request_id, self._stream_id, body[: self._fault.size_bytes]), self._wait_ms
                )
            case _:
                return audio
        self._struck()
        return audio

    def _strike(self, at_ms: float) -> bool:
        """Whether a fault ends the answer here."""
        fault = self._fault
        if fault is None or at_ms < fault.after_ms:
            return False
        if fault.kind == "stall":
            self._wait_ms += fault.delay_ms
            self._struck()
            return False
        if fault.kind not in ("cut", "close", "mute"):
            return False
        self._fault, self.over, self.turn.ended = None, True, "fault"
        self._out.put(lambda: self._out.strike(fault), self._wait_ms)
        return True

    def _struck(self) -> None:
        if self._fault is not None:
            self._out.faults.carried_out(self._fault)
            self._fault = None
