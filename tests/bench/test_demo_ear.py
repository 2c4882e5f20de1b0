"""The caller who listens: what is said again, what is corrected, and how both are judged."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from bench.demo.ear import MAX_CORRECTIONS, Ear, Wish
from bench.demo.judge import judge_call
from bench.demo.script import PlannedCall, load_heldout
from bench.demo.talk import Segment, Talk
from bench.sim.caller import Say, ScriptedCaller, TurnRecord
from bench.sim.sound import FRAME_MS, SILENCE_B64, Clip
from bench.sim.twilio import Call
from tests.bench.stand_in import tone


def clip(text: str) -> Clip:
    return Clip.from_pcmu(tone(400), text=text, source="test")


DAY, NAME = ("day", ("Thursday",)), ("name", ("Helen Parker",))
ASK = Say(clip=clip("Thursday, for Helen Parker"), expect=("Is that right",), holds=(DAY, NAME))
AGAIN = Say(clip=clip("Thursday I said"), expect=ASK.expect, holds=ASK.holds)
NOT_THEN = Say(clip=clip("No, on Thursday"))
NOT_SO = Say(clip=clip("No, Helen Parker"))
WISHES = {"day": Wish(ways=DAY[1], correction=NOT_THEN), "name": Wish(ways=NAME[1], correction=NOT_SO)}


def answered(text: str, said_to_ms: float = 3400) -> Talk:
    return Talk(segments=[Segment("agent", text, text, int(said_to_ms) + 800, False)])


def record(say: Say) -> TurnRecord:
    return TurnRecord(say, said_from_ms=3000, said_to_ms=3400, reply_latency_ms=800, reply_heard_ms=4200)


def says(answer: str, say: Say = ASK) -> str | None:
    reaction = Ear(WISHES, {ASK: AGAIN}, lambda: answered(answer))([record(say)])
    return reaction.clip.text if reaction is not None and reaction.clip is not None else None


@pytest.mark.parametrize(
    ("answer", "reaction"),
    [
        ("Thursday, for Helen Parker. Is that right?", None),
        ("Tuesday, for Helen Parker. Is that right?", "No, on Thursday"),
        ("Thursday, for Helen. Is that right?", "No, Helen Parker"),
        ("Tuesday, for Alan. Is that right?", "No, on Thursday"),
        ("Which day would suit you?", "Thursday I said"),
        ("", "Thursday I said"),
    ],
)
def test_what_a_caller_makes_of_an_answer(answer: str, reaction: str | None) -> None:
    assert says(answer) == reaction


def test_a_turn_is_said_again_once() -> None:
    assert says("Which day would suit you?", AGAIN) is None


def test_a_turn_is_said_again_once_in_the_same_words_too() -> None:
    ear = Ear(WISHES, {ASK: ASK}, lambda: answered("Which day would suit you?"))
    assert [ear([record(ASK)]), ear([record(ASK)])] == [ASK, None]


def test_a_value_is_corrected_so_often_and_then_let_be() -> None:
    ear = Ear(WISHES, {}, lambda: answered("Tuesday, for Helen Parker. Is that right?"))
    said = [ear([record(ASK)]) for _ in range(MAX_CORRECTIONS + 1)]
    assert [one is not None for one in said] == [True] * MAX_CORRECTIONS + [False]


def test_a_wrong_read_back_is_a_wrong_turn_and_so_is_a_correction_in_vain() -> None:
    ear = Ear(WISHES, {}, lambda: answered("Tuesday, for Helen Parker. Is that right?"))
    correction = ear([record(ASK)])
    assert correction is not None
    caller = ScriptedCaller([ASK])
    caller.first_heard_ms = 100.0
    later = TurnRecord(correction, said_from_ms=9000, said_to_ms=9400, reply_latency_ms=800, reply_heard_ms=10_200)
    caller.records += [record(ASK), later]
    for mended, rights in (("Thursday", [False, True]), ("Tuesday", [False, False])):
        talk = answered("Tuesday, for Helen Parker. Is that right?")
        talk.segments += answered(f"{mended}, for Helen Parker. Is that right?", 9400).segments
        call = Call("CA1", "+15551000001", "+15550100", status="completed", ended_by="caller")
        verdict = judge_call(PlannedCall("one", "one", (ASK,)), call, caller, talk)
        assert [turn.is_right for turn in verdict.turns] == rights
        assert any("wrong day in the answer" in one for one in verdict.all_problems)


def test_the_caller_on_the_line_says_what_the_ear_wants_before_the_next_turn_and_before_hanging_up() -> None:
    loud = tone(20)
    pending = {1: NOT_THEN, 3: NOT_SO}
    caller = ScriptedCaller([ASK, ASK], quiet_ms=100, react=lambda records: pending.pop(len(records), None))
    caller.on_start(SimpleNamespace(end_utterance=lambda: None), 0)  # type: ignore[arg-type]
    now_ns = 0
    speaking = 0
    for _ in range(2000):
        now_ns += FRAME_MS * 1_000_000
        # The agent talks for 200 ms whenever the caller has stopped.
        heard = loud if speaking < 10 else None
        out = caller.step(heard, now_ns)
        speaking = speaking + 1 if out == SILENCE_B64 else 0
        if out is None:
            break
    assert [one.say for one in caller.records] == [ASK, NOT_THEN, ASK, NOT_SO]


CALLERS = """
calls:
  - name: one
    wants: {day: [Thursday]}
    corrections: {day: "No, on Thursday."}
    turns:
      - {say: "Thursday please.", expect: ["Is that right"], again: "Thursday.", holds: [day]}
      - {say: "Yes.", expect: ["booked"], again: "Yes please."}
"""


def test_a_file_of_callers_who_listen(tmp_path: Path) -> None:
    path = tmp_path / "callers.yaml"
    path.write_text(CALLERS)
    (call,) = load_heldout(None, path)
    first, second = call.turns
    assert first.holds == (DAY,) and second.holds == ()
    again = call.again[first]
    assert again.clip is not None and again.clip.text == "Thursday."
    assert (again.expect, again.holds) == (first.expect, first.holds)
    correction = call.wishes["day"].correction.clip
    assert correction is not None and correction.text == "No, on Thursday."
