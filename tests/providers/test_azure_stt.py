"""Recognition by the real SDK at the simulated service: what is heard, what is asked for, and every way to fail."""

from __future__ import annotations

import asyncio
import dataclasses
import random
import time
from collections.abc import Iterator
from typing import Any

import pytest

from bench.sim.azure import AzureSim, Fault
from bench.sim.sound import audioop
from providers.azure.stt import AzureTranscriptStream
from providers.base import PCMA_8K, PCMU_8K, S16_16K, AudioFormat, Final, Interim, TranscriberConfig
from providers.errors import ProviderError, ProviderRejected, ProviderTimeout, ProviderUnavailable
from tests.bench.azure_client import serving
from tests.providers.azure_service import (
    LISTEN,
    SAID,
    book,
    feed,
    heard,
    let_go,
    run,
    silence,
    transcriber,
    until_error,
    utterance,
)

BOOK = book()


@pytest.fixture(scope="module")
def served() -> Iterator[AzureSim]:
    with serving(AzureSim(book=BOOK)) as one:
        yield one


@pytest.fixture
def sim(served: AzureSim) -> Iterator[AzureSim]:
    yield served
    served.faults.clear()
    let_go()


async def opened(sim: AzureSim, config: TranscriberConfig = LISTEN, **more: Any) -> AzureTranscriptStream:
    stream = await transcriber(sim, **more).open(config)
    assert isinstance(stream, AzureTranscriptStream)
    return stream


# ── what is heard ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("commit", [True, False])
def test_utterances_come_back_in_their_order(sim: AzureSim, commit: bool) -> None:
    async def main() -> None:
        stream = await opened(sim, commit=commit)
        events = aiter(stream)
        for number in (1, 2, 3):
            stream.begin_nowait(number, 10_000 * number)
            await feed(stream, utterance(number - 1))
            stream.commit_nowait(number)
            [final] = await heard(events)
            sound_ms = len(utterance(number - 1)) // 8
            assert final == Final(number, SAID[number - 1], 10_000 * number, 10_000 * number + sound_ms, 0.93)
        assert stream.counters.guessed_finals == stream.counters.late_phrases == 0
        await stream.aclose()

    run(main())
    turn = sim.stt_turns[-1]
    assert bool(turn.commits) is commit
    assert ("setfeature" in turn.connection.query) is commit


def test_interims_grow_and_are_the_whole_utterance(sim: AzureSim) -> None:
    async def main() -> None:
        stream = await opened(sim, dataclasses.replace(LISTEN, segmentation_silence_ms=500))
        stream.begin_nowait(1, 0)
        texts: list[str] = []

        async def read() -> str:
            async for one in stream:
                if isinstance(one, Final):
                    return one.text
                texts.append(one.text)
            return ""

        reading = asyncio.create_task(read())
        await feed(stream, utterance(2) + silence(1000) + utterance(0), times=10)
        stream.commit_nowait(1)
        assert await reading == f"{SAID[2]} {SAID[0]}"
        # The service's phrase ended inside the utterance: what follows does not lose it.
        assert any(text == f"{SAID[2]} hello" for text in texts), texts
        assert all(text.lower().startswith("yes") for text in texts)
        await stream.aclose()

    run(main())


def test_no_match_is_an_empty_final(sim: AzureSim) -> None:
    async def main() -> None:
        stream = await opened(sim)
        stream.begin_nowait(1, 0)
        await feed(stream, silence(800))
        began = time.perf_counter()
        stream.commit_nowait(1)
        [final] = await heard(aiter(stream))
        assert final.text == "" and time.perf_counter() - began < 0.3, "answered, not timed out"
        stream.commit_nowait(9)
        assert await heard(aiter(stream)) == [Final(9, "")]
        await stream.aclose()

    run(main())


def test_a_long_final_is_whole(sim: AzureSim) -> None:
    """The Python package cuts `text` at 2048 bytes."""

    async def main() -> None:
        stream = await opened(sim, dataclasses.replace(LISTEN, segmentation_silence_ms=5000))
        stream.begin_nowait(1, 0)
        await feed(stream, utterance(1) * 3)
        stream.commit_nowait(1)
        [final] = await heard(aiter(stream))
        assert final.text == " ".join([SAID[1]] * 3)
        await stream.aclose()

    run(main())


@pytest.mark.parametrize("fmt", [PCMU_8K, PCMA_8K, AudioFormat("s16", 8000), S16_16K])
def test_formats_arrive_as_they_are(sim: AzureSim, fmt: AudioFormat) -> None:
    async def main() -> None:
        linear = audioop.ulaw2lin(utterance(2), 2)
        sound = {"pcmu": utterance(2), "pcma": audioop.lin2alaw(linear, 2), "s16": linear}[fmt.encoding]
        if fmt.rate_hz == 16_000:
            sound, _ = audioop.ratecv(sound, 2, 1, 8000, 16_000, None)
        stream = await opened(sim, dataclasses.replace(LISTEN, audio_format=fmt))
        stream.begin_nowait(1, 0)
        await feed(stream, sound)
        stream.commit_nowait(1)
        [final] = await heard(aiter(stream))
        assert final.text == SAID[2]
        assert final.end_ms == pytest.approx(len(utterance(2)) / 8, abs=2)
        await stream.aclose()

    run(main())
    tag = {"pcmu": 7, "pcma": 6, "s16": 1}[fmt.encoding]
    assert sim.stt_turns[-1].format == (tag, fmt.rate_hz, 8 * fmt.bytes_per_sample)


def test_each_setting_changes_what_is_asked(sim: AzureSim) -> None:
    async def ask(more: dict[str, Any], opts: dict[str, Any]) -> Any:
        stream = await opened(sim, dataclasses.replace(LISTEN, **more), **opts)
        stream.begin_nowait(1, 0)
        await feed(stream, silence(200))
        stream.commit_nowait(1)
        await heard(aiter(stream))
        await stream.aclose()
        return sim.stt_turns[-1]

    async def main() -> None:
        turn = await ask({}, {})
        assert (turn.language, turn.profanity, turn.segmentation_ms) == ("en-US", "raw", 800)
        assert (turn.initial_silence_ms, turn.stable, turn.phrases) == (0, None, ())
        assert turn.is_detailed and turn.has_word_times and "cid" not in turn.connection.query
        assert turn.context["phraseDetection"]["trailingSilenceTimeout"] == 0, "callers may be silent for long"
        turn = await ask(
            {"language": "es-ES", "profanity": "masked", "segmentation_silence_ms": 300, "stable_words": 3,
             "initial_silence_ms": 7000, "phrases": ("La Mar", "Kessel"), "model": "my-model",
             "phrase_weight": 1.5},
            {},
        )  # fmt: skip
        assert (turn.language, turn.profanity, turn.segmentation_ms) == ("es-ES", "masked", 300)
        assert (turn.initial_silence_ms, turn.stable, turn.phrases) == (7000, 3, ("La Mar", "Kessel"))
        assert (turn.phrase_weight, turn.connection.query["cid"]) == (1.5, "my-model")
        assert (await ask({"profanity": "removed"}, {})).profanity == "removed"

    run(main())


def test_a_token_in_place_of_the_key(sim: AzureSim) -> None:
    async def main() -> None:
        adapter = transcriber(sim, use_token=True)
        for _ in range(2):
            stream = await adapter.open(LISTEN)
            await stream.aclose()
        await adapter.aclose()

    before = sim.counts["tokens"]
    run(main())
    assert sim.counts["tokens"] == before + 1
    headers = sim.connections[-1].headers
    assert headers["authorization"].startswith("Bearer sim.") and "ocp-apim-subscription-key" not in headers


def test_a_long_call_gets_new_tokens(sim: AzureSim, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("providers.azure.stt.USE_S", 0.03)
    monkeypatch.setattr("providers.azure.token.USE_S", 0.02)

    async def main() -> None:
        adapter = transcriber(sim, use_token=True)
        stream = await adapter.open(LISTEN)
        assert isinstance(stream, AzureTranscriptStream) and stream._recognizer is not None
        before, first = sim.counts["tokens"], stream._recognizer._recognizer.authorization_token
        await sim.until(lambda: sim.counts["tokens"] >= before + 3)
        assert stream._recognizer._recognizer.authorization_token != first
        await stream.aclose()
        await adapter.aclose()

    run(main())


def test_an_endpoint_of_a_custom_domain(sim: AzureSim) -> None:
    async def main() -> None:
        stream = await opened(sim, endpoint=sim.url)
        stream.begin_nowait(1, 0)
        await feed(stream, utterance(2))
        stream.commit_nowait(1)
        assert [one.text for one in await heard(aiter(stream))] == [SAID[2]]
        await stream.aclose()

    run(main())
    assert sim.stt_turns[-1].connection.path == "/stt/speech/universal/v2"


def test_a_quiet_line_is_kept_alive(sim: AzureSim) -> None:
    async def main() -> None:
        stream = await opened(sim, keepalive_ms=30)
        turns = len(sim.stt_turns)
        await sim.until(lambda: len(sim.stt_turns) > turns and sim.stt_turns[-1].audio_ms >= 300)
        stream.begin_nowait(1, 0)
        await feed(stream, utterance(2))
        stream.commit_nowait(1)
        assert [one.text for one in await heard(aiter(stream))] == [SAID[2]]
        await stream.aclose()

    run(main())


# ── when the final does not come ──────────────────────────────────────────────────────────────────────────────


def test_the_last_interim_is_the_final_when_the_service_is_late(sim: AzureSim) -> None:
    async def main() -> None:
        sim.faults.add(Fault(kind="late_final", on="stt", delay_ms=400))
        stream = await opened(sim, final_wait_ms=150)
        events = aiter(stream)
        stream.begin_nowait(1, 0)
        await feed(stream, utterance(2), times=1.5)
        assert await anext(events) == Interim(1, "yes")
        began = time.perf_counter()
        stream.commit_nowait(1)
        [final] = await heard(events)
        assert 0.14 < time.perf_counter() - began < 0.3
        assert final.text in ("yes", "yes please") and final.confidence is None
        stream.begin_nowait(2, 20_000)
        await feed(stream, utterance(2))
        stream.commit_nowait(2)
        assert [(one.utterance_no, one.text) for one in await heard(events)] == [(2, SAID[2])], "and not the late one"
        counters = stream.counters
        assert (counters.guessed_finals, counters.late_phrases) == (1, 1)
        await stream.aclose()

    run(main())


def test_a_duplicate_final_is_given_once(sim: AzureSim) -> None:
    async def main() -> None:
        sim.faults.add(Fault(kind="duplicate_final", on="stt"))
        stream = await opened(sim)
        events = aiter(stream)
        for number in (1, 2):
            stream.begin_nowait(number, 0)
            await feed(stream, utterance(number))
            stream.commit_nowait(number)
            [final] = await heard(events)
            assert (final.utterance_no, final.text) == (number, SAID[number])
        await stream.aclose()

    run(main())


def test_commits_that_nobody_answers_are_given_up(sim: AzureSim) -> None:
    """A service that does not know the feature: after three the silence does it, and no time is lost any more."""

    async def main() -> None:
        adapter = transcriber(sim)
        adapter.commits.unanswered = 3
        stream = await adapter.open(LISTEN)
        stream.begin_nowait(1, 0)
        await feed(stream, utterance(2))
        stream.commit_nowait(1)
        assert [one.text for one in await heard(aiter(stream))] == [SAID[2]]
        assert not sim.stt_turns[-1].commits
        await stream.aclose()

    run(main())


# ── when it fails ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_wrong_key_and_no_server(sim: AzureSim) -> None:
    async def main() -> None:
        with pytest.raises(ProviderRejected) as raised:
            await opened(sim, key="another-key")
        assert raised.value.status == 401
        with pytest.raises(ProviderUnavailable):
            await opened(sim, endpoint="ws://127.0.0.1:9")

    run(main())


@pytest.mark.parametrize(
    ("fault", "errors"),
    [
        (Fault(kind="cut", after_ms=4500), ProviderUnavailable),
        (Fault(kind="close", after_ms=4500, code=1011), ProviderUnavailable),
        (Fault(kind="close", after_ms=4500, code=4429, reason="quota"), ProviderRejected),
    ],
    ids=lambda one: one.label if isinstance(one, Fault) else "",
)
def test_what_was_recognised_comes_before_the_error(
    sim: AzureSim, fault: Fault, errors: type[ProviderError]
) -> None:
    """Nobody reads until it is over: the first utterance's Final is kept, and the error is not lost by reading it."""

    async def main() -> None:
        sim.faults.add(dataclasses.replace(fault, on="stt"))
        stream = await opened(sim)
        events = aiter(stream)
        stream.begin_nowait(1, 0)
        await feed(stream, utterance(0))
        stream.commit_nowait(1)
        await sim.until(lambda: bool(sim.stt_turns[-1].finals))
        stream.begin_nowait(2, 0)
        await feed(stream, utterance(1))
        stream.commit_nowait(2)
        given, error = await until_error(events)
        assert [one for one in given if isinstance(one, Final)] == [
            Final(1, SAID[0], 0, len(utterance(0)) // 8, 0.93)
        ]
        assert type(error) is errors and error.retryable
        if isinstance(error, ProviderRejected):
            assert error.status == 429
        with pytest.raises(errors):
            await anext(events)
        stream.feed_nowait(silence(20))  # of a dead stream: nothing, and no exception
        stream.commit_nowait(3)
        await stream.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(events)

    run(main())


def test_a_service_that_falls_silent(sim: AzureSim) -> None:
    async def main() -> None:
        sim.faults.add(Fault(kind="silent", on="stt"))
        stream = await opened(sim, silent_ms=400)
        stream.begin_nowait(1, 0)
        feeding = asyncio.create_task(feed(stream, utterance(0), times=1))
        began = time.perf_counter()
        given, error = await until_error(aiter(stream))
        assert not given and isinstance(error, ProviderTimeout) and error.phase == "first"
        assert 0.38 < time.perf_counter() - began < 0.7
        feeding.cancel()
        await stream.aclose()

    run(main())


def test_a_service_that_answered_and_then_falls_silent(sim: AzureSim) -> None:
    """Too short for the watchdog: the missing answer to a commit tells, and the utterance is not called empty."""

    async def main() -> None:
        sim.faults.add(Fault(kind="mute", on="stt", after_ms=len(utterance(2)) / 8 + 200))
        stream = await opened(sim, final_wait_ms=100, empty_wait_ms=300)
        events = aiter(stream)
        stream.begin_nowait(1, 0)
        await feed(stream, utterance(2))
        stream.commit_nowait(1)
        await heard(events)
        stream.begin_nowait(2, 0)
        await feed(stream, utterance(2), times=3)
        stream.commit_nowait(2)
        given, error = await until_error(events)
        assert not [one for one in given if isinstance(one, Final)] and isinstance(error, ProviderTimeout)
        assert error.phase == "idle"
        await stream.aclose()

    run(main())


@pytest.mark.parametrize(("kind", "commit"), [("silent", True), ("mute", False)])
def test_a_short_utterance_that_nobody_answers_is_a_dead_service_and_no_silent_caller(
    sim: AzureSim, kind: str, commit: bool
) -> None:
    """The first utterance of the stream, far shorter than the watchdog waits, whether or not a commit was answered."""

    async def main() -> None:
        sim.faults.add(Fault(kind=kind, on="stt"))
        stream = await opened(sim, commit=commit, final_wait_ms=100, empty_wait_ms=300)
        stream.begin_nowait(1, 0)
        await feed(stream, utterance(2))
        began = time.perf_counter()
        stream.commit_nowait(1)
        given, error = await until_error(aiter(stream))
        assert not given and isinstance(error, ProviderTimeout) and error.phase == "first"
        assert time.perf_counter() - began < 3.0
        await stream.aclose()

    run(main())
    assert sim.faults.injected[kind] >= 1


@pytest.mark.parametrize("commit", [True, False])
def test_a_noise_that_the_service_notices_is_an_empty_final(sim: AzureSim, commit: bool) -> None:
    async def main() -> None:
        dice = random.Random(1)
        noise = bytes(dice.choice((0x20, 0xA0)) + dice.randrange(16) for _ in range(4000))  # 0.5 s of mu-law
        stream = await opened(sim, commit=commit)
        events = aiter(stream)
        for number in (1, 2):
            stream.begin_nowait(number, 0)
            await feed(stream, silence(300) + noise + silence(200), times=2)
            stream.commit_nowait(number)
            [final] = await heard(events)
            assert (final.utterance_no, final.text) == (number, "")
        await stream.aclose()

    run(main())


def test_an_utterance_without_audio_is_empty_and_no_failure(sim: AzureSim) -> None:
    async def main() -> None:
        stream = await opened(sim, commit=False, final_wait_ms=50, empty_wait_ms=100)
        stream.begin_nowait(1, 0)
        stream.commit_nowait(1)
        assert [one.text for one in await heard(aiter(stream))] == [""]
        await stream.aclose()

    run(main())


def test_speech_fed_at_once_is_no_silence_of_the_service(sim: AzureSim) -> None:
    """A replay after a reconnect: eight seconds in one go, answered when they have been sent."""

    async def main() -> None:
        stream = await opened(sim, silent_ms=500)
        stream.begin_nowait(1, 0)
        await feed(stream, utterance(1) * 2)
        stream.commit_nowait(1)
        [final] = await heard(aiter(stream))
        assert final.text == f"{SAID[1]} {SAID[1]}"
        await stream.aclose()

    run(main())


def test_a_flood_is_cut_and_counted(sim: AzureSim) -> None:
    async def main() -> None:
        stream = await opened(sim)
        stream.begin_nowait(1, 0)
        for _ in range(30):
            stream.feed_nowait(silence(1000))
        assert 8 * 9_000 <= stream.dropped_bytes <= 8 * 11_000
        await stream.aclose()

    run(main())


def test_random_cuts_lose_no_final_that_was_given_and_double_none(sim: AzureSim) -> None:
    """Twenty cuts anywhere. The caller of the stream opens another and says again what had no Final."""

    async def main() -> None:
        dice = random.Random(7)
        for _ in range(20):
            sim.faults.add(Fault(kind="cut", on="stt", after_ms=dice.uniform(100, 5000)))
            finals: list[Final] = []
            adapter = transcriber(sim)
            while len(finals) < 2:
                stream = await adapter.open(LISTEN)
                events = aiter(stream)
                try:
                    for number in range(len(finals) + 1, 3):
                        stream.begin_nowait(number, 1000 * number)
                        await feed(stream, utterance(number))
                        stream.commit_nowait(number)
                        finals += await heard(events)
                except ProviderError as error:
                    assert isinstance(error, ProviderUnavailable)
                await stream.aclose()
            assert [(one.utterance_no, one.text) for one in finals] == [(1, SAID[1]), (2, SAID[2])]
            sim.faults.clear()

    run(main())
