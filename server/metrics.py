"""What Prometheus sees: one registry of our own, every label value from a closed or bounded set.

Guarantees: no label ever holds a number, a name or an id of a caller; a provider name that is not a short word, or
comes after the 32nd different one, is counted as "other". Leaves to others: when to observe (the session), how to
expose (server/edge/health.py).

Cost: about 1 us for an `inc` (a lock). Count frames in the session and hand them over in bulk, never one by one.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

# In seconds: the caller notices steps of this size.
TURN_BUCKETS_S = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0, 1.3, 1.6, 2.0, 3.0, 5.0)
# Our own share and lateness are two orders of magnitude smaller.
OWN_BUCKETS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
STAGES = ("detect", "endpointing", "stt", "llm", "clause", "tts", "own", "playout")
"""Every millisecond of a turn belongs to exactly one of these."""

OUTCOMES: Mapping[str, str] = {
    "caller_hung_up": "the caller, or the carrier for them, ended the call",
    "agent_hung_up": "the agent said goodbye, or a limit of its settings was reached; the row of the call says which",
    "handed_over": "the carrier was told to dial `limits.fallback_number`, and did",
    "media_lost": "the media stream broke or fell silent; a call that goes on in a second stream is counted again",
    "no_media": "the media stream that was promised never came, or said nothing; one that comes later is counted again",
    "refused": "the media stream was refused: not the secret of this call, or messages that its carrier does not send",
    "busy": "the call's first fact was not on disk within a second, and the carrier was told that we are busy",
    "drained": "the process was told to stop and did not wait longer",
    "error": "a fault of ours ended the call",
}
"""How the stream of a call may end, and what it means: the values of the label `outcome`, beside "other"."""

# Which provider a stage's time belongs to; the other stages are ours or the carrier's.
_STAGE_SERVICE = {"stt": "stt", "llm": "llm", "clause": "llm", "tts": "tts"}
BREAKER_STATES = {"closed": 0, "half_open": 1, "open": 2}
_MAX_LABEL_VALUES = 32
_LABEL = re.compile(r"[a-z][a-z0-9_-]{0,31}")


log = logging.getLogger(__name__)


class BoundedLabel:
    """Lets the first 32 different words through; all else becomes "other", so that series cannot multiply."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def __call__(self, value: str) -> str:
        if value in self._seen:
            return value
        if len(self._seen) >= _MAX_LABEL_VALUES or not _LABEL.fullmatch(value):
            return "other"
        self._seen.add(value)
        return value


class Metrics:
    """All metrics of one process. Attributes are prometheus_client objects; use them directly where no method is."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._provider, self._word = BoundedLabel(), BoundedLabel()

        by = ("provider", "channel")
        self.turn_latency = Histogram(
            "turn_latency_seconds",
            "Caller's last speech sample to the agent's first audible sample sent",
            by,
            buckets=TURN_BUCKETS_S,
            registry=registry,
        )
        self.stages = {
            stage: Histogram(
                f"turn_{stage}_seconds",
                f"Share of turn latency (playout: after it) owned by {stage}",
                by,
                buckets=OWN_BUCKETS_S if stage == "own" else TURN_BUCKETS_S,
                registry=registry,
            )
            for stage in STAGES
        }
        self.frame_lateness = Histogram(
            "frame_lateness_seconds",
            "Lateness of downlink chunks against the pacer's absolute deadlines",
            buckets=OWN_BUCKETS_S,
            registry=registry,
        )

        self.tasks = Gauge("asyncio_tasks", "Unfinished tasks of the event loop, at the scrape", registry=registry)
        self.calls_active = Gauge("calls_active", "Calls with an open media stream", registry=registry)
        self.calls = Counter("calls_total", "Calls that ended", ("channel", "outcome"), registry=registry)
        self.media_frames = Counter("media_frames_total", "Media frames", ("direction",), registry=registry)
        self.media_gap = Counter("media_gap_seconds_total", "Uplink audio that never came", registry=registry)
        self.media_duplicates = Counter("media_duplicates_total", "Uplink frames received twice", registry=registry)
        self.media_late = Counter(
            "media_late_total", "Uplink frames that came after silence had taken their place", registry=registry
        )
        self.media_overruns = Counter(
            "media_overruns_total",
            "Uplink audio that was asked for or scored too late: bytes of the ring, samples of the others",
            ("part",),
            registry=registry,
        )
        self.media_bad = Counter("media_bad_total", "Messages of a carrier that were dropped", registry=registry)
        self.media_ws_lost = Counter(
            "media_ws_lost_total", "Media streams that ended without a goodbye", ("reason",), registry=registry
        )
        self.underruns = Counter(
            "underruns_total", "Playout buffers that ran empty inside an utterance", registry=registry
        )
        self.stream_token_fallback = Counter(
            "stream_token_fallback_total", "Stream tokens kept in the process because Redis was gone", registry=registry
        )

        self.webhook_answer_fallback = Counter(
            "webhook_answer_fallback_total",
            "Answers to webhooks kept in the process because Redis was gone",
            registry=registry,
        )

        self.tool_calls = Histogram(
            "tool_call_seconds",
            "Calls of agents' tools, from the record on disk to the answer",
            ("outcome",),
            buckets=TURN_BUCKETS_S,
            registry=registry,
        )

        self.spool_depth = Gauge("spool_depth_records", "Facts not yet in PostgreSQL", registry=registry)
        self.spool_age = Gauge("spool_age_seconds", "Age of the oldest fact not yet in PostgreSQL", registry=registry)

        self.capture_bytes = Gauge("capture_bytes", "Captures on the disk, as of the last look", registry=registry)
        self.captures_deleted = Counter(
            "captures_deleted_total", "Captures that were too old or too much", ("reason",), registry=registry
        )
        self.captures_skipped = Counter(
            "captures_skipped_total", "Streams without a capture because the disk was nearly full", registry=registry
        )

        self.http_requests = Counter(
            "http_requests_total", "Answered HTTP requests", ("method", "status"), registry=registry
        )
        self.connections_refused = Counter(
            "connections_refused_total",
            "Connections ended by a limit of the front door",
            ("reason",),
            registry=registry,
        )
        self.media_open = Gauge("media_connections", "Open media WebSockets", registry=registry)
        self.tls_cert_expiry = Gauge(
            "tls_cert_expiry_seconds", "Unix time when the served certificate expires", registry=registry
        )

        self.providers = ProviderMetrics(registry, self._provider)

        # They exist from the start: an alert on rate() needs the zero before the first frame.
        for direction in ("in", "out"):
            self.media_frames.labels(direction)
        for part in ("ring", "reader", "silero"):
            self.media_overruns.labels(part)
        for reason in ("age", "total"):
            self.captures_deleted.labels(reason)

    def observe_turn(
        self, stages_ms: Mapping[str, float], latency_ms: float, channel: str, providers: Mapping[str, str]
    ) -> None:
        """Put one finished turn into the histograms.

        Args:
            stages_ms: stage -> milliseconds; stages that did not happen are absent.
            latency_ms: speech end to first sent.
            channel: twilio, telnyx or browser.
            providers: service (stt, llm, tts) -> vendor; turn latency carries the model's vendor.
        Raises:
            KeyError: a stage that STAGES does not name: our bug, never a caller's doing.
        """
        channel = self._word(channel)
        for stage, ms in stages_ms.items():
            vendor = self._vendor(providers, _STAGE_SERVICE.get(stage))
            self.stages[stage].labels(vendor, channel).observe(max(ms, 0.0) / 1e3)
        self.turn_latency.labels(self._vendor(providers, "llm"), channel).observe(max(latency_ms, 0.0) / 1e3)

    def observe_tool(self, outcome: str, took_s: float) -> None:
        self.tool_calls.labels(outcome).observe(took_s)

    def observe_call_end(self, channel: str, reason: str) -> None:
        """`reason` is one of OUTCOMES, perhaps with ":" and a detail. Any other counts as "other" and is logged."""
        outcome = reason.partition(":")[0]
        if outcome not in OUTCOMES:
            log.error("a call ended by an unknown reason", extra={"event": "unknown_outcome", "reason": reason[:80]})
            outcome = "other"
        self.calls.labels(self._word(channel), outcome).inc()

    def observe_media_lost(self, reason: str) -> None:
        self.media_ws_lost.labels(self._word(reason)).inc()

    def observe_refused(self, reason: str) -> None:
        self.connections_refused.labels(self._word(reason)).inc()

    def observe_request(self, method: str, status: int) -> None:
        """Unknown methods share one series: a scanner must not be able to add any."""
        known = method if method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS") else "other"
        self.http_requests.labels(known, str(status)).inc()

    def _vendor(self, providers: Mapping[str, str], service: str | None) -> str:
        return "none" if service is None else self._provider(providers.get(service, "none"))


class ProviderMetrics:
    """What happens to each provider; the observer of providers/observer.py. `name` bounds the label."""

    def __init__(self, registry: CollectorRegistry, name: Callable[[str], str]) -> None:
        self._name = name
        by = ("service", "provider")
        self.attempts = Counter("provider_attempts_total", "Requests to a provider", by, registry=registry)
        self.failures = Counter("provider_failures_total", "Requests that failed", (*by, "kind"), registry=registry)
        self.retries = Counter("provider_retries_total", "Requests that were made again", by, registry=registry)
        self.fallbacks = Counter(
            "provider_fallbacks_total", "Times that another provider took over", (*by, "successor"), registry=registry
        )
        self.hedges = Counter(
            "provider_hedges_total", "Second requests beside a slow one", ("provider", "outcome"), registry=registry
        )
        self.breaker = Gauge(
            "provider_breaker_state", "0 closed, 1 half open, 2 open: nobody is sent there", by, registry=registry
        )
        self.usage = Counter(
            "provider_usage_total", "Tokens, characters and audio milliseconds", (*by, "unit"), registry=registry
        )
        self.remaining = Gauge(
            "provider_limit_remaining",
            "What the service last said is left of the account's rate limit, of requests or tokens",
            (*by, "of"),
            registry=registry,
        )
        self.limit = Gauge("provider_limit", "The whole of it, where that is told", (*by, "of"), registry=registry)

    def on_attempt(self, service: str, provider: str) -> None:
        self.attempts.labels(service, self._name(provider)).inc()

    def on_failure(self, service: str, provider: str, kind: str) -> None:
        self.failures.labels(service, self._name(provider), kind).inc()

    def on_retry(self, service: str, provider: str) -> None:
        self.retries.labels(service, self._name(provider)).inc()

    def on_fallback(self, service: str, provider: str, successor: str) -> None:
        self.fallbacks.labels(service, self._name(provider), self._name(successor)).inc()

    def on_hedge(self, provider: str, outcome: str) -> None:
        self.hedges.labels(self._name(provider), outcome).inc()

    def on_breaker(self, service: str, provider: str, state: str) -> None:
        self.breaker.labels(service, self._name(provider)).set(BREAKER_STATES[state])

    def on_usage(self, service: str, provider: str, unit: str, amount: int) -> None:
        self.usage.labels(service, self._name(provider), unit).inc(max(0, amount))

    def on_limit(self, service: str, provider: str, of: str, remaining: int, limit: int | None) -> None:
        self.remaining.labels(service, self._name(provider), of).set(remaining)
        if limit is not None:
            self.limit.labels(service, self._name(provider), of).set(limit)
