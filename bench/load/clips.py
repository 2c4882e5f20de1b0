"""What callers of the load say: synthesised sentences, or the caller's turns of a carrier's stereo recording."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bench.sim.sound import FRAME_SAMPLES, RATE_HZ, Clip, at_8khz, audioop, to_pcmu
from bench.sim.voice import pico_clip

SideChoice = Literal["left", "right"]
# Said in one breath, about three seconds: the load is for the transport, not for the endpointing.
SENTENCES = (
    "I would really like to know whether you are still open on Saturday afternoon",
    "could you tell me how much it costs to park my car near your main building",
    "my daughter needs to see somebody about her knee before the end of the month",
    "please remind me which bus I have to take when I come from the railway station",
)
INTERRUPTIONS = (
    "wait a moment please I have another question",
    "no sorry that is not what I meant to say",
    "hold on could you repeat the first part",
)

MAX_RECORDING_BYTES = 512 << 20
GAP_MS = 400
"""A pause that ends a turn. Shorter than the server's turn.min_delay_ms (500), or it would answer inside a clip."""
MIN_TURN_MS = 200
MAX_TURN_MS = 20_000
MARGIN_DB = 12.0
"""Speech is so far above the quietest tenth of the channel's frames."""
LEAST_DBFS = -45.0
EDGE_FRAMES = 3
PCM, ALAW, MULAW, EXTENSIBLE = 1, 6, 7, 0xFFFE
Samples = NDArray[np.int16]


class RecordingError(ValueError):
    """The file is not a stereo recording that can be used; says why."""


def spoken() -> list[Clip]:
    """Every second caller is another voice; the server must not learn one clip."""
    return [pico_clip(text, pitch_percent=90 + 20 * (n % 2)) for n, text in enumerate(SENTENCES)]


def interrupting() -> list[Clip]:
    return [pico_clip(text, pitch_percent=95 + 15 * n) for n, text in enumerate(INTERRUPTIONS)]


def from_recording(path: Path, side: SideChoice = "left") -> list[Clip]:
    """The caller's turns of a stereo WAV: s16, mu-law or A-law at any rate. Raises RecordingError, OSError."""
    samples, rate_hz = read_stereo(path)
    line = at_8khz(samples[:, 0 if side == "left" else 1].tobytes(), rate_hz)
    clips = []
    for begin, end in turns(np.frombuffer(line, "<i2")):
        pcmu = to_pcmu(line[2 * begin : 2 * end])
        where = f"{path.name} {side} {begin / RATE_HZ:.2f} s"
        clips.append(Clip.from_pcmu(pcmu, text=where, source=f"recording {where}"))
    if not clips:
        raise RecordingError(f"{path}: nobody speaks on the {side} channel (try the other --caller-channel)")
    return clips


def turns(samples: Samples) -> list[tuple[int, int]]:
    """(begin, end) of each turn in samples at 8000 Hz, by energy: frames well above the channel's own noise."""
    frames = samples[: samples.size // FRAME_SAMPLES * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES).astype(np.float64)
    if not frames.size:
        return []
    dbfs = 10 * np.log10(np.maximum((frames**2).mean(axis=1), 1e-3) / 32768**2)
    noise, loudest = float(np.percentile(dbfs, 10)), float(dbfs.max())
    # Where somebody speaks all the time the quietest tenth is speech too.
    threshold = max(LEAST_DBFS, min(noise, loudest - 2 * MARGIN_DB) + MARGIN_DB)
    speech = np.flatnonzero(dbfs >= threshold)
    found: list[tuple[int, int]] = []
    gap, least, most = (ms // 20 for ms in (GAP_MS, MIN_TURN_MS, MAX_TURN_MS))
    begin = last = -1
    for at in (*speech.tolist(), 1 << 40):
        if begin >= 0 and (at - last > gap or last - begin >= most):
            if last - begin + 1 >= least:
                first, stop = max(0, begin - EDGE_FRAMES), min(len(frames), last + 1 + EDGE_FRAMES)
                found.append((first * FRAME_SAMPLES, stop * FRAME_SAMPLES))
            begin = at
        elif begin < 0:
            begin = at
        last = at
    return found


def read_stereo(path: Path) -> tuple[Samples, int]:
    """Samples (n, 2) and rate of a RIFF file, as Twilio and Telnyx write dual-channel recordings.

    Raises:
        RecordingError: not RIFF, not stereo, or a coding other than s16, mu-law, A-law. OSError: not readable.
    """
    if path.stat().st_size > MAX_RECORDING_BYTES:
        raise RecordingError(f"{path}: larger than {MAX_RECORDING_BYTES >> 20} MiB")
    raw = path.read_bytes()
    if raw[:4] != b"RIFF" or raw[8:12] != b"WAVE":
        raise RecordingError(f"{path}: not a WAV file")
    chunks: dict[bytes, bytes] = {}
    at = 12
    while at + 8 <= len(raw) and b"data" not in chunks:
        name, size = raw[at : at + 4], struct.unpack_from("<I", raw, at + 4)[0]
        # A carrier that streams the file does not know its size: then it reaches to the end.
        chunks[name] = raw[at + 8 : at + 8 + size] if name != b"data" or size <= len(raw) else raw[at + 8 :]
        at += 8 + size + size % 2
    form, data = chunks.get(b"fmt ", b""), chunks.get(b"data", b"")
    if len(form) < 16 or not data:
        raise RecordingError(f"{path}: no sound in it")
    coding, channels, rate_hz, _, _, bits = struct.unpack_from("<HHIIHH", form)
    if coding == EXTENSIBLE and len(form) >= 26:
        coding = struct.unpack_from("<H", form, 24)[0]
    if channels != 2:
        raise RecordingError(f"{path}: {channels} channels; a dual-channel recording has the caller on one of two")
    if not 8000 <= rate_hz <= 96_000:
        raise RecordingError(f"{path}: {rate_hz} Hz; expected 8000 to 96000")
    if coding == MULAW:
        data = bytes(audioop.ulaw2lin(data, 2))
    elif coding == ALAW:
        data = bytes(audioop.alaw2lin(data, 2))
    elif coding != PCM or bits != 16:
        raise RecordingError(f"{path}: coding {coding} with {bits} bits; expected 16-bit PCM, mu-law or A-law")
    return np.frombuffer(data[: len(data) // 4 * 4], "<i2").reshape(-1, 2), rate_hz
