"""The native forward pass against its definition and against onnxruntime, at every vector width; its bookkeeping."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from audio_native import reference, silero
from audio_native.silero_weights import SHAPES, WeightsError, packaged_file, read_weights

WINDOWS = 12


@pytest.fixture(params=silero.LEVELS)
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    before = silero.LEVEL
    silero.set_level(request.param)
    yield request.param
    silero.set_level(before)


@pytest.fixture(scope="module")
def weights() -> dict[str, np.ndarray]:
    return read_weights(packaged_file())


@pytest.fixture(scope="module")
def net(weights: dict[str, np.ndarray]) -> silero.SileroNet:
    return silero.SileroNet(weights)


def sounds(calls: int) -> np.ndarray:
    """Bursts of harmonics in noise, another pitch and level for each call; one silent, one at full scale."""
    time = np.arange(WINDOWS * 512) / 16_000
    dice = np.random.default_rng(16)
    lines = []
    for call in range(calls):
        pitch = 90 + 11 * call + 10 * np.sin(2 * np.pi * 2 * time)
        voice = sum(np.sin(k * 2 * np.pi * np.cumsum(pitch) / 16_000) / k for k in range(1, 25))
        envelope = np.maximum(0, np.sin(2 * np.pi * 3 * time + call)) ** 2
        lines.append(2500 * voice * envelope + dice.normal(0, 30 * (call % 7 + 1), len(time)))
    audio = np.array(lines)
    audio[0] = 0
    audio[1] *= 100
    return np.clip(audio, -32768, 32767).astype(np.int16)


def scores(net: silero.SileroNet, audio: np.ndarray) -> np.ndarray:
    streams = [silero.SileroStream() for _ in audio]
    rows = []
    for at in range(0, audio.shape[1], 512):
        for stream, line in zip(streams, audio, strict=True):
            stream.push(line[at : at + 512].tobytes())
        assert net.score(streams) == len(streams)
        rows.append([stream.probability for stream in streams])
    return np.array(rows).T


def test_scores_are_those_of_onnxruntime(net: silero.SileroNet, level: str) -> None:
    """37 calls: wide groups, a narrow one, and lanes left over."""
    audio = sounds(37)
    session = onnxruntime.InferenceSession(str(packaged_file()))
    state, past = np.zeros((2, len(audio), 128), np.float32), np.zeros((len(audio), 64), np.float32)
    theirs = []
    for at in range(0, audio.shape[1], 512):
        window = np.concatenate([past, audio[:, at : at + 512].astype(np.float32) / 32768], axis=1)
        past = window[:, -64:]
        probability, state = session.run(None, {"input": window, "state": state, "sr": np.array(16_000)})
        theirs.append(probability[:, 0])
    ours = scores(net, audio)
    assert ours.max() > 0.5 > ours.min(), "the sounds say nothing about the network"
    assert np.abs(ours - np.array(theirs).T).max() < 1e-5


def test_scores_are_those_of_the_definition(
    net: silero.SileroNet, weights: dict[str, np.ndarray], level: str
) -> None:
    audio = sounds(3)
    expected = np.array([reference.silero(weights, line) for line in audio])
    assert np.abs(scores(net, audio) - expected).max() < 1e-5


def test_a_call_is_scored_alike_in_any_company(net: silero.SileroNet, level: str) -> None:
    audio = sounds(33)
    together = scores(net, audio)
    for call in (2, 20, 32):
        alone = scores(net, audio[call : call + 1])[0]
        assert np.abs(alone - together[call]).max() < 1e-6


def test_any_chunking_gives_the_same_windows(net: silero.SileroNet) -> None:
    line = sounds(3)[2].tobytes()
    whole, pieces = silero.SileroStream(), silero.SileroStream()
    found: list[list[float]] = [[], []]
    for at in range(0, len(line), 320):
        pieces.push(line[at : at + 320])
        if net.score([pieces]):
            found[1].append(pieces.probability)
    for at in range(0, len(line), 1024):
        whole.push(line[at : at + 1024])
        net.score([whole])
        found[0].append(whole.probability)
    assert found[1] == found[0][: len(found[1])] and len(found[1]) >= WINDOWS - 1


def test_only_whole_windows_are_scored_and_the_oldest_audio_goes_first(net: silero.SileroNet) -> None:
    stream = silero.SileroStream()
    stream.push(bytes(2 * 511))
    assert not stream.is_ready and net.score([stream]) == 0 and stream.score == 0
    stream.push(bytes(2))
    assert stream.is_ready and net.score([stream]) == 1 and net.score([stream]) == 0
    line = sounds(3)[2]
    late, fresh = silero.SileroStream(), silero.SileroStream()
    late.push(line[:3000].tobytes())
    assert late.overruns == 3000 - 1024
    fresh.push(line[3000 - 1024 : 3000].tobytes())
    assert net.score([late, fresh]) == 2 and late.probability == fresh.probability
    with pytest.raises(ValueError, match="whole samples"):
        stream.push(b"\0\0\0")


def test_reset_forgets(net: silero.SileroNet) -> None:
    line = sounds(3)[2].tobytes()
    used, fresh = silero.SileroStream(), silero.SileroStream()
    for at in range(0, 4096, 1024):
        used.push(line[at : at + 1024])
        net.score([used])
    used.reset()
    used.push(line[:1024])
    fresh.push(line[:1024])
    net.score([used, fresh])
    assert used.probability == fresh.probability and used.score == round(255 * used.probability)


def test_strange_weights_are_refused(weights: dict[str, np.ndarray], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected 128 weights, got 7"):
        silero.SileroNet({**weights, "encoder.0.reparam_conv.bias": np.zeros(7)})
    with pytest.raises(KeyError):
        silero.SileroNet({})
    assert set(weights) == set(SHAPES)
    other = tmp_path / "other.onnx"
    other.write_bytes(packaged_file().read_bytes()[:-1])
    with pytest.raises(WeightsError, match="not the model"):
        read_weights(other)
    with pytest.raises(WeightsError, match="No such file"):
        read_weights(tmp_path / "none.onnx")


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="expected one of"):
        silero.set_level("mmx")
