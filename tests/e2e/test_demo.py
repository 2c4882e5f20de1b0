"""The demo's calls against the whole server: one caller who is answered, one who hangs up in mid-sentence."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest
import uvloop

from bench.demo.run import TO_NUMBER, run
from bench.demo.script import PlannedCall
from bench.sim.caller import Say
from bench.sim.voice import pico_clip

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@pytest.mark.timeout(120)
def test_a_caller_is_understood_answered_and_recorded(tmp_path: Path) -> None:
    question = pico_clip("Hello, can you tell me when you are open?", pitch_percent=90, rate_percent=80)
    cut = pico_clip("Hello, I would like to make an appointment for my daughter", rate_percent=80)
    calls = [
        PlannedCall("asks", "asks", (Say(clip=question, expect=("nine to six",)),)),
        PlannedCall("leaves", "leaves", (Say(clip=cut, cut_ms=1500),)),
    ]
    (asks, leaves), demo = uvloop.run(run([(call, TO_NUMBER) for call in calls], tmp_path))
    assert asks.all_problems == []
    assert asks.turns[0].is_right
    assert asks.words.errors <= 2
    assert leaves.all_problems == []
    turns = [turn for turn in demo.talks[0].turns if turn["latency_ms"] is not None]
    assert len(turns) == 1
    # Playout comes after turn latency; all else adds up to it.
    stages = {name: ms for name, ms in turns[0]["stages"].items() if name != "playout"}
    assert sum(stages.values()) == pytest.approx(turns[0]["latency_ms"], abs=1.0)
    with wave.open(str(tmp_path / "asks.wav")) as file:
        assert file.getnchannels() == 2
        both = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
    assert np.abs(both).max(axis=0).min() > 3000
