"""Designs the taps of the FIR resamplers and prints audio_native/fir_taps.py.

Run by hand when a requirement changes (`python bench/design_fir.py > audio_native/fir_taps.py`); needs scipy, which
nothing else here does, so the build and the server never import this file.

Method: equiripple (Parks-McClellan, scipy.signal.remez), rounded to integers, then a seeded local search over the
integers: rounding alone costs 4 to 8 dB of stop band, moving single taps by one wins most of it back.
The score is the largest of (stop-band peak) and (pass-band error / PASS_WEIGHT), on a dense grid.
"""

import sys

import numpy as np
from scipy.signal import remez

PASS_WEIGHT = 6.5  # 0.0068 dB of ripple weigh as much as -78 dB of stop band
GRID = 1200
ROUNDS = 12

# name, taps, grid rate in Hz, pass edge, stop edge, integer value of unity gain, largest tap that fits, purpose
DESIGNS = (
    ("HALFBAND", 63, 16_000, 3_400, 4_600, 65_536, 32_768, "8 to 16 kHz, 16 to 8 kHz"),
    ("NARROW_DOWN", 83, 24_000, 3_400, 4_600, 65_536, 32_767, "24 to 8 kHz"),
    ("NARROW_UP", 83, 24_000, 3_400, 4_600, 98_304, 32_767, "8 to 24 kHz"),
    ("WIDE", 101, 48_000, 7_000, 9_000, 65_536, 32_767, "48 to 16 kHz, 24 to 16 kHz"),
    ("WIDE_UP", 101, 48_000, 7_000, 9_000, 98_304, 32_767, "16 to 24 kHz, 16 to 48 kHz"),
)


def equiripple(taps: int, rate_hz: int, pass_hz: int, stop_hz: int, halfband: bool) -> np.ndarray:
    """Return the right half of a symmetric low-pass, centre tap first, unity gain at 0 Hz."""
    if halfband:
        # The odd phase of a halfband is a half-sample delay: design it alone at the lower rate.
        phase = remez((taps + 1) // 2, [0, pass_hz], [1], fs=rate_hz / 2, maxiter=200)
        whole = np.zeros(taps)
        whole[::2] = phase / 2
        whole[taps // 2] = 0.5
    else:
        whole = remez(
            taps, [0, pass_hz, stop_hz, rate_hz / 2], [1, 0], weight=[1, PASS_WEIGHT], fs=rate_hz, maxiter=200
        )
    return whole[taps // 2 :]


def search(half: np.ndarray, scale: int, rate_hz: int, pass_hz: int, stop_hz: int, largest: int, halfband: bool):
    """Move integer taps by one or two at a time while the weighted peak error falls; deterministic."""
    rng = np.random.default_rng(1)
    freq = np.concatenate([np.linspace(0, pass_hz, GRID), np.linspace(stop_hz, rate_hz / 2, GRID)])
    basis = 2 * np.cos(2 * np.pi * np.outer(freq / rate_hz, np.arange(len(half))))
    basis[:, 0] = 1
    weight = np.concatenate([np.full(GRID, 1 / (1 if halfband else PASS_WEIGHT)), np.ones(GRID)]) / scale
    goal = np.concatenate([np.full(GRID, float(scale)), np.zeros(GRID)])
    free = np.array([k for k in range(len(half)) if not halfband or k % 2])

    def score(error: np.ndarray) -> float:
        return float(np.abs(error * weight).max())

    best, best_score = None, np.inf
    for _ in range(ROUNDS):
        dither = rng.uniform(-0.5, 0.5, len(half)) if best is not None else 0
        taps = np.minimum(np.rint(half * scale + dither * np.isin(np.arange(len(half)), free)), largest)
        error = basis @ taps - goal
        now = score(error)
        improved = True
        while improved:
            improved = False
            moves = [((k, d),) for k in free for d in (-1, 1)]
            moves += [((i, a), (j, b)) for i in free for j in free if i < j for a in (-1, 1) for b in (-1, 1)]
            for pick in rng.permutation(len(moves)):
                step = moves[pick]
                trial = error.copy()
                for k, d in step:
                    trial += d * basis[:, k]
                value = score(trial)
                if value < now and all(abs(taps[k] + d) <= largest for k, d in step):
                    for k, d in step:
                        taps[k] += d
                    error, now, improved = trial, value, True
        if now < best_score:
            best, best_score = taps.copy(), now
    whole = np.concatenate([best[:0:-1], best]).astype(int)
    response = basis @ best / scale
    ripple_db = 20 * np.log10(np.abs(response[:GRID]))
    return whole, np.abs(ripple_db).max(), 20 * np.log10(np.abs(response[GRID:]).max())


def main() -> None:
    print('"""Taps of the FIR resamplers, made by bench/design_fir.py: equiripple, then an integer search.')
    print()
    print("Each is a symmetric low-pass on the grid of the higher rate (or of the common multiple); ripple and")
    print('stop band are those of the integers below, not of the design they came from."""')
    for name, count, rate_hz, pass_hz, stop_hz, scale, largest, purpose in DESIGNS:
        halfband = name == "HALFBAND"
        half = equiripple(count, rate_hz, pass_hz, stop_hz, halfband)
        taps, ripple, stop = search(half, scale, rate_hz, pass_hz, stop_hz, largest, halfband)
        print(name, round(ripple, 4), round(stop, 1), file=sys.stderr)
        print()
        print(f"# {purpose}. {count} taps at {rate_hz} Hz, unity = {scale}; pass {pass_hz} Hz within {ripple:.4f} dB,")
        print(f"# stop from {stop_hz} Hz at {stop:.1f} dB.")
        print(f"{name} = (")
        for row in range(0, count, 12):
            print("    " + ", ".join(str(v) for v in taps[row : row + 12]) + ",")
        print(")")


if __name__ == "__main__":
    main()
