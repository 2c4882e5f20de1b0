"""The demo's own judgement: words, keywords, turns, voices."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import wave
from pathlib import Path

import pytest

from bench.demo.flite import Flite, find_flite
from bench.demo.judge import judge_call
from bench.demo.recording import Source
from bench.demo.score import WordErrors, has_keyword, normalise, word_errors
from bench.demo.script import PlannedCall, load_calls, load_heldout
from bench.demo.talk import Segment, Talk
from bench.sim.caller import Say, ScriptedCaller, TurnRecord, When
from bench.sim.sound import Clip, from_pcmu
from bench.sim.twilio import Call
from tests.bench.stand_in import tone


@pytest.mark.parametrize(
    ("said", "understood", "errors", "words"),
    [
        ("Hello, World!", "hello world", 0, 2),
        ("at ten a.m.", "At 10 am", 0, 3),
        ("twenty one", "21", 0, 2),
        ("Goodbye", "Good-bye.", 0, 1),
        ("I'm sorry", "I am sorry", 0, 3),
        ("a b c d", "a x d e", 3, 4),
        ("", "noise", 1, 0),
        ("nothing heard", "", 2, 2),
    ],
)
def test_word_errors(said: str, understood: str, errors: int, words: int) -> None:
    assert word_errors(said, understood) == WordErrors(errors, words)


def test_numbers_are_words() -> None:
    assert normalise("0 15 40 99 140 250 3000") == (
        "zero fifteen forty ninety nine one hundred forty two hundred fifty three zero zero zero".split()
    )


def test_a_keyword_is_whole_words() -> None:
    assert has_keyword("We are open from nine to six.", ("nine to six",))
    assert has_keyword("whitening 250.", ("250",))
    assert not has_keyword("Someday soon", ("day",))
    assert has_keyword("anything", ())


CLIP = Clip.from_pcmu(tone(400), text="how are you", source="test")


def caller_with(*records: TurnRecord) -> ScriptedCaller:
    caller = ScriptedCaller([record.say for record in records])
    caller.records += records
    caller.first_heard_ms = 100.0
    return caller


def segment(speaker: str, text: str, start_ms: int) -> Segment:
    return Segment(speaker, text, text, start_ms, False)


GOOD = TurnRecord(
    Say(clip=CLIP, expect=("fine",)), said_from_ms=3000, said_to_ms=3400, reply_latency_ms=800, reply_heard_ms=4200
)
TALK = Talk(
    segments=[
        segment("agent", "Hello.", 0),
        segment("caller", "How are you?", 2950),
        segment("agent", "I am fine.", 4200),
    ]
)
PLANNED = PlannedCall("one", "one", (GOOD.say,))


def ended(by: str = "caller") -> Call:
    return Call("CA1", "+15551000001", "+15550100", status="completed", ended_by=by)


def test_a_good_turn_is_good() -> None:
    verdict = judge_call(PLANNED, ended(), caller_with(GOOD), TALK)
    assert verdict.all_problems == []
    assert verdict.turns[0].is_right
    assert verdict.words == WordErrors(0, 3)


@pytest.mark.parametrize(
    ("record", "talk", "by", "problem"),
    [
        (dataclasses.replace(GOOD, reply_heard_ms=None), TALK, "caller", "no answer was heard"),
        (dataclasses.replace(GOOD, reply_heard_ms=9000), TALK, "caller", "was heard after 5600 ms"),
        (dataclasses.replace(GOOD, say=Say(clip=CLIP, expect=("bad",))), TALK, "caller", "expected 'bad'"),
        (GOOD, Talk(segments=TALK.segments[:1] + TALK.segments[2:]), "caller", "nothing was understood"),
        (GOOD, TALK, "rest", "ended by rest"),
        (dataclasses.replace(GOOD, say=Say(clip=CLIP, when=When.BARGE_IN)), TALK, "caller", "not stopped in time"),
        (GOOD, Talk(segments=TALK.segments, failures=["call failed"]), "caller", "call failed"),
    ],
)
def test_what_went_wrong_is_said(record: TurnRecord, talk: Talk, by: str, problem: str) -> None:
    verdict = judge_call(PLANNED, ended(by), caller_with(record), talk)
    assert any(problem in one for one in verdict.all_problems), verdict.all_problems


def test_an_answer_belongs_to_its_own_turn() -> None:
    second = dataclasses.replace(GOOD, said_from_ms=9000, said_to_ms=9400, reply_heard_ms=10_200)
    late = Talk(segments=[*TALK.segments, segment("caller", "How are you", 9000), segment("agent", "Well.", 10_200)])
    verdict = judge_call(PLANNED, ended(), caller_with(GOOD, second), late)
    assert [turn.is_right for turn in verdict.turns] == [True, False]


@pytest.mark.slow
def test_the_scripts_make_clips_and_the_readings_are_there() -> None:
    folder = Path(str(importlib.metadata.distribution("moonshine-voice").locate_file("moonshine_voice/assets")))
    calls = load_calls(Source("moonshine-voice", "human: test", folder))
    assert [call.name for call in calls] == ["conversation", "human", "silent", "hang-up"]
    assert any(turn.when is When.BARGE_IN for turn in calls[0].turns)
    assert calls[1].sources == ("human: test",)
    assert calls[1].ends_by == "caller"
    heldout = load_heldout()
    assert sum(len(call.turns) for call in heldout) >= 20
    assert all("SVOX Pico" in source for call in load_heldout(None) for source in call.sources)
    said = {turn.clip.text for call in calls for turn in call.turns if turn.clip}
    assert not said & {turn.clip.text for call in heldout for turn in call.turns if turn.clip}


CALLERS = """
calls:
  - {name: one, voice: slt, turns: [{say: "Good morning.", expect: [a]}]}
  - {name: two, turns: [{say: "Good morning.", expect: [a]}]}
"""


def test_a_caller_has_the_voice_that_the_file_names(tmp_path: Path) -> None:
    """A program in Flite's place, which writes a tone: where there is one, only Pico's callers stay with Pico."""
    wav = tmp_path / "tone.wav"
    with wave.open(str(wav), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(from_pcmu(tone(440, 600)))
    program = tmp_path / "flite"
    program.write_text(f'#!/bin/sh\ntest "$2" = slt && cp {wav} "$6"\n')
    program.chmod(0o755)
    path = tmp_path / "callers.yaml"
    path.write_text(CALLERS)
    flite = Flite(program, "")
    assert [call.sources for call in load_heldout(flite, path)] == [
        ("synthesised: Flite slt",),
        ("synthesised: SVOX Pico en-GB",),
    ]
    assert all(call.sources == ("synthesised: SVOX Pico en-GB",) for call in load_heldout(None, path))
    path.write_text(CALLERS.replace("slt", "alto"))
    with pytest.raises(ValueError, match="one: voice: expected one of pico, rms, slt, awb; got 'alto'"):
        load_heldout(flite, path)
    with pytest.raises(ValueError, match="Flite rendered nothing"):
        flite.clip("Good morning.", "rms")


def test_without_apt_there_is_no_flite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found, why = find_flite(tmp_path)
    assert found is None and "no apt-get" in why
