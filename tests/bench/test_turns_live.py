"""A whole call of the turn-taking score: a stand-in that answers each silence of its length, heard over a socket."""

from __future__ import annotations

import asyncio

import numpy as np
import uvloop

from bench.sim.openai.talk import TalkBrain
from bench.sim.sound import from_pcmu
from bench.sim.twilio import Exchange
from bench.turns import score
from bench.turns.call_log import CallLog, Surroundings
from bench.turns.caller import TurnCaller
from bench.turns.hearing import note
from bench.turns.plan import Plan, Step, Utter
from tests.bench.stand_in import PUBLIC, Behaviour, StandIn, tone

PAUSE_MS = 700


def loud(ms: int, hz: int = 300) -> np.ndarray:
    return np.frombuffer(from_pcmu(tone(ms, hz)), "<i2").astype(np.float64)


def one_turn() -> Plan:
    line = np.concatenate([loud(400), np.zeros(PAUSE_MS * 8), loud(400)])
    turn = Utter("a turn with a pause", line, line.size, ((400 * 8, (400 + PAUSE_MS) * 8),))
    return Plan(Surroundings(language="en", speaker="a tone"), None, (Step(0.0, turn, None),))


async def called(silence_frames: int) -> CallLog:
    behaviour = Behaviour(greeting_ms=200, reply_ms=400, silence_frames=silence_frames)
    async with StandIn(behaviour) as stand_in, Exchange(public_url=PUBLIC, local_url=stand_in.url) as exchange:
        caller = TurnCaller(one_turn(), {}, 400.0)
        placed = await exchange.call(caller, from_="+15553000001", to="+15550100")
        assert placed.ended_by == "caller"
    # An answer is a tone of its own.
    note(caller.log, caller.heard, caller.first_heard_ms, loud(400, 660))
    return caller.log


def test_who_waits_longer_than_the_pause_cuts_in_on_nobody() -> None:
    async def both() -> tuple[CallLog, CallLog]:
        hasty, patient = await asyncio.gather(called(20), called(45))
        return hasty, patient

    hasty, patient = uvloop.run(both())
    (cut,), (waited,) = score.turn_marks(hasty), score.turn_marks(patient)
    assert cut.is_cut_in
    assert 0 < cut.margin_ms - score.NOTICED_MS < PAUSE_MS - 20 * 20 + 60
    assert not waited.is_cut_in
    assert waited.latency_ms is not None and 45 * 20 - 40 <= waited.latency_ms < 45 * 20 + 200
    assert len(patient.openings) == 1
    assert abs(patient.openings[0] - (patient.turns[0].end_ms + waited.latency_ms)) < 60


def test_a_model_that_says_what_its_prompt_lists() -> None:
    brain, prompt = TalkBrain(), {"role": "system", "content": "Be brief.\n- First one.\n- Second one."}
    said = []
    for turns in range(1, 4):
        messages = [prompt, *({"role": "user", "content": "so?"} for _ in range(turns))]
        said.append(brain.answer({"messages": messages}).text)
    assert said == ["First one.", "Second one.", "First one."]
    assert brain.answer({"messages": [{"role": "user", "content": "so?"}]}).text
