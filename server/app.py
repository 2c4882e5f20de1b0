"""Puts one process together: the only module that sees concrete providers. Nothing imports it but `__main__`.

embedded servers ─► store ─► agents ─► providers ─► calls ─► front door ─► ready
and back in the opposite order when the process is told to stop
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Mapping
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import asyncpg
import httpx
import uvloop
from starlette.routing import Route

from server import breakage, logs, memory
from server.agent.settings import CHANNELS, AgentSettings
from server.call.capture import CaptureStore
from server.call.capture_keeper import CaptureBounds
from server.call.clips import Clips
from server.call.pacer import Pacer
from server.call.plane import CallPlane
from server.call.scoring import SpeechScoring
from server.call.services import CallFacts, CallServices
from server.carrier.errors import CarrierError, CarrierRejected
from server.carrier.signature import TelnyxSignature, TwilioSignature
from server.carrier.telnyx_rest import TelnyxRest
from server.carrier.twilio_rest import TwilioRest
from server.catalogue import Catalogue
from server.clock import SystemClock
from server.config import Config, shared_file
from server.edge import listener
from server.edge.app import build_app
from server.edge.browser_routes import BrowserRouteSettings, browser_routes
from server.edge.front_door import FrontDoor
from server.edge.health import Check, health_routes
from server.edge.http_adapter import HttpAdapter
from server.edge.limits import LOOPBACK, EdgeLimits
from server.edge.reception import Reception
from server.edge.telnyx_desk import MEMORY_S, TelnyxDesk
from server.edge.telnyx_routes import telnyx_routes
from server.edge.tls import ReloadingTls
from server.edge.twilio_routes import TwilioRouteSettings, hand_over_twiml, twilio_routes
from server.errors import ConfigError
from server.metrics import Metrics
from server.node.embedded import EmbeddedServers
from server.readiness import Readiness
from server.store.agents import AgentStore
from server.store.answer import SharedAnswers
from server.store.postgres import Postgres, PostgresUnavailable
from server.store.redis import Redis, RedisUnavailable
from server.store.shipper import Shipper
from server.store.spool import Spool
from server.store.token import StreamTokens
from server.tool.http_tool import HttpTools
from server.tool.runner import ToolRunner
from server.upkeep import Upkeep

log = logging.getLogger(__name__)


# How long running calls may take to end after SIGTERM; the second signal ends them at once.
DRAIN_S = 60.0
# How much of that a call gets whose stream was promised and has not come.
RESERVED_DRAIN_S = 3.0
SHIP_AT_EXIT_S = 3.0


def serve(config: Config) -> int:
    """Run until SIGTERM or SIGINT. Returns the exit status. Raises ConfigError for what only a start can find wrong."""
    handler = logs.setup(config.log, secrets=config.secrets)
    store = config.store
    embedded: EmbeddedServers | None = None
    sock: socket.socket | None = None
    try:
        server = config.server
        tls = ReloadingTls(Path(server.tls_cert_file), Path(server.tls_key_file)) if server.tls_cert_file else None
        sock = listener.bind(config.host, server.port)
        if store.is_embedded:
            embedded = EmbeddedServers.start(
                store.data_dir, postgres=not store.database_url, valkey=not store.redis_url
            )
        database_url = store.database_url or (embedded.database_url if embedded else "")
        redis_url = store.redis_url or (embedded.redis_url if embedded else "")
        uvloop.run(_Process(config, database_url, redis_url, sock, tls).run())
        return 0
    finally:
        if sock is not None:
            sock.close()
        if embedded is not None:
            embedded.stop()
        handler.stop()


class _Process:
    def __init__(
        self, config: Config, database_url: str, redis_url: str, sock: socket.socket, tls: ReloadingTls | None
    ) -> None:
        self._config = config
        self._database_url = database_url
        self._redis_url = redis_url
        self._sock = sock
        self._tls = tls
        self._clock = SystemClock()
        self._metrics = Metrics()
        self._catalogue = Catalogue(config.providers, self._metrics.providers)
        self._clips = Clips()
        self._tools = HttpTools(config.tools.secrets, config.tools.private_hosts)
        self._stop = asyncio.Event()
        self._signals = 0

    async def run(self) -> None:
        config, clock = self._config, self._clock
        async with AsyncExitStack() as stack:
            postgres = await Postgres.open(self._database_url)
            stack.push_async_callback(postgres.close)
            await _apply_schema(postgres)
            redis = Redis.open(self._redis_url, clock)
            stack.push_async_callback(redis.close)
            key = config.store.signing_key()
            spool = Spool(config.store.data_dir / "spool")
            spool.start()
            stack.callback(spool.close)
            shipper = Shipper(spool, postgres)
            stack.push_async_callback(self._catalogue.aclose)
            snapshot = config.store.data_dir / "agents.json"
            agents = AgentStore(postgres, snapshot, key, clock, self._check_agent)
            await agents.start(config.store.agents_dir)
            http = await stack.enter_async_context(httpx.AsyncClient())
            tokens = StreamTokens(
                redis,
                key,
                clock,
                on_fallback=self._metrics.stream_token_fallback.inc,
                ttl_s=config.limits.stream_token_ttl_s,
            )
            answers = SharedAnswers(redis, key, clock, on_fallback=self._metrics.webhook_answer_fallback.inc)
            captures = self._captures()
            captures.start()
            stack.callback(captures.close)
            twilio, telnyx = self._twilio(http), self._telnyx(http)
            tools = await stack.enter_async_context(ToolRunner(self._tools, spool, self._metrics, clock))
            plane = self._plane(spool, tokens, agents, twilio, telnyx, captures, tools)
            self._metrics.calls_active.set_function(lambda: plane.active)
            self._metrics.spool_depth.set_function(lambda: spool.pending)
            self._metrics.spool_age.set_function(lambda: shipper.age_s)
            upkeep = Upkeep(self._catalogue, self._clips, lambda: agents.agents, on_warm=memory.keep_what_is_there)
            readiness = Readiness(self._catalogue, self._clips, lambda: agents.agents)
            checks = self._checks(postgres, redis, spool, agents, upkeep, readiness)
            degraded = breakage.told(config.breakage, readiness.degraded)
            routes = health_routes(
                checks, lambda: plane.is_draining, self._metrics, degraded, config.server.metrics_key
            )
            if telnyx is not None:
                on_fallback = self._metrics.webhook_answer_fallback.inc
                made = SharedAnswers(redis, key, clock, on_fallback=on_fallback, ttl_s=MEMORY_S)
                desk = TelnyxDesk(plane, agents, telnyx, made, self._public_url)
                stack.push_async_callback(desk.close)
                routes += telnyx_routes(desk, TelnyxSignature(config.telnyx.public_key), clock.wall_s)
            await self._serve(plane, agents, answers, shipper, upkeep, routes)

    def _captures(self) -> CaptureStore:
        wanted = self._config.captures
        bounds = CaptureBounds(
            max_total_bytes=wanted.max_total_bytes,
            max_age_s=wanted.max_days * 86_400.0,
            min_free_bytes=wanted.min_free_bytes,
        )
        folder = self._config.store.data_dir / "capture"
        return CaptureStore(
            folder, self._clock, secrets=self._config.secrets, bounds=bounds, metrics=self._metrics
        )

    def _check_agent(self, slug: str, settings: AgentSettings) -> None:
        """Raises ConfigError where this process can never serve the agent."""
        self._catalogue.check(slug, settings)
        for variant in (settings, *map(settings.for_channel, CHANNELS)):
            for tool in variant.tools:
                if problem := self._tools.problem(tool):
                    raise ConfigError(f"agent {slug}: tools: {tool.name}", f"a tool that can be called ({problem})")

    def _plane(
        self,
        spool: Spool,
        tokens: StreamTokens,
        agents: AgentStore,
        twilio: TwilioRest | None,
        telnyx: TelnyxRest | None,
        captures: CaptureStore,
        tools: ToolRunner,
    ) -> CallPlane:
        media = self._config.media
        services = CallServices(
            clock=self._clock,
            pacer=Pacer(self._clock, lambda late_s: None),
            scoring=SpeechScoring.load(self._clock),
            clips=self._clips,
            metrics=self._metrics,
            spool=spool,
            hang_up=partial(_hang_up, {"twilio": twilio, "telnyx": telnyx}),
            hand_over=partial(_hand_over, twilio, self._public_url),
            captures=captures,
            tools=tools,
            lead_ms=media.pacer_lead_ms,
            chunk_ms=media.pacer_chunk_ms,
        )
        services, providers_for = breakage.broken(self._config.breakage, services, self._catalogue.for_call)
        return CallPlane(
            services=services,
            providers_for=providers_for,
            tokens=tokens,
            versions=lambda version_id: next((one for one in agents.agents if one.id == version_id), None),
            max_calls=self._config.max_calls,
            carriers=["browser", *(["twilio"] if twilio else []), *(["telnyx"] if telnyx else [])],
        )

    @property
    def _public_url(self) -> str:
        config = self._config
        scheme = "http" if self._tls is None else "https"
        return config.server.public_url or f"{scheme}://{config.host}:{config.server.port}"

    async def _serve(
        self,
        plane: CallPlane,
        agents: AgentStore,
        answers: SharedAnswers,
        shipper: Shipper,
        upkeep: Upkeep,
        routes: list[Route],
    ) -> None:
        config = self._config
        base_url = self._public_url
        twilio = config.twilio
        signature = TwilioSignature(base_url, twilio.auth_tokens, twilio.shared_keys) if twilio.is_configured else None
        reception = Reception(plane, agents, signature, answers)
        if config.takes_browser_calls:
            routes += browser_routes(
                reception,
                BrowserRouteSettings(
                    public_url=base_url,
                    allowed_origins=config.server.allowed_origins,
                    api_key=config.server.api_key,
                ),
            )
        if signature is not None:
            routes += twilio_routes(reception, signature, TwilioRouteSettings(public_url=base_url))
        limits = EdgeLimits(
            open_per_peer=config.limits.connections_per_ip,
            connections_per_s=float(config.limits.handshakes_per_s),
            exempt_networks=(*LOOPBACK, *config.limits.trusted_proxies),
        )
        adapter = HttpAdapter(build_app(routes), limits, self._metrics)
        door = FrontDoor(reception, adapter, limits, metrics=self._metrics)
        calls_over = asyncio.Event()
        listener.listen(self._sock)
        async with asyncio.TaskGroup() as group:
            calls = group.create_task(plane.run(calls_over), name="calls")
            jobs = [
                group.create_task(shipper.run(), name="shipper"),
                group.create_task(agents.run(), name="agents"),
                group.create_task(upkeep.run(), name="upkeep"),
            ]
            await adapter.start()
            port = await door.serve(sock=self._sock, tls=self._tls)
            self._catch_signals(calls_over)
            if config.max_calls_problem:
                log.warning("%s", config.max_calls_problem, extra={"event": "max_calls_high"})
            log.info(
                "listening on %s:%d, at most %d calls",
                config.host,
                port,
                config.max_calls,
                extra={"event": "listening", "port": port, "max_calls": config.max_calls},
            )
            await self._stop.wait()
            await self._drain(plane, calls_over)
            calls_over.set()
            await calls
            door.stop_listening()
            await adapter.stop()
            await door.close()
            await _wait_shipped(shipper)
            for job in jobs:
                job.cancel()
        log.info("stopped", extra={"event": "stopped"})

    def _catch_signals(self, calls_over: asyncio.Event) -> None:
        def on_signal() -> None:
            self._signals += 1
            self._stop.set()
            if self._signals > 1:
                calls_over.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, on_signal)

    async def _drain(self, plane: CallPlane, calls_over: asyncio.Event) -> None:
        """New calls hear busy; running ones end by themselves, at the deadline, or at the second signal."""
        plane.is_draining = True
        log.info("draining %d calls", plane.active, extra={"event": "draining"})
        began_s = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(DRAIN_S):
                while not calls_over.is_set():
                    waited_s = asyncio.get_running_loop().time() - began_s
                    if not plane.active and (not plane.taken or waited_s > RESERVED_DRAIN_S):
                        return
                    await asyncio.sleep(0.1)
        except TimeoutError:
            log.warning("%d calls are ended", plane.active, extra={"event": "drain_deadline"})

    def _twilio(self, http: httpx.AsyncClient) -> TwilioRest | None:
        twilio = self._config.twilio
        if not twilio.is_configured:
            return None
        return TwilioRest(twilio.account_sid, twilio.auth_token, twilio.api_url, http)

    def _telnyx(self, http: httpx.AsyncClient) -> TelnyxRest | None:
        telnyx = self._config.telnyx
        return TelnyxRest(telnyx.api_key, telnyx.api_url, http) if telnyx.is_configured else None

    def _checks(
        self,
        postgres: Postgres,
        redis: Redis,
        spool: Spool,
        agents: AgentStore,
        upkeep: Upkeep,
        readiness: Readiness,
    ) -> dict[str, Check]:
        async def check_postgres() -> str | None:
            try:
                await postgres.check()
            except PostgresUnavailable:
                # Calls go on without it; a load balancer must not take the node away for that.
                return None if agents.agents else "not reachable, and no agents in memory"
            return None

        async def check_redis() -> str | None:
            try:
                await redis.check()
            except RedisUnavailable:
                return None  # stream tokens fall back to this process, which says so in a metric
            return None

        async def check_spool() -> str | None:
            return None if spool.is_accepting else "facts cannot be kept"

        async def check_agents() -> str | None:
            if not upkeep.is_warm:
                return "warming up"
            return None if agents.agents else "no agent is configured"

        async def check_providers() -> str | None:
            return readiness.problem() if upkeep.is_warm else None

        return {
            "postgres": check_postgres,
            "redis": check_redis,
            "spool": check_spool,
            "agents": check_agents,
            "providers": check_providers,
        }


async def _hang_up(rests: Mapping[str, TwilioRest | TelnyxRest | None], facts: CallFacts) -> None:
    rest = rests.get(facts.carrier)
    if rest is not None:
        try:
            await rest.hang_up(facts.carrier_call_id)
        except CarrierError as error:
            # Closing the stream makes the carrier ask or say so; it will be told to hang up.
            log.error("hang-up by REST failed: %s", error, extra={"event": "hang_up_failed"})


async def _hand_over(rest: TwilioRest | None, public_url: str, facts: CallFacts, number: str) -> bool:
    if facts.carrier != "twilio" or rest is None:
        raise CarrierRejected(f"{facts.carrier}: calls are not put through")
    return await rest.redirect(facts.carrier_call_id, hand_over_twiml(public_url, number))


async def _apply_schema(postgres: Postgres) -> None:
    try:
        await postgres.apply_schema(shared_file("schema.sql").read_text())
    except (PostgresUnavailable, asyncpg.PostgresError) as error:
        log.error("schema not applied: %s", error, extra={"event": "schema_failed"})


async def _wait_shipped(shipper: Shipper) -> None:
    try:
        async with asyncio.timeout(SHIP_AT_EXIT_S):
            await shipper.wait_shipped()
    except TimeoutError:
        log.warning("facts stay in the spool", extra={"event": "spool_left"})
