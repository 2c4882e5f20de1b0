"""`python -m bench captures`: makes the regression captures anew, tests/data/captures/NAME.capture.

For each situation a real server captures one real call: Twilio's protocol over sockets, Azure and Groq by their own
SDKs against simulated services. Nothing of it is written by hand. The server is stopped before its files are read.

The server's own command then replays each capture, and the hash goes into NAME.yaml, where what must be decided stands;
`pytest tests/call/test_regression_captures.py` says whether it is.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import uvloop
import yaml

from bench.captures.services import Services, serving
from bench.captures.situation import ANSWERS, SAID, SITUATIONS, TOOL, Situation
from bench.load.rig import wait_for
from bench.load.server_process import PUBLIC_URL, ROOT, ServerFailed, ServerProcess
from bench.sim.caller import ScriptedCaller
from bench.sim.twilio import Account, Exchange

OUT = ROOT / "tests" / "data" / "captures"
FROM = "+15552000100"
MAX_CALL_MS = 40_000
ENDED_S = 10.0
# The server chooses uvloop by itself; this runs the same program on asyncio's loop.
ON_ASYNCIO = (
    "import asyncio, sys, uvloop; uvloop.run = asyncio.run; from server.__main__ import main; sys.exit(main(['serve']))"
)
_HASH = re.compile(r"^hash: .*$", re.MULTILINE)


class CaptureFailed(Exception):
    """A call did not go as its situation wants."""


class _AsyncioServer(ServerProcess):
    def _command(self) -> list[str]:
        return [sys.executable, "-c", ON_ASYNCIO]


def agent_of(one: Situation, number: str) -> dict[str, object]:
    """The settings of the agent that answers `number` in this situation."""
    common: dict[str, object] = {
        "name": one.name,
        "numbers": [number],
        "language": "en-US",
        "stt": {"provider": "azure"},
        "llm": {"provider": "groq"},
        "tts": {"provider": "azure"},
        "opening": {"mode": "speak", "text": "Good day, what can I do?"},
        "capture": {"audio": True},
    }
    return {**common, **one.agent}


def make(situations: Sequence[Situation], loop: str, folder: Path) -> None:
    """Place the calls of these situations, one after the other, and put NAME.capture of each into `folder`.

    Raises:
        ServerFailed: no server came up. CaptureFailed: a call was not carried to its end.
    """
    with tempfile.TemporaryDirectory(prefix="captures-", ignore_cleanup_errors=True) as temporary:
        place = Path(temporary)
        # As root the embedded servers run as somebody else, who must be able to enter.
        place.chmod(0o755)
        (place / "agents").mkdir()
        numbers = {one.name: f"+155501{at:02d}" for at, one in enumerate(situations, 10)}
        for one in situations:
            agent = yaml.safe_dump(agent_of(one, numbers[one.name]))
            (place / "agents" / f"{one.name}.yaml").write_text(agent)
        for name, path in uvloop.run(_place_all(situations, numbers, loop, place)).items():
            shutil.copyfile(path, folder / f"{name}.capture")


async def _place_all(
    situations: Sequence[Situation], numbers: Mapping[str, str], loop: str, place: Path
) -> dict[str, Path]:
    """Returns the server's file of each call; they are whole, the server is gone."""
    account = Account()
    kind = _AsyncioServer if loop == "asyncio" else ServerProcess
    made: dict[str, Path] = {}
    problem = ""
    async with (
        serving(SAID, ANSWERS, {"price for": TOOL}) as services,
        Exchange(public_url=PUBLIC_URL, local_url="", account=account) as exchange,
    ):
        env = {
            "PUBLIC_URL": PUBLIC_URL,
            "TWILIO_ACCOUNT_SID": account.account_sid,
            "TWILIO_AUTH_TOKEN": account.auth_token,
            "TWILIO_API_URL": exchange.rest_url,
            "AGENTS_DIR": str(place / "agents"),
            **services.env,
        }
        async with kind(env, data_dir=place / "data") as server:
            exchange.local_url = server.url
            for one in situations:
                known = {*made.values()}
                problem = await _call(one, numbers[one.name], exchange, server, services)
                files = set((server.data_dir / "capture").glob("*.capture")) - known
                if problem or len(files) != 1:
                    problem = f"{one.name}: {problem or 'no capture'}\n{server.log_tail()}"
                    break
                made[one.name] = files.pop()
    if problem:
        raise CaptureFailed(problem)
    return made


async def _call(one: Situation, number: str, exchange: Exchange, server: ServerProcess, services: Services) -> str:
    """Place the call and wait until the server has put it away; returns what went wrong."""
    before = _ended(server)
    services.reset()
    one.prepare(services)
    services.brain.on_answer = lambda heard: one.on_answer(services, heard)
    caller = ScriptedCaller(one.turns, quiet_ms=one.quiet_ms, patience_ms=one.patience_ms, max_ms=MAX_CALL_MS)
    call = await exchange.call(caller, from_=FROM, to=number, faults=one.faults)
    listed, exchange.debugger = exchange.debugger, []
    if call.ended_by != one.ended_by or tuple(warning.code for warning in listed) != one.warnings:
        return f"ended by {call.ended_by}, {listed}"
    ended = before + len(call.streams)
    return "" if await wait_for(lambda: _ended(server) >= ended, ENDED_S) else "it was not put away"


def _ended(server: ServerProcess) -> int:
    return sum(line.get("event") == "call_ended" for line in server.log_lines()[0])


def replayed_hash(path: Path) -> str:
    """What the server's own command says of it. Raises CaptureFailed where replay differs."""
    command = [sys.executable, "-m", "server", "replay", "--json", str(path)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    if run.returncode:
        raise CaptureFailed(f"{path.name}: replay differs\n{run.stdout[-3000:]}{run.stderr[-3000:]}")
    return str(json.loads(run.stdout)["decided_hash"])


def note_hash(expectation: Path, found: str) -> None:
    """Write the hash into the expectation's one line for it, and leave the rest as it stands."""
    text = expectation.read_text() if expectation.exists() else "hash: none\n"
    expectation.write_text(_HASH.sub(f"hash: {found}", text, count=1))


def main(argv: list[str]) -> int:
    """Returns 0 when all were made, 1 when a call went wrong, 2 when there was no server."""
    parser = argparse.ArgumentParser(prog="python -m bench captures", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", help="the names of some situations, with commas between")
    parser.add_argument("--out", type=Path, default=OUT, help="where they go (tests/data/captures)")
    asked = parser.parse_args(argv)
    wanted = asked.only.split(",") if asked.only else [one.name for one in SITUATIONS]
    unknown = set(wanted) - {one.name for one in SITUATIONS}
    if unknown:
        print(f"no situation is named {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    chosen = [one for one in SITUATIONS if one.name in wanted]
    asked.out.mkdir(parents=True, exist_ok=True)
    try:
        for loop in ("uvloop", "asyncio"):
            those = [one for one in chosen if one.loop == loop]
            if those:
                make(those, loop, asked.out)
        for one in chosen:
            path = asked.out / f"{one.name}.capture"
            found = replayed_hash(path)
            note_hash(path.with_suffix(".yaml"), found)
            print(f"{one.name:<22} {path.stat().st_size / 1024:5.1f} KiB  {found[:16]}  {one.title}")
    except ServerFailed as error:
        print(error, file=sys.stderr)
        return 2
    except CaptureFailed as error:
        print(error, file=sys.stderr)
        return 1
    return 0
