"""The turn-taking score on calls made by hand: each kind of bad server must score as what it is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bench.sim.profile import Delay, profile
from bench.turns import rival, score
from bench.turns.call_log import CallLog, Overlap, Said, Surroundings
from bench.turns.figures import dead_air, figures, turn_figures
from bench.turns.interval import quantile, rate, share
from bench.turns.report import ROWS, log_as_dict, result, table_of
from bench.turns.run import Heard, main, why_invalid

ANSWER_MS = 5000.0
CYCLE_MS = 12_000.0
PAUSE = (1000.0, 1800.0)
"""Of a turn that lasts from 0 to 3000."""

RUN = {
    "half": "tuning", "corpus": "abc", "profile": "azure-groq", "calls": 2, "seconds": 240.0, "turns": 40,
    "generator_cpu": 0.1, "generator_late_ms": {"p99": 1.0}, "simulator_cpu": 0.2, "server_cpu": 0.3, "other_cpu": 0.1,
    "valid": False, "why_invalid": ["the generator was late"],
}  # fmt: skip


def call(
    turns: int = 20, *, wait_ms: float = 600.0, place: str = "handset", noise: str = "", overlaps: str = "",
    cuts: bool = False, clears: int = 0, goes_on: str = "yes", stops_after_ms: float = 150.0,
) -> CallLog:  # fmt: skip
    """A call of turns of three seconds with one pause, answered after `wait_ms` (inf: never) by ANSWER_MS of speech.

    Args:
        overlaps: a kind, made in each answer 2 s after its begin. goes_on: yes, never (it falls silent), again (it
            pauses and says the rest), another (it begins another answer). cuts: it begins in the pause instead.
        clears: how many `clear`s come into each answer for no reason.
    """
    snr_db = 10.0 if noise else None
    where = Surroundings(language="en", speaker="anybody", noise=noise, snr_db=snr_db, place=place)
    log = CallLog(where, ANSWER_MS, end_ms=turns * CYCLE_MS)
    for no in range(turns):
        at = no * CYCLE_MS
        log.turns.append(Said(f"turn {no}", at, at + 3000, ((at + PAUSE[0], at + PAUSE[1]),)))
        if cuts:
            log.agent.append((at + 1600, at + 2200))
            log.arrivals.append(at + 1550)
        if wait_ms == float("inf"):
            continue
        begin = at + 3000 + wait_ms
        log.arrivals.append(begin)
        log.openings.append(begin)
        end = begin + ANSWER_MS
        log.clears += [begin + 1000 + 500 * n for n in range(clears)]
        if not overlaps:
            log.agent.append((begin, end))
            continue
        log.overlaps.append(Overlap(overlaps, begin + 2000, begin + 2400))  # type: ignore[arg-type]
        if goes_on == "yes":
            log.agent.append((begin, end))
            continue
        log.agent.append((begin, begin + 2000 + stops_after_ms))
        log.clears.append(begin + 2000 + stops_after_ms)
        if goes_on == "again":
            log.agent.append((begin + 3500, end + 1400))
        elif goes_on == "another":
            log.openings.append(begin + 3500)
            log.agent.append((begin + 3500, end + 1400))
    return log


def value(log: CallLog, name: str) -> float | None:
    return figures([log])[name].value


def test_a_good_server_scores_as_one() -> None:
    found = figures([call()])
    assert found["cut_ins"].value == 0
    assert found["late_replies"].value == 0
    assert found["turn_latency_p50_ms"].value == 600
    assert found["turn_latency_p95_ms"].value == 600
    assert found["false_pauses_a_minute_clean"].value == 0
    assert found["dead_air_at_5_percent_ms"].value == 600


def test_a_server_that_always_cuts_in() -> None:
    found = figures([call(cuts=True)])
    assert found["cut_ins"].value == 1
    # Nothing is left that could be late or have a latency.
    assert found["late_replies"].of == 0
    assert found["turn_latency_p50_ms"].value is None


def test_a_cut_in_is_counted_in_mid_speech_too() -> None:
    log = call(turns=1)
    log.agent = [(500.0, 900.0)]
    mark = score.turn_marks(log)[0]
    assert mark.is_cut_in
    assert mark.margin_ms == 2500  # no pause would have saved it


def test_how_much_later_would_have_been_no_cut_in() -> None:
    for begin_ms, margin_ms in ((1600.0, 200 + score.NOTICED_MS), (2100.0, score.NOTICED_MS - 300)):
        log = call(turns=1)
        log.agent = [(begin_ms, begin_ms + 400)]
        assert score.turn_marks(log)[0].margin_ms == margin_ms


def test_two_who_begin_at_once_do_not_cut_in() -> None:
    log = call(turns=1)
    log.agent.insert(0, (score.COLLISION_MS - 1, 400.0))
    (mark,) = score.turn_marks(log)
    assert (mark.is_cut_in, mark.collided, mark.latency_ms) == (False, True, 600)
    log.agent[0] = (score.COLLISION_MS, 400.0)
    (mark,) = score.turn_marks(log)
    assert (mark.is_cut_in, mark.collided) == (True, False)


def test_a_click_of_a_cleared_buffer_is_no_cut_in() -> None:
    log = call(turns=1)
    log.agent.insert(0, (1600.0, 1620.0))
    assert not score.turn_marks(log)[0].is_cut_in


def test_an_answer_that_goes_on_from_before_the_turn_is_no_cut_in() -> None:
    log = call(turns=1)
    log.agent.insert(0, (-2000.0, 400.0))
    assert not score.turn_marks(log)[0].is_cut_in


@pytest.mark.parametrize(("wait_ms", "late"), [(1500.0, 0), (1501.0, 1), (float("inf"), 1)])
def test_a_server_that_is_always_late(wait_ms: float, late: int) -> None:
    found = figures([call(wait_ms=wait_ms)])
    assert found["late_replies"].value == late
    assert found["unanswered"].value == float(wait_ms == float("inf"))


@pytest.mark.parametrize("kind", ["cough", "backchannel"])
@pytest.mark.parametrize(("goes_on", "share_of"), [("yes", 1), ("again", 1), ("never", 0), ("another", 0)])
def test_who_goes_on_after_a_noise(kind: str, goes_on: str, share_of: int) -> None:
    log = call(overlaps=kind, goes_on=goes_on)
    assert value(log, f"went_on_after_{kind}") == share_of
    assert value(log, "went_on") == share_of


def test_a_greeting_that_is_talked_over_is_not_judged() -> None:
    log = call(overlaps="cough")
    log.openings.clear()
    assert figures([log])["went_on"].of == 0


def test_a_server_that_never_pauses() -> None:
    found = figures([call(overlaps="interruption", goes_on="yes")])
    assert found["silenced"].value == 0
    assert found["time_to_silence_p50_ms"].value is None
    assert value(call(overlaps="cough", goes_on="yes"), "went_on") == 1


def test_time_to_silence_is_from_the_first_sample() -> None:
    found = figures([call(overlaps="interruption", goes_on="never", stops_after_ms=180)])
    assert found["silenced"].value == 1
    assert found["time_to_silence_p95_ms"].value == 180


def test_an_answer_to_the_interruption_does_not_hide_the_silence() -> None:
    log = call(turns=1, overlaps="interruption", goes_on="never", stops_after_ms=200)
    begin = log.overlaps[0].begin_ms
    log.openings.append(begin + 700)
    log.agent.append((begin + 700, begin + 5000))
    assert score.silences_ms(log) == [200]


def test_false_pauses_are_counted_for_a_minute_of_speech() -> None:
    found = figures([call(noise="babble en", clears=2)])
    rate_of = found["false_pauses_a_minute_headline"]
    # An answer has 5000 ms, and 600 of the 1200 ms after the turn in which a pause may have a cause are in it.
    assert rate_of.of == pytest.approx(20 * 4400 / 60_000, abs=0.01)
    assert rate_of.value == pytest.approx(40 / (20 * 4400 / 60_000), rel=1e-3)
    assert found["false_pauses_a_minute_noise"].value == rate_of.value
    assert found["false_pauses_a_minute_clean"].value is None


def test_a_pause_with_a_cause_is_no_false_one() -> None:
    assert score.false_pauses(call(overlaps="cough", goes_on="again")) == []
    log = call(turns=1)
    log.clears = [11_000.0]  # nobody speaks any more: nothing was stopped
    assert score.false_pauses(log) == []


def test_echo_that_stops_the_agent() -> None:
    found = figures([call(place="speakerphone", clears=1), call(place="room")])
    assert found["echo_stops_speakerphone"].value == 1
    assert found["echo_stops_room"].value == 0
    assert found["echo_stops"].value == 0.5
    # On a noisy line it may have been the noise.
    assert value(call(place="room", noise="babble en", clears=1), "echo_stops") is None


def test_dead_air_at_a_budget_of_cut_ins() -> None:
    good = [score.TurnMark(Said("", 0, 1), False, latency_ms=500.0)] * 90
    cut = [score.TurnMark(Said("", 0, 1), True, margin_ms=100.0 * n) for n in range(1, 11)]
    # 10 of 100 are cut; five may be: the sixth longest margin has to be waited for.
    assert dead_air([*good, *cut], 0.05).value == 500 + 500
    assert dead_air([*good, *cut], 0.10).value == 500
    assert dead_air(cut, 0.05).value is None


def test_rivals_on_the_same_turns() -> None:
    exact = replace(
        profile("azure-groq"), first_token=Delay(100, 100), first_audio=Delay(70, 70), final=Delay(1000, 1000)
    )
    answer_ms = 100 + rival.CLAUSE_MS + 70
    turns = rival.drawn([mark.turn for mark in score.turn_marks(call())], exact)
    # The pause of 800 ms is cut by who begins after 790 and not by who begins after 810.
    assert turn_figures(rival.silence_only(turns, 790))["cut_ins"].value == 1
    fair = turn_figures(rival.silence_only(turns, 810))
    assert fair["cut_ins"].value == 0
    assert fair["turn_latency_p50_ms"].value == 810
    assert turn_figures(rival.wait_for_final(turns))["turn_latency_p50_ms"].value == 1000 + answer_ms
    best = turn_figures(rival.oracle(turns))
    assert (best["cut_ins"].value, best["turn_latency_p95_ms"].value) == (0, answer_ms)


def test_intervals_hold_the_value_and_shrink() -> None:
    few, many = share(1, 20), share(50, 1000)
    assert few.low is not None and few.high is not None and many.low is not None and many.high is not None
    assert few.low < 0.05 < few.high
    assert many.high - many.low < few.high - few.low
    assert share(0, 20).low == 0
    assert share(0, 0).value is None
    # Wilson's interval for 1 of 20, and the exact Poisson one for none in a minute (3.69).
    assert (few.low, few.high) == pytest.approx((0.0089, 0.2361), abs=2e-4)
    assert rate(0, 1.0).high == pytest.approx(3.69, abs=0.03)
    assert rate(3, 0.0).value is None
    middle = quantile([float(n) for n in range(1, 101)], 0.5)
    assert middle.low is not None and middle.high is not None
    assert 40 <= middle.low < 50 == middle.value < middle.high <= 60
    assert quantile([], 0.5).value is None


def test_a_run_can_be_scored_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logs = [call(overlaps="cough", goes_on="never"), call(cuts=True, noise="office")]
    told = {"run": RUN | {"valid": True, "why_invalid": []}, "calls": [log_as_dict(one) for one in logs]}
    (tmp_path / "logs.json").write_text(json.dumps(told))
    assert main(["--again", str(tmp_path / "logs.json"), "--json", str(tmp_path / "again.json")]) == 0
    again = json.loads((tmp_path / "again.json").read_text())
    assert again["server"] == result(logs, profile("azure-groq"))["server"]
    assert again["calls"] == 2
    assert "valid: yes" in capsys.readouterr().out
    assert main(["--again", str(tmp_path / "again.json")]) == 2


def test_the_table_has_every_figure_and_says_who_is_who() -> None:
    found = result([call(), call(noise="babble en", overlaps="cough")], profile("azure-groq"))
    assert set(found["server"]) == set(ROWS)
    assert set(found["vad_only"]) <= set(ROWS)
    text = table_of(found | RUN)
    for title in (*ROWS.values(), "VAD silence only", "oracle", "babble 10 dB, handset", "NO: the generator was late"):
        assert title in text


def test_a_run_says_nothing_when_the_machine_was_at_fault() -> None:
    good = {"generator_late_ms": 2.0, "generator_cpu": 0.1, "simulator_cpu": 0.2, "server_cpu": 0.4, "other_cpu": 0.1}
    assert why_invalid(Heard([], **good), turns=40, calls=8) == []
    for worse, reason in (
        ({"generator_late_ms": 10.1}, "the generator was late"),
        ({"generator_late_ms": None}, "the generator was late"),
        ({"generator_cpu": 0.91}, "the generator used"),
        ({"simulator_cpu": 0.91}, "the simulators used"),
        ({"server_cpu": 0.81}, "the server used"),
        ({"other_cpu": 0.31}, "others used"),
    ):
        (told,) = why_invalid(Heard([], **{**good, **worse}), turns=40, calls=8)
        assert told.startswith(reason)
    assert why_invalid(Heard([], **good), turns=7, calls=8) == ["7 turns of 8 callers are too few"]
    assert why_invalid(Heard([], ["a call failed"], **good), turns=40, calls=8) == ["a call failed"]
