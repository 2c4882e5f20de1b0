"""Facts for tests, and a call's worth of them."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID, uuid4

import asyncpg

from server.store.backlog import Backlog
from server.store.fact import CallAnswered, CallEnded, CallStarted, Fact, SegmentFact, TurnFact

AT_S = 1_800_000_000.25


def segment(seq: int, *, call_id: str = "", text: str = "hello") -> SegmentFact:
    return SegmentFact(
        call_id=call_id or str(UUID(int=1)),
        seq=seq,
        speaker="caller",
        text=text,
        start_ms=seq * 100,
        end_ms=seq * 100 + 50,
    )


def started(call_id: str, version_id: str) -> CallStarted:
    return CallStarted(
        call_id=call_id, carrier="twilio", carrier_call_id=f"CA{call_id}", direction="inbound",
        from_number="+15550100002", to_number="+15550100001", agent_version_id=version_id, at=AT_S,
    )  # fmt: skip


def whole_call(version_id: str, *, turns: int = 2) -> tuple[str, list[Fact]]:
    call_id = str(uuid4())
    facts: list[Fact] = [started(call_id, version_id), CallAnswered(call_id=call_id, at=AT_S + 1)]
    for no in range(turns):
        stages = {
            "detect": 200.0,
            "endpointing": 300.5,
            "stt": 0.0,
            "llm": 150.25,
            "clause": 10.0,
            "tts": 120.0,
            "own": 1.5,
        }
        facts.append(
            TurnFact(
                call_id=call_id, turn_no=no, stages=stages | {"playout": 80.0}, turn_latency_ms=sum(stages.values()),
                interrupted=no == 1, caller_text="what time", agent_text="at nine",
                prompt_tokens=90, completion_tokens=7,
                providers={"stt": "moonshine", "llm": "dialogue", "tts": "pico"},
            )
        )  # fmt: skip
        facts.append(segment(no, call_id=call_id))
    facts.append(
        CallEnded(call_id=call_id, reason="caller", duration_ms=9000, at=AT_S + 10, counters={"frames_in": 450})
    )
    return call_id, facts


async def make_version(url: str) -> str:
    """An agent with one version; returns the version's id."""
    connection = await asyncpg.connect(url)
    try:
        agent = await connection.fetchval("INSERT INTO agent (slug) VALUES ('t') RETURNING id")
        version = await connection.fetchval(
            "INSERT INTO agent_version (agent_id, version, content_hash, settings)"
            " VALUES ($1, 1, repeat('0', 64), '{}') RETURNING id",
            agent,
        )
        return str(version)
    finally:
        await connection.close()


def seqs_on_disk(folder: Path, boot: UUID) -> list[int]:
    return [record.seq for record in Backlog(folder, boot).read(1_000_000)]
