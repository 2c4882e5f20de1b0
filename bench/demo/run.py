"""`make demo`: phone calls against a server that it starts, as a carrier would place them; printed, judged, recorded.

Exit code 0 only when every caller was understood and answered. What both sides heard is in var/demo/*.wav: the caller
on the left, the agent on the right.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path

import uvloop

from bench.demo import cloud
from bench.demo.ear import Ear
from bench.demo.flite import find_flite
from bench.demo.judge import CallVerdict, judge_call
from bench.demo.recording import find_source
from bench.demo.score import WordErrors
from bench.demo.script import HELDOUT, PlannedCall, load_calls, load_heldout
from bench.demo.talk import STAGES, Talk, TalkReader
from bench.load.figure import percentile, table
from bench.load.server_process import PUBLIC_URL, ROOT, ServerFailed, ServerProcess
from bench.sim.caller import ScriptedCaller
from bench.sim.process import ProviderProcesses, SimFailed
from bench.sim.profile import PROFILES
from bench.sim.sound import write_stereo
from bench.sim.twilio import Account, Exchange

TO_NUMBER = "+15550100"
OUT = ROOT / "var" / "demo"
CACHE = ROOT / "var" / "cache"
MAX_WER = 0.20
MIN_RIGHT = 0.80
MAX_CALL_MS = 150_000
MAX_SILENT_CALL_MS = 90_000
LOG_POLL_S = 0.1
LAST_LINES_S = 5.0


class Demo:
    """One server, one exchange, calls one after the other."""

    def __init__(self, server: ServerProcess, exchange: Exchange, out: Path) -> None:
        self._server = server
        self._exchange = exchange
        self._out = out
        self._reader = TalkReader(server, print)
        self.talks: list[Talk] = []
        self.callers: list[ScriptedCaller] = []

    async def place(self, planned: PlannedCall, number: str, to: str = TO_NUMBER) -> CallVerdict:
        """Place one call, print it as it happens, write its sound, judge it."""
        print(f"\n── {planned.name}: {planned.title}")
        for source in planned.sources:
            print(f"   voice: {source}")
        stays = planned.ends_by == "agent"
        max_ms = MAX_CALL_MS if planned.turns else MAX_SILENT_CALL_MS
        # Callers of the demo keep to their script; those who were given something to say again listen.
        ear = Ear(planned.wishes, planned.again, lambda: self._reader.talk) if planned.again else None
        caller = ScriptedCaller(planned.turns, stay=stays, max_ms=max_ms, react=ear)
        self._reader.begin()
        async with asyncio.TaskGroup() as tasks:
            follower = tasks.create_task(self._follow())
            call = await self._exchange.call(caller, from_=number, to=to, record=True)
            await self._wait_last_lines()
            follower.cancel()
        talk = self._reader.talk
        for at, stream in enumerate(call.streams):
            path = self._out / (f"{planned.name}.wav" if at == 0 else f"{planned.name}-{at}.wav")
            write_stereo(path, b"".join(stream.said or []), b"".join(stream.heard or []))
            print(f"   both sides: {path}")
        for one in self._exchange.debugger:
            if one.call_sid == call.sid:
                print(f"   Twilio's debugger: {one.code} {one.text}")
        self.talks.append(talk)
        self.callers.append(caller)
        verdict = judge_call(planned, call, caller, talk)
        for problem in verdict.all_problems:
            print(f"   NOT GOOD: {problem}")
        return verdict

    async def _follow(self) -> None:
        while True:
            self._reader.poll()
            await asyncio.sleep(LOG_POLL_S)

    async def _wait_last_lines(self) -> None:
        """The server writes its last lines after the carrier is gone."""
        try:
            async with asyncio.timeout(LAST_LINES_S):
                while self._reader.talk.ended is None and self._server.is_running:
                    await asyncio.sleep(LOG_POLL_S)
        except TimeoutError:
            pass


async def run(
    calls: list[tuple[PlannedCall, str]], out: Path, providers: Mapping[str, str] | None = None
) -> tuple[list[CallVerdict], Demo]:
    """Start the server and place all calls, each to its number. Raises ServerFailed when it does not come up."""
    account = Account()
    async with Exchange(public_url=PUBLIC_URL, local_url="", account=account) as exchange:
        env = {
            "PUBLIC_URL": PUBLIC_URL,
            "TWILIO_ACCOUNT_SID": account.account_sid,
            "TWILIO_AUTH_TOKEN": account.auth_token,
            "TWILIO_API_URL": exchange.rest_url,
            "LOG_TRANSCRIPTS": "1",  # what is printed and judged
            **(providers or {}),
        }
        async with ServerProcess(env, log=out / "server.log") as server:
            exchange.local_url = server.url
            demo = Demo(server, exchange, out)
            verdicts = [await demo.place(call, f"+1555100{at:04d}", to) for at, (call, to) in enumerate(calls)]
            if not server.is_running:
                raise ServerFailed(f"the server exited with {server.returncode}:\n{server.log_tail()}")
    return verdicts, demo


async def run_simulated(calls: list[PlannedCall], out: Path, profile: str) -> tuple[list[CallVerdict], Demo]:
    """The same with the provider simulators beside the server. Raises SimFailed when one does not come up."""
    book = cloud.write_book(calls, out / "book.json")
    async with ProviderProcesses(book=book, profile=profile) as sims:
        env = {**sims.env, "AGENTS_DIR": str(cloud.write_agents(out / "agents"))}
        return await run(cloud.for_each_model(calls), out, env)


def latency_table(talks: list[Talk], callers: list[ScriptedCaller]) -> str:
    """The account: every stage as the server gives it, and the whole as the caller's stop watch has it."""
    turns = [turn for talk in talks for turn in talk.turns if turn.get("latency_ms") is not None]
    rows: list[tuple[str, ...]] = [("ms", "p50", "p95", "max", "turns")]

    def row(name: str, values: list[float]) -> None:
        cells = (percentile(values, 0.5), percentile(values, 0.95), max(values, default=None))
        rows.append((name, *("-" if cell is None else f"{cell:.0f}" for cell in cells), str(len(values))))

    for stage in STAGES:
        row(stage, [turn["stages"][stage] for turn in turns if stage in (turn.get("stages") or {})])
    row("turn latency (server)", [turn["latency_ms"] for turn in turns])
    records = [record for caller in callers for record in caller.records]
    row("turn latency (caller)", [r.reply_latency_ms for r in records if r.reply_latency_ms is not None])
    row("barge-in to clear", [r.time_to_clear_ms for r in records if r.time_to_clear_ms is not None])
    return table(rows)


def summarise(verdicts: list[CallVerdict], demo: Demo, *, heldout: bool) -> int:
    """Print words, answers and the latency account; the exit code."""
    rows: list[tuple[str, ...]] = [("call", "words", "word error", "turns right", "result")]
    for one in verdicts:
        right = sum(turn.is_right for turn in one.turns)
        result = "good" if not one.all_problems else "not good"
        rate = f"{one.words.rate:.0%}" if one.words.words else "-"
        rows.append((one.call.name, str(one.words.words), rate, f"{right} of {len(one.turns)}", result))
    words = sum((one.words for one in verdicts), WordErrors(0, 0))
    turns = [turn for one in verdicts for turn in one.turns]
    right = sum(turn.is_right for turn in turns)
    share = right / len(turns) if turns else 0.0
    print(f"\n{table(rows)}\n\n{latency_table(demo.talks, demo.callers)}\n")
    print(f"word error over all callers: {words.rate:.1%} of {words.words} words (at most {MAX_WER:.0%})")
    print(
        f"answered right: {right} of {len(turns)} turns, {share:.0%}"
        + (f" (at least {MIN_RIGHT:.0%})" if heldout else "")
    )
    if heldout:
        return int(share < MIN_RIGHT)
    is_good = words.rate <= MAX_WER and not any(one.all_problems for one in verdicts)
    print("the callers were understood and answered" if is_good else "NOT every caller was understood and answered")
    return int(not is_good)


def main(argv: list[str]) -> int:
    """Returns 0 when all went well, 1 when a caller was not served, 2 when there was no server to call."""
    parser = argparse.ArgumentParser(prog="python -m bench demo", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--heldout", action="store_true", help="callers with other words, unused in development")
    parser.add_argument("--calls", type=Path, default=HELDOUT, help="the file of the held-out callers")
    parser.add_argument(
        "--providers", choices=("offline", "sim"), default="offline",
        help="sim: Azure, Groq and OpenAI by their SDKs, played by simulators",
    )  # fmt: skip
    parser.add_argument("--profile", choices=sorted(PROFILES), default="azure-groq", help="delays of the simulators")
    parser.add_argument("--only", help="the name of one call")
    parser.add_argument("--out", type=Path, default=OUT, help="where the recordings go (var/demo)")
    asked = parser.parse_args(argv)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    if asked.heldout:
        flite, note = find_flite(CACHE)
        if note:
            print(f"Flite's voices: {note}\n   instead: SVOX Pico for every caller")
        calls = load_heldout(flite, asked.calls)
    else:
        source, note = find_source(CACHE)
        if note:
            print(f"human voice: {note}\n   instead: {source.label}")
        calls = load_calls(source)
    calls = [call for call in calls if asked.only in (None, call.name)]
    if not calls:
        print(f"there is no call named {asked.only!r}", file=sys.stderr)
        return 2
    asked.out.mkdir(parents=True, exist_ok=True)
    try:
        if asked.providers == "sim":
            verdicts, demo = uvloop.run(run_simulated(calls, asked.out, asked.profile))
        else:
            verdicts, demo = uvloop.run(run([(call, TO_NUMBER) for call in calls], asked.out))
    except (ServerFailed, SimFailed) as error:
        print(error, file=sys.stderr)
        return 2
    return summarise(verdicts, demo, heldout=asked.heldout)
