"""The call's voice: clauses one after the other, from a clip in memory or from the synthesizer, into the downlink."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from contextlib import aclosing

from providers.base import AudioChunk, Synthesizer
from providers.errors import ProviderError
from server.agent.settings import AgentSettings
from server.call.clips import Clip, Clips, speech_request
from server.call.downlink import Downlink
from server.dialogue import event as ev

log = logging.getLogger(__name__)


class Speaker:
    """`add` what is to be said; `run` says it and returns when there is nothing left."""

    __slots__ = (
        "_caller", "_clips", "_dispatch", "_downlink", "_is_heard", "_note", "_settings", "_synthesizer", "_waiting"
    )  # fmt: skip

    def __init__(
        self,
        synthesizer: Synthesizer,
        clips: Clips,
        downlink: Downlink,
        settings: AgentSettings,
        caller: str,
        dispatch: Callable[[ev.Event], None],
        note: Callable[[int, AudioChunk], None] = lambda clause_no, chunk: None,
    ) -> None:
        """`note` is told of each chunk that the synthesizer gives."""
        self._synthesizer = synthesizer
        self._clips = clips
        self._downlink = downlink
        self._settings = settings
        self._caller = caller
        self._dispatch = dispatch
        self._note = note
        self._waiting: deque[ev.Speak] = deque()
        self._is_heard = False  # there is audio of the clause that is being said

    def add(self, speak: ev.Speak) -> None:
        self._waiting.append(speak)

    def drop(self) -> None:
        """What has not been begun is not wanted any more."""
        self._waiting.clear()
        self._is_heard = False

    def interject(self, clause_no: int, text: str) -> None:
        """Say a fixed text now, before the clause that is waited for; nothing when that has audio, or no clip is there.

        Never waits: what is missing here is not worth a request of its own.
        """
        clip = self._clips.get(self._synthesizer, speech_request(self._settings, text))
        if clip is None or self._is_heard:
            self._dispatch(ev.SpeechRendered(clause_no, 0))
            return
        self._play(clause_no, clip)

    def _play(self, clause_no: int, clip: Clip) -> None:
        self._downlink.begin_clause()
        for chunk in clip.chunks:
            self._downlink.push(clause_no, chunk.audio, chunk.audio_format)
        self._downlink.end_clause(clause_no)

    async def run(self) -> None:
        while self._waiting:
            speak = self._waiting.popleft()
            try:
                await self._say(speak)
            except ProviderError as error:
                log.warning("synthesiser failed: %s", error, extra={"event": "provider_failed"})
                self._dispatch(ev.SpeechFailed(speak.clause_no, str(error)))

    async def _say(self, speak: ev.Speak) -> None:
        number = speak.clause_no
        if speak.prepared:
            # A fixed text sounds the same for everybody: its clip is kept without the caller's number.
            request = speech_request(self._settings, speak.text)
        else:
            request = speech_request(self._settings, speak.text, self._caller, self._downlink.audio_format)
        self._is_heard = False
        self._dispatch(ev.SpeechRequested(number))
        clip = self._clips.get(self._synthesizer, request) if speak.prepared else None
        if clip is not None:
            self._dispatch(ev.SpeechFirstByte(number))
            self._play(number, clip)
            return
        chunks: list[AudioChunk] = []
        async with aclosing(self._synthesizer.stream(request)) as events:  # type: ignore[type-var]
            async for one in events:
                if not isinstance(one, AudioChunk):
                    continue
                if not chunks:
                    self._is_heard = True
                    self._dispatch(ev.SpeechFirstByte(number))
                    self._downlink.begin_clause()
                self._note(number, one)
                chunks.append(one)
                await self._downlink.wait_room()
                self._downlink.push(number, one.audio, one.audio_format)
        if not chunks:
            raise ProviderError("no audio", provider=self._synthesizer.name)
        self._downlink.end_clause(number)
        self._is_heard = False
        spoken = Clip(chunks)
        if speak.prepared and not spoken.is_stand_in:
            self._clips.put(self._synthesizer, request, spoken)
