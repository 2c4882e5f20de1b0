"""The tone code of docs/tone-code.md, decoded here by a decoder of our own from the page alone."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import numpy as np
import pytest

from providers.base import AudioChunk, ChatRequest, Final, Message, SpeechRequest, TextDelta, TranscriberConfig
from providers.errors import ProviderUnavailable
from providers.offline import scripted

PAGE = (Path(__file__).parents[2] / "docs" / "tone-code.md").read_text()
LOW = {"0": 941, "1": 697, "2": 697, "3": 697, "4": 770, "5": 770, "6": 770, "7": 852, "8": 852, "9": 852}
LOW |= {"A": 697, "B": 770, "C": 852, "D": 941, "E": 941, "F": 941}
HIGH = {"0": 1336, "1": 1209, "2": 1336, "3": 1477, "4": 1209, "5": 1336, "6": 1477, "7": 1209, "8": 1336, "9": 1477}
HIGH |= {"A": 1633, "B": 1633, "C": 1633, "D": 1633, "E": 1209, "F": 1477}


def expand(codes: bytes) -> np.ndarray:
    """G.711 mu-law by its formula, to [-1, 1]."""
    inverted = ~np.frombuffer(codes, dtype=np.uint8)
    magnitude = ((((inverted & 15).astype(int) << 3) + 132) << ((inverted >> 4) & 7).astype(int)) - 132
    return np.where(inverted & 128, -magnitude, magnitude) / 32768


def power(samples: np.ndarray, hz: float) -> float:
    return float(abs(np.exp(-2j * np.pi * hz * np.arange(len(samples)) / 8000) @ samples)) / len(samples)


def decode(codes: bytes) -> bytes | None:
    """The six bytes of the first tone code in `codes`, None without a preamble."""
    wave = expand(codes)
    for start in range(0, len(wave) - 160, 40):
        window = wave[start : start + 160]
        if min(power(window, 400), power(window, 2600)) > 0.1:
            break
    else:
        return None
    # The window that first holds enough of both tones begins up to 10 ms early: look for the edge.
    start = next(at for at in range(start, start + 200) if np.abs(wave[at : at + 20]).max() > 0.1)
    nibbles = ""
    for number in range(12):
        tone = wave[start + 800 + 560 * number + 80 :][:240]
        nibbles += max("0123456789ABCDEF", key=lambda n: power(tone, LOW[n]) + power(tone, HIGH[n]))
    return bytes.fromhex(nibbles)


EXAMPLES = re.findall(r"^\| `(turn [^`]+)` \| (\d+) \| (\d+) \| (\d+) [^|]+\| `([0-9a-f ]+)` \|$", PAGE, re.MULTILINE)


def test_the_page_has_examples() -> None:
    assert len(EXAMPLES) == 3


@pytest.mark.parametrize(("text", "call", "turn", "hash16", "code"), EXAMPLES)
def test_examples_of_the_page(text: str, call: str, turn: str, hash16: str, code: str) -> None:
    assert scripted.text_hash(text) == int(hash16)
    assert scripted.call_number(text.split()[-1]) == int(call)
    nibbles = scripted.encode_symbols(int(call), int(turn), int(hash16))
    assert bytes.fromhex("".join(f"{one:x}" for one in nibbles)) == bytes.fromhex(code)


def test_one_round_is_heard_as_it_was_meant() -> None:
    async def run() -> tuple[str, bytes]:
        stream = await scripted.ScriptedTranscriber().open(TranscriberConfig(caller="+15552000012"))
        stream.begin_nowait(3, 500)
        stream.feed_nowait(b"\xff" * 1600)
        stream.commit_nowait(3)
        final = await anext(aiter(stream))
        assert final == Final(3, "turn 3 of +15552000012", 500, 700, 1.0)
        request = ChatRequest(messages=[Message("user", final.text)], caller="+15552000012")
        reply = [one.text async for one in scripted.ScriptedModel().stream(request) if isinstance(one, TextDelta)]
        voice = scripted.ScriptedSynthesizer()
        spoken = voice.stream(SpeechRequest(text="".join(reply)))
        return "".join(reply), b"".join([one.audio async for one in spoken if isinstance(one, AudioChunk)])

    reply, audio = asyncio.run(run())
    assert reply.startswith("code 12 3 4210, ")
    assert len(audio) == 2440 * 8
    assert decode(audio) == bytes.fromhex("000c0310725b")
    # Silence before it, and an odd start, as on a stream of frames.
    assert decode(b"\xff" * 1733 + audio) == bytes.fromhex("000c0310725b")


def test_every_symbol_is_told_from_every_other() -> None:
    for nibble in range(16):
        number = nibble * 0x1111
        decoded = decode(scripted.render(f"code {number} {nibble * 17} {number}"))
        assert decoded is not None and decoded[:5] == bytes([nibble * 17]) * 5


def test_text_without_a_code_is_filler_only() -> None:
    audio = scripted.render("Good day, how can I help you?")
    assert len(audio) == 7 * 1200
    assert decode(audio) is None
    assert -28 < 20 * np.log10(np.sqrt(np.mean(expand(audio) ** 2))) < -24
    assert len(scripted.render("word " * 1000)) == scripted.MAX_TEXT_WORDS * 1200


def test_a_resumed_utterance_has_one_final() -> None:
    async def run() -> list[Final]:
        stream = await scripted.ScriptedTranscriber(final_delay_ms=5).open(TranscriberConfig(caller="1"))
        events = aiter(stream)
        stream.begin_nowait(1, 0)
        stream.commit_nowait(1)
        stream.resume_nowait(1)
        stream.commit_nowait(1)
        stream.begin_nowait(2, 0)
        stream.commit_nowait(2)
        return [await anext(events), await anext(events)]

    assert [final.utterance_no for final in asyncio.run(run())] == [1, 2]


def test_turn_without_a_number_is_counted() -> None:
    async def run() -> str:
        messages = [Message("user", "hello"), Message("assistant", "code 1 1 1"), Message("user", "more")]
        request = ChatRequest(messages=messages, caller="anonymous")
        events = scripted.ScriptedModel().stream(request)
        return "".join([one.text async for one in events if isinstance(one, TextDelta)])

    assert asyncio.run(run()).startswith(f"code 0 2 {scripted.text_hash('more')},")


def test_limits() -> None:
    with pytest.raises(ValueError, match="uint16"):
        scripted.encode_symbols(70_000, 0, 0)

    async def run() -> None:
        async for _ in scripted.ScriptedSynthesizer().stream(SpeechRequest(text="x" * 20_001)):
            pass

    with pytest.raises(ProviderUnavailable):
        asyncio.run(run())
