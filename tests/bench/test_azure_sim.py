"""The simulated recognition by the real SDK over a real socket: what is heard, asked for, refused and broken."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import azure.cognitiveservices.speech as sdk
import httpx
import numpy as np
import orjson
import pytest
import soxr

from bench.sim.azure import AzureSim, Fault
from bench.sim.clipbook import BookClip, Clipbook
from bench.sim.profile import PROFILES
from bench.sim.sound import from_pcmu
from bench.sim.voice import pico_clip
from tests.bench.azure_client import (
    PCM_8K,
    PCM_16K,
    WAIT_S,
    Ears,
    error_of,
    recognise_all,
    serving,
    speech_config,
    wait_for,
)

PROPERTY = sdk.PropertyId
CODE = sdk.CancellationErrorCode
OPEN = pico_clip("Hello, can you tell me when you are open?", rate_percent=80)
YES = pico_clip("Yes please.", rate_percent=80)
DAMN = pico_clip("That was damn good.", rate_percent=80)
CITA = pico_clip("Buenos días, quisiera una cita.", language="es-ES")


def silence(ms: int) -> bytes:
    return b"\xff" * (8 * ms)


SOUND = silence(300) + YES.pcmu + silence(1000) + OPEN.pcmu + silence(300)
SAID = [YES.text, OPEN.text]


@pytest.fixture(scope="module")
def book() -> Clipbook:
    clips = [(clip, "es-ES" if clip is CITA else "en-US") for clip in (OPEN, YES, DAMN, CITA)]
    return Clipbook(
        BookClip.of_pcmu(clip.text[:5], clip.text, clip.pcmu[: clip.speech_samples], language=language)
        for clip, language in clips
    )


@pytest.fixture
def sim(book: Clipbook) -> Iterator[AzureSim]:
    with serving(AzureSim(book=book, unusual={"please": "pleas"})) as one:
        yield one


def config_of(sim: AzureSim, **options: str) -> sdk.SpeechConfig:
    config = speech_config(sim, **options)
    # Pico pauses longer at a comma than the service's own 500 ms.
    config.set_property(PROPERTY.Speech_SegmentationSilenceTimeoutMs, "800")
    config.set_profanity(sdk.ProfanityOption.Raw)
    return config


@pytest.fixture
def plain(book: Clipbook) -> Iterator[AzureSim]:
    """Without words that are misheard."""
    with serving(AzureSim(book=book)) as one:
        yield one


def linear(pcmu: bytes, rate_hz: int) -> bytes:
    samples = soxr.resample(np.frombuffer(from_pcmu(pcmu), "<i2") / 32768, 8000, rate_hz)
    return bytes((samples * 32767).clip(-32768, 32767).astype("<i2").tobytes())


# ── What is heard ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_finals_are_the_clips_that_were_sent(plain: AzureSim) -> None:
    heard = recognise_all(plain, SOUND, config=config_of(plain))
    assert [one.text for one in heard.finals if one.text] == SAID
    assert heard.interims[0] == "yes" and heard.interims[-1] == "hello can you tell me when you are open"
    assert [one.reason for one in heard.canceled] == [sdk.CancellationReason.EndOfStream]
    first, second = heard.finals[:2]
    assert first.offset / 10_000 == pytest.approx(300, abs=20)
    assert first.duration / 10_000 == pytest.approx(YES.duration_ms, abs=40)
    assert second.offset / 10_000 == pytest.approx(1300 + len(YES.pcmu) / 8, abs=20)
    assert len(heard.starts) == 2
    [turn] = plain.stt_turns
    assert (turn.format, turn.language, turn.mode, turn.ended) == ((7, 8000, 8), "en-US", "CONVERSATION", "done")
    assert turn.segmentation_ms == 800 and turn.audio_bytes - 44 == len(SOUND)


@pytest.mark.parametrize(("form", "rate_hz"), [(PCM_8K, 8000), (PCM_16K, 16_000)])
def test_linear_audio_is_heard_as_well(plain: AzureSim, form: tuple[int, int, object], rate_hz: int) -> None:
    heard = recognise_all(plain, linear(SOUND, rate_hz), form, config=config_of(plain))
    assert [one.text for one in heard.finals if one.text] == SAID
    assert plain.stt_turns[-1].format == (1, rate_hz, 16)


def test_words_that_do_not_arrive_are_not_heard(plain: AzureSim, book: Clipbook) -> None:
    tell = book.clips[0].words[3]
    assert tell.text == "tell"
    low, high = int(tell.start_ms * 8), int(tell.end_ms * 8)
    damaged = OPEN.pcmu[:low] + b"\xff" * (high - low) + OPEN.pcmu[high:]
    heard = recognise_all(plain, silence(300) + damaged + silence(900), config=config_of(plain))
    assert heard.text == "Hello, can you me when you are open?"


def test_sound_of_no_clip_is_no_match(plain: AzureSim) -> None:
    strange = pico_clip("Nobody knows about me.", pitch_percent=130)
    heard = recognise_all(plain, silence(300) + strange.pcmu + silence(1000), config=config_of(plain))
    assert [one.reason for one in heard.finals] == [sdk.ResultReason.NoMatch]
    assert heard.interims == [] and len(heard.starts) == 1


def test_recognise_once_ends_with_the_first_phrase(plain: AzureSim) -> None:
    stream = sdk.audio.PushAudioInputStream(
        sdk.audio.AudioStreamFormat(8000, 8, 1, wave_stream_format=sdk.audio.AudioStreamWaveFormat.MULAW)
    )
    recognizer = sdk.SpeechRecognizer(config_of(plain), sdk.audio.AudioConfig(stream=stream))
    stream.write(SOUND)
    result = recognizer.recognize_once_async().get()
    assert result.text == YES.text
    stream.close()
    assert plain.stt_turns[0].mode == "INTERACTIVE"


# ── What is asked for ─────────────────────────────────────────────────────────────────────────────────────────────


def test_settings_arrive_and_have_their_effect(sim: AzureSim) -> None:
    config = config_of(sim)
    config.set_property(PROPERTY.SpeechServiceConnection_InitialSilenceTimeoutMs, "1200")
    config.set_property(PROPERTY.Speech_SegmentationMaximumTimeMs, "20000")
    config.set_property(PROPERTY.SpeechServiceResponse_StablePartialResultThreshold, "3")
    config.output_format = sdk.OutputFormat.Detailed
    config.request_word_level_timestamps()
    with Ears(config) as ears:
        grammar = sdk.PhraseListGrammar.from_recognizer(ears.recognizer)
        grammar.addPhrase("please")
        grammar.addPhrase("Doctor Quiñones")
        ears.write(silence(1500) + YES.pcmu + silence(900))
        heard = ears.end()
    turn = sim.stt_turns[-1]
    assert (turn.segmentation_ms, turn.initial_silence_ms, turn.longest_ms, turn.stable) == (800, 1200, 20_000, 3)
    assert turn.phrases == ("please", "Doctor Quiñones") and turn.profanity == "raw"
    assert turn.is_detailed and turn.has_word_times
    silent, said = heard.finals[:2]
    assert silent.no_match_details.reason == sdk.NoMatchReason.InitialSilenceTimeout
    # Without the hint "please" would have been misheard.
    assert said.text == "Yes please."
    best = orjson.loads(said.json)["NBest"][0]
    assert best["Lexical"] == "yes please" and [one["Word"] for one in best["Words"]] == ["yes", "please"]
    assert best["Words"][0]["Offset"] / 10_000 == pytest.approx(1500, abs=20)


def test_without_the_phrase_list_an_unusual_word_is_misheard(sim: AzureSim) -> None:
    assert recognise_all(sim, silence(300) + YES.pcmu + silence(900), config=config_of(sim)).text == "Yes pleas."


@pytest.mark.parametrize(
    ("option", "text"),
    [("Masked", "That was **** good."), ("Removed", "That was good."), ("Raw", "That was damn good.")],
)
def test_profanity_is_treated_as_asked(plain: AzureSim, option: str, text: str) -> None:
    config = config_of(plain)
    config.set_profanity(getattr(sdk.ProfanityOption, option))
    assert recognise_all(plain, silence(300) + DAMN.pcmu + silence(900), config=config).text == text
    assert plain.stt_turns[-1].profanity == option.lower()


def test_a_language_is_heard_by_those_who_expect_it(plain: AzureSim) -> None:
    sound = silence(300) + CITA.pcmu + silence(900)
    assert recognise_all(plain, sound, config=config_of(plain, language="es-MX")).text == CITA.text
    assert recognise_all(plain, sound, config=config_of(plain)).text == ""
    languages = sdk.languageconfig.AutoDetectSourceLanguageConfig(languages=["en-US", "es-ES"])
    heard = recognise_all(plain, sound, config=config_of(plain), auto_detect_source_language_config=languages)
    assert heard.text == CITA.text
    assert sdk.AutoDetectSourceLanguageResult(heard.finals[0]).language == "es-ES"


def test_the_universal_endpoint_takes_its_settings_from_the_context(plain: AzureSim) -> None:
    config = sdk.SpeechConfig(subscription=plain.key, endpoint=plain.url)
    config.speech_recognition_language = "en-GB"
    config.set_property(PROPERTY.Speech_SegmentationSilenceTimeoutMs, "700")
    assert recognise_all(plain, silence(300) + YES.pcmu + silence(900), config=config).text == YES.text
    turn = plain.stt_turns[-1]
    assert (turn.connection.path, turn.connection.query) == ("/stt/speech/universal/v2", {})
    assert (turn.language, turn.segmentation_ms) == ("en-GB", 700)


def test_a_forced_commit_ends_the_phrase_and_returns_its_token(plain: AzureSim) -> None:
    config = config_of(plain)
    config.set_service_property("setfeature", "forcecommit", sdk.ServicePropertyChannel.UriQueryParameter)
    with Ears(config) as ears:
        ears.write(silence(300) + YES.pcmu + silence(200))
        token = ears.stream.commit()
        assert token
        wait_for(lambda: ears.heard.finals)
        [final] = ears.heard.finals
        assert (final.text, final.commit_token) == (YES.text, token)
        ears.write(silence(300))
        tokens: list[int] = []

        def again() -> bool:  # the SDK refuses a second one within a second or so, by 0
            tokens.append(ears.stream.commit())
            return tokens[-1] > 0

        wait_for(again)
        wait_for(lambda: len(ears.heard.finals) == 2)
        empty = ears.heard.finals[1]
        assert (empty.reason, empty.text, empty.commit_token) == (sdk.ResultReason.NoMatch, "", tokens[-1])
        ears.end()
    assert list(plain.stt_turns[-1].commits) == [token, tokens[-1]]


def test_a_token_is_as_good_as_a_key(plain: AzureSim) -> None:
    key = {"Ocp-Apim-Subscription-Key": plain.key}
    assert httpx.post(f"{plain.url}/sts/v1.0/issueToken").status_code == 401
    token = httpx.post(f"{plain.url}/sts/v1.0/issueToken", headers=key).text
    config = sdk.SpeechConfig(host=plain.host)
    config.authorization_token = token
    config.set_property(PROPERTY.Speech_SegmentationSilenceTimeoutMs, "800")
    assert recognise_all(plain, silence(300) + YES.pcmu + silence(900), config=config).text == YES.text
    assert plain.connections[-1].headers["authorization"] == f"Bearer {token}"


def test_a_final_takes_as_long_as_the_profile_says(book: Clipbook) -> None:
    with serving(AzureSim(book=book, profile=PROFILES["azure-groq"])) as sim, Ears(config_of(sim)) as ears:
        ears.write(silence(300) + YES.pcmu + silence(900))
        wait_for(lambda: sim.stt_turns and sim.stt_turns[-1].finals)
        decided_s = time.monotonic()
        wait_for(lambda: ears.heard.finals)
        # 1016 to 1345 ms after speech, of which 500 are the service's own silence.
        assert 0.2 < time.monotonic() - decided_s < 1.2
        ears.end()


# ── What goes wrong ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_cut_loses_and_doubles_nothing(plain: AzureSim) -> None:
    for after_ms in (150, 1500, 4400):
        plain.faults.add(Fault(kind="cut", on="stt", after_ms=after_ms))
        heard = recognise_all(plain, SOUND, config=config_of(plain))
        assert [one.text for one in heard.finals if one.text] == SAID, after_ms
        cut, again = list(plain.stt_turns)[-2:]
        assert (cut.ended, cut.fault, again.ended) == ("fault", "cut", "done")
    assert plain.faults.injected == {"cut": 3}


def test_after_a_final_only_what_follows_is_sent_again(plain: AzureSim) -> None:
    with Ears(config_of(plain)) as ears:
        ears.write(SOUND[: 8 * 2600])
        wait_for(lambda: ears.heard.finals)
        assert plain.loop is not None
        plain.loop.call_soon_threadsafe(plain.drop_connections)
        wait_for(lambda: plain.stt_turns[-1].ended)
        ears.write(SOUND[8 * 2600 :])
        assert ears.end().text == " ".join(SAID)
    cut, again = plain.stt_turns
    assert (cut.ended, again.previous_tag) == ("client", cut.service_tag)
    assert again.offset_ms == pytest.approx(300 + YES.duration_ms, abs=40)
    second = ears.heard.finals[1]
    assert second.offset / 10_000 == pytest.approx(1300 + len(YES.pcmu) / 8, abs=20)


def test_what_repeats_is_an_error(book: Clipbook) -> None:
    """The SDK tries for a second, so all at the same time."""
    cut = Fault(kind="cut", on="stt", after_ms=500, until_ms=900, times=None)
    limited = {
        cut: CODE.ConnectionFailure,
        Fault(kind="http", status=429, times=None): CODE.TooManyRequests,
        Fault(kind="http", status=503, times=None): CODE.ServiceUnavailable,
        Fault(kind="refuse", times=None): CODE.ConnectionFailure,
    }

    def code_of(fault: Fault) -> tuple[object, int]:
        with serving(AzureSim(book=book)) as sim:
            sim.faults.add(fault)
            # The SDK sends again only with the next audio, so there is more of it.
            return error_of(sim, SOUND + silence(4000)), sim.faults.injected[fault.label]

    with ThreadPoolExecutor(len(limited)) as pool:
        found = dict(zip(limited, pool.map(code_of, limited), strict=True))
    assert found == {fault: (code, 5) for fault, code in limited.items()}


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (Fault(kind="http", status=401), CODE.AuthenticationFailure),
        (Fault(kind="http", status=403), CODE.AuthenticationFailure),
        (Fault(kind="close", code=4429, reason="Quota exceeded", after_ms=300), CODE.TooManyRequests),
    ],
    ids=lambda value: value.label if isinstance(value, Fault) else "",
)
def test_refusals_have_their_codes(plain: AzureSim, fault: Fault, code: object) -> None:
    plain.faults.add(fault)
    assert error_of(plain, SOUND) == code
    assert plain.faults.injected == {fault.label: 1}


def test_an_unknown_key_is_refused(plain: AzureSim) -> None:
    assert error_of(plain, SOUND, speech_config(plain, key="stolen")) == CODE.AuthenticationFailure


@pytest.mark.parametrize(
    "kind",
    [
        "garbage_text", "garbage_binary", "bad_json", "unknown_path", "oversize", "slow", "late_final",
        "duplicate_final", "error_phrase",
    ],
)  # fmt: skip
def test_the_sdk_survives(plain: AzureSim, kind: str) -> None:
    finals = [SAID[0], *SAID] if kind == "duplicate_final" else SAID
    plain.faults.add(Fault(kind=kind, on="stt", delay_ms=200))
    heard = recognise_all(plain, SOUND, config=config_of(plain))
    assert [one.text for one in heard.finals if one.text] == finals
    assert plain.faults.injected == {kind: 1} and plain.faults.waiting() == []


def test_a_final_can_be_longer_than_anybody_speaks(plain: AzureSim) -> None:
    plain.faults.add(Fault(kind="long_final", on="stt", size_bytes=100_000))
    long, *rest = [one for one in recognise_all(plain, SOUND, config=config_of(plain)).finals if one.text]
    assert len(orjson.loads(long.json)["DisplayText"]) >= 100_000 and [one.text for one in rest] == SAID[1:]
    assert plain.faults.injected == {"long_final": 1}


@pytest.mark.parametrize("kind", ["silent", "mute"])
def test_a_service_that_says_nothing_raises_nothing(plain: AzureSim, kind: str) -> None:
    plain.faults.add(Fault(kind=kind, on="stt", after_ms=100))
    with Ears(config_of(plain)) as ears:
        ears.write(SOUND)
        wait_for(lambda: plain.stt_turns and plain.faults.injected[kind] and plain.connections[-1].config)
        if kind == "silent":
            wait_for(lambda: plain.stt_turns[-1].finals)  # known inside, never sent
        assert ears.heard == type(ears.heard)(stopped=ears.heard.stopped)
        # The SDK would wait for ever; a lost connection makes it begin again.
        assert plain.loop is not None
        plain.loop.call_soon_threadsafe(plain.drop_connections)
        wait_for(lambda: len(ears.heard.finals) >= 1)
        assert ears.end().text == " ".join(SAID)


def test_more_connections_than_allowed_are_refused(book: Clipbook) -> None:
    with serving(AzureSim(book=book, stt_limit=1)) as sim, Ears(config_of(sim)) as first:
        first.write(silence(300))
        wait_for(lambda: sim.open["stt"] == 1)
        assert error_of(sim, SOUND) == CODE.TooManyRequests
        assert sim.counts["stt_over_limit"] == 5
        first.write(SOUND)
        assert first.end().text == " ".join(SAID)


def test_connections_can_be_refused_by_the_system(plain: AzureSim) -> None:
    assert plain.loop is not None
    asyncio.run_coroutine_threadsafe(plain.refuse_connections(), plain.loop).result(WAIT_S)
    assert error_of(plain, SOUND) == CODE.ConnectionFailure
    asyncio.run_coroutine_threadsafe(plain.listen(), plain.loop).result(WAIT_S)
    assert recognise_all(plain, SOUND, config=config_of(plain)).text == " ".join(SAID)


def test_a_fault_that_nobody_knows_is_refused() -> None:
    for raw in ({"kind": "fire"}, {"kind": "stall", "on": "stt"}, {"kind": "cut", "probability": 2}, {"on": "stt"}):
        with pytest.raises(ValueError, match="fault"):
            Fault.from_json(raw)
