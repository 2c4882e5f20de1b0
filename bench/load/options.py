"""What a load is asked for: one set of options for `capacity`, `latency`, `bargein` and `soak`."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.load.captured import is_captured
from bench.load.clips import SideChoice
from bench.load.plot import PlotMissing, require_matplotlib
from bench.out_file import out_file
from bench.sim.profile import PROFILES

Vad = Literal["webrtc", "silero"]
CarrierName = Literal["twilio", "telnyx"]
Proof = Literal["tone codes", "sound"]
Callers = Literal["clips", "recording", "captures"]
BREAKAGES = ("pacer", "vad", "barge_in", "turn_in_fifty")
MAX_CALLS = 5000


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """One run with one number of calls."""

    calls: int
    seconds: float
    providers: str = "scripted"
    profile: str = "azure-groq"
    vad: Vad = "webrtc"
    carrier: CarrierName = "twilio"
    callers: Callers = "clips"
    jitter: bool = False
    breakage: str = ""
    lead_ms: int = 200
    chunk_ms: int = 100
    pin: bool = True

    @property
    def proof(self) -> Proof:
        """What shows that a turn was answered: scripted answers prove themselves, others are only heard."""
        return "tone codes" if self.providers == "scripted" else "sound"


class UsageError(Exception):
    """What was asked for cannot be done; says why and what would help."""


def parser(name: str, summary: str, *, calls: int, seconds: float) -> argparse.ArgumentParser:
    """The options of a load with so many calls at the same time; a bench adds its own."""
    made = common_parser(name, summary)
    made.add_argument("--calls", type=int, default=calls, help="calls at the same time (default: %(default)s)")
    made.add_argument(
        "--seconds", type=float, default=seconds, help="length of the steady window (default: %(default)s)"
    )
    made.add_argument("--curve", metavar="N,N,…", help="one run for each number of calls; names the knee")
    made.add_argument("--plot", type=out_file, metavar="FILE", help="p50, p95 and p99 against calls, by matplotlib")
    return made


def common_parser(name: str, summary: str) -> argparse.ArgumentParser:
    """The options that all loads share."""
    made = argparse.ArgumentParser(prog=f"python -m bench {name}", description=summary)
    made.add_argument("--providers", default="scripted", choices=["scripted", "sim"], help="who hears and speaks")
    made.add_argument(
        "--profile", default="azure-groq", choices=sorted(PROFILES), help="delays of the providers with --providers sim"
    )
    made.add_argument("--vad", default="webrtc", choices=["webrtc", "silero"], help="the server's turn.vad")
    made.add_argument("--carrier", default="twilio", choices=["twilio", "telnyx"], help="whose calls the server gets")
    made.add_argument(
        "--recording", type=Path, metavar="FILE",
        help="instead of clips: a carrier's stereo WAV, a capture with audio, or a folder of captures",
    )  # fmt: skip
    made.add_argument(
        "--caller-channel", default="left", choices=["left", "right"], help="the caller's channel of --recording"
    )
    made.add_argument("--jitter", action="store_true", help="messages arrive late: 5 ms median, 25 p95, stalls of 2 s")
    made.add_argument(
        "--break", dest="breakage", default="", choices=BREAKAGES,
        help="the server's TALKSPURT_TEST_BREAK: it is broken on purpose, and the run must fail",
    )  # fmt: skip
    made.add_argument("--lead-ms", type=int, default=200, help="the server's PACER_LEAD_MS")
    made.add_argument("--chunk-ms", type=int, default=100, help="the server's PACER_CHUNK_MS")
    made.add_argument(
        "--pin", action=argparse.BooleanOptionalAction, default=True,
        help="server and generator on a core each, where there are two",
    )  # fmt: skip
    made.add_argument("--json", type=out_file, metavar="FILE", help="write the result here")
    return made


def numbers_of_calls(asked: argparse.Namespace) -> list[int]:
    """The runs: --curve, or --calls alone. Raises UsageError."""
    try:
        numbers = [int(part) for part in asked.curve.split(",")] if asked.curve else [asked.calls]
    except ValueError:
        raise UsageError(f"--curve: numbers of calls like 10,50,100, not {asked.curve!r}") from None
    if not all(1 <= one <= MAX_CALLS for one in numbers):
        raise UsageError(f"calls: from 1 to {MAX_CALLS}")
    if not 0 < asked.seconds <= 86_400:
        raise UsageError("--seconds: more than 0, at most a day")
    return numbers


def check(asked: argparse.Namespace) -> None:
    """Refuse at once what would only fail after minutes. Raises UsageError."""
    if asked.providers == "sim" and asked.recording:
        raise UsageError("--recording: simulated recognisers know no words of it; use --providers scripted")
    if getattr(asked, "plot", None):
        try:
            require_matplotlib()
        except PlotMissing as error:
            raise UsageError(str(error)) from None


def options(asked: argparse.Namespace, calls: int, seconds: float) -> Options:
    return Options(
        calls=calls,
        seconds=seconds,
        providers=asked.providers,
        profile=asked.profile,
        vad=asked.vad,
        carrier=asked.carrier,
        callers=callers(asked),
        jitter=asked.jitter,
        breakage=asked.breakage,
        lead_ms=asked.lead_ms,
        chunk_ms=asked.chunk_ms,
        pin=asked.pin,
    )


def callers(asked: argparse.Namespace) -> Callers:
    """Where what callers say is from. Raises OSError: the recording is not readable."""
    if asked.recording is None:
        return "clips"
    return "captures" if is_captured(asked.recording) else "recording"


def side(asked: argparse.Namespace) -> SideChoice:
    return "right" if asked.caller_channel == "right" else "left"
