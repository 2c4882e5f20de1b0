"""The situations that captures are made of: who says what when, what the network does, what a provider does.

A situation is data: the agent's settings beside the common ones, a caller, faults of the line, and what is done to the
simulated services before the call or when the model answers. What the server must make of each is not written here but
beside its capture, tests/data/captures/NAME.yaml.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.captures.services import Services
from bench.load.noise import noise_clip
from bench.sim.caller import Say, When
from bench.sim.fault import FaultPlan
from bench.sim.sound import Clip
from bench.sim.voice import pico_clip

QUESTION = pico_clip("When are you open?")
PARKING = pico_clip("Can I park there?")
PRICE = pico_clip("Would you look up the price for me?")
ORDER = pico_clip("The number of my order is on the bill.")
NOT_YET = pico_clip("No, wait a moment.")
MHM = pico_clip("Mhm.")
YEAH = pico_clip("Yeah.", rate_percent=130)
SUNDAY = pico_clip("I mean on a Sunday.")
COUGH = noise_clip("cough", [QUESTION], 0.0)
GOES_ON = Clip.from_pcmu(
    QUESTION.pcmu + b"\xff" * (8 * 1000) + SUNDAY.pcmu, text="When are you open? I mean on a Sunday.", source="both"
)
"""A second of silence between the two: the turn is over, and its answer has not been heard yet."""
SAID: tuple[Clip, ...] = (QUESTION, PARKING, PRICE, ORDER, NOT_YET, MHM, YEAH, SUNDAY)
"""All clips that hold words: what the simulated recogniser knows."""

ANSWERS: Mapping[str, str] = {
    "sunday": "On Sundays we are closed.",
    "open": "We are open from nine to six on every day of the week, and until eight on Fridays.",
    "park": "Yes, behind the house.",
    "wait": "Of course, take your time.",
}
TOOL = "find_price"
"""A tool that the model asks for when it hears of a price."""

PERSON = "+15550142"
"""Who takes over a call that cannot go on."""
BROKEN_PIPE = 31903
"""Twilio's own number for a media stream that ended without a goodbye."""

CALLER_FIRST = {"opening": {"mode": "listen", "text": ""}}
"""The caller begins, so that chunk numbers of the line's faults fall into what is said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """One call. `loop` is the event loop that the server runs on; `agent` stands over the common settings.

    `prepare` is called before the call, `on_answer` when the model is asked (its request's last text): both may put
    faults on the services. `patience_ms`, `quiet_ms`: of the caller (bench.sim.caller). `ended_by`, `warnings`: how the
    call must end, and the codes that the carrier's debugger must list.
    """

    name: str
    title: str
    turns: tuple[Say, ...]
    agent: Mapping[str, Any] = field(default_factory=dict)
    faults: FaultPlan | None = None
    prepare: Callable[[Services], None] = lambda services: None
    on_answer: Callable[[Services, str], None] = lambda services, heard: None
    patience_ms: int = 3000
    quiet_ms: int = 500
    loop: str = "uvloop"
    ended_by: str = "caller"
    warnings: tuple[int, ...] = ()


def _hang_after_tool(services: Services, heard: str) -> None:
    """The request that follows the tool gets no answer."""
    if "price" in heard:
        services.silence_model(times=1)


SITUATIONS: tuple[Situation, ...] = (
    Situation(
        name="barge_in_first_word",
        title="the caller interrupts on the first word of an answer",
        turns=(Say(clip=QUESTION), Say(clip=NOT_YET, when=When.BARGE_IN, after_ms=20)),
    ),
    Situation(
        name="barge_in_sentence",
        title="the caller interrupts in mid-sentence; the server ran on asyncio's own loop",
        turns=(Say(clip=QUESTION), Say(clip=NOT_YET, when=When.BARGE_IN, after_ms=1800)),
        loop="asyncio",
    ),
    Situation(
        name="cough",
        title="the caller coughs while the agent speaks, and again while nobody does",
        turns=(
            Say(clip=QUESTION),
            Say(clip=COUGH, when=When.BARGE_IN, after_ms=800),
            Say(clip=COUGH, think_ms=800),
            Say(clip=PARKING),
        ),
    ),
    Situation(
        name="backchannel",
        title="the caller says mhm and yeah while the agent speaks",
        turns=(
            Say(clip=QUESTION),
            Say(clip=MHM, when=When.BARGE_IN, after_ms=700),
            Say(clip=YEAH, when=When.BARGE_IN, after_ms=700),
            Say(clip=PARKING),
        ),
        agent={"interruption": {"min_speech_ms": 400}},
    ),
    Situation(
        name="duplicate_reordered",
        title="the line doubles every fifth message and swaps every eighth",
        turns=(Say(clip=ORDER), Say(clip=PARKING)),
        agent=CALLER_FIRST,
        faults=FaultPlan(duplicate=range(3, 3000, 5), swap=range(4, 3000, 8)),
        patience_ms=1800,
    ),
    Situation(
        name="burst_after_stall",
        title="the line stands still from mid-sentence until after its end, then all comes at once",
        turns=(Say(clip=ORDER),),
        agent=CALLER_FIRST,
        faults=FaultPlan(stalls=((165, 80),)),
        patience_ms=2500,
    ),
    Situation(
        name="final_against_interim",
        title="the recogniser's final comes after the end of the turn, with other words than its interims",
        turns=(Say(clip=ORDER),),
        agent=CALLER_FIRST,
        # After the end of the turn (300 ms after the commit), before the server stops waiting for it (400 ms).
        prepare=lambda services: services.doubt_words(340),
        patience_ms=1000,
    ),
    Situation(
        name="lost_mark",
        title="the mark behind an answer does not come back",
        turns=(Say(clip=PARKING), Say(clip=QUESTION, think_ms=2200)),
        faults=FaultPlan(lose_marks=(2,)),
    ),
    Situation(
        name="keys_in_speech",
        title="the caller presses 4 and 2 while speaking",
        turns=(Say(clip=ORDER, keys=((600, "4"), (800, "2"))),),
        agent={"capture": {"audio": True, "keys": True}},
    ),
    Situation(
        name="goes_on_unanswered",
        title="the caller goes on after the end of the turn, before anything of the answer is heard",
        turns=(Say(clip=GOES_ON),),
        prepare=lambda services: services.slow_model(2000, times=1),
        patience_ms=4000,
        quiet_ms=1200,
    ),
    Situation(
        name="corrected_in_reply",
        title="the caller corrects the question in mid-answer and hears the right answer",
        turns=(Say(clip=QUESTION), Say(clip=SUNDAY, when=When.BARGE_IN, after_ms=1200)),
        quiet_ms=1200,
    ),
    Situation(
        name="stream_broken",
        title="the connection of the media stream breaks in mid-answer; the call is carried on in a second one",
        turns=(Say(clip=QUESTION),),
        agent=CALLER_FIRST,
        faults=FaultPlan(abort_at=300),
        patience_ms=2500,
        quiet_ms=1200,
        warnings=(BROKEN_PIPE,),
    ),
    Situation(
        name="handed_over",
        title="the model is gone: two apologies, then the call is put through to a person",
        turns=(Say(clip=QUESTION), Say(clip=PARKING), Say(clip=ORDER)),
        agent={"limits": {"fallback_number": PERSON, "apology": "Sorry, please ask me again."}},
        prepare=lambda services: services.lose_model(),
        quiet_ms=1200,
        ended_by="twiml",
    ),
    Situation(
        name="hang_up_in_tool",
        title="the caller hangs up while the model waits for a tool",
        turns=(Say(clip=PRICE),),
        on_answer=_hang_after_tool,
        patience_ms=1200,
    ),
    Situation(
        name="model_stall",
        title="the model takes the question and never says a word",
        turns=(Say(clip=QUESTION), Say(clip=PARKING)),
        agent={"limits": {"fillers": ["One moment."], "apology": "Sorry, please ask me again."}},
        prepare=lambda services: services.silence_model(times=1),
        patience_ms=9000,
        quiet_ms=2500,
    ),
)
