"""Was the caller understood and answered? By what the simulated caller heard and what the server says it understood."""

from __future__ import annotations

from dataclasses import dataclass, field

from bench.demo.ear import SLACK_MS, wrong
from bench.demo.score import WordErrors, has_keyword, word_errors
from bench.demo.script import PlannedCall
from bench.demo.talk import Segment, Talk
from bench.sim.caller import Say, ScriptedCaller, TurnRecord, When
from bench.sim.twilio import Call

MAX_REPLY_MS = 5000
MAX_CLEAR_MS = 1000
"""A barge-in that takes longer is no barge-in; the targets are the bench's business, this is the demo's."""


@dataclass(slots=True)
class TurnVerdict:
    """One turn of a caller. `problems` is empty when it went well."""

    said: str
    understood: str
    answer: str
    words: WordErrors
    is_right: bool
    problems: list[str] = field(default_factory=list)


@dataclass(slots=True)
class CallVerdict:
    call: PlannedCall
    turns: list[TurnVerdict]
    problems: list[str]

    @property
    def words(self) -> WordErrors:
        return sum((turn.words for turn in self.turns), WordErrors(0, 0))

    @property
    def all_problems(self) -> list[str]:
        return self.problems + [f"turn {at}: {one}" for at, turn in enumerate(self.turns, 1) for one in turn.problems]


def judge_call(planned: PlannedCall, call: Call, caller: ScriptedCaller, talk: Talk) -> CallVerdict:
    """Put the caller's notes beside the server's transcript."""
    records = caller.records
    turns = []
    for at, record in enumerate(records):
        until = records[at + 1].said_from_ms if at + 1 < len(records) else float("inf")
        since = records[at - 1].said_to_ms or 0.0 if at else 0.0
        if record.say.cut_ms is None:
            turns.append(_judge_turn(record, since, until, talk))
    return CallVerdict(planned, turns, _call_problems(planned, call, caller, talk))


def _judge_turn(record: TurnRecord, since: float, until: float, talk: Talk) -> TurnVerdict:
    said_to = record.said_to_ms if record.said_to_ms is not None else record.said_from_ms
    spoken = [s for s in talk.segments if s.speaker == "caller" and _within(s, record.said_from_ms, said_to)]
    answers = [
        s for s in talk.segments if s.speaker == "agent" and said_to - SLACK_MS < s.start_ms < until - SLACK_MS / 2
    ]
    understood = " ".join(s.text for s in spoken)
    # Of an answer that the next turn interrupted only a part was heard; it was given all the same.
    answer = " ".join(s.text for s in answers)
    assert record.say.clip is not None
    said = record.say.clip.text
    verdict = TurnVerdict(said, understood, answer, word_errors(said, understood), False)
    if record.reply_heard_ms is None:
        verdict.problems.append("no answer was heard")
    elif record.reply_heard_ms - said_to > MAX_REPLY_MS:
        verdict.problems.append(f"the answer was heard after {record.reply_heard_ms - said_to:.0f} ms")
    if not has_keyword(answer, record.say.expect):
        verdict.problems.append(f"expected {_either(record.say)} in the answer {answer!r}; understood {understood!r}")
    missing = wrong(answer, record.say.holds)
    if missing:
        verdict.problems.append(f"wrong {', '.join(missing)} in the answer {answer!r}; understood {understood!r}")
    if not understood:
        verdict.problems.append("nothing was understood")
    if record.say.when is When.BARGE_IN and (record.time_to_clear_ms is None or record.time_to_clear_ms > MAX_CLEAR_MS):
        verdict.problems.append(f"the agent was not stopped in time ({record.time_to_clear_ms} ms)")
    verdict.is_right = record.reply_heard_ms is not None and has_keyword(answer, record.say.expect) and not missing
    return verdict


def _call_problems(planned: PlannedCall, call: Call, caller: ScriptedCaller, talk: Talk) -> list[str]:
    problems = []
    wanted = {"agent": ("rest",), "caller": ("caller",), "either": ("rest", "caller")}[planned.ends_by]
    if call.ended_by not in wanted:
        problems.append(f"the call was ended by {call.ended_by or 'nobody'}, expected {planned.ends_by}")
    if caller.first_heard_ms is None:
        problems.append("the agent was never heard")
    if len(caller.records) < len(planned.turns):
        problems.append(f"only {len(caller.records)} of {len(planned.turns)} turns were spoken")
    spoken = " ".join(s.heard or s.text for s in talk.segments if s.speaker == "agent")
    for text in planned.expect_heard:
        if not has_keyword(spoken, (text,)):
            problems.append(f"the agent did not say {text!r}")
    if not planned.turns and any(s.speaker == "caller" for s in talk.segments):
        problems.append("something was understood in silence")
    underruns = sum(stream.playout.counters.underruns for stream in call.streams)
    if underruns:
        problems.append(f"{underruns} underruns inside the agent's utterances")
    bad = sum(stream.facts.bad_messages for stream in call.streams)
    if bad:
        problems.append(f"{bad} messages that Twilio would refuse")
    return problems + talk.failures


def _within(segment: Segment, start_ms: float, end_ms: float) -> bool:
    return start_ms - SLACK_MS < segment.start_ms < end_ms


def _either(say: Say) -> str:
    return " or ".join(repr(one) for one in say.expect)
