"""Azure's Speech service on a local port: recognition, synthesis, tokens, voices."""

from bench.sim.azure.fault import Fault, FaultBox
from bench.sim.azure.render import FORMATS, render
from bench.sim.azure.seen import Connection, SttTurn, TtsTurn
from bench.sim.azure.server import KEY, AzureSim
from bench.sim.azure.ssml import read_ssml, read_text
from bench.sim.azure.voices import VOICES, Voice

__all__ = [
    "FORMATS", "KEY", "VOICES", "AzureSim", "Connection", "Fault", "FaultBox", "SttTurn", "TtsTurn", "Voice",
    "read_ssml", "read_text", "render",
]  # fmt: skip
