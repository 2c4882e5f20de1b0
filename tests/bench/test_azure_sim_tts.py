"""The simulated synthesis by the real SDK over a real socket, and the simulator as a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import azure.cognitiveservices.speech as sdk
import httpx
import numpy as np
import pytest

from bench.sim.azure import VOICES, AzureSim, Fault, read_ssml, render
from bench.sim.azure.ssml import SsmlError
from bench.sim.clipbook import BookClip, Clipbook
from bench.sim.profile import PROFILES
from bench.sim.sound import from_pcmu
from bench.sim.voice import pico_clip
from tests.bench.azure_client import VOICE, WAIT_S, Mouth, recognise_all, serving, speech_config, ssml, wait_for

CODE = sdk.CancellationErrorCode
FORMATS = sdk.SpeechSynthesisOutputFormat
DONE = sdk.ResultReason.SynthesizingAudioCompleted
TEXT = "Hello there, how can I help you today?"


@pytest.fixture
def sim() -> Iterator[AzureSim]:
    with serving(AzureSim()) as one:
        yield one


@pytest.fixture
def mouth(sim: AzureSim) -> Iterator[Mouth]:
    with Mouth(speech_config(sim)) as one:
        yield one


# ── What is spoken ────────────────────────────────────────────────────────────────────────────────────────────────


def test_audio_is_what_pico_rendered(sim: AzureSim, mouth: Mouth) -> None:
    spoken = mouth.speak(TEXT)
    assert spoken.result.reason == DONE
    [turn] = sim.tts_turns
    assert spoken.audio == turn.audio == render(read_ssml(turn.ssml), "raw-8khz-8bit-mono-mulaw").audio
    assert (turn.text, turn.voices, turn.ended) == (TEXT, (VOICE,), "done")
    assert 1.5 < len(spoken.audio) / 8000 < 4


@pytest.mark.parametrize(
    ("form", "bytes_per_s"),
    [
        (FORMATS.Raw8Khz8BitMonoMULaw, 8000), (FORMATS.Raw8Khz8BitMonoALaw, 8000),
        (FORMATS.Raw8Khz16BitMonoPcm, 16_000), (FORMATS.Raw16Khz16BitMonoPcm, 32_000),
        (FORMATS.Raw24Khz16BitMonoPcm, 48_000),
    ],
)  # fmt: skip
def test_each_format_lasts_as_long(sim: AzureSim, form: FORMATS, bytes_per_s: int) -> None:
    with Mouth(speech_config(sim), form) as mouth:
        spoken = mouth.speak("Good morning.")
    seconds = render(read_ssml(sim.tts_turns[-1].ssml), "raw-16khz-16bit-mono-pcm").ms / 1000
    assert len(spoken.audio) / bytes_per_s == pytest.approx(seconds, abs=0.002)


def test_riff_is_asked_for_raw_and_gets_its_header_from_the_sdk(sim: AzureSim) -> None:
    with Mouth(speech_config(sim), FORMATS.Riff16Khz16BitMonoPcm) as mouth:
        spoken = mouth.speak("Good morning.")
    assert sim.tts_turns[-1].output_format == "raw-16khz-16bit-mono-pcm"
    made = sim.tts_turns[-1].audio
    assert spoken.audio[:4] == b"RIFF" and spoken.audio.endswith(made) and len(spoken.audio) - len(made) < 60


def test_words_and_marks_come_with_their_times(mouth: Mouth) -> None:
    spoken = mouth.speak(ssml(f"{TEXT}<bookmark mark='end'/>"))
    wait_for(lambda: spoken.marks and len(spoken.words) == 10)  # they come on a thread of their own, after the audio
    words = [one for one in spoken.words if one.boundary_type == sdk.SpeechSynthesisBoundaryType.Word]
    assert [one.text for one in words] == TEXT.replace(",", "").replace("?", "").split()
    offsets = [one.audio_offset for one in words]
    assert offsets == sorted(offsets) and offsets[-1] / 10_000 < len(spoken.audio) / 8
    [mark] = spoken.marks
    assert mark.text == "end" and mark.audio_offset / 10_000 == pytest.approx(len(spoken.audio) / 8, abs=1)
    punctuation = [one.text for one in spoken.words if one.boundary_type == sdk.SpeechSynthesisBoundaryType.Punctuation]
    assert punctuation == [",", "?"]


def test_what_is_said_otherwise_sounds_otherwise(sim: AzureSim, mouth: Mouth) -> None:
    bodies = {
        "plain": TEXT,
        "slow": f"<prosody rate='-30%'>{TEXT}</prosody>",
        "high": f"<prosody pitch='+20%'>{TEXT}</prosody>",
        "soft": f"<prosody volume='30'>{TEXT}</prosody>",
        "style": f"<mstts:express-as style='cheerful' styledegree='2'>{TEXT}</mstts:express-as>",
        "pause": f"{TEXT}<break time='500ms'/>",
    }
    made = {name: mouth.speak(ssml(body)).audio for name, body in bodies.items()}
    made["voice"] = mouth.speak(ssml(TEXT, "en-US-GuyNeural")).audio
    assert len(set(made.values())) == len(made)
    assert len(made["slow"]) > 1.25 * len(made["plain"])
    assert len(made["pause"]) == len(made["plain"]) + 4000
    level = {name: np.abs(np.frombuffer(from_pcmu(made[name]), "<i2")).mean() for name in ("plain", "soft")}
    assert level["soft"] == pytest.approx(0.3 * level["plain"], rel=0.05)
    # A style that the voice does not have is ignored.
    assert mouth.speak(ssml(bodies["style"].replace("cheerful", "sleepy"))).audio == made["plain"]
    assert sim.counts["tts_connections"] == 1


def test_text_is_spoken_while_it_is_written(sim: AzureSim) -> None:
    config = sdk.SpeechConfig(subscription=sim.key, endpoint=f"{sim.host}/tts/cognitiveservices/websocket/v2")
    with Mouth(config) as mouth:
        request = sdk.SpeechSynthesisRequest(input_type=sdk.SpeechSynthesisRequestInputType.TextStream)
        came: list[bytes] = []
        mouth.synthesizer.synthesizing.connect(lambda event: came.append(event.result.audio_data))
        task = mouth.synthesizer.speak_async(request)
        for piece in ("Good ", "morning. ", "How can "):
            request.input_stream.write(piece)
        wait_for(lambda: came)  # the first sentence, before the second is whole
        request.input_stream.write("I help?")
        request.input_stream.close()
        result = task.get()
    [turn] = sim.tts_turns
    assert result.reason == DONE and result.audio_data == turn.audio
    assert turn.pieces == ["Good ", "morning. ", "How can ", "I help?"] and turn.text == "Good morning. How can I help?"
    assert turn.connection.path == "/tts/cognitiveservices/websocket/v2"


def test_it_is_as_fast_as_its_profile(sim: AzureSim) -> None:
    with serving(AzureSim(profile=PROFILES["azure-groq"])) as usual, Mouth(speech_config(usual)) as mouth:
        first = mouth.speak(TEXT).result
        second = mouth.speak(TEXT).result
    name = sdk.PropertyId.SpeechServiceResponse_SynthesisServiceLatencyMs
    cold, warm = (int(one.properties.get_property(name)) for one in (first, second))
    assert cold > 180 + 40 and 40 < warm < 1500
    finish = int(second.properties.get_property(sdk.PropertyId.SpeechServiceResponse_SynthesisFinishLatencyMs))
    seconds = len(second.audio_data) / 8000
    assert 1000 * seconds / 20 - 40 < finish - warm < 1000 * seconds / 2


# ── What goes wrong ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (ssml("hello", "en-US-NobodyNeural"), "Unsupported voice en-US-NobodyNeural"),
        ("<speak><voice>", "SSML parsing error"),
        (ssml("hello " * 11_000), "too large"),
        (ssml("<prosody rate='quick'>hello</prosody>"), "prosody rate"),
    ],
    ids=["voice", "xml", "size", "value"],
)
def test_what_it_cannot_read_is_a_bad_request(sim: AzureSim, mouth: Mouth, said: str, reason: str) -> None:
    spoken = mouth.speak(said)
    assert spoken.error == CODE.BadRequest and reason in spoken.details
    assert reason in sim.tts_turns[-1].refusal
    assert mouth.speak(TEXT).result.reason == DONE


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (Fault(kind="http", status=401), CODE.AuthenticationFailure),
        (Fault(kind="http", status=403), CODE.AuthenticationFailure),
        (Fault(kind="http", status=429, times=2), CODE.TooManyRequests),
        (Fault(kind="http", status=503, times=2), CODE.ServiceUnavailable),
        (Fault(kind="refuse", times=2), CODE.ConnectionFailure),
        (Fault(kind="close", code=4429, reason="Quota"), CODE.TooManyRequests),
        (Fault(kind="close", code=1011, after_ms=300), CODE.ServiceError),
        (Fault(kind="cut", after_ms=300, until_ms=900), CODE.ConnectionFailure),
    ],
    ids=lambda value: value.label if isinstance(value, Fault) else "",
)
def test_failures_have_their_codes(sim: AzureSim, mouth: Mouth, fault: Fault, code: object) -> None:
    sim.faults.add(fault)
    spoken = mouth.speak(TEXT)
    assert spoken.error == code
    assert len(spoken.audio) / 8 >= fault.after_ms and len(spoken.audio) <= 900 * 8 + 300 * 8
    assert sim.faults.injected == {fault.label: fault.times}
    # The synthesizer that was refused goes on.
    assert mouth.speak(TEXT).result.reason == DONE


def damaged(sim: AzureSim, mouth: Mouth, kind: str) -> tuple[bytes, bytes]:
    sim.faults.add(Fault(kind=kind, on="tts", delay_ms=150, after_ms=200 if kind == "stall" else 0))
    spoken = mouth.speak(TEXT)
    assert spoken.result.reason == DONE and sim.faults.injected == {kind: 1}
    return spoken.audio, sim.tts_turns[-1].audio


@pytest.mark.parametrize(
    "kind", ["garbage_text", "garbage_binary", "bad_json", "unknown_path", "slow", "stall"]
)  # fmt: skip
def test_the_sdk_survives(sim: AzureSim, mouth: Mouth, kind: str) -> None:
    got, made = damaged(sim, mouth, kind)
    assert got == made


def test_audio_can_be_bad(sim: AzureSim, mouth: Mouth) -> None:
    looks = {
        "empty": lambda got, made: got == b"",
        "short": lambda got, made: got == made[: len(made) // 10],
        "noise": lambda got, made: len(got) == len(made) and len(set(got)) == 256,
        "flat": lambda got, made: got == b"\xff" * len(made),
        "wrong_rate": lambda got, made: got[::2] == made and len(got) == 2 * len(made),
        "riff_head": lambda got, made: got[:4] == b"RIFF" and got[44:] == made,
        "oversize": lambda got, made: len(got) == len(made) + (1 << 20),
    }
    for kind, is_so in looks.items():
        sim.faults.injected.clear()
        assert is_so(*damaged(sim, mouth, kind)), kind


@pytest.mark.parametrize("kind", ["silent", "mute", "no_turn_end"])
def test_a_silent_service_raises_nothing_until_it_is_stopped(sim: AzureSim, mouth: Mouth, kind: str) -> None:
    sim.faults.add(Fault(kind=kind, on="tts", after_ms=300))
    came: list[bytes] = []
    mouth.synthesizer.synthesizing.connect(lambda event: came.append(event.result.audio_data))
    task = mouth.synthesizer.speak_text_async(TEXT)
    wait_for(lambda: sim.faults.injected[kind] and (came or kind == "silent"))
    mouth.synthesizer.stop_speaking_async().get()
    assert task.get().cancellation_details.reason == sdk.CancellationReason.CancelledByUser
    wait_for(lambda: sim.connections[-1].closed)  # the SDK stops by closing its connection
    assert mouth.speak(TEXT).result.reason == DONE


# ── Lists, scripts, processes ─────────────────────────────────────────────────────────────────────────────────────


def test_the_list_of_voices(sim: AzureSim) -> None:
    url = f"{sim.url}/cognitiveservices/voices/list"
    assert httpx.get(url).status_code == 401
    key = {"Ocp-Apim-Subscription-Key": sim.key}
    listed = httpx.get(url, headers=key).json()
    assert {one["ShortName"] for one in listed} == set(VOICES) and len(listed) >= 30
    assert {one["Locale"][:2] for one in listed} >= {"en", "es", "de"}
    jenny = next(one for one in listed if one["ShortName"] == VOICE)
    assert "cheerful" in jenny["StyleList"] and (jenny["Gender"], jenny["SampleRateHertz"]) == ("Female", "24000")
    assert {one["Status"] for one in listed} == {"GA", "Preview"}
    with Mouth(speech_config(sim)) as mouth:
        german = mouth.synthesizer.get_voices_async("de-DE").get()
    assert {one.short_name for one in german.voices} == {name for name in VOICES if name.startswith("de-DE")}
    sim.faults.add(Fault(kind="http", on="voices", status=429, retry_after="2"))
    refused = httpx.get(url, headers=key)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "2")


def test_scripts_are_read_as_documented() -> None:
    script = read_ssml(
        ssml("<lexicon uri='https://x.example/a.xml'/>A<break strength='weak'/><sub alias='World Wide Web'>WWW</sub>"
             " &amp; <say-as interpret-as='telephone'>55-12</say-as><lang xml:lang='es-ES'>hola</lang>")
    )  # fmt: skip
    assert script.text == "A World Wide Web & 5 5 1 2 hola" and script.lexicons == ("https://x.example/a.xml",)
    assert script.parts[-1].locale == "es-ES" and script.parts[1].ms == 500
    for bad in (
        "<speak version='1.0' xml:lang='en-US'><voice name='en-US-AvaNeural'>no namespace</voice></speak>",
        ssml("x").replace("xml:lang='en-US'", ""),
        ssml("x").replace("<voice name='en-US-JennyNeural'>", "").replace("</voice>", ""),
        ssml("<voice name='en-US-AvaNeural'>nested</voice>"),
    ):
        with pytest.raises(SsmlError):
            read_ssml(bad)


SCRIPT = """
import sys
from tests.bench.azure_client import *
sound = open(sys.argv[2], "rb").read()
config = sdk.SpeechConfig(subscription="k2", host=sys.argv[1])
with Ears(config) as ears, Mouth(config) as mouth:
    ears.write(sound)
    print(ears.end().text, len(mouth.speak("Good morning.").audio), flush=True)
"""


def test_as_a_process_it_is_controlled_by_http_and_sdk_processes_exit_0(tmp_path: Path) -> None:
    clip = pico_clip("Yes please.", rate_percent=80)
    Clipbook([BookClip.of_pcmu("yes", clip.text, clip.pcmu)]).save(tmp_path / "book.json")
    command = [
        sys.executable,
        "-m",
        "bench.sim.azure",
        "--profile",
        "fast",
        "--key",
        "k2",
        "--book",
        tmp_path / "book.json",
    ]
    (tmp_path / "sound").write_bytes(b"\xff" * 4000 + clip.pcmu + b"\xff" * 8000)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = server.stdout.readline().split()[-1]
        httpx.post(f"{url}/sim/faults", json={"kind": "http", "on": "stt", "status": 503}).raise_for_status()
        assert httpx.post(f"{url}/sim/faults", json={"kind": "fire"}).status_code == 400
        user = subprocess.run(
            [sys.executable, "-c", SCRIPT, url.replace("http", "ws"), tmp_path / "sound"],
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        assert (user.returncode, user.stdout.split()[:2]) == (0, ["Yes", "please."]), user.stderr
        state = httpx.get(f"{url}/sim/state").json()
        assert state["injected"] == {"http_503": 1} and state["counts"]["stt_turns"] == 1 and state["waiting"] == []
        turns = httpx.get(f"{url}/sim/turns").json()
        assert turns["stt"][0]["finals"][0] == "Yes please." and turns["tts"][0]["text"] == "Good morning."
        assert httpx.post(f"{url}/sim/drop").status_code == 204
        server.send_signal(signal.SIGTERM)
        assert server.wait(WAIT_S) == 0


def test_many_turns_leave_nothing_open(sim: AzureSim) -> None:
    for _ in range(5):
        with Mouth(speech_config(sim)) as mouth:
            mouth.speak("Yes.")
        del mouth
        recognise_all(sim, b"\xff" * 2000)
    wait_for(lambda: sim.open["tts"] == 0 and sim.open["stt"] == 0)
    assert all(one.closed for one in sim.connections) and len(sim.connections) == 10
