"""Whether a run says anything, and whether the server passed: two questions, never mixed.

`why_invalid`: the generator or the machine was at fault, so the figures say nothing about the server. `broken`: the
server did what it must not. Either makes the run fail.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bench.load.floor import Floor, FloorFailed
from bench.load.rig import Floors
from bench.load.server_process import ServerFailed, one_line
from bench.sim.sound import FRAME_MS

Result = dict[str, Any]

FRAMES_PER_S = 1000 // FRAME_MS
MAX_GENERATOR_LATE_MS = 10.0
MAX_GENERATOR_CPU = 0.90
MAX_SIMULATOR_CPU = 0.90
MAX_FLOOR_MOVE = 0.10
TALK_SHARE = (0.40, 0.60)
"""Of their time callers speak so much, as people do: what a call costs depends on it. A recording has its own."""
MAX_OWN_P50_MS, MAX_OWN_P99_MS = 5.0, 20.0
MAX_TURN_P99_MS = 1000.0
"""By the caller's stop watch, where providers take no time: twice the 500 ms of silence that end an agent's turn."""
MAX_CLEAR_P95_MS = 200.0
MAX_FALSE_PAUSES_PER_MINUTE = 60.0
"""Of agent speech in noise: a server that gives way to any noise. What is aimed at is in bargein.py."""
MIN_FALSE_PAUSES = 5
"""Fewer are chance: a server within the bound makes so many in five seconds of speech in noise."""
MAX_RSS_GROWTH_PERCENT = 2.0
MOST_NAMED = 5
"""Of files that are all wrong in one way."""
ANY_IS_TOO_MANY = {
    "turns_unfinished": "turns were under way when the run had to be ended",
    "ungreeted": "callers were not greeted",
    "broken_off": "answers ended before their end, though nobody interrupted",
    "overlong": "answers went on after their end",
    "foreign_codes": "answers to other callers were heard",
    "unasked_clears": "clears came though nobody spoke",
    "talked_over": "times the agent spoke into a caller's turn",
    "errors": "calls failed or were complained about",
    "dropped": "messages had to be dropped",
    "underruns": "times the caller's buffer ran dry inside an utterance",
    "overfills": "messages overfilled the caller's buffer beyond lead + chunk",
}
"""Counted over the whole run."""
NOT_OF_A_SOAK = ("turns_unfinished", "underruns")
"""Its callers leave in the middle, and its calls come so fast that the machine is late."""


def add_floor(result: Result, before: Floor, after: Floor) -> None:
    result["floor_us_per_frame"] = round(before.c_us, 2)
    result["floor_after_us_per_frame"] = round(after.c_us, 2)
    result["picows_us_per_frame"] = round(before.picows_us, 2)
    result["picows_after_us_per_frame"] = round(after.picows_us, 2)


def why_invalid(result: Result) -> list[str]:
    reasons = []
    late = result["generator_late_ms"]["p99"]
    if late is None or late > MAX_GENERATOR_LATE_MS:
        reasons.append(f"the generator was late: p99 {late} ms, at most {MAX_GENERATOR_LATE_MS:g}")
    if result["generator_cpu"] > MAX_GENERATOR_CPU:
        reasons.append(f"the generator used {result['generator_cpu']:.2f} of a core, at most {MAX_GENERATOR_CPU}")
    if result["simulator_cpu"] > MAX_SIMULATOR_CPU:
        reasons.append(f"the simulators used {result['simulator_cpu']:.2f} of a core, at most {MAX_SIMULATOR_CPU}")
    before, after = result["floor_us_per_frame"], result["floor_after_us_per_frame"]
    if abs(after - before) > MAX_FLOOR_MOVE * before:
        reasons.append(f"the echo floor moved from {before} to {after} us a frame, at most 10 %")
    if result["turns_expected"] == 0:
        reasons.append("no turn was spoken")
    # Callers of a soak do not stay and have no share.
    least, most = TALK_SHARE
    if "talk_share" in result and result["callers"] == "clips" and not least <= result["talk_share"] <= most:
        reasons.append(f"callers talked {result['talk_share']:.0%} of the time, from {least:.0%} to {most:.0%} wanted")
    return reasons


def broken(result: Result) -> list[str]:
    """What every bench of a crowd holds against the server."""
    reasons = _broken_turns(result) + _too_many(result, ANY_IS_TOO_MANY)
    completed = result["turns_completed"]
    # After a false pause an answer may be said again.
    if result["wrong_codes"] > result.get("false_pauses", 0):
        reasons.append(f"{result['wrong_codes']} answers were old, or to other words")
    if result["turns_accounted"] < completed:
        reasons.append(f"the server tells of {result['turns_accounted']} turns, {completed} were completed")
    late = result["frame_lateness_ms"]["p99"]
    if late is None or late >= FRAME_MS:
        known = "is not known" if late is None else f"{late} ms"
        reasons.append(f"frames were late: p99 {known}, less than {FRAME_MS} ms wanted")
    own = result["own_latency_ms"]
    reasons += beyond("own latency p50", own["p50"], MAX_OWN_P50_MS)
    reasons += beyond("own latency p99", own["p99"], MAX_OWN_P99_MS)
    if result["proof"] == "tone codes" and not result["jitter"]:
        reasons += beyond("turn latency p99", result["turn_latency_ms"]["p99"], MAX_TURN_P99_MS)
    return reasons


def _broken_turns(result: Result) -> list[str]:
    expected, completed = result["turns_expected"], result["turns_completed"]
    if completed >= expected:
        return []
    return [f"{expected - completed} of {expected} turns were not answered, or not with the right words"]


def _too_many(result: Result, names: Iterable[str]) -> list[str]:
    return [f"{result[name]} {ANY_IS_TOO_MANY[name]}" for name in names if result[name]]


def beyond(name: str, ms: float | None, most_ms: float) -> list[str]:
    """What is wrong with a figure that has a bound. One that is not known shows nothing, which is not to pass."""
    if ms is None:
        return [f"{name} is not known, at most {most_ms:g} ms"]
    return [f"{name} {ms} ms, at most {most_ms:g}"] if ms > most_ms else []


def broken_barge_in(result: Result, max_clear_ms: float = MAX_CLEAR_P95_MS) -> list[str]:
    """What `bargein` holds against the server besides."""
    reasons = []
    if result["barge_ins"] == 0:
        reasons.append("no caller came to interrupt: no answer was long enough")
    missed = result["barge_ins"] - result["barge_ins_cleared"]
    if missed:
        reasons.append(f"{missed} of {result['barge_ins']} interruptions were not cleared")
    reasons += beyond("time to clear p95", result["time_to_clear_ms"]["p95"], max_clear_ms)
    reasons += beyond("decision to clear p99", result["decision_to_clear_ms"]["p99"], FRAME_MS)
    if result["decisions_found"] < result["barge_ins_cleared"]:
        reasons.append(f"{result['decisions_found']} decisions found of {result['barge_ins_cleared']} clears")
    reasons += result["captures_unreadable"][:MOST_NAMED]
    if result["stale_frames_after_clear"]:
        reasons.append(f"{result['stale_frames_after_clear']} frames of a cancelled answer came after clear")
    return reasons + broken_by_noise(result)


def broken_by_noise(result: Result) -> list[str]:
    """Whether the agent gives way to any noise; nothing where callers made none."""
    if result["noise"] == "none":
        return []
    pauses, per_minute = result["false_pauses"], result["false_pauses_per_minute"]
    most = f"at most {MAX_FALSE_PAUSES_PER_MINUTE:g} a minute"
    if per_minute is None:
        return [f"false pauses are not known, {most}: no answer was talked over by noise"]
    if pauses >= MIN_FALSE_PAUSES and per_minute > MAX_FALSE_PAUSES_PER_MINUTE:
        return [f"{pauses} false pauses, {per_minute:g} for a minute of speech in noise, {most}"]
    return []


def broken_soak(result: Result, max_growth_percent: float = MAX_RSS_GROWTH_PERCENT) -> list[str]:
    """What many short calls left behind in the server."""
    reasons = _broken_turns(result) + _too_many(result, [one for one in ANY_IS_TOO_MANY if one not in NOT_OF_A_SOAK])
    if result["rss_growth_percent"] > max_growth_percent:
        reasons.append(f"memory grew by {result['rss_growth_percent']} %, at most {max_growth_percent:g}")
    for name in ("threads", "fds", "tasks", "redis_keys"):
        first, last = result[name]["first"], result[name]["last"]
        if first is None or last is None:
            reasons.append(f"{name.replace('_', ' ')} could not be counted")
            continue
        # Keys belong to calls alone; of the others the process has some of its own.
        left = last if name == "redis_keys" else last - first
        if left > 0:
            reasons.append(f"{left} {name.replace('_', ' ')} were left over")
    return reasons


def is_failed(result: Result) -> bool:
    return not result["valid"] or bool(result["broken"])


def not_measured(calls: int, error: ServerFailed | FloorFailed) -> Result:
    """The result of a run that came to nothing. `failed` holds all that is known, with the end of the server's log."""
    is_server, why = isinstance(error, ServerFailed), [one_line(error)]
    verdicts = {"valid": is_server, "broken": why if is_server else [], "why_invalid": [] if is_server else why}
    return {"calls": calls, "failed": str(error), "problems": [], **verdicts}


def concluded(result: Result, floors: Floors, problems: list[str], failures: list[str]) -> Result:
    """The result with its floor and its verdicts."""
    assert floors.before is not None
    assert floors.after is not None
    add_floor(result, floors.before, floors.after)
    if "server_cpu_ms_per_call_s" in result:
        per_frame_us = result["server_cpu_ms_per_call_s"] * 1e3 / FRAMES_PER_S
        result["cpu_of_floor"] = round(per_frame_us / floors.before.c_us, 1)
    result["problems"] = problems
    result["broken"] = failures
    result["why_invalid"] = why_invalid(result)
    result["valid"] = not result["why_invalid"]
    return result
