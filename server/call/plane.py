"""All calls of the process: letting them in, keeping count, watching their streams, carrying broken ones on.

    webhook ─► reserve() ─► stream token ─► admit(path) ─► StreamEntry ─► CallSession
                   └─ place held 15 s ─┘

A reservation that no stream claims expires, so that a carrier which never connects costs a place for 15 s only; a
stream that comes later, while its token is good, is let in when there is room.
A stream that breaks leaves its conversation here for a while: the carrier asks `<Connect action>` what to do next,
gets a second stream, and the conversation goes on where the caller stopped hearing.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import uuid
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import cast

from server.agent.settings import AgentSettings, Channel
from server.call.ahead import open_ahead
from server.call.entry import CLOSE_INTERNAL, Sink, Socket, StreamEntry
from server.call.place import KnownCalls, Place, Reserved
from server.call.providers import CallProviders
from server.call.services import CallFacts, CallServices
from server.call.session import CallSession
from server.call.session_maker import SessionMaker
from server.errors import CallError
from server.store.agents import AgentVersion
from server.store.fact import CallEnded, CallStarted
from server.store.token import StreamTokens
from server.wire.browser import BrowserWire
from server.wire.event import MediaFormat, StreamStarted, Wire
from server.wire.telnyx import TelnyxWire
from server.wire.twilio import TwilioWire

log = logging.getLogger(__name__)

# Twilio connects within a second or reports 31901.
RESERVATION_S = 15.0
TOKEN_MARGIN_S = 1.0
# Frames come every 20 ms, so silence of the socket is the sign of a lost line.
STREAM_SILENCE_NS = 2_000_000_000
WATCH_S = 0.25
# A call whose stream breaks more often than this is given up.
MAX_RESUMES = 3
PUT_AWAY_S = 5.0
# A carrier asks within seconds of the break what is next; what was said is not kept for longer.
RESUME_S = 60.0
# Ends of a stream after which the caller is still owed something; "" is one that was not put away in time.
UNFINISHED = frozenset({"", "media_lost", "error", "drained", "no_media", "refused"})
# The call's first fact is on disk before the carrier hears of the stream; a disk that takes longer takes no calls.
SPOOL_S = 1.0

# What a stream of the carrier is in before it says so; Telnyx has several.
USUAL_FORMAT: Mapping[str, MediaFormat] = {"twilio": MediaFormat("PCMU", 8000), "browser": MediaFormat("S16", 16000)}

WIRES: Mapping[str, Callable[[str], Wire]] = {
    "twilio": lambda stream_id: TwilioWire(),
    "telnyx": lambda stream_id: TelnyxWire(),
    "browser": BrowserWire,
}


class CallPlane:
    """Owns the task of every stream. `run` must be running while calls are taken."""

    def __init__(
        self,
        *,
        services: CallServices,
        providers_for: Callable[[AgentSettings], CallProviders],
        tokens: StreamTokens,
        versions: Callable[[str], AgentVersion | None],
        max_calls: int,
        carriers: Collection[str] = WIRES.keys(),
    ) -> None:
        """`carriers`: those that are configured; streams of others are not let in."""
        self._services = services
        self._providers_for = providers_for
        self._tokens = tokens
        self._max_calls = max_calls
        self._carriers = frozenset(carriers)
        self._group: asyncio.TaskGroup | None = None
        self._entries: dict[str, StreamEntry] = {}
        self._reserved: dict[str, Place] = {}
        self._known = KnownCalls()
        self._maker = SessionMaker(services, providers_for, versions, self._known)
        self.is_draining = False

    # ── life ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop`; then end every call that is left."""
        async with asyncio.TaskGroup() as self._group:
            watcher = self._group.create_task(self._watch(), name="stream watch")
            await stop.wait()
            watcher.cancel()
            for entry in [*self._entries.values()]:
                if entry.session is not None:
                    entry.session.end("drained")
            await asyncio.gather(*(self._expire(stream_id, "drained") for stream_id in self._reserved))

    @property
    def active(self) -> int:
        return len(self._entries)

    @property
    def taken(self) -> int:
        """Places that are in use or reserved."""
        return len(self._entries) + len(self._reserved)

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(WATCH_S)
            now_s, now_ns = loop.time(), self._services.clock.now_ns()
            late = [stream_id for stream_id, place in self._reserved.items() if place.until_s < now_s]
            await asyncio.gather(*(self._expire(stream_id, "no_media") for stream_id in late))
            self._end_silent(now_ns)
            self._known.forget(now_s)

    def _end_silent(self, now_ns: int) -> None:
        # A function of its own: the names of a loop that never ends would keep the last call and its audio.
        for entry in [*self._entries.values()]:
            session = entry.session
            if session is not None and now_ns - session.last_message_ns > STREAM_SILENCE_NS:
                self._services.metrics.observe_media_lost("silent")
                session.end("media_lost")

    # ── letting in ────────────────────────────────────────────────────────────────────────────────────────────

    async def reserve(
        self, carrier: Channel, carrier_call_id: str, from_number: str, to_number: str, version: AgentVersion
    ) -> Reserved | None:
        """A place for a new call, or None when the process is full or draining."""
        # Facts that cannot be kept: no call is taken that would leave no trace.
        if self.is_draining or not self._has_room or not self._services.spool.is_accepting:
            return None
        facts = CallFacts(
            call_id=str(uuid.uuid4()),
            carrier=carrier,
            carrier_call_id=carrier_call_id,
            from_number=from_number,
            to_number=to_number,
            agent_version_id=version.id,
        )
        stream_id = self._hold(facts)  # in the same step as the test, or calls that come together all pass it
        reserved = None
        try:
            if await self._is_on_record(facts, version):
                reserved = await self._issue(stream_id, facts, version.settings.for_channel(carrier))
            else:
                self._never_began(facts, "busy")
        finally:
            if reserved is None:
                if not self._has_ended(facts):
                    self._never_began(facts, "error")
                await self._give_back(stream_id)
        return reserved

    async def _is_on_record(self, facts: CallFacts, version: AgentVersion) -> bool:
        """The call's first fact is on disk; False: in vain within SPOOL_S."""
        self._services.spool.append_nowait(
            CallStarted(
                call_id=facts.call_id,
                carrier=cast(Channel, facts.carrier),
                carrier_call_id=facts.carrier_call_id,
                direction="inbound",
                from_number=facts.from_number,
                to_number=facts.to_number,
                agent_version_id=version.id,
                at=self._services.clock.wall_s(),
            )
        )
        self._maker.pin(version)
        self._known.add(facts)
        try:
            async with asyncio.timeout(SPOOL_S):
                await self._services.spool.flush()
        except TimeoutError:
            return False
        return True

    async def resume(self, carrier_call_id: str) -> Reserved | None:
        """A second stream for a call whose first one broke; None when it ended on purpose or too often broke."""
        known = self._known.get(carrier_call_id)
        if known is None or self.is_draining:
            return None
        if not known.was_opened and not known.ended.is_set():
            # No stream has come, and the carrier says that none will: there is nothing to wait for.
            places = [stream_id for stream_id, place in self._reserved.items() if place.facts == known.facts]
            await asyncio.gather(*(self._expire(stream_id, "no_media") for stream_id in places))
            return None
        try:
            # The carrier may ask before we have put the first stream away.
            async with asyncio.timeout(PUT_AWAY_S):
                await known.ended.wait()
        except TimeoutError:
            return None
        if known.end_reason != "media_lost" or known.resumes >= MAX_RESUMES:
            return None
        known.resumes += 1
        if known.conversation is not None:  # the stream has its time to come
            self._known.keep(known, known.conversation, asyncio.get_running_loop().time() + RESUME_S)
        facts = known.facts
        stream_id, reserved = self._hold(facts), None
        try:
            reserved = await self._issue(stream_id, facts, self._maker.settings_of(facts))
        finally:
            if reserved is None:
                await self._give_back(stream_id)
        return reserved

    def is_unfinished(self, carrier_call_id: str) -> bool:
        """Whether the call ended neither by the caller nor by the agent: a fault of ours or of the line, or a drain."""
        known = self._known.get(carrier_call_id)
        return known is not None and known.end_reason in UNFINISHED

    @property
    def _has_room(self) -> bool:
        return self.taken < self._max_calls

    def _hold(self, facts: CallFacts) -> str:
        """Keep a place for a stream of the call, for RESERVATION_S. Returns the stream's id."""
        stream_id = secrets.token_urlsafe(16)
        # Given up before its token expires: until then an unused token says that no process has let the stream in.
        keep_s = min(RESERVATION_S, self._tokens.ttl_s - TOKEN_MARGIN_S)
        self._reserved[stream_id] = Place(asyncio.get_running_loop().time() + keep_s, facts)
        return stream_id

    async def _give_back(self, stream_id: str) -> None:
        place = self._reserved.pop(stream_id, None)
        if place is not None:
            await place.release()

    async def _expire(self, stream_id: str, reason: str) -> None:
        """The stream has not come here: its place is free, and its call over, unless another process has let it in."""
        place = self._reserved.get(stream_id)
        if place is None or place.facts is None:
            return
        facts = place.facts
        is_unused = await self._tokens.known(_stream_of(facts.carrier, stream_id))
        if self._reserved.get(stream_id) is not place:
            return  # it has come meanwhile
        del self._reserved[stream_id]
        if is_unused:
            extra = {"event": reason, "call_id": facts.call_id, "carrier_call_id": facts.carrier_call_id}
            log.warning("stream %s never came", stream_id, extra=extra)
            if reason == "no_media":
                self._services.metrics.observe_media_lost(reason)
            if not self._has_ended(facts):
                self._never_began(facts, reason)
        await place.release()

    async def _issue(self, stream_id: str, facts: CallFacts, settings: AgentSettings | None) -> Reserved | None:
        """The stream's secret; and while the phone rings connect to the services that it will need."""
        place = self._reserved.get(stream_id)
        if place is None:
            return None  # the process has stopped meanwhile
        if settings is not None and self._group is not None:
            providers = self._providers_for(settings)
            place.attach(providers)
            fmt = USUAL_FORMAT.get(facts.carrier)
            if fmt is not None:
                place.ahead = open_ahead(providers, settings, fmt, facts.from_number)
                self._group.create_task(place.ahead.open(), name=f"{facts.call_id} opens ahead")
        claim = {name: getattr(facts, name) for name in CallFacts.__slots__}
        secret = await self._tokens.issue(_stream_of(facts.carrier, stream_id), claim)
        return Reserved(stream_id, secret, facts.call_id)

    async def admit(self, carrier: str, stream_id: str, secret: str = "") -> Callable[[Socket], StreamEntry] | None:
        """Before the upgrade: whether such a stream is expected, and who will handle it; `secret` as StreamEntry."""
        if carrier not in self._carriers or self._group is None:
            return None
        stream = _stream_of(carrier, stream_id)
        if not await self._tokens.known(stream) or stream_id in self._entries:
            return None
        if stream_id not in self._reserved and not self._has_room:
            # Its token outlives its place, or was made by another process.
            log.warning("stream %s came to a full process", stream_id, extra={"event": "refused_stream"})
            return None
        group = self._group

        def open_handler(socket: Socket) -> StreamEntry:
            # A stream that another process promised has no place here yet.
            place = self._reserved.pop(stream_id, None) or Place()
            entry = StreamEntry(
                stream_id,
                WIRES[carrier](stream_id),
                socket,
                redeem=partial(self._tokens.redeem, stream),
                make_session=partial(self._make_session, place),
                secret=secret,
            )
            known = self._known.get(place.facts.carrier_call_id) if place.facts is not None else None
            if known is not None:
                known.was_opened = True
            self._entries[stream_id] = entry
            group.create_task(self._run(entry, place), name=f"stream {stream_id}")
            return entry

        return open_handler

    async def _run(self, entry: StreamEntry, place: Place) -> None:
        try:
            session = await entry.run()
        except CallError as error:
            log.error("stream %s: %s", entry.id, error, extra={"event": "call_failed"})
            session = None
        except Exception:
            # A fault of ours ends this stream, and never the process with everybody else's calls.
            log.exception("stream %s failed", entry.id, extra={"event": "call_failed"})
            session = None
        finally:
            if self._entries.get(entry.id) is entry:
                del self._entries[entry.id]
            await place.release()
        if session is None:
            entry.close(CLOSE_INTERNAL)
            facts = entry.facts or place.facts
            if facts is not None and not self._has_ended(facts):
                self._never_began(facts, entry.end_reason or "error")
            return
        self._services.metrics.observe_call_end(session.facts.carrier, session.end_reason)
        known = self._known.get(session.facts.carrier_call_id)
        if known is not None:
            known.conversation = None
            if session.end_reason == "media_lost":
                self._known.keep(known, session.conversation, asyncio.get_running_loop().time() + RESUME_S)
            self._known.end(known, session.end_reason)
        if session.end_reason == "drained" and session.facts.carrier == "telnyx":
            # Telnyx keeps a call that has lost its stream, and its event would find nobody here.
            await self._services.hang_up(session.facts)

    def _make_session(
        self,
        place: Place,
        facts: CallFacts,
        started: StreamStarted,
        wire: Wire,
        sink: Sink,
        close_socket: Callable[[int], None],
    ) -> CallSession:
        try:
            return self._maker.make(place, facts, started, wire, sink, close_socket)
        except Exception as error:
            self._never_began(facts, "error")
            raise CallError(f"call {facts.call_id} did not begin: {error!r}") from error

    def _has_ended(self, facts: CallFacts) -> bool:
        known = self._known.get(facts.carrier_call_id)
        return known is not None and known.facts == facts and known.ended.is_set()

    def _never_began(self, facts: CallFacts, reason: str) -> None:
        """The call that was promised ends here: it is on record, and what the carrier asks next gets an answer."""
        services = self._services
        services.metrics.observe_call_end(facts.carrier, reason)
        services.spool.append_nowait(
            CallEnded(call_id=facts.call_id, reason=reason, duration_ms=0, at=services.clock.wall_s(), counters={})
        )
        known = self._known.get(facts.carrier_call_id) or self._known.add(facts)
        if known.facts == facts:
            self._known.end(known, reason)


def _stream_of(carrier: str, stream_id: str) -> str:
    """A stream as its token knows it."""
    return f"{carrier}/{stream_id}"
