"""From marks to figures with their intervals: the server's by all that was heard, other policies' by their turns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.load.figure import percentile
from bench.turns import score
from bench.turns.call_log import CallLog
from bench.turns.interval import Figure, quantile, rate, share
from bench.turns.score import TurnMark

BUDGETS = (0.05, 0.10)
HEADLINE_NOISE = ("babble", 10.0)


def turn_figures(marks: Sequence[TurnMark]) -> dict[str, Figure]:
    """What can be told of any policy."""
    answered = [one.latency_ms for one in marks if one.latency_ms is not None]
    found = {
        "turn_latency_p50_ms": quantile(answered, 0.50),
        "turn_latency_p95_ms": quantile(answered, 0.95),
        "cut_ins": share(sum(one.is_cut_in for one in marks), len(marks)),
        "late_replies": share(sum(one.is_late for one in marks), sum(not one.is_cut_in for one in marks)),
        "unanswered": share(sum(one.is_unanswered for one in marks), len(marks)),
        "collisions": share(sum(one.collided for one in marks), len(marks)),
    }
    for budget in BUDGETS:
        found[f"dead_air_at_{budget * 100:.0f}_percent_ms"] = dead_air(marks, budget)
    return found


def dead_air(marks: Sequence[TurnMark], budget: float) -> Figure:
    """The median latency that the policy would have if it began just so much later that it keeps the budget of cut-ins.

    A policy that keeps it already is not made faster: what that would cost cannot be seen from outside. No interval:
    the value hangs on a handful of the longest pauses.
    """
    middle = percentile([one.latency_ms for one in marks if one.latency_ms is not None], 0.5)
    if middle is None:
        return Figure(None, None, None, 0)
    margins = sorted((one.margin_ms for one in marks if one.is_cut_in), reverse=True)
    allowed = int(budget * len(marks))
    later = margins[allowed] if len(margins) > allowed else 0.0
    return Figure(round(middle + later, 1), None, None, len(marks))


def figures(logs: Sequence[CallLog]) -> dict[str, Figure]:
    """All that was heard of a server."""
    found = turn_figures([mark for log in logs for mark in score.turn_marks(log)])
    for kind in ("cough", "backchannel"):
        marks = [mark for log in logs for mark in score.overlap_marks(log, (kind,))]
        found[f"went_on_after_{kind}"] = share(sum(marks), len(marks))
    both = [mark for log in logs for mark in score.overlap_marks(log, ("cough", "backchannel"))]
    found["went_on"] = share(sum(both), len(both))
    silences = [one for log in logs for one in score.silences_ms(log)]
    found["silenced"] = share(sum(one is not None for one in silences), len(silences))
    known = [one for one in silences if one is not None]
    found["time_to_silence_p50_ms"], found["time_to_silence_p95_ms"] = quantile(known, 0.5), quantile(known, 0.95)
    found["false_pauses_a_minute_headline"] = pause_rate([log for log in logs if _is_headline(log)])
    found["false_pauses_a_minute_noise"] = pause_rate([log for log in logs if log.where.noise])
    found["false_pauses_a_minute_clean"] = pause_rate(
        [log for log in logs if not log.where.noise and log.where.place == "handset"]
    )
    for name in ("room", "speakerphone"):
        found[f"echo_stops_{name}"] = _echo(logs, (name,))
    found["echo_stops"] = _echo(logs, ("room", "speakerphone"))
    return found


def pause_rate(logs: Sequence[CallLog]) -> Figure:
    minutes = sum(score.unprovoked_ms(log) for log in logs) / 60_000
    return rate(sum(len(score.false_pauses(log)) for log in logs), minutes)


def _is_headline(log: CallLog) -> bool:
    where = log.where
    return bool(where.noise) and (where.noise.split()[0], where.snr_db) == HEADLINE_NOISE and where.place == "handset"


def _echo(logs: Sequence[CallLog], places: Sequence[str]) -> Figure:
    """Only on lines without noise, which may stop the agent by itself."""
    marks = [
        mark for log in logs if log.where.place in places and not log.where.noise for mark in score.echo_marks(log)
    ]
    return share(sum(marks), len(marks))


def by_surroundings(logs: Sequence[CallLog]) -> dict[str, dict[str, Any]]:
    """The three that noise and echo move most, for each kind of line."""
    found: dict[str, dict[str, Any]] = {}
    for label in sorted({log.where.label for log in logs}):
        these = [log for log in logs if log.where.label == label]
        told = turn_figures([mark for log in these for mark in score.turn_marks(log)])
        names = ("cut_ins", "late_replies", "turn_latency_p50_ms")
        found[label] = {name: told[name].as_dict() for name in names}
        found[label]["false_pauses_a_minute"] = pause_rate(these).as_dict()
    return found
