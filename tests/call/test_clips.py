"""Fixed texts in memory: whose voice they are in, who plays them, and when they are rendered again."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable

import pytest

from providers.base import AudioChunk, SpeechRequest
from providers.errors import ProviderRejected, ProviderUnavailable
from providers.fallback_synthesizer import FallbackSynthesizer, SpeechCandidate
from providers.health import ProviderHealth
from providers.observer import Unobserved
from server.agent.settings import AgentSettings
from server.call.clips import Clip, Clips, fixed_texts, speech_request
from server.call.speaker import Speaker
from server.catalogue import Catalogue
from server.config import ProviderConfig
from server.dialogue import event as ev
from server.store.agents import AgentVersion
from server.upkeep import MAX_RENEW_S, RENEW_S, Upkeep
from tests.call.test_downlink import PCMU
from tests.call.test_downlink import Rig as Line
from tests.support.failing import Step, ToldVoice

SETTINGS = AgentSettings.parse(
    {
        "opening": {"text": "Good morning, this is the surgery."},
        "tts": {"provider": "told"},
        "limits": {"apology": "I am sorry, could you say that again?", "farewell": "Goodbye, please call again."},
    }
)
TEXTS = fixed_texts(SETTINGS)
OPENING = TEXTS[0]
DOWN = ProviderUnavailable("reset", provider="told")
OWN, OTHER, OFFLINE = 0x21, 0x42, 0x63


def sound(code: int) -> list[Step]:
    """Three seconds that are no constant, of a voice that can be told by its first code."""
    return [AudioChunk(bytes([code, *range(1, 120)]) * 200, PCMU)]


def voice_of(clip: Clip | None) -> int | None:
    return clip.chunks[0].audio[0] if clip is not None else None


def chain(*voices: ToldVoice) -> FallbackSynthesizer:
    return FallbackSynthesizer([SpeechCandidate(one, ProviderHealth("tts", one.name)) for one in voices])


def own_clip(clips: Clips, synthesizer: FallbackSynthesizer, text: str = OPENING) -> Clip | None:
    return clips.get(synthesizer, speech_request(SETTINGS, text))


def run(body: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await body()

    asyncio.run(main())


def test_a_fallback_voice_is_heard_and_not_kept() -> None:
    async def body() -> None:
        own = ToldVoice("told", [[DOWN], sound(OWN)])
        other = ToldVoice("other", [sound(OTHER)])
        line, clips = Line(), Clips()
        speaker = Speaker(chain(own, other), clips, line.downlink, SETTINGS, "+15550100", line.events.append)

        async def say(clause_no: int) -> int:
            line.line.sent.clear()
            speaker.add(ev.Speak(clause_no, OPENING, prepared=True))
            await speaker.run()
            line.run(4000)
            return line.line.audio()[0]

        assert await say(1) == OTHER
        assert own_clip(clips, chain(own)) is None and clips.stand_ins == 0
        assert await say(2) == OWN
        assert voice_of(own_clip(clips, chain(own))) == OWN
        # From memory now.
        assert await say(3) == OWN and len(own.requests) == 2

    run(body)


def test_what_breaks_off_and_is_finished_by_another_voice_is_not_kept() -> None:
    async def body() -> None:
        half = AudioChunk(bytes([OWN, *range(1, 120)]) * 60, PCMU)
        own, other = ToldVoice("told", [[half, DOWN]]), ToldVoice("other", [sound(OTHER)])
        line, clips = Line(), Clips()
        speaker = Speaker(chain(own, other), clips, line.downlink, SETTINGS, "", line.events.append)
        speaker.add(ev.Speak(1, OPENING, prepared=True))
        await speaker.run()
        assert len(other.requests) == 1 and own_clip(clips, chain(own)) is None

    run(body)


def test_stand_ins_are_played_and_prepared_again() -> None:
    async def body() -> None:
        own = ToldVoice("told", [[DOWN], *[[DOWN]] * len(TEXTS), sound(OWN)])
        other = ToldVoice("other", [sound(OTHER)])
        clips, both = Clips(), chain(own, other)
        failed = await clips.prepare(both, SETTINGS)
        assert len(failed) == len(TEXTS) and "a fallback spoke it" in failed[0]
        assert voice_of(own_clip(clips, both)) == OTHER
        assert clips.covers(both, SETTINGS) and clips.has_stand_in(both, SETTINGS) and clips.stand_ins == len(TEXTS)
        own.scripts = [sound(OWN)]
        assert await clips.prepare(chain(own, other), SETTINGS) == []
        assert {voice_of(own_clip(clips, both, text)) for text in TEXTS} == {OWN}
        assert not clips.has_stand_in(both, SETTINGS) and clips.stand_ins == 0

    run(body)


def test_the_understudy_speaks_what_nobody_else_can_and_a_dead_voice_is_asked_once() -> None:
    async def body() -> None:
        own, understudy = ToldVoice("told", [[DOWN]]), ToldVoice("pico", [sound(OFFLINE)])
        clips, alone = Clips(), chain(own)
        failed = await clips.prepare(alone, SETTINGS, understudy)
        asked = len(own.requests)
        assert asked <= 2, "a retry, and not once for each text"
        assert len(failed) == 1 and "reset" in failed[0]
        assert {voice_of(own_clip(clips, alone, text)) for text in TEXTS} == {OFFLINE}
        assert clips.stand_ins == len(TEXTS)
        # Still dead: what is there stays, and is not spoken anew.
        with pytest.raises(ProviderUnavailable):
            await clips.renew(alone, SETTINGS)
        await clips.prepare(alone, SETTINGS, understudy)
        assert len(understudy.requests) == len(TEXTS)
        own.scripts = [sound(OWN)]
        assert await clips.renew(alone, SETTINGS) == len(TEXTS)
        assert {voice_of(own_clip(clips, alone, text)) for text in TEXTS} == {OWN}

    run(body)


def test_a_stand_in_never_takes_the_place_of_the_agents_voice() -> None:
    clips, alone = Clips(max_bytes=1000), chain(ToldVoice("told", [[DOWN]]))
    request = SpeechRequest(text="one")
    clips.put(alone, request, Clip([AudioChunk(b"\x01" * 400, PCMU, is_stand_in=True)]))
    assert clips.stand_ins == 1
    clips.put(alone, request, Clip([AudioChunk(b"\x02" * 400, PCMU)]))
    clips.put(alone, request, Clip([AudioChunk(b"\x03" * 400, PCMU)], is_stand_in=True))
    assert voice_of(clips.get(alone, request)) == 2 and clips.stand_ins == 0
    # One that is thrown out is not counted any more.
    clips.put(alone, SpeechRequest(text="two"), Clip([AudioChunk(b"\x04" * 400, PCMU)], is_stand_in=True))
    assert clips.stand_ins == 1
    clips.put(alone, SpeechRequest(text="three"), Clip([AudioChunk(b"\x05" * 900, PCMU)]))
    assert clips.stand_ins == 0 and clips.get(alone, request) is None


class Kept:
    """The upkeep of one agent whose voice the test tells, under a clock of its own."""

    def __init__(self, voice: ToldVoice) -> None:
        self.catalogue = Catalogue(ProviderConfig(stt="scripted", llm="scripted"), Unobserved())
        self.catalogue._voices.makers["told"] = lambda: voice
        self.clips = Clips()
        self.now_s = 1000.0
        agents = (AgentVersion("1", "1", "surgery", 1, SETTINGS),)
        self.upkeep = Upkeep(self.catalogue, self.clips, lambda: agents, lambda: self.now_s)
        self._voice = voice

    async def rounds(self, seconds: int) -> list[float]:
        """One round each second; returns when the voice was asked, in seconds from the first one."""
        began_s, asked_at = self.now_s, []
        for _ in range(seconds):
            before = len(self._voice.requests)
            await self.upkeep.renew_clips()
            if len(self._voice.requests) > before:
                asked_at.append(self.now_s - began_s)
            self.now_s += 1
        return asked_at


def test_a_voice_that_refuses_a_text_is_asked_ever_more_rarely_and_no_more_rarely_than_the_bound() -> None:
    async def body() -> None:
        kept = Kept(ToldVoice("told", [[ProviderRejected("this text", status=400, provider="told")]]))
        await kept.upkeep.warm_up()
        assert kept.clips.stand_ins == len(TEXTS)
        asked_at = await kept.rounds(2000)
        gaps = [later - at for at, later in itertools.pairwise(asked_at)]
        assert gaps == [min(RENEW_S * 2 ** (n + 1), MAX_RENEW_S) for n in range(len(gaps))]
        assert gaps[-1] == MAX_RENEW_S and len(gaps) >= 8
        await kept.catalogue.aclose()

    run(body)


def test_texts_are_in_their_own_voice_again_when_it_is_back() -> None:
    async def body() -> None:
        voice = ToldVoice("told", [[DOWN]])
        kept = Kept(voice)
        await kept.upkeep.warm_up()
        assert kept.clips.stand_ins == len(TEXTS)
        # Dead: it is for the small requests to find out, not for whole texts.
        assert await kept.rounds(60) == []
        voice.scripts = [sound(OWN)]
        await kept.upkeep.ask_again()
        before = len(voice.requests)
        assert len(await kept.rounds(60)) == 1
        assert len(voice.requests) - before == len(TEXTS)
        assert kept.clips.stand_ins == 0
        await kept.catalogue.aclose()

    run(body)
