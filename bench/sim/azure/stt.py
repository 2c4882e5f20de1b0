"""One turn of recognition: audio in, the service's messages out, at the times of a profile.

    audio -> Ear (8 kHz) -> Listener (words that arrived) -> startDetected, hypotheses, phrases -> Outbox

A phrase ends by segmentation silence, by its greatest length, by a forced commit, or with the audio. Offsets are
those of this turn's audio: the SDK adds what lies before a reconnect itself (seen on its socket).
"""

from __future__ import annotations

import random
import re
from typing import Any

from bench.sim.azure import wire
from bench.sim.azure.asked import INITIAL_SILENCE_MS
from bench.sim.azure.ear import Ear
from bench.sim.azure.fault import Fault
from bench.sim.azure.outbox import Outbox
from bench.sim.azure.seen import SttTurn
from bench.sim.clipbook import Clipbook, Word
from bench.sim.profile import Profile
from bench.sim.recognise import Listener

STEP_BYTES = 1600
"""100 ms: the grain in which received audio is looked at."""
LEAST_BYTES = 640
"""40 ms: smaller frames wait for the next, for half the CPU."""
LONGEST_MS = 30_000
"""A phrase is ended after this when the client names no other length (assumed)."""
_ONSET_MS = 60
_PROFANE = frozenset({"damn", "hell", "shit", "fuck", "fucking", "mierda", "joder", "scheisse", "scheiße"})
_COMMIT = "X-Client-Commit-Token"


class Recognition:
    """Feed it with `audio`, `commit` and `end`; all that it says goes to the outbox. `over`: the turn has ended."""

    def __init__(
        self, turn: SttTurn, book: Clipbook, profile: Profile, dice: random.Random, outbox: Outbox,
        fault: Fault | None, unusual: dict[str, str],
    ) -> None:  # fmt: skip
        self.turn, self.over = turn, False
        self._profile, self._dice, self._out, self._fault = profile, dice, outbox, fault
        languages = turn.languages or (turn.language,)
        books = [book.for_language(one) for one in languages]
        heard = (
            books[0] if len(books) == 1 else Clipbook({clip.name: clip for one in books for clip in one.clips}.values())
        )
        self._listener = Listener(heard)
        self._ear = Ear()
        self._line = b""
        self._words: list[Word] = []
        self._first: dict[Word, str] = {}
        self._shown: dict[Word, int] = {}
        self._speech_ms: float | None = None
        self._phrase_from_ms = 0.0
        self._next_interim_ms = 0.0
        self._last_interim = ""
        self._silence_since_ms = 0.0
        self._unusual = {
            plain: heard for plain, heard in unusual.items() if plain.lower() not in map(str.lower, turn.phrases)
        }
        self._send("turn.start", {"context": {"serviceTag": turn.service_tag}})

    # ── What the client sends ─────────────────────────────────────────────────────────────────────────────────────

    def audio(self, payload: bytes) -> None:
        """Raises ValueError for a format that the service does not know."""
        if self.over:
            return
        self._line += self._ear.hear(payload)
        turn = self.turn
        turn.format = self._ear.format
        turn.audio_bytes += len(payload)
        if len(self._line) >= LEAST_BYTES:
            self._listen()

    def _listen(self) -> None:
        line, self._line = self._line, b""
        for at in range(0, len(line), STEP_BYTES):
            self._words += self._listener.feed(line[at : at + STEP_BYTES])
            self._step()
        self.turn.audio_ms = self._listener.received_ms

    def commit(self, token: int) -> None:
        """The client wants its final now; without speech it gets an empty one with the token."""
        if self.over:
            return
        self._listen()
        if self.over:
            return
        self.turn.commits.append(token)
        self._words += self._listener.settle()
        self._phrase(self._profile.commit.sample_ms(self._dice), token=token)

    def end(self) -> None:
        """No more audio."""
        if self.over:
            return
        self._listen()
        if self.over:
            return
        self._words += self._listener.finish()
        if self._speech_ms is not None or self._words:
            self._phrase(self._profile.commit.sample_ms(self._dice))
        end = self._listener.received_ms
        self._send("speech.endDetected", {"Offset": wire.ticks(end)})
        if self.turn.mode != "INTERACTIVE":
            body = {"RecognitionStatus": "EndOfDictation", "Offset": wire.ticks(end), "Duration": 0}
            self._send("speech.phrase", body)
        self._finish()

    # ── What it makes of it ───────────────────────────────────────────────────────────────────────────────────────

    def _step(self) -> None:
        if self.over:
            return
        hears, now = self._listener, self._listener.received_ms
        if self._speech_ms is None:
            start = hears.voice_start_ms
            if self._words:
                start = min(start or now, self._words[0].start_ms)
            if start is not None and hears.voice_end_ms - start >= _ONSET_MS:
                self._speech_ms = max(start, self._phrase_from_ms)
                self._next_interim_ms = self._speech_ms + self._profile.interim_after_ms
                self._send("speech.startDetected", {"Offset": wire.ticks(self._speech_ms)})
            elif now - self._silence_since_ms >= (self._initial_ms or float("inf")):
                self._too_silent(now)
            return
        while now >= self._next_interim_ms:
            self._next_interim_ms += self._profile.interim_every_ms
            self._interim()
        segmentation = self.turn.segmentation_ms or self._profile.segmentation_ms
        longest = self.turn.longest_ms or LONGEST_MS
        if now - hears.voice_end_ms >= segmentation or now - self._speech_ms >= longest:
            self._phrase(self._profile.final_after_silence_ms(self._dice))

    @property
    def _initial_ms(self) -> int:
        asked = self.turn.initial_silence_ms
        return INITIAL_SILENCE_MS.get(self.turn.mode, 15_000) if asked is None else asked

    def _too_silent(self, now_ms: float) -> None:
        start = wire.ticks(self._silence_since_ms)
        body = {"RecognitionStatus": "InitialSilenceTimeout", "Offset": start, "Duration": wire.ticks(now_ms) - start}
        self._send("speech.phrase", body)
        self.turn.finals.append("")
        self._silence_since_ms = self._phrase_from_ms = now_ms
        if self.turn.mode == "INTERACTIVE":
            self._close()

    def _interim(self) -> None:
        text = " ".join(self._shown_words())
        if not text or text == self._last_interim:
            return
        self._last_interim = text
        first, last = self._words[0], self._words[-1]
        offset = wire.ticks(first.start_ms)
        body: dict[str, Any] = {"Text": text, "Offset": offset, "Duration": wire.ticks(last.end_ms) - offset}
        if self._fault is not None and self._fault.kind == "oversize":
            body["Text"] = (text + " ") * (self._fault.size_bytes // (len(text) + 1))
            self._struck()
        self.turn.interims.append(text)
        self._send("speech.hypothesis", body)

    def _shown_words(self) -> list[str]:
        """A word is shown when it has been there `stable` times; its last place is where it may still change."""
        need = self.turn.stable or 0
        words = []
        for word in self._words:
            count = self._shown[word] = self._shown.get(word, 0) + 1
            if count < need:
                break
            if word not in self._first:
                revised = self._dice.random() < self._profile.revised_share and need < 2
                self._first[word] = _misheard(lexical(word.text)) if revised else lexical(word.text)
            words.append(self._first[word] if count == 1 else lexical(self._spelled(word)))
        return words

    def _spelled(self, word: Word) -> str:
        core = word.text.strip(",.;:?!¿¡")
        other = self._unusual.get(core)
        return word.text.replace(core, other) if other else word.text

    # ── Finals ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _phrase(self, after_ms: float, token: int = 0) -> None:
        words, end = self._words, self._listener.received_ms
        start = words[0].start_ms if words else self._speech_ms if self._speech_ms is not None else end
        until = words[-1].end_ms if words else self._listener.voice_end_ms if self._speech_ms is not None else end
        body: dict[str, Any] = {
            "RecognitionStatus": "Success" if words else "NoMatch",
            "Offset": wire.ticks(start),
            "Duration": max(0, wire.ticks(until) - wire.ticks(start)),
            "Id": f"{self._dice.getrandbits(128):032x}",
        }
        text = self._clean([self._spelled(word) for word in words])
        if words:
            body |= self._detailed(text) if self.turn.is_detailed else {"DisplayText": text}
        if self.turn.languages and self._listener.language:
            body["PrimaryLanguage"] = {"Language": self._tag(), "Confidence": "High"}
        if token:
            body["clientAudioMetadata"] = {_COMMIT: str(token)}
        self._send_final(body, text, after_ms)
        self._words, self._first, self._shown, self._last_interim = [], {}, {}, ""
        self._speech_ms = None
        self._silence_since_ms = self._phrase_from_ms = end
        if self.turn.mode == "INTERACTIVE":
            self._close()

    def _send_final(self, body: dict[str, Any], text: str, after_ms: float) -> None:
        kind = self._fault.kind if self._fault is not None else ""
        if kind == "error_phrase":
            body, text = body | {"RecognitionStatus": "Error", "DisplayText": ""}, ""
        if kind == "long_final" and self._fault is not None:
            text = (text + " ") * (self._fault.size_bytes // (len(text) + 1) + 1)
            body = body | (self._detailed(text) if self.turn.is_detailed else {"DisplayText": text})
        if kind == "late_final" and self._fault is not None:
            after_ms += self._fault.delay_ms
        for _ in range(2 if kind == "duplicate_final" else 1):
            self.turn.finals.append(text)
            self._send("speech.phrase", body, after_ms)
        if kind in ("error_phrase", "late_final", "long_final", "duplicate_final"):
            self._struck()

    def _detailed(self, text: str) -> dict[str, Any]:
        spoken = " ".join(filter(None, (lexical(self._spelled(word)) for word in self._words)))
        best: dict[str, Any] = {
            "Confidence": 0.93, "Lexical": spoken, "ITN": spoken, "MaskedITN": spoken, "Display": text,
        }  # fmt: skip
        if self.turn.has_word_times:
            best["Words"] = [
                {
                    "Word": lexical(self._spelled(word)),
                    "Offset": wire.ticks(word.start_ms),
                    "Duration": wire.ticks(word.end_ms - word.start_ms),
                }
                for word in self._words
            ]
        return {"DisplayText": text, "Channel": 0, "NBest": [best]}

    def _clean(self, words: list[str]) -> str:
        if self.turn.profanity == "raw":
            return " ".join(words)
        kept = []
        for word in words:
            core = lexical(word)
            if core not in _PROFANE:
                kept.append(word)
            elif self.turn.profanity != "removed":
                kept.append(re.sub(r"\w", "*", word))
        return " ".join(kept)

    def _tag(self) -> str:
        own = self._listener.language.split("-")[0].lower()
        return next((one for one in self.turn.languages if one.split("-")[0].lower() == own), self.turn.languages[0])

    # ── The end ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _close(self) -> None:
        self._send("speech.endDetected", {"Offset": wire.ticks(self._listener.received_ms)})
        self._finish()

    def _finish(self) -> None:
        self.over = True
        if self._fault is not None and self._fault.kind == "no_turn_end":
            self._struck()
            return
        self._send("turn.end", {})
        self._out.put(self._done)

    def _done(self) -> None:
        if not self.turn.ended:
            self.turn.ended = "fault" if self._out.muted else "done"

    def _struck(self) -> None:
        """The fault has happened, once."""
        if self._fault is not None:
            self._out.faults.carried_out(self._fault)
            self._fault = None

    def _send(self, path: str, body: dict[str, Any], after_ms: float = 0.0) -> None:
        self._out.put(wire.text(path, self.turn.request_id, body), after_ms)


def lexical(word: str) -> str:
    """A word as it is spoken: no capitals, no punctuation."""
    return re.sub(r"[^\w'-]", "", word.lower())


def _misheard(word: str) -> str:
    """Another word of about its length, always the same."""
    swapped = word.translate(str.maketrans("aeiou", "eioua"))
    return swapped if swapped != word else word + "s"
