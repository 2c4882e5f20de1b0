"""The captured situations of tests/data/captures: decided as they must be, and to the hash that stands beside each.

A failure says which expectation is not met and what was decided instead. A decision that was changed on purpose changes
hashes: `python -m bench captures` makes the captures anew; the expectations stay, or change with the product.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from audio_native.tape import TAPE_MEDIA
from bench.captures.situation import SITUATIONS
from server.agent.settings import AgentSettings
from server.call.capture_file import FRAME_BYTES, HEAD, MAGIC, VERSION, Head, frame, read
from server.call.recompute import decided, recompute
from server.call.rehear import HeardAgain
from server.call.replay import lines, replay_capture, settings_of
from server.dialogue import conversation, floor, hearing
from server.dialogue import event as ev
from server.dialogue.utterance import Utterances
from server.turn import machine
from server.turn.machine import TurnEvent, TurnState
from tests.call.captured import inflated, packed
from tests.call.expectation import Expectation, told

FOLDER = Path(__file__).parent.parent / "data" / "captures"
CAPTURES = sorted(FOLDER.glob("*.capture"))
# Of a version that is no longer written.
OLD = FOLDER / "version_1" / "keys_in_speech.capture"
MAX_BYTES = 50 * 1024
# `make replays` sets 1000.
REPLAYS = int(os.environ.get("REPLAYS", "50"))

every_capture = pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.stem)


def expectation(path: Path) -> Expectation:
    return Expectation.load(path.with_suffix(".yaml"))


def head(path: Path) -> Head:
    first = next(read(path))
    assert isinstance(first, Head)
    return first


def test_each_situation_has_a_capture_and_an_expectation() -> None:
    names = sorted(one.name for one in SITUATIONS)
    assert [path.stem for path in CAPTURES] == names
    assert sorted(path.stem for path in FOLDER.glob("*.yaml")) == names


@every_capture
def test_what_must_be_decided_is_decided(path: Path) -> None:
    log = decided(path)
    unmet = expectation(path).unmet(log)
    assert not unmet, "\n".join([*unmet, "decided now:", told(log)])


@every_capture
def test_it_is_decided_and_heard_as_recorded_and_to_one_hash(path: Path) -> None:
    result = replay_capture(path)
    assert result.is_same, "\n".join(lines(result))
    assert not result.is_cut and result.heard >= 3
    assert result.decided_hash == expectation(path).hash, "decided otherwise than when the expectation was written"
    assert len(decided(path)) == result.steps


def test_a_capture_of_the_first_version_is_decided_as_it_was() -> None:
    """Its tape stands among its records, its head does not say what was noted later, and its keys are all there."""
    blocks = OLD.read_bytes()[len(MAGIC) :]
    while blocks:
        length = int.from_bytes(blocks[:4], "little")
        assert length < 1 << 31, "a block of tape, as the present version has them"
        blocks = blocks[8 + length :]
    assert b'"capture":1,' in inflated(OLD)[:100] and head(OLD).may_reorder and not head(OLD).masks_keys
    result = replay_capture(OLD)
    assert result.is_same and not result.is_masked, "\n".join(lines(result))
    assert result.decided_hash == expectation(OLD).hash
    assert not expectation(OLD).unmet(decided(OLD))


def test_the_others_are_as_they_are_written_now() -> None:
    for path in CAPTURES:
        assert b'"capture":%d,' % VERSION in inflated(path)[:100], path.stem


@pytest.mark.slow
@pytest.mark.timeout(60 + REPLAYS // 2)
@every_capture
def test_many_replays_give_one_hash(path: Path) -> None:
    assert {replay_capture(path).decided_hash for _ in range(REPLAYS)} == {expectation(path).hash}


@every_capture
def test_captures_are_small_and_hold_their_audio(path: Path) -> None:
    assert path.stat().st_size <= MAX_BYTES
    assert head(path).has_audio and head(path).scored


# ── the check itself: a broken product fails it ───────────────────────────────────────────────────────────────────

Break = Callable[[pytest.MonkeyPatch], None]


def set_otherwise(**changes: dict[str, Any]) -> Callable[[Path], AgentSettings]:
    def against(path: Path) -> AgentSettings:
        settings = settings_of(head(path))
        parts = {part: dataclasses.replace(getattr(settings, part), **values) for part, values in changes.items()}
        return dataclasses.replace(settings, **parts)

    return against


def no_barge_in(patch: pytest.MonkeyPatch) -> None:
    row = machine.TRANSITIONS[TurnState.AGENT_SPEAKING]
    patch.setitem(row, TurnEvent.SPEECH_CONFIRMED, (TurnState.AGENT_SPEAKING, ()))


def deaf_to_order(patch: pytest.MonkeyPatch) -> None:
    """Each message is taken for the next one."""
    heard: dict[int, int] = {}
    usual = HeardAgain.entry

    def entry(self: HeardAgain, one: tuple[Any, ...]) -> None:
        if one[0] == TAPE_MEDIA:
            number = heard[id(self)] = heard.get(id(self), 0) + 1
            one = (one[0], one[1], number, number * 20, *one[4:])
        usual(self, one)

    patch.setattr(HeardAgain, "entry", entry)


def deaf_to_bursts(patch: pytest.MonkeyPatch) -> None:
    """A message that comes less than 1 ms after another one is dropped."""
    last_ns = 0
    usual = HeardAgain.entry

    def entry(self: HeardAgain, one: tuple[Any, ...]) -> None:
        nonlocal last_ns
        if one[0] != TAPE_MEDIA or one[1] - last_ns > 1_000_000:
            usual(self, one)
        last_ns = one[1] if one[0] == TAPE_MEDIA else last_ns

    patch.setattr(HeardAgain, "entry", entry)


def first_words_stand(patch: pytest.MonkeyPatch) -> None:
    usual = Utterances.final

    def final(self: Utterances, number: int, text: str, confidence: float | None) -> bool:
        before = next((one.text for one in self._items if one.number == number), "")
        return usual(self, number, before or text, confidence)

    patch.setattr(Utterances, "final", final)


def answers_interims(patch: pytest.MonkeyPatch) -> None:
    """The turn is taken at its end, without its final."""
    patch.setattr(Utterances, "is_settled", lambda self: True)


def only_marks_count(patch: pytest.MonkeyPatch) -> None:
    usual = conversation._STEPS[ev.PlayoutFinished]

    def on_playout_finished(c: Any, event: ev.PlayoutFinished, now_ns: int) -> None:
        if event.by_mark:
            usual(c, event, now_ns)

    patch.setitem(conversation._STEPS, ev.PlayoutFinished, on_playout_finished)


def deaf_while_thinking(patch: pytest.MonkeyPatch) -> None:
    row = machine.TRANSITIONS[TurnState.THINKING]
    patch.setitem(row, TurnEvent.SPEECH_CONFIRMED, (TurnState.THINKING, ()))


def forgets_the_rest(patch: pytest.MonkeyPatch) -> None:
    usual = conversation._STEPS[ev.StreamResumed]

    def on_stream_resumed(c: Any, event: ev.StreamResumed, now_ns: int) -> None:
        c.unheard = ""
        usual(c, event, now_ns)

    patch.setitem(conversation._STEPS, ev.StreamResumed, on_stream_resumed)


def patient_with_models(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(floor, "MAX_FAILURES", 4)


def hasty_keys(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(hearing, "DIGIT_GAP_MS", 300)


def goes_on_alone(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(conversation, "stop_speaking", lambda c: None)


@pytest.mark.parametrize(
    ("name", "broken", "says"),
    [
        ("barge_in_first_word", no_barge_in, "what is buffered is dropped in the step that confirms"),
        ("barge_in_sentence", no_barge_in, "what is buffered is dropped in the step that confirms"),
        ("final_against_interim", first_words_stand, "the final's words are on record"),
        ("final_against_interim", answers_interims, "no answer before the final"),
        ("duplicate_reordered", deaf_to_order, "the first question is as long as it was said"),
        ("burst_after_stall", deaf_to_bursts, "the sentence is as long as it was said"),
        ("lost_mark", only_marks_count, "it counts as heard, whole, with that"),
        ("corrected_in_reply", no_barge_in, "what is buffered is dropped in the step that confirms"),
        ("goes_on_unanswered", deaf_while_thinking, "the reply under way is cancelled in the step that confirms"),
        ("stream_broken", forgets_the_rest, "the rest is said with the second stream"),
        ("handed_over", patient_with_models, "the carrier is told once"),
        ("keys_in_speech", hasty_keys, "keys alone are not answered while the caller speaks"),
        ("hang_up_in_tool", goes_on_alone, "the reply is cancelled with the caller's end"),
    ],
)
def test_a_broken_product_fails_the_expectation(
    name: str, broken: Break, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = FOLDER / f"{name}.capture"
    assert not expectation(path).unmet(decided(path))
    broken(monkeypatch)
    unmet = expectation(path).unmet(decided(path))
    assert any(f"{name}: {says}" in one for one in unmet), unmet


@pytest.mark.parametrize(
    ("name", "against", "says"),
    [
        ("barge_in_first_word", set_otherwise(interruption={"allowed": False}), "what is buffered is dropped"),
        ("barge_in_sentence", set_otherwise(interruption={"min_speech_ms": 2000}), "what is buffered is dropped"),
        ("cough", set_otherwise(turn={"vad": "webrtc"}), "no cough is taken for speech"),
        ("cough", set_otherwise(turn={"vad": "webrtc"}), "a cough does not stop the agent"),
        ("backchannel", set_otherwise(interruption={"min_speech_ms": 200}), "the agent is not stopped"),
        ("burst_after_stall", set_otherwise(turn={"min_delay_ms": 900}), "the turn ends 500 ms after the last sample"),
        ("model_stall", set_otherwise(limits={"fillers": ()}), "a sign of life"),
        ("handed_over", set_otherwise(limits={"fallback_number": ""}), "the carrier is told once"),
        ("model_stall", set_otherwise(limits={"fillers": (), "apology_after_ms": 9000}), "the answer is given up"),
    ],
)
def test_other_settings_fail_the_expectation(name: str, against: Callable[[Path], AgentSettings], says: str) -> None:
    path = FOLDER / f"{name}.capture"
    unmet = expectation(path).unmet(decided(path, against(path)))
    assert any(f"{name}: {says}" in one for one in unmet), unmet


def test_a_call_that_the_detector_heard_is_scored_for_the_first_time(tmp_path: Path) -> None:
    """What would the network have made of that cough? As `talkspurt replay --recompute --against` asks."""
    path, data, records, at = FOLDER / "cough.capture", inflated(FOLDER / "cough.capture"), b"", 0
    while at < len(data):
        end = at + FRAME_BYTES + int.from_bytes(data[at + 1 : at + FRAME_BYTES], "little")
        body = data[at + FRAME_BYTES : end]
        if data[at] == HEAD:
            body = body.replace(b'"scored":true', b'"scored":false').replace(b'"vad":"silero"', b'"vad":"webrtc"')
        records, at = records + frame(data[at], body), end
    unscored = tmp_path / "cough.capture"
    unscored.write_bytes(packed(records))
    assert not head(unscored).scored
    alone = recompute(unscored)
    assert alone.scores is not None and alone.scores.first == 0 and not alone.is_same
    again = recompute(unscored, settings_of(head(path)))
    assert again.is_same, again.differences
    assert again.scores is not None and again.scores.first > 500 and again.scores.windows == 0
    assert "windows scored for the first time" in "\n".join(lines(again))


def test_a_broken_product_is_another_hash_and_says_where(monkeypatch: pytest.MonkeyPatch) -> None:
    path = FOLDER / "barge_in_sentence.capture"
    no_barge_in(monkeypatch)
    result = replay_capture(path)
    assert result.decided_hash != expectation(path).hash
    text = "\n".join(lines(result))
    assert 'SpeechConfirmed: recorded CancelReply {"reply_no":1}; ClearPlayout {}' in text
    assert "now      nothing" in text


def test_an_expectation_that_expects_nothing_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    for wrong in ("what: ClearPlayout", "times: 0, what: ClearPlayuot", "times: 0, what: HangUp, untill: HangUp"):
        file.write_text(f"hash: none\ndecided: [{{says: x, {wrong}}}]")
        with pytest.raises(ValueError, match=r"x\.yaml: x"):
            Expectation.load(file)
