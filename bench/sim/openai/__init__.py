"""An OpenAI-compatible service on a local port: chat, models, transcription and speech of OpenAI, Groq and Azure."""

from bench.sim.openai.answer import Answer, Brain, FixtureBrain, ScriptedBrain, ToolUse
from bench.sim.openai.audio import hears
from bench.sim.openai.chunk import Style
from bench.sim.openai.clinic import ClinicBrain
from bench.sim.openai.fault import Fault
from bench.sim.openai.flavour import Flavour, Model, RateMeter
from bench.sim.openai.seen import Seen
from bench.sim.openai.server import OpenAiSim

__all__ = [
    "Answer", "Brain", "ClinicBrain", "Fault", "FixtureBrain", "Flavour", "Model", "OpenAiSim",
    "RateMeter", "ScriptedBrain", "Seen", "Style", "ToolUse", "hears",
]  # fmt: skip
