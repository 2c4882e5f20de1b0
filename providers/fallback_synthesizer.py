"""A synthesizer that survives its providers: an ordered list of them behind the same protocol.

    no audio yet        the next candidate speaks the whole clause
    in mid-clause       the next one speaks the rest: from the first word that was not spoken, by the word marks where
                        there are any, else by the share of the audio that the clause should have
    nonsense as audio   a file, a text, noise, silence, much too little or too much: as if the candidate had failed;
                        what a clause begins with is judged before it is heard (`speech_check`)
    drops of audio      each in time, together too little to listen to (`drip`): the same

Words that were spoken are never repeated. Deadlines are per attempt and ours. What the first candidate
did not speak is marked as a stand-in's, so that nobody keeps it as the agent's voice.
"""

from __future__ import annotations

import asyncio
import dataclasses
import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from providers.base import AudioChunk, SpeechEvent, SpeechRequest, Synthesizer, WordMark
from providers.deadline import with_deadlines
from providers.drip import Drip
from providers.errors import ProviderError, ProviderProtocolError, ProviderTimeout
from providers.health import ProviderHealth
from providers.order import Order
from providers.pace import outlasts_its_words
from providers.speech_check import Opening

MS_PER_CHAR = 65
"""Of speech at the usual rate, spaces included: 150 words a minute of six characters."""
SHORTEST = 0.3
LONGEST = 3.0
LONGEST_SLACK_MS = 2000
# So much of one and the same sample, other than silence, is no voice.
CONSTANT_MS = 100
SILENT_CODES = (b"\xff", b"\x7f", b"\xd5", b"\x55")

# A voice that is asked to be quieter than this may be silent.
LEAST_VOLUME_PERCENT = 20

_WORD = re.compile(r"\S+")
_SAID = re.compile(r"\w")


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechLimits:
    """Per attempt. What begins with `last_` is the patience with the last candidate that is left.

    `drip_ms`: with nothing left to play, so long a time must bring at least `drip_share` of itself in audio.
    """

    first_ms: int = 1200
    last_first_ms: int = 3000
    idle_ms: int = 600
    last_idle_ms: int = 1500
    drip_ms: int = 1000
    last_drip_ms: int = 2500
    drip_share: float = 0.7
    last_drip_share: float = 0.35
    total_ms: int = 60_000


@dataclass(frozen=True, slots=True)
class SpeechCandidate:
    """`voice` and `style` are the provider's own names, empty its defaults; sent in place of the request's."""

    provider: Synthesizer
    health: ProviderHealth
    voice: str = ""
    style: str = ""


class FallbackSynthesizer:
    """Synthesizer over candidates, the preferred one first. Does not own them: `aclose` does nothing."""

    __slots__ = ("_candidates", "_limits", "name")

    def __init__(self, candidates: Sequence[SpeechCandidate], limits: SpeechLimits | None = None) -> None:
        self.name = candidates[0].provider.name
        self._candidates = tuple(candidates)
        self._limits = limits or SpeechLimits()

    def attach_nowait(self) -> None:
        for one in self._candidates:
            one.provider.attach_nowait()

    def detach_nowait(self) -> None:
        for one in self._candidates:
            one.provider.detach_nowait()

    async def stream(self, request: SpeechRequest) -> AsyncGenerator[SpeechEvent, None]:
        """As Synthesizer.stream. Raises the last candidate's ProviderError when nobody could finish."""
        clause = _Clause(request)
        error: ProviderError | None = None
        order = Order(self._candidates)
        while (one := order.next()) is not None:
            if error is not None:
                one.health.observer.on_fallback("tts", error.provider or self.name, one.provider.name)
            retries = (True,) if order.has_more else (False, True)
            for is_second in retries:
                try:
                    async with aclosing(self._attempt(one, clause, is_last=not order.has_more)) as events:
                        async for event in events:
                            yield event
                    return
                except ProviderError as failed:
                    error = failed
                    clause.cut()
                    if clause.is_said:
                        # All words were spoken; what is missing is the end of the last one.
                        return
                    if is_second or one.health.polite_wait_ms(failed) is None:
                        break
        assert error is not None
        raise error

    async def aclose(self) -> None:
        return

    async def _attempt(
        self, one: SpeechCandidate, clause: _Clause, *, is_last: bool
    ) -> AsyncGenerator[SpeechEvent, None]:
        limits = self._limits
        attempt = one.health.begin(limits.first_ms)
        request = clause.request_for(one)
        one.health.observer.on_usage("tts", one.provider.name, "characters", len(request.text))
        stream = with_deadlines(
            one.provider.stream(request),
            first_ms=limits.last_first_ms if is_last else limits.first_ms,
            idle_ms=limits.last_idle_ms if is_last else limits.idle_ms,
            total_ms=limits.total_ms,
            provider=one.provider.name,
        )
        is_stand_in = one is not self._candidates[0]
        opening = Opening(one.provider.name, must_sound=_must_sound(request))
        drip_ms = limits.last_drip_ms if is_last else limits.drip_ms
        drip = Drip(drip_ms, limits.last_drip_share if is_last else limits.drip_share)
        now_s = asyncio.get_running_loop().time
        try:
            async with aclosing(stream):
                asked_s = now_s()
                async for event in stream:
                    drip.waited((now_s() - asked_s) * 1000)
                    clause.check(event, one)
                    if isinstance(event, AudioChunk) and drip.is_dripping(_ms(event)):
                        raise ProviderTimeout("idle", drip_ms, provider=one.provider.name)
                    for ready in opening.push(event):
                        attempt.has_output = True
                        yield clause.take(ready, is_stand_in=is_stand_in)
                    asked_s = now_s()
            for ready in opening.end():
                yield clause.take(ready, is_stand_in=is_stand_in)
            clause.check_length(one, request)
            one.health.pace.learn(request, clause.attempt_ms)
            attempt.succeeded()
        except ProviderError as error:
            attempt.failed(error)
            raise
        finally:
            attempt.dropped()
            one.health.observer.on_usage("tts", one.provider.name, "audio_ms", round(clause.attempt_ms))


class _Clause:
    """One clause on its way: what of the text has been spoken, whoever spoke it."""

    __slots__ = ("_begin", "_marks", "_request", "_said_ms", "attempt_ms", "is_said")

    def __init__(self, request: SpeechRequest) -> None:
        self._request = request
        self._begin = 0  # first character that nobody has spoken
        self._said_ms = 0.0  # audio of earlier attempts
        self._marks: list[WordMark] = []  # of this attempt, in characters of the whole text, ms of this attempt
        self.attempt_ms = 0.0
        self.is_said = False

    def request_for(self, one: SpeechCandidate) -> SpeechRequest:
        text = self._request.text[self._begin :]
        return dataclasses.replace(self._request, text=text, voice=one.voice, style=one.style)

    @property
    def _expected_ms(self) -> float:
        rate = 1 + self._request.rate_percent / 100
        return (len(self._request.text) - self._begin) * MS_PER_CHAR / rate

    def check(self, event: SpeechEvent, one: SpeechCandidate) -> None:
        """Raises ProviderProtocolError for what is no speech; nothing of it has been given then."""
        if not isinstance(event, AudioChunk):
            return
        audio, fmt = event.audio, event.audio_format
        size = fmt.bytes_per_sample
        if len(audio) % size:
            raise ProviderProtocolError(f"half a sample of {size} bytes", provider=one.provider.name)
        if len(audio) >= CONSTANT_MS * fmt.rate_hz // 1000 * size and _is_constant(audio, size):
            raise ProviderProtocolError("a constant where speech was expected", provider=one.provider.name)
        if self.attempt_ms > LONGEST * self._expected_ms + LONGEST_SLACK_MS:
            self.is_said = True
            raise ProviderProtocolError(
                f"{self.attempt_ms:.0f} ms of audio for {self._expected_ms:.0f} ms of text", provider=one.provider.name
            )

    def take(self, event: SpeechEvent, *, is_stand_in: bool) -> SpeechEvent:
        if isinstance(event, AudioChunk):
            self.attempt_ms += _ms(event)
            return AudioChunk(event.audio, event.audio_format, is_stand_in=True) if is_stand_in else event
        mark = WordMark(event.offset_ms, event.start + self._begin, event.end + self._begin)
        self._marks.append(mark)
        return dataclasses.replace(mark, offset_ms=mark.offset_ms + round(self._said_ms))

    def check_length(self, one: SpeechCandidate, request: SpeechRequest) -> None:
        """Raises ProviderProtocolError when a stream that has ended cannot have been its text at the right rate.

        Too short: the rest is for the next candidate. Too long: everything has been said, in a wrong way.
        """
        shortest_ms, longest_ms = SHORTEST * self._expected_ms - 300, LONGEST * self._expected_ms + LONGEST_SLACK_MS
        if (known := one.health.pace.bounds_ms(request)) is not None:
            shortest_ms, longest_ms = max(shortest_ms, known[0]), min(longest_ms, known[1])
        last_word = max((word.start() for word in _WORD.finditer(self._request.text)), default=0)
        self.is_said = self.attempt_ms > longest_ms or outlasts_its_words(self._marks, last_word, self.attempt_ms)
        if self.is_said or self.attempt_ms < shortest_ms:
            raise ProviderProtocolError(
                f"{self.attempt_ms:.0f} ms of audio where {max(shortest_ms, 0):.0f} to {longest_ms:.0f} were expected",
                provider=one.provider.name,
            )

    def cut(self) -> None:
        """The attempt broke off: what follows begins with the first word that it had not begun."""
        if self.attempt_ms:
            self._begin = self._first_unspoken()
        self._said_ms += self.attempt_ms
        self.attempt_ms = 0.0
        self._marks.clear()
        self.is_said = self.is_said or not re.search(r"\w", self._request.text[self._begin :])

    def _first_unspoken(self) -> int:
        text, begun = self._request.text, self._begin
        spoken = [mark for mark in self._marks if mark.offset_ms < self.attempt_ms]
        if spoken and len(spoken) < len(self._marks):
            return max(one.end for one in spoken)
        share = min(1.0, self.attempt_ms / max(1.0, self._expected_ms))
        at = max(begun + share * (len(text) - begun), max((one.end for one in spoken), default=0))
        # The word at that place was being spoken; the next one was not.
        return next((word.start() for word in _WORD.finditer(text, begun) if word.start() >= at), len(text))


def _ms(chunk: AudioChunk) -> float:
    return len(chunk.audio) * 1000 / (chunk.audio_format.bytes_per_sample * chunk.audio_format.rate_hz)


def _must_sound(request: SpeechRequest) -> bool:
    return bool(_SAID.search(request.text)) and request.volume_percent >= LEAST_VOLUME_PERCENT


def _is_constant(audio: bytes, size: int) -> bool:
    first = audio[:size]
    return audio == first * (len(audio) // size) and any(first) and first not in SILENT_CODES
