"""The parts of the corpus that can be checked without its packages, and its callers on a line without a server."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest

from bench.sim.clipbook import Clipbook
from bench.sim.recognise import recognise
from bench.sim.sound import FRAME_SAMPLES, SILENCE, from_pcmu, to_pcmu
from bench.sim.voice import PICO_RATE_HZ, pico_s16
from bench.turns import corpus, hearing, plan, surroundings
from bench.turns.call_log import CallLog, Surroundings
from bench.turns.caller import LONGEST_MS, PATIENCE_MS, TurnCaller
from bench.turns.corpus import Corpus, Sound, joined, load, pause_ms, save, texts
from bench.turns.run import agent, setting
from bench.turns.speaker import SPEECH_RMS, Speaker, half_of, levelled, speech_rms

TUNING, REPORTING = "espeak en-us+m7", "pico es-ES 70"
# None begins like another: a recogniser that knows them by their sound must not have to choose.
SENTENCES = (
    ("I would like", "a table please"), ("Could you tell me", "how much it costs"), ("My name is", "Peter Miller"),
    ("We called yesterday", "but nobody answered"), ("Do you open", "on Sunday morning"), ("It started", "last week"),
    ("Please send the bill", "to my office"), ("The number is four two", "seven nine"),
)  # fmt: skip


def said(text: str) -> np.ndarray:
    return levelled(pico_s16(text, language="en-GB"), PICO_RATE_HZ)


@pytest.fixture(scope="module")
def small() -> Corpus:
    """Two speakers, one a half, in both languages each."""
    dice = np.random.default_rng(1)
    turns, sounds = [], []
    for name in (TUNING, REPORTING):
        for language in ("en", "es"):
            who = Speaker(name, language, "Pico", said)
            for n in range(2):
                parts = [(text, said(text)) for text in SENTENCES[len(turns)]]
                turns.append(joined(f"{name} {language} {n}", who, parts, dice))
            for kind, text in (("cough", ""), ("backchannel", "yes"), ("interruption", "wait a moment please")):
                made = said(text) if text else surroundings.cough(dice).astype(np.int16)
                sounds.append(Sound(f"{name} {language} {kind}", kind, name, language, text, made))
    noise = surroundings.at_level(dice.normal(0, 1, 80_000))
    names = ("babble en", "babble es", "office", "crowd", "city")
    beds = dict.fromkeys(names, noise)
    tail = dice.normal(0, 1, 960) * np.exp(-np.arange(960) / 200)
    tails = dict.fromkeys(("bathroom", "hall"), tail / np.sqrt((tail**2).sum()))
    return Corpus("digest", {TUNING: "Pico", REPORTING: "Pico"}, tuple(turns), tuple(sounds), beds, tails)


@pytest.fixture(scope="module")
def dealt(small: Corpus) -> tuple[list[plan.Plan], Clipbook]:
    """Each line once in each language, and what is said on them."""
    made, book = plan.plans(small, "tuning", 2 * len(plan.LINES))
    assert len({clip.name for clip in book}) == len(book)
    return made, Clipbook(book)


def test_pauses_have_the_distribution_that_is_asked_for() -> None:
    dice = np.random.default_rng(3)
    drawn = [pause_ms(dice) for _ in range(4000)]
    assert np.percentile(drawn, 50) == pytest.approx(400, rel=0.05)
    assert np.percentile(drawn, 90) == pytest.approx(1200, rel=0.07)


def test_other_figures_make_another_corpus(monkeypatch: pytest.MonkeyPatch) -> None:
    before = corpus.recipe()
    monkeypatch.setattr(corpus, "TURNS_A_SPEAKER", corpus.TURNS_A_SPEAKER + 1)
    assert corpus.recipe() != before


def test_a_turn_is_exact_to_the_sample(small: Corpus) -> None:
    turn = small.turns[0]
    first, second = turn.phrases
    assert second.end == turn.samples.size
    assert not turn.samples[first.end : second.begin].any()
    assert turn.samples[first.end - 1] and turn.samples[second.begin]
    assert turn.pauses_ms == ((second.begin - first.end) / 8,)
    assert speech_rms(turn.samples[: first.end].astype(float)) == pytest.approx(SPEECH_RMS, rel=0.02)


def test_speakers_are_wholly_in_one_half(small: Corpus) -> None:
    assert (half_of(TUNING), half_of(REPORTING)) == ("tuning", "reporting")
    for half in ("tuning", "reporting"):
        made, _ = plan.plans(small, half, 6)
        assert {half_of(one.where.speaker) for one in made} == {half}


def test_a_corpus_comes_back_as_it_was(small: Corpus, tmp_path: Path) -> None:
    save(small, tmp_path / "one.npz")
    save(small, tmp_path / "two.npz")
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    back = load(tmp_path / "one.npz")
    assert back.turns == small.turns
    assert back.sounds == small.sounds
    assert all(np.array_equal(a.samples, b.samples) for a, b in zip(back.turns, small.turns, strict=True))
    assert np.allclose(back.beds["office"], small.beds["office"], rtol=1e-6)
    assert len(back.digest) == 16


def test_plans_repeat_and_deal_out_every_line(small: Corpus, dealt: tuple[list[plan.Plan], Clipbook]) -> None:
    made, _ = dealt
    again, _ = plan.plans(small, "tuning", 4)
    for language in ("en", "es"):
        dealt = [(one.where.noise.split()[0] if one.where.noise else "", one.where.snr_db, one.where.place)
                 for one in made if one.where.language == language]  # fmt: skip
        assert sorted(dealt, key=str) == sorted(plan.LINES, key=str)
    for one, other in zip(made, again, strict=False):
        assert [step.turn.name for step in one.steps] == [step.turn.name for step in other.steps]
    kinds = {step.event.kind if step.event else None for one in made for step in one.steps}
    assert kinds == set(plan.EVENTS)


def test_noise_stands_as_far_below_speech_as_it_should(dealt: tuple[list[plan.Plan], Clipbook]) -> None:
    for one in dealt[0]:
        if one.bed is None:
            continue
        snr_db = 20 * np.log10(SPEECH_RMS / np.sqrt((one.bed**2).mean()))
        assert snr_db == pytest.approx(one.where.snr_db, abs=0.1)


def test_a_simulated_recogniser_hears_turns_in_rooms_and_noise(dealt: tuple[list[plan.Plan], Clipbook]) -> None:
    made, known = dealt
    for place, noise in (("speakerphone", ""), ("handset", "babble")):
        one = next(one for one in made if one.where.place == place and one.where.noise.startswith(noise))
        line = np.concatenate([np.zeros(1600), one.steps[0].turn.line, np.zeros(4800)])
        if one.bed is not None:
            line = line + np.resize(one.bed, line.size)
        words = recognise(known, np.clip(line, -32768, 32767).astype("<i2").tobytes())
        wanted = next(clip for clip in known.clips if clip.name == one.steps[0].turn.name)
        assert " ".join(word.text for word in words) == wanted.text, place


def test_echo_comes_back_late_and_quiet(small: Corpus) -> None:
    place = surroundings.PLACES["speakerphone"]
    echo = surroundings.Echo(place, dict(small.tails))
    click = np.zeros(FRAME_SAMPLES)
    click[0] = 1000.0
    line = np.concatenate([echo.through(click if n == 0 else np.zeros(FRAME_SAMPLES)) for n in range(20)])
    at = int(np.argmax(np.abs(line)))
    assert at == place.echo_ms * 8
    assert 20 * np.log10(abs(line[at]) / 1000) == pytest.approx(place.echo_db, abs=0.5)
    assert not line[:at].any()
    assert np.abs(line[at + 40 : at + 900]).max() > 0  # the room goes on


class Line:
    def send_dtmf(self, digit: str) -> None:
        """Nobody presses keys here."""

    def end_utterance(self) -> None:
        """Nobody counts underruns here."""


def run(caller: TurnCaller, played: list[bytes | None]) -> list[bytes]:
    """The frames that the caller sends while `played` is heard, 20 ms each from 20 ms on."""
    caller.on_start(Line(), 0)
    sent = []
    for no, heard in enumerate(played):
        payload = caller.step(heard, (no + 1) * 20_000_000)
        if payload is None:
            break
        sent.append(base64.b64decode(payload))
    caller.on_end(len(sent) * 20_000_000)
    return sent


def test_a_caller_says_what_it_logs_when_it_logs_it(small: Corpus) -> None:
    made = next(one for one in plan.plans(small, "tuning", 2)[0] if not one.where.noise)
    caller = TurnCaller(made, dict(small.tails), 5000.0)
    loud = to_pcmu(np.full(FRAME_SAMPLES, 3000, "<i2").tobytes())
    # A greeting of a second, a turn without an answer until the patience is over, a second turn.
    sent = run(caller, [loud] * 50 + [None] * ((PATIENCE_MS + 12_000) // 20))
    line = np.abs(np.frombuffer(from_pcmu(b"".join(sent)), "<i2").astype(int))
    audible = np.flatnonzero(line >= 150) / 8
    first, second = caller.log.turns[:2]
    assert audible[0] == pytest.approx(first.begin_ms, abs=1)
    assert audible[audible < second.begin_ms].max() == pytest.approx(first.end_ms, abs=1)
    since, until = first.pauses[0]
    inside = audible[(audible > since + 1) & (audible < until - 1)]
    assert not inside.size
    assert second.begin_ms - first.end_ms == pytest.approx(PATIENCE_MS, abs=40)


def test_a_caller_makes_its_sound_in_the_answer_and_waits_for_the_rest(small: Corpus) -> None:
    made = next(one for one in plan.plans(small, "tuning", 8)[0] if not one.where.noise)
    step = next(one for one in made.steps if one.event is not None and one.event.kind == "cough")
    caller = TurnCaller(plan.Plan(made.where, None, (step, step)), dict(small.tails), 5000.0)
    loud = to_pcmu(np.full(FRAME_SAMPLES, 3000, "<i2").tobytes())
    turn_frames = -(-step.turn.speech_samples // FRAME_SAMPLES)
    greeting = [loud] * 50 + [None] * (50 + int(step.think_ms // 20))
    run(caller, [*greeting, *[None] * (turn_frames + 30), *[loud] * 200, *[None] * 500])
    assert step.event is not None
    cough = caller.log.overlaps[0]
    began = caller.log.turns[0].end_ms + 600
    assert cough.begin_ms - began == pytest.approx(step.event.after_ms, abs=60)
    assert cough.end_ms - cough.begin_ms == pytest.approx(step.event.sound.speech_samples / 8)
    # The agent fell silent after 4 s; who coughed waits longer than who did not.
    assert len(caller.log.turns) == 2
    assert caller.log.turns[1].begin_ms - (began + 4000) == pytest.approx(4000, abs=80)


def test_who_interrupts_waits_for_an_answer(small: Corpus) -> None:
    made = next(one for one in plan.plans(small, "tuning", 8)[0] if not one.where.noise)
    step = next(one for one in made.steps if one.event is not None and one.event.kind == "interruption")
    caller = TurnCaller(plan.Plan(made.where, None, (step, step)), dict(small.tails), 5000.0)
    loud = to_pcmu(np.full(FRAME_SAMPLES, 3000, "<i2").tobytes())
    turn_frames = -(-step.turn.speech_samples // FRAME_SAMPLES)
    greeting = [loud] * 50 + [None] * (50 + int(step.think_ms // 20))
    assert step.event is not None
    # The agent falls silent as soon as it is interrupted, and answers nothing.
    cut = [loud] * (int(step.event.after_ms // 20) + 8)
    run(caller, [*greeting, *[None] * (turn_frames + 30), *cut, *[None] * 700])
    assert caller.log.overlaps[0].kind == "interruption"
    assert caller.log.turns[1].begin_ms - caller.log.overlaps[0].end_ms == pytest.approx(PATIENCE_MS, abs=40)


def test_an_agent_without_an_end_is_talked_over(small: Corpus) -> None:
    made = next(one for one in plan.plans(small, "tuning", 2)[0] if not one.where.noise)
    caller = TurnCaller(made, dict(small.tails), 5000.0)
    loud = to_pcmu(np.full(FRAME_SAMPLES, 3000, "<i2").tobytes())
    run(caller, [loud] * ((LONGEST_MS + 6000) // 20))
    assert caller.log.turns[0].begin_ms == pytest.approx(LONGEST_MS, abs=40)


def test_openings_and_speech_are_found_in_what_was_heard() -> None:
    told = texts()["en"]["agent"]
    opener = hearing.said_by_agent(told["opener"], told["voice"])
    whole = hearing.said_by_agent(f"{told['opener']} {told['answers'][0]}", told["voice"])
    other = hearing.said_by_agent(told["opening"], told["voice"])
    gap = np.zeros(16_000)
    line = np.concatenate([other, gap, whole, gap, whole, gap])
    frames = to_pcmu(line.astype("<i2").tobytes())
    heard = [frames[at : at + FRAME_SAMPLES] for at in range(0, len(frames), FRAME_SAMPLES)]
    log = CallLog(Surroundings(language="en", speaker="anybody"), 5000.0)
    hearing.note(log, heard, 100.0, opener)
    wanted = [other.size + gap.size, other.size + 2 * gap.size + whole.size]
    assert log.openings == pytest.approx([100 + at / 8 for at in wanted], abs=2)
    assert log.agent[0][0] == pytest.approx(100, abs=20)
    assert log.agent[-1][1] == pytest.approx(100 + (line.size - gap.size) / 8, abs=20)


def test_agents_say_what_the_score_expects_of_them() -> None:
    made = agent("es", dict([setting("turn.min_delay_ms=400"), setting("limits.fillers=[ya]")]))
    assert made.settings["turn"] == {"min_delay_ms": 400}
    assert made.settings["limits"]["fillers"] == ["ya"]
    assert made.settings["limits"]["idle_timeout_ms"] == 60_000
    lines = [line for line in made.settings["prompt"].splitlines() if line.startswith("- ")]
    assert len(lines) == len(texts()["es"]["agent"]["answers"])
    assert all(line.startswith(f"- {texts()['es']['agent']['opener']} ") for line in lines)
    assert made.answer_ms > 4000 > made.opener.size / 8 > 500


def test_silence_is_silence() -> None:
    assert hearing.audible(np.frombuffer(from_pcmu(SILENCE * 10), "<i2").astype(float)) == []
