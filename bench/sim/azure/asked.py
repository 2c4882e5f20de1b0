"""What a client asks of recognition: the query of its connection and its speech.context, read into a turn's record."""

from __future__ import annotations

from typing import Any

from bench.sim.azure.seen import Connection, SttTurn
from bench.sim.azure.wire import TICKS_PER_MS

INITIAL_SILENCE_MS = {"INTERACTIVE": 5000, "CONVERSATION": 15_000, "DICTATION": 15_000}
"""Defaults of the service, about."""


def read_turn(no: int, connection: Connection, request_id: str, service_tag: str, context: dict[str, Any]) -> SttTurn:
    """The record of a new turn. Unknown keys are kept in `context` and have no effect."""
    query = {name.lower(): value for name, value in connection.query.items()}
    detection = _object(context, "phraseDetection")
    mode = str(detection.get("mode") or _mode_of(connection.path)).upper()
    segmentation = _object(_object(detection, mode), "segmentation")
    output = _object(context, "phraseOutput")
    options = _object(output, "detailed").get("options") or ()
    enrichment = _object(detection, "enrichment")
    phrases, weight = _phrases(context)
    turn = SttTurn(no, connection, request_id, service_tag, context)
    turn.mode = mode
    turn.language = str(detection.get("language") or query.get("language", ""))
    turn.languages = tuple(_object(context, "languageId").get("languages") or ())
    turn.phrases, turn.phrase_weight = phrases, weight
    turn.segmentation_ms = _int(segmentation.get("segmentationSilenceTimeoutMs"))
    turn.longest_ms = _int(segmentation.get("segmentationForcedTimeoutMs"))
    turn.initial_silence_ms = _int(detection.get("initialSilenceTimeout", query.get("initialsilencetimeoutms")))
    stable = _object(output, "interimResults").get("stableThreshold", query.get("stableintermediatethreshold"))
    turn.stable = _int(stable)
    turn.profanity = str(enrichment.get("profanity") or query.get("profanity", "masked")).lower()
    turn.is_detailed = "detailed" in (str(output.get("format", "")).lower(), query.get("format", "").lower())
    turn.has_word_times = "WordTimings" in options or query.get("wordleveltimestamps", "").lower() == "true"
    continuation = _object(context, "continuation")
    turn.previous_tag = str(continuation.get("previousServiceTag", ""))
    streams = _object(_object(continuation, "audio"), "streams")
    turn.offset_ms = max((_ticks(one) / TICKS_PER_MS for one in streams.values()), default=0.0)
    return turn


def _mode_of(path: str) -> str:
    for mode in INITIAL_SILENCE_MS:
        if f"/recognition/{mode.lower()}/" in path:
            return mode
    return "CONVERSATION"


def _phrases(context: dict[str, Any]) -> tuple[tuple[str, ...], float | None]:
    grammar = _object(context, "dgi")
    items = [item for group in grammar.get("Groups") or () for item in group.get("Items") or ()]
    bias = grammar.get("bias")
    return tuple(str(item.get("Text", "")) for item in items), float(bias) if bias is not None else None


def _object(value: dict[str, Any], name: str) -> dict[str, Any]:
    inner = value.get(name)
    return inner if isinstance(inner, dict) else {}


def _int(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError):
        return None


def _ticks(stream: Any) -> int:
    return (_int(stream.get("offset")) or 0) if isinstance(stream, dict) else 0
