"""Recognition by what was received: words whose samples arrived are heard, others are not, however they came."""

from __future__ import annotations

import random
import wave
from difflib import SequenceMatcher
from pathlib import Path

import numpy as np
import pytest
import soxr

from bench.sim.clipbook import BookClip, Clipbook
from bench.sim.clipsearch import WINDOW, Search
from bench.sim.recognise import Listener, recognise
from bench.sim.sound import from_pcmu, to_pcmu
from bench.sim.voice import PICO_RATE_HZ, pico_clip, pico_s16

SAID = (
    "Hello, can you tell me when you are open?",
    "Good. I would like to make an appointment.",
    "I would like to cancel my appointment on Friday.",
    "Yes please.",
    "No.",
)
FRAME = 320


def silence(ms: int) -> bytes:
    return bytes(16 * ms)


@pytest.fixture(scope="module")
def book() -> Clipbook:
    clips = [(text, pico_clip(text, rate_percent=80)) for text in SAID]
    return Clipbook(BookClip.of_pcmu(text[:8], text, clip.pcmu[: clip.speech_samples]) for text, clip in clips)


def heard(book: Clipbook, s16: bytes) -> str:
    return " ".join(word.text for word in recognise(book, s16))


def counts(said: str, got: str) -> tuple[int, int]:
    """Words lost, words too many."""
    one, two = said.split(), got.split()
    same = sum(block.size for block in SequenceMatcher(None, one, two, autojunk=False).get_matching_blocks())
    return len(one) - same, len(two) - same


@pytest.mark.parametrize("chunk_bytes", [7, 320, 1600, 4001, 1 << 20])
def test_chunking_does_not_matter(book: Clipbook, chunk_bytes: int) -> None:
    clip = book.clips[1] if chunk_bytes > 7 else book.clips[4]
    sound = silence(700) + clip.s16 + silence(300)
    listener = Listener(book)
    words = [word for at in range(0, len(sound), chunk_bytes) for word in listener.feed(sound[at : at + chunk_bytes])]
    words += listener.finish()
    assert " ".join(word.text for word in words) == clip.text
    for word, own in zip(words, clip.words, strict=True):
        assert word.start_ms == pytest.approx(700 + own.start_ms, abs=1)
        assert word.end_ms == pytest.approx(700 + own.end_ms, abs=1)


def test_clips_follow_each_other_with_or_without_a_pause(book: Clipbook) -> None:
    order = [book.clips[at] for at in (2, 1, 3, 0, 4, 1, 1)]
    said = " ".join(clip.text for clip in order)
    assert heard(book, b"".join(clip.s16 for clip in order)) == said
    assert heard(book, silence(400).join(clip.s16 for clip in order)) == said


def test_a_cut_off_clip_ends_with_its_last_whole_word(book: Clipbook) -> None:
    clip = book.clips[0]
    for no, word in enumerate(clip.words[:-1]):
        cut = clip.s16[: int(word.end_ms + 25) * 16]
        got = heard(book, silence(300) + cut + silence(500))
        assert got == " ".join(one.text for one in clip.words[: no + 1])


def test_a_word_that_was_not_received_is_not_heard(book: Clipbook) -> None:
    clip = book.clips[0]
    for no, word in enumerate(clip.words):
        low, high = int(word.start_ms) * 16, int(word.end_ms) * 16
        rest = " ".join(one.text for one in (*clip.words[:no], *clip.words[no + 1 :]))
        missing = silence(500) + clip.s16[:low] + bytes(high - low) + clip.s16[high:] + silence(500)
        assert heard(book, missing) == rest
        dropped = silence(500) + clip.s16[:low] + clip.s16[high:] + silence(500)
        assert counts(clip.text, heard(book, dropped)) == (1, 0), word.text


def test_lost_frames_cost_the_words_they_were_in(book: Clipbook) -> None:
    dice, lost, total, wrong = random.Random(5), 0, 0, 0
    for clip in book.clips * 4:
        frames = [clip.s16[at : at + FRAME] for at in range(0, len(clip.s16), FRAME)]
        gone = {at for at in range(len(frames)) if dice.random() < 0.02}
        sound = b"".join(frame for at, frame in enumerate(frames) if at not in gone)
        less, more = counts(clip.text, heard(book, silence(300) + sound + silence(300)))
        # The loss may hit two words, the next may begin while the place is looked up again.
        assert less <= 3 * len(gone)
        lost += less
        wrong += more
        total += len(clip.words)
    assert 0.05 < lost / total < 0.4
    # What is left of a word may be another clip's: the synthesiser does not say a text twice in quite the same way.
    assert wrong / total < 0.02


def test_the_line_may_code_soften_and_resample(book: Clipbook) -> None:
    for clip in book.clips:
        soft = (np.frombuffer(clip.s16, "<i2") * 0.3).astype("<i2").tobytes()
        assert heard(book, silence(333) + from_pcmu(to_pcmu(soft))) == clip.text
        wide = soxr.resample(np.frombuffer(silence(200) + clip.s16 + silence(200), "<i2") / 32768, 8000, 16000)
        # Half a sample of delay at 8 kHz.
        narrow = soxr.resample(np.concatenate([np.zeros(1), wide]), 16000, 8000)
        assert heard(book, (narrow * 32767).clip(-32768, 32767).astype("<i2").tobytes()) == clip.text


def test_noise_hides_words_only_when_it_is_loud(book: Clipbook) -> None:
    dice = np.random.default_rng(1)
    said = " ".join(clip.text for clip in book.clips)
    for db, most_lost, least_lost in ((10, 2, 0), (-6, 99, 20)):
        got = []
        for clip in book.clips:
            samples = np.frombuffer(silence(500) + clip.s16 + silence(500), "<i2").astype(np.float64)
            level = np.sqrt((np.frombuffer(clip.s16, "<i2").astype(np.float64) ** 2).mean()) * 10 ** (-db / 20)
            got.append(
                heard(book, (samples + dice.normal(0, level, samples.size)).clip(-32768, 32767).astype("<i2").tobytes())
            )
        lost, more = counts(said, " ".join(got))
        assert least_lost <= lost <= most_lost and more == 0


def test_what_is_in_no_clip_is_sound_without_words(book: Clipbook) -> None:
    other = pico_clip("Nobody wrote this sentence into any book.", pitch_percent=90)
    listener = Listener(book)
    assert listener.feed(silence(300) + from_pcmu(other.pcmu)) == []
    assert listener.voice_start_ms == pytest.approx(300, abs=40)
    assert listener.voice_end_ms == pytest.approx(300 + other.duration_ms, abs=120)
    assert listener.feed(silence(1000)) == [] and listener.voice_start_ms is None


def test_a_book_is_saved_loaded_and_divided_by_language(book: Clipbook, tmp_path: Path) -> None:
    line = pico_clip("Buenos días, quisiera una cita.", language="es-ES")
    spanish = BookClip.of_pcmu("es", line.text, line.pcmu[: line.speech_samples], language="es-ES")
    whole = Clipbook([*book.clips, spanish])
    whole.save(tmp_path / "book.json")
    again = Clipbook.load(tmp_path / "book.json")
    assert [clip.text for clip in again.clips] == [clip.text for clip in whole.clips]
    assert heard(again, spanish.s16) == spanish.text
    assert heard(again.for_language("es-MX"), spanish.s16) == spanish.text
    assert heard(again.for_language("en-GB"), spanish.s16) == ""
    assert heard(again.for_language("en-GB"), book.clips[0].s16) == book.clips[0].text


def test_every_length_of_a_book_can_be_searched() -> None:
    """The line's end falls on every place of the last block of spectra, and a piece may be short."""
    noise = np.random.default_rng(7).standard_normal(WINDOW).astype(np.float32)
    for size in range(WINDOW - 16, WINDOW + 1, 2):
        search = Search([noise[:size]])
        for piece in (noise[:size], noise[: size // 2]):
            assert (search.find(piece)[0].clip, search.find(piece)[0].at) == (0, 0)


def test_a_folder_of_recordings_is_a_book(tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "one.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(PICO_RATE_HZ)
        file.writeframes(pico_s16("Tuesday at nine."))
    (tmp_path / "one.txt").write_text("Tuesday at nine.\n")
    [clip] = Clipbook.load(tmp_path).clips
    assert (clip.name, clip.text) == ("one", "Tuesday at nine.")


def test_a_sentence_is_rendered_the_same_whatever_was_said_before() -> None:
    first = pico_s16(SAID[0])
    pico_s16(SAID[1], pitch_percent=130)
    assert pico_s16(SAID[0]) == first


def test_words_that_were_rendered_apart_have_exact_times(book: Clipbook) -> None:
    parts = [(word, from_pcmu(pico_clip(word).pcmu)) for word in ("seven", "eleven", "nine")]
    clip = BookClip.of_parts("digits", parts, gap_ms=80)
    assert clip.words[1].start_ms == pytest.approx(len(parts[0][1]) / 16 + 80)
    assert heard(Clipbook([clip]), clip.s16) == "seven eleven nine"
    with pytest.raises(ValueError, match="60 ms"):
        BookClip.of("none", "", silence(100))


@pytest.mark.parametrize("pause_ms", [0, 100])
def test_sentences_that_begin_with_the_same_sound_are_told_apart(pause_ms: int) -> None:
    """As a synthesised voice says them; the pause is long enough to be looked up by itself."""
    opening = pico_clip("Good morning to you all")
    head = from_pcmu(opening.pcmu[: opening.speech_samples]) + silence(pause_ms)
    texts = ("I have to cancel everything", "this is about the bill", "I had two questions")
    clips = [
        BookClip.of_pcmu(text, f"Good morning to you all {text}", to_pcmu(head + from_pcmu(pico_clip(text).pcmu)))
        for text in texts
    ]
    book = Clipbook(clips)
    for clip in book.clips:
        assert heard(book, silence(600) + clip.s16 + silence(600)) == clip.text
