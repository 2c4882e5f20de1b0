"""Moonshine: human voices are understood, interims come early, every bound holds, wrong set-ups say what to do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from providers.base import Final, Interim, TranscriberConfig
from providers.errors import ProviderRejected, ProviderUnavailable
from providers.offline import beam, moonshine, moonshine_model
from providers.offline.bias import BONUS, MAX_BONUS, MAX_PHRASES, NOWHERE, Bias
from providers.offline.decode_pool import DecodePool, Job, Part
from providers.offline.moonshine import BYTES_PER_MS, MoonshineStream, MoonshineTranscriber
from providers.offline.moonshine_model import Recogniser, Tokenizer, brighten, package_folder
from providers.offline.pico import PicoSynthesizer
from tests.providers.conformance import next_final, say
from tests.providers.sound import BECKETT, TWO_CITIES, reading, spoken, through_telephone, word_errors

ENGLISH = TranscriberConfig(language="en-US")


@pytest.fixture(scope="module")
def recogniser() -> Recogniser:
    return Recogniser(package_folder(), sha256=moonshine_model.SHA256)


@pytest.mark.slow
def test_human_voice_through_the_telephone(recogniser: Recogniser) -> None:
    """The two readings of the package, the longer one in pieces of at most 10 s as pauses would cut it."""
    wrong, total = word_errors(recogniser.text(through_telephone(reading("beckett"))) or "", BECKETT)
    assert wrong / total <= 0.2


@pytest.mark.slow
def test_a_long_monologue_is_cut_and_kept() -> None:
    """44 s without a commit: two parts, joined in one Final."""

    async def run() -> tuple[Final, int]:
        transcriber = MoonshineTranscriber()
        stream = await transcriber.open(ENGLISH)
        await say(stream, 1, reading("two_cities"), 3200)
        stream.commit_nowait(1)
        final = await next_final(aiter(stream))
        dropped = stream.dropped_bytes
        await transcriber.aclose()
        return final, dropped

    final, dropped = asyncio.run(run())
    assert dropped == 0
    assert final.end_ms is not None and final.end_ms - 1000 == pytest.approx(44_374, abs=5)
    # The reading goes on after these words: what follows does not count as an error.
    said = final.text.split()[: len(TWO_CITIES.split())]
    wrong, total = word_errors(" ".join(said), TWO_CITIES)
    assert wrong / total <= 0.2


@pytest.mark.slow
def test_pico_is_understood() -> None:
    sentences = [
        "I would like to book an appointment for Tuesday morning.",
        "What are your opening hours on Saturday?",
        "Can I park my car near the clinic?",
        "How much does a cleaning cost?",
        "Please cancel my appointment on Friday.",
    ]

    async def run() -> tuple[int, int]:
        voice, transcriber = PicoSynthesizer(), MoonshineTranscriber()
        stream = await transcriber.open(ENGLISH)
        events = aiter(stream)
        wrong = total = 0
        for number, sentence in enumerate(sentences):
            await say(stream, number, through_telephone(await spoken(voice, sentence)), 3200)
            stream.commit_nowait(number)
            errors, words = word_errors((await next_final(events)).text, sentence)
            wrong, total = wrong + errors, total + words
        await transcriber.aclose()
        await voice.aclose()
        return wrong, total

    wrong, total = asyncio.run(run())
    assert wrong / total <= 0.2


@pytest.mark.slow
def test_interims_grow_and_stop_at_the_commit() -> None:
    async def run() -> list[Interim | Final]:
        transcriber = MoonshineTranscriber()
        stream = await transcriber.open(ENGLISH)
        events = aiter(stream)
        got: list[Interim | Final] = []
        audio = reading("two_cities", 12)
        half = len(audio) // 2
        stream.begin_nowait(1, 0)
        for at in range(0, half, half // 4):
            stream.feed_nowait(audio[at : at + half // 4 & ~1])
            # The next piece comes when this one's interim is there: real time would give 1.2 s.
            got.append(await anext(events))
        stream.commit_nowait(1)
        while not isinstance(got[-1], Final):
            got.append(await anext(events))
        stream.feed_nowait(audio[half:])
        await stream.aclose()
        await transcriber.aclose()
        return got

    got = asyncio.run(run())
    assert len(got) >= 4
    assert all(isinstance(one, Interim) for one in got[:-1])
    assert "best of times" in got[-1].text and len(got[-1].text) > len(got[0].text)


def test_silence_and_nothing() -> None:
    async def run() -> tuple[str, str]:
        transcriber = MoonshineTranscriber()
        stream = await transcriber.open(ENGLISH)
        events = aiter(stream)
        stream.begin_nowait(1, 0)
        stream.commit_nowait(1)
        empty = await next_final(events)
        stream.commit_nowait(9)
        unknown = await next_final(events)
        assert unknown.utterance_no == 9
        await transcriber.aclose()
        return empty.text, unknown.text

    assert asyncio.run(run()) == ("", "")


def test_noise_cannot_run_away(recogniser: Recogniser) -> None:
    noise = (np.random.default_rng(1).standard_normal(16000 * 3) * 2000).astype(np.int16).tobytes()
    text = recogniser.text(noise)
    assert text is not None and len(text.split()) <= 3 * moonshine_model.TOKENS_PER_S + moonshine_model.TOKENS_SPARE


def test_a_stale_job_gives_up_at_its_next_token(recogniser: Recogniser) -> None:
    asked = iter([True, True, False])
    assert recogniser.text(reading("beckett", 3), lambda: next(asked)) is None
    assert next(asked, "all asked") == "all asked"


# ── the pool ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_finals_go_first_and_the_queue_is_bounded() -> None:
    async def run() -> None:
        transcriber = MoonshineTranscriber(workers=1)
        stream = await transcriber.open(ENGLISH)
        pool = stream._pool
        delivered: list[str] = []
        done = asyncio.Event()

        def deliver(name: str) -> Callable[[object], None]:
            def take(result: object) -> None:
                delivered.append(f"{name} {'none' if result is None else 'text'}")
                if name == "last":
                    done.set()

            return take

        audio = reading("beckett", 4)
        assert pool.try_interim(Job([Part(audio)], is_final=False, deliver=deliver("interim")))
        assert not pool.try_interim(Job([Part(audio)], is_final=False, deliver=deliver("second")))
        stale = Job([Part(audio)], is_final=True, deliver=deliver("stale"))
        pool.submit(Job([Part(audio)], is_final=True, deliver=deliver("final")))
        pool.submit(stale)
        pool.submit(Job([Part(audio)], is_final=True, deliver=deliver("last")))
        stale.stale = True
        assert pool.preempted == 1
        assert not pool.try_interim(Job([Part(audio)], is_final=False, deliver=deliver("third")))
        await done.wait()
        assert delivered == ["interim none", "final text", "last text"]

        jobs = [Job([Part(bytes(320))], is_final=True, deliver=lambda result: None) for _ in range(100)]
        with pytest.raises(ProviderUnavailable, match="wait for recognition"):
            for job in jobs:
                pool.submit(job)
        assert pool.refused == 1
        stream.begin_nowait(1, 0)
        stream.commit_nowait(1)
        with pytest.raises(ProviderUnavailable):
            await anext(aiter(stream))
        await transcriber.aclose()

    asyncio.run(run())


def test_bounds_of_one_stream() -> None:
    async def run() -> None:
        transcriber = MoonshineTranscriber()
        stream = await transcriber.open(ENGLISH)
        assert isinstance(stream, MoonshineStream)
        second = bytes(1000 * BYTES_PER_MS)
        stream.feed_nowait(second)
        stream.begin_nowait(1, 0)
        for _ in range(200):
            stream.feed_nowait(second)
        now = stream._current
        assert now is not None
        assert len(now.open_part) < moonshine.PART_BYTES
        assert len(now.closed_parts) == moonshine.MAX_PARTS
        assert stream.dropped_bytes > 0
        stream.commit_nowait(1)
        for _ in range(10):
            stream.feed_nowait(second)
        assert len(now.tail) == moonshine.TAIL_BYTES
        for number in range(2, 30):
            stream._put(Final(number, ""))
        assert len(stream._events) == moonshine.MAX_UNREAD_EVENTS
        assert stream.dropped_events == 12
        await transcriber.aclose()

    asyncio.run(run())


def test_a_part_is_cut_where_it_is_quiet() -> None:
    samples = (np.random.default_rng(2).standard_normal(16000 * 30) * 3000).astype(np.int16)
    samples[16000 * 27 : 16000 * 27 + 3200] = 0
    cut = moonshine._quiet_cut(bytearray(samples.tobytes())) // 2
    assert 16000 * 27 <= cut <= 16000 * 27 + 3200


def test_many_callers_load_the_weights_once() -> None:
    async def run() -> None:
        transcriber = MoonshineTranscriber()
        streams = await asyncio.gather(*(transcriber.open(ENGLISH) for _ in range(8)))
        assert len({id(one._pool) for one in streams if isinstance(one, MoonshineStream)}) == 1
        await transcriber.aclose()

    asyncio.run(run())


# ── set-up ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("transcriber", "language", "says"),
    [
        (MoonshineTranscriber, "es-ES", "moonshine-es"),
        (MoonshineTranscriber, "de-DE", "recognises en only"),
        (lambda: MoonshineTranscriber.spanish(None), "es-ES", "TALKSPURT_SPANISH_STT"),
        (lambda: MoonshineTranscriber.spanish(Path("/tmp")), "en-US", "recognises es only"),
    ],
)
def test_languages(transcriber: type[MoonshineTranscriber], language: str, says: str) -> None:
    with pytest.raises(ProviderRejected, match=says):
        asyncio.run(transcriber().open(TranscriberConfig(language=language)))


def test_missing_and_damaged_weights(tmp_path: Path) -> None:
    with pytest.raises(ProviderUnavailable, match=r"expected encoder_model\.ort"):
        asyncio.run(MoonshineTranscriber.spanish(tmp_path).open(TranscriberConfig(language="es-ES")))
    for name in moonshine_model.SHA256:
        (tmp_path / name).write_bytes(b"no weights")
    with pytest.raises(ProviderUnavailable, match=r"unexpected sha256.*pip install moonshine-voice==0\.1\.0"):
        Recogniser(tmp_path, sha256=moonshine_model.SHA256)
    with pytest.raises(ProviderUnavailable, match="cannot load"):
        Recogniser(tmp_path)


def test_spanish_weights_load_by_path(tmp_path: Path) -> None:
    """The same loader with other files: here the English ones stand in for the Spanish, without their table."""
    for name in ("encoder_model.ort", "decoder_model_merged.ort"):
        (tmp_path / name).symlink_to(package_folder() / name)

    async def run() -> None:
        transcriber = MoonshineTranscriber.spanish(tmp_path)
        assert transcriber.name == "moonshine-es"
        await transcriber.open(TranscriberConfig(language="es-MX"))
        await transcriber.aclose()

    asyncio.run(run())


def test_tokenizer() -> None:
    long = b"x" * 200
    data = b"\x05<unk>\x03<s>\x04</s>\x04\xe2\x96\x81a\x01b" + bytes([128 + 200 % 128, 1]) + long
    tokenizer = Tokenizer(data)
    assert len(tokenizer) == 6
    assert tokenizer.text([1, 3, 4, 3, 2]) == "ab a"
    assert tokenizer.text([5, 99]) == "x" * 200
    with pytest.raises(ProviderUnavailable):
        Tokenizer(data[:-1])


def test_pool_is_closed_twice() -> None:
    async def run() -> None:
        transcriber = MoonshineTranscriber()
        stream = await transcriber.open(ENGLISH)
        assert isinstance(stream._pool, DecodePool)
        await transcriber.aclose()
        await transcriber.aclose()
        with pytest.raises(ProviderUnavailable):
            stream._pool.submit(Job([], is_final=True, deliver=lambda result: None))

    asyncio.run(run())


def test_only_telephone_audio_is_brightened() -> None:
    chance = np.random.default_rng(1)
    spectrum = np.fft.rfft(chance.normal(0, 0.1, 16_000))
    at_hz = np.fft.rfftfreq(16_000, 1 / 16_000)
    wideband = np.fft.irfft(spectrum, 16_000).astype(np.float32)
    telephone = np.fft.irfft(np.where(at_hz < 3400, spectrum, 0), 16_000).astype(np.float32)
    assert np.array_equal(brighten(wideband), wideband)
    gain = np.abs(np.fft.rfft(brighten(telephone)))[[500, 1500, 3000, 3300]] / np.abs(spectrum[[500, 1500, 3000, 3300]])
    assert gain == pytest.approx([1, 1, 10**0.3, 10**0.3], rel=0.01)


# ── words to expect ───────────────────────────────────────────────────────────────────────────────────────────

PIECES = [one.encode() for one in ("<unk>", "<s>", "</s>", "▁", "f", "i", "t", "s", ".", "l", "fi", "▁fi", "▁fil")]
T, S, STOP, FI, WORD_FI, WORD_FIL = 6, 7, 8, 10, 11, 12


def walk(bias: Bias, tokens: list[int]) -> float:
    """All that a hypothesis of these tokens is given in the end."""
    place, total = NOWHERE, 0.0
    for token in tokens:
        place, more = bias.step(place, token)
        total += more
    return total + bias.end(place)


def test_only_a_whole_word_is_helped() -> None:
    bias = Bias(PIECES, ["fit"])
    given = walk(bias, [WORD_FI, T])
    assert given == pytest.approx(2 * BONUS)
    assert walk(bias, [WORD_FI, T, STOP]) == pytest.approx(given)
    assert walk(bias, [WORD_FI, T, WORD_FIL]) == pytest.approx(given)
    for other in ([WORD_FI], [WORD_FI, S], [WORD_FI, T, S], [S, FI, T], [WORD_FIL, T]):
        assert walk(bias, other) == pytest.approx(0), other


def test_the_help_is_bounded() -> None:
    bias = Bias(PIECES, ["fit fit fit fit fit fit"])
    assert walk(bias, [WORD_FI, T] * 6) == pytest.approx(MAX_BONUS)
    assert walk(bias, [WORD_FI, T] * 5) == pytest.approx(0)
    assert Bias(PIECES, ["fit"] * (MAX_PHRASES + 5)).phrases == MAX_PHRASES
    assert walk(Bias(PIECES, ["", "xyz", "fit " * 20]), [WORD_FI, T]) == 0


def test_the_likelier_of_two_hypotheses_wins_and_a_phrase_turns_it() -> None:
    """A decoder of five tokens: "sit" begins a little better than "fit"."""
    table = {1: {S: 2.0, WORD_FI: 1.5}, S: {T: 5.0}, WORD_FI: {T: 5.0}, T: {2: 5.0}}

    def advance(numbers: list[int], parents: list[int] | None = None) -> np.ndarray:
        rows = np.full((len(numbers), len(PIECES)), -20, dtype=np.float32)
        for row, number in zip(rows, numbers, strict=True):
            for token, logit in table.get(number, {2: 5.0}).items():
                row[token] = logit
        return rows

    assert beam.search(advance, Bias(PIECES, []), 9, lambda: True) == [S, T]
    assert beam.search(advance, Bias(PIECES, ["fit"]), 9, lambda: True) == [WORD_FI, T]
    assert beam.search(advance, Bias(PIECES, []), 1, lambda: True) == [S]
    assert beam.search(advance, Bias(PIECES, []), 9, lambda: False) is None


PHRASES = ["Thursday", "Friday", "filling", "whitening", "half past", "Visa", "appointment", "check-up", "correct"]


@pytest.mark.slow
def test_phrases_help_where_they_are_said_and_harm_nothing_else(recogniser: Recogniser) -> None:
    async def render(text: str) -> bytes:
        voice = PicoSynthesizer()
        audio = through_telephone(await spoken(voice, text, "en-GB"))
        await voice.aclose()
        return audio

    said = ["Do you accept Visa?", "I would like a filling on Thursday.", "At half past eleven.", "A whitening please."]
    other = [
        "The children built a small boat out of paper and string.",
        "We walked along the river until it began to rain.",
        "He never remembers where he put his glasses.",
        "The clouds are moving quickly across the valley.",
    ]
    bias, none = recogniser.bias(PHRASES), recogniser.bias([])

    def wrong(texts: list[str], given: Bias) -> int:
        heard = [recogniser.text(asyncio.run(render(one)), bias=given) or "" for one in texts]
        return sum(word_errors(got, one)[0] for got, one in zip(heard, texts, strict=True))

    assert wrong(said, bias) < wrong(said, none)
    assert wrong(other, bias) <= wrong(other, none) + 1
    reading_ = through_telephone(reading("beckett"))
    heard = (recogniser.text(reading_, bias=bias) or "").lower()
    assert not any(phrase.lower() in heard for phrase in PHRASES)
    noise = (np.random.default_rng(2).standard_normal(16000 * 2) * 800).astype(np.int16).tobytes()
    for quiet in (bytes(64_000), noise):
        heard = (recogniser.text(quiet, bias=bias) or "").lower()
        assert not any(phrase.lower() in heard for phrase in PHRASES), heard


def test_phrases_reach_the_final() -> None:
    """`TranscriberConfig.phrases` is made ready once for all calls that give the same ones."""

    async def run() -> None:
        transcriber = MoonshineTranscriber()
        streams = [
            await transcriber.open(TranscriberConfig(language="en-US", phrases=phrases))
            for phrases in (["Visa"], ["Visa"], ["cash"])
        ]
        biases = [stream._bias for stream in streams if isinstance(stream, MoonshineStream)]
        assert biases[0] is biases[1] and biases[0] is not biases[2]
        assert biases[0].phrases == 1
        await transcriber.aclose()

    asyncio.run(run())
