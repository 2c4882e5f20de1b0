"""Sound that is no speech to the agent: what a caller's surroundings say while the agent speaks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bench.sim.sound import RATE_HZ, Clip, from_pcmu, to_pcmu
from bench.sim.voice import pico_clip

Kind = Literal["babble", "white", "cough"]
NOISE_S = 1.6
BABBLE_VOICES = 8
SEED = 4711
# Said by everybody at once; of no meaning to anybody.
_TABLE_TALK = (
    "and then she told me that the whole street was closed for the parade until the evening",
    "we should have taken the other road because of all the traffic near the bridge",
    "he has bought a new bicycle but nobody has seen him ride it anywhere so far",
    "the soup was far too hot and the waiter did not come back for half an hour",
)


def noise_clip(kind: Kind, speech: Sequence[Clip], snr_db: float) -> Clip:
    """`snr_db` below the level that `speech` has while somebody speaks."""
    level = speech_rms(speech) * 10 ** (-snr_db / 20)
    raw = {"babble": _babble, "white": _white, "cough": _cough}[kind]()
    samples = raw * (level / max(1.0, float(np.sqrt((raw**2).mean()))))
    s16 = np.clip(samples, -32768, 32767).astype("<i2").tobytes()
    return Clip.from_pcmu(to_pcmu(s16), text=f"{kind} at {snr_db:g} dB", source="noise")


def speech_rms(clips: Sequence[Clip]) -> float:
    """Root mean square of the frames that hold speech: the louder half of all."""
    joined = np.concatenate([np.frombuffer(from_pcmu(clip.pcmu), "<i2").astype(np.float64) for clip in clips])
    frames = (joined[: joined.size // 160 * 160].reshape(-1, 160) ** 2).mean(axis=1)
    return float(np.sqrt(np.sort(frames)[frames.size // 2 :].mean()))


def _babble() -> NDArray[np.float64]:
    count = int(NOISE_S * RATE_HZ)
    total = np.zeros(count)
    for voice in range(BABBLE_VOICES):
        clip = pico_clip(_TABLE_TALK[voice % len(_TABLE_TALK)], pitch_percent=70 + 12 * voice)
        one = np.frombuffer(from_pcmu(clip.pcmu), "<i2").astype(np.float64)
        total += np.roll(one, -voice * 1700)[:count]
    return total


def _white() -> NDArray[np.float64]:
    return np.random.default_rng(SEED).normal(0, 1000, int(NOISE_S * RATE_HZ))


def _cough() -> NDArray[np.float64]:
    """Two bursts of noise that die away, 250 ms each, half a second apart."""
    count = int(NOISE_S * RATE_HZ)
    hiss = np.random.default_rng(SEED).normal(0, 1000, count)
    at = np.arange(count) / RATE_HZ
    shape = sum(np.where((at >= begin) & (at < begin + 0.25), np.exp(-(at - begin) / 0.07), 0) for begin in (0, 0.75))
    return hiss * np.asarray(shape)
