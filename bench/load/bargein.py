"""How fast the agent gives way: callers interrupt every second answer, and noise talks over the others.

Time to clear is measured at the caller's end, first speech sample sent to `clear` received. Decision to clear is from
the step in the server's capture that ordered it to its arrival here; both processes read the same monotonic clock.
"""

from __future__ import annotations

from typing import Any

from bench.load import verdict
from bench.load.barge_caller import BargeCaller
from bench.load.capture import clear_decisions, since_decision_ms
from bench.load.crowd import Crowd
from bench.load.figure import percentiles
from bench.load.noise import noise_clip
from bench.load.options import Options, UsageError, parser
from bench.load.report import COMMON_ROWS, Rows, RunOnce, Sound, run_bench, trio
from bench.load.rig import FROM_PREFIX, Bench, Floors, Rig, raised, wait_for
from bench.load.verdict import Result
from bench.sim.sound import FRAME_MS, Clip

FRAMES_PER_MINUTE = 60_000 // FRAME_MS
CAPTURES_S = 6.0
TARGET_FALSE_PAUSES = 0.5
"""Per minute of agent speech over babble at 10 dB: what is aimed at, not a reason to fail."""
MIN_AIM_MINUTES = 6.0
"""Even no pause at all in less does not show the aim, with 95 % confidence."""


def run_with(noise: Clip | None, max_clear_ms: float = verdict.MAX_CLEAR_P95_MS) -> RunOnce:
    async def run_once(options: Options, sound: Sound, bench: Bench) -> Result:
        """One whole run. Raises ServerFailed, FloorFailed, UsageError when there is nothing to measure."""
        if options.proof != "tone codes":
            raise UsageError("bargein tells stale audio by tone codes, which only --providers scripted speaks")
        floors = Floors()
        async with raised(options, bench, floors, sound.clips) as rig:

            def make(number: str, think: int) -> BargeCaller:
                return BargeCaller(number, sound.clips, sound.interruptions, noise, think)

            crowd = Crowd(rig, make)
            result = crowd.figures(await crowd.watch())
            result |= await barge_figures(rig, crowd.callers, noise)
        failures = rig.failures + verdict.broken(result) + verdict.broken_barge_in(result, max_clear_ms)
        return verdict.concluded(result, floors, rig.problems, failures)

    return run_once


async def barge_figures(rig: Rig, callers: list[BargeCaller], noise: Clip | None) -> dict[str, Any]:
    records = [caller.record for caller in callers]
    all_of_them = [one for record in records for one in record.barge_ins]
    minutes = sum(record.noise_frames for record in records) / FRAMES_PER_MINUTE
    pauses = sum(record.false_pauses for record in records)
    decisions, unreadable = await decisions_ms(rig, callers)
    return {
        "barge_ins": len(all_of_them),
        "barge_ins_cleared": sum(one.clear_ns is not None for one in all_of_them),
        "time_to_clear_ms": percentiles(
            [(one.clear_ns - one.onset_ns) / 1e6 for one in all_of_them if one.clear_ns is not None]
        ),
        "decisions_found": len(decisions),
        "captures_unreadable": unreadable,
        "decision_to_clear_ms": percentiles(decisions),
        "stale_frames_after_clear": sum(record.stale_frames for record in records),
        "noise": noise.text if noise is not None else "none",
        "agent_minutes_in_noise": round(minutes, 2),
        "false_pauses": pauses,
        "false_pauses_per_minute": round(pauses / minutes, 2) if minutes else None,
        "false_pause_aim_shown": minutes >= MIN_AIM_MINUTES and pauses / minutes <= TARGET_FALSE_PAUSES,
        "resumed": sum(record.resumed for record in records),
        "other_clears": sum(record.other_clears for record in records),
    }


async def decisions_ms(rig: Rig, callers: list[BargeCaller]) -> tuple[list[float], list[str]]:
    """Decision to clear of each interruption, as far as the server keeps captures; they end when the calls have.

    Beside them what cannot be read of the captures, one text a file.
    """
    cleared = {
        f"{FROM_PREFIX}{caller.call_no:04d}": [one.clear_ns for one in caller.record.barge_ins if one.clear_ns]
        for caller in callers
    }
    wanted = {number for number, instants in cleared.items() if instants}
    if not (rig.target.data_dir / "capture").is_dir():
        return [], []
    await wait_for(lambda: wanted <= set(clear_decisions(rig.target.data_dir).clears), CAPTURES_S)
    decided = clear_decisions(rig.target.data_dir)
    found = [
        since_decision_ms(instant, decided.clears.get(number, []))
        for number, instants in cleared.items()
        for instant in instants
    ]
    return [one for one in found if one is not None], decided.unreadable


ROWS: Rows = {
    "interruptions cleared": lambda one: f"{one['barge_ins_cleared']} of {one['barge_ins']}",
    "time to clear p50/p95/p99, ms": lambda one: trio(one["time_to_clear_ms"]),
    "decision to clear p50/p95/p99, ms": lambda one: trio(one["decision_to_clear_ms"]),
    "  decisions found of clears": lambda one: f"{one['decisions_found']} of {one['barge_ins_cleared']}",
    "stale frames after clear": lambda one: str(one["stale_frames_after_clear"]),
    "noise": lambda one: one["noise"],
    "false pauses a minute": lambda one: str(one["false_pauses_per_minute"]),
    f"  aim of {TARGET_FALSE_PAUSES:g} a minute": lambda one: "shown" if one["false_pause_aim_shown"] else "not shown",
    "  of them resumed": lambda one: f"{one['resumed']} of {one['false_pauses']}",
    **COMMON_ROWS,
}


def main(argv: list[str], bench: Bench | None = None) -> int:
    """Returns 0 for valid runs in which nothing was broken, 1 for others, 2 when nothing could be measured."""
    made = parser("bargein", __doc__.splitlines()[0], calls=1, seconds=30)
    made.add_argument("--noise", default="babble", choices=["babble", "white", "cough", "none"])
    made.add_argument("--snr-db", type=float, default=10.0, help="speech over noise (default: %(default)s)")
    made.add_argument(
        "--max-clear-ms", type=float, default=verdict.MAX_CLEAR_P95_MS, help="time to clear p95 (default: %(default)s)"
    )
    asked = made.parse_args(argv)

    async def run_once(options: Options, sound: Sound, given: Bench) -> Result:
        noise = None if asked.noise == "none" else noise_clip(asked.noise, sound.clips, asked.snr_db)
        return await run_with(noise, asked.max_clear_ms)(options, sound, given)

    return run_bench(asked, run_once, ROWS, bench)
