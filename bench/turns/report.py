"""The score as one table and one JSON object."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from bench.load.figure import percentile, table
from bench.sim.profile import Profile
from bench.turns import rival, score
from bench.turns.call_log import CallLog, Overlap, Said, Surroundings
from bench.turns.figures import BUDGETS, by_surroundings, figures, turn_figures
from bench.turns.interval import Figure

COLUMNS = ("server", "vad_only", "wait_for_final", "oracle")
TITLES = ("", "the server", "VAD silence only", "wait for the final", "oracle")
ROWS = {
    "turn_latency_p50_ms": "turn latency p50, ms",
    "turn_latency_p95_ms": "turn latency p95, ms",
    "cut_ins": "cut-ins, of turns",
    "collisions": "  both began at once (no cut-ins)",
    "late_replies": "late replies (> 1.5 s), of the others",
    "unanswered": "  turns without an answer",
    **{f"dead_air_at_{budget * 100:.0f}_percent_ms": f"dead air at {budget:.0%} cut-ins, ms" for budget in BUDGETS},
    "went_on": "went on after cough or backchannel",
    "went_on_after_cough": "  cough",
    "went_on_after_backchannel": "  backchannel",
    "silenced": "interruptions that silenced the agent",
    "time_to_silence_p50_ms": "  time to silence p50, ms",
    "time_to_silence_p95_ms": "  time to silence p95, ms",
    "false_pauses_a_minute_headline": "false pauses a minute, babble 10 dB",
    "false_pauses_a_minute_noise": "  all noise",
    "false_pauses_a_minute_clean": "  clean line",
    "echo_stops": "stopped by its own echo, of answers",
    "echo_stops_room": "  room",
    "echo_stops_speakerphone": "  speakerphone",
}
SHARES = ("cut_ins", "collisions", "late_replies", "unanswered", "went_on", "silenced", "echo_stops")


def result(logs: Sequence[CallLog], profile: Profile) -> dict[str, Any]:
    """The server's figures and those of other policies on the same turns, `{name: {value, low, high, of}}` each."""
    marks = [mark for log in logs for mark in score.turn_marks(log)]
    drawn = rival.drawn([mark.turn for mark in marks], profile)
    middle = percentile([mark.latency_ms for mark in marks if mark.latency_ms is not None], 0.5)
    found: dict[str, dict[str, Figure]] = {"server": figures(logs)}
    if drawn and middle is not None:
        found["vad_only"] = turn_figures(rival.silence_only(drawn, middle))
        found["wait_for_final"] = turn_figures(rival.wait_for_final(drawn))
        found["oracle"] = turn_figures(rival.oracle(drawn))
    told = {column: {name: one.as_dict() for name, one in rows.items()} for column, rows in found.items()}
    return {**told, "by_surroundings": by_surroundings(logs)}


def table_of(found: dict[str, Any]) -> str:
    rows: list[tuple[str, ...]] = [TITLES]
    for name, title in ROWS.items():
        show = _share if name.startswith(SHARES) else _number
        rows.append((title, *(show(found.get(column, {}).get(name)) for column in COLUMNS)))
    lines = [
        f"{found['half']} half, corpus {found['corpus']}, profile {found['profile']}: {found['calls']} calls for"
        f" {found['seconds']:g} s, {found['turns']} turns; value [95 % interval] of how many",
        table(rows),
        "",
        table([("by line", "cut-ins", "late", "latency p50, ms", "false pauses a minute"), *_by_line(found)]),
        "",
        f"generator: core {found['generator_cpu']:.2f}, late p99 {_ms(found['generator_late_ms']['p99'])};"
        f" simulators: core {found['simulator_cpu']:.2f}; server: core {found['server_cpu']:.2f};"
        f" others: core {found['other_cpu']:.2f}",
        "valid: yes" if found["valid"] else "valid: NO: " + "; ".join(found["why_invalid"]),
    ]
    return "\n".join(lines)


def _by_line(found: dict[str, Any]) -> list[tuple[str, ...]]:
    shows: dict[str, Callable[[Any], str]] = {
        "cut_ins": _share, "late_replies": _share, "turn_latency_p50_ms": _number, "false_pauses_a_minute": _number,
    }  # fmt: skip
    return [
        (label, *(show(one[name]) for name, show in shows.items())) for label, one in found["by_surroundings"].items()
    ]


def _share(one: dict[str, Any] | None) -> str:
    if not one or one["value"] is None:
        return "-"
    return f"{one['value']:.1%} [{one['low']:.1%}, {one['high']:.1%}] of {one['of']:g}"


def _number(one: dict[str, Any] | None) -> str:
    if not one or one["value"] is None:
        return "-"
    if one["low"] is None:
        return f"{one['value']:g}"
    return f"{one['value']:g} [{one['low']:g}, {one['high']:g}] of {one['of']:g}"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} ms"


def log_as_dict(log: CallLog) -> dict[str, Any]:
    return asdict(log)


def log_from_dict(told: dict[str, Any]) -> CallLog:
    """Raises KeyError, TypeError: it is none."""
    lists = {name: told[name] for name in ("arrivals", "clears", "openings", "end_ms")}
    return CallLog(
        Surroundings(**told["where"]),
        told["answer_ms"],
        turns=[Said(**{**one, "pauses": tuple(tuple(gap) for gap in one["pauses"])}) for one in told["turns"]],
        overlaps=[Overlap(**one) for one in told["overlaps"]],
        agent=[(begin, end) for begin, end in told["agent"]],
        **lists,
    )
