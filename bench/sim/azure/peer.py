"""The two ends of a client's connection: its messages become turns of recognition or synthesis, with their faults."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from bench.sim.azure import wire
from bench.sim.azure.asked import read_turn
from bench.sim.azure.fault import STT, TTS, TURN, Fault
from bench.sim.azure.outbox import Outbox
from bench.sim.azure.seen import Connection, TtsTurn
from bench.sim.azure.stt import Recognition
from bench.sim.azure.tts import Synthesis

if TYPE_CHECKING:
    from bench.sim.azure.server import AzureSim

_EARLY = frozenset({"silent", "slow", "garbage_text", "garbage_binary", "torn_binary", "bad_json", "unknown_path"})


class Peer:
    """One client on its connection; turns come one after the other."""

    service = ""
    kinds: frozenset[str] = frozenset()

    def __init__(self, sim: AzureSim, seen: Connection, outbox: Outbox, dice: random.Random) -> None:
        self.sim, self.seen, self.out, self.dice = sim, seen, outbox, dice
        self.turns = 0

    async def receive(self, message: wire.Message) -> None:
        raise NotImplementedError

    def gone(self) -> None:
        raise NotImplementedError

    def common(self, message: wire.Message) -> bool:
        if message.path == "speech.config":
            self.seen.config = message.json()
        elif message.path == "telemetry":
            if len(self.seen.telemetry) < 100:
                self.seen.telemetry.append(message.json())
        else:
            return False
        return True

    def begin(self, request_id: str) -> Fault | None:
        """A new turn: the fault it suffers, if one waits. Those that strike at once have struck."""
        self.turns += 1
        self.sim.counts[f"{self.service}_turns"] += 1
        self.out.muted, self.out.extra_s = False, 0.0
        fault = self.sim.faults.pick(self.service, self.kinds)
        if fault is None or fault.kind not in _EARLY:
            return fault
        if fault.kind in ("silent", "slow"):
            self.out.strike(fault)
            return None
        bad: dict[str, str | bytes] = {
            "garbage_text": "\x00\x01 this is no message",
            "garbage_binary": b"\x00\x07garbage\x01\x02",
            "torn_binary": b"\xff\xff\x00garbage",
            "bad_json": wire.text("speech.hypothesis", request_id, {}).removesuffix("{}") + '{"Text":',
            "unknown_path": wire.text("speech.nobody.knows", request_id, {"a": 1}),
        }
        self.out.put(bad[fault.kind])
        self.sim.faults.carried_out(fault)
        return None


class SttPeer(Peer):
    service = "stt"
    kinds = TURN | STT

    def __init__(self, sim: AzureSim, seen: Connection, outbox: Outbox, dice: random.Random) -> None:
        super().__init__(sim, seen, outbox, dice)
        self.now: Recognition | None = None
        self.fault: Fault | None = None

    async def receive(self, message: wire.Message) -> None:
        if self.common(message):
            return
        if message.path == "speech.context":
            self._begin(message)
        elif self.now is None or message.request_id != self.now.turn.request_id:
            return  # of a turn that is over
        elif message.path == "audio":
            self._audio(message.body)
        elif message.path == "audio.commit" and self.seen.query.get("setfeature") == "forcecommit":
            self.now.commit(int(message.headers.get("x-client-commit-token", "0")))

    def _begin(self, message: wire.Message) -> None:
        sim = self.sim
        tag = f"{self.dice.getrandbits(128):032x}"
        fault = self.fault = self.begin(message.request_id)
        turn = read_turn(sim.counts["stt_turns"], self.seen, message.request_id, tag, message.json())
        turn.fault = fault.label if fault is not None else ""
        sim.stt_turns.append(turn)
        self.now = Recognition(turn, sim.book, sim.profile, self.dice, self.out, fault, sim.unusual)
        self._strike()

    def _audio(self, payload: bytes) -> None:
        assert self.now is not None
        if not payload:
            self.now.end()
            return
        self.now.audio(payload)
        self._strike()

    def _strike(self) -> None:
        fault, now = self.fault, self.now
        if (
            fault is None
            or now is None
            or fault.kind not in ("cut", "close", "mute")
            or now.turn.audio_ms < fault.after_ms
        ):
            return
        self.fault, now.turn.ended, now.over = None, "fault", True
        self.out.strike(fault)

    def gone(self) -> None:
        if self.now is not None and not self.now.turn.ended:
            self.now.turn.ended = "client"


class TtsPeer(Peer):
    service = "tts"
    kinds = TURN | TTS

    def __init__(self, sim: AzureSim, seen: Connection, outbox: Outbox, dice: random.Random) -> None:
        super().__init__(sim, seen, outbox, dice)
        self.now: Synthesis | None = None

    async def receive(self, message: wire.Message) -> None:
        if self.common(message):
            return
        if message.path == "synthesis.context":
            self._begin(message)
        elif self.now is None or message.request_id != self.now.turn.request_id or self.now.over:
            return
        elif message.path == "ssml":
            await self.now.speak(message.body.decode())
        elif message.path == "text.piece":
            await self.now.piece(message.body.decode())
        elif message.path == "text.end":
            await self.now.finish()

    def _begin(self, message: wire.Message) -> None:
        sim, is_cold = self.sim, self.turns == 0
        fault = self.begin(message.request_id)
        turn = TtsTurn(sim.counts["tts_turns"], self.seen, message.request_id, message.json())
        turn.fault = fault.label if fault is not None else ""
        sim.tts_turns.append(turn)
        self.now = Synthesis(turn, sim.profile, self.dice, self.out, fault, is_cold)

    def gone(self) -> None:
        if self.now is not None:
            self.now.over = True
            if not self.now.turn.ended:
                self.now.turn.ended = "client"
