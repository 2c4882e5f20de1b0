"""/livez, /readyz, /metrics over a real socket, and the bounds of the labels."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
import uvloop
from prometheus_client.parser import text_string_to_metric_families

from server.edge.app import build_app, is_media_path
from server.edge.front_door import FrontDoor
from server.edge.health import CHECK_MS, Check, Degraded, health_routes
from server.edge.http_adapter import HttpAdapter
from server.edge.limits import EdgeLimits
from server.metrics import STAGES, Metrics
from tests.support.edge_server import EchoRouter


@asynccontextmanager
async def probe(
    checks: dict[str, Check],
    draining: list[bool],
    metrics: Metrics,
    degraded: Degraded = dict,
    key: str = "",
) -> AsyncIterator[httpx.AsyncClient]:
    routes = health_routes(checks, lambda: draining[0], metrics, degraded, key)
    http = HttpAdapter(build_app(routes), EdgeLimits(), metrics)
    await http.start()
    door = FrontDoor(EchoRouter(), http)
    port = await door.serve("127.0.0.1", 0)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        yield client
    await door.close()
    await http.stop()


def test_readiness_follows_checks_and_drain() -> None:
    state: dict[str, str | None] = {"postgres": None}
    hang = asyncio.Event()

    async def postgres() -> str | None:
        return state["postgres"]

    async def redis() -> str | None:
        if state.get("redis") == "hangs":
            await hang.wait()
        if state.get("redis") == "raises":
            raise RuntimeError("password=secret")
        return None

    async def main() -> None:
        draining = [False]
        failing: dict[str, dict[str, str]] = {}
        checks = {"postgres": postgres, "redis": redis}
        async with probe(checks, draining, Metrics(), lambda: failing) as client:
            assert (await client.get("/livez")).text == "ok\n"
            response = await client.get("/readyz")
            assert (response.status_code, response.json()["status"]) == (200, "ready")

            failing["stt/azure"] = {"state": "open", "last_error": "unavailable"}
            response = await client.get("/readyz")
            assert (response.status_code, response.json()["status"]) == (200, "degraded")
            assert response.json()["degraded"] == failing

            state["postgres"] = "no connection"
            response = await client.get("/readyz")
            assert response.status_code == 503
            assert response.json() == {
                "status": "not ready",
                "checks": {"postgres": {"status": "failed", "detail": "no connection"}, "redis": {"status": "ok"}},
                "degraded": failing,
            }

            state["postgres"] = None
            for mode, told in (("raises", "check failed: RuntimeError"), ("hangs", f"no answer within {CHECK_MS} ms")):
                state["redis"] = mode
                response = await client.get("/readyz")
                assert response.status_code == 503 and response.json()["checks"]["redis"]["detail"] == told

            state["redis"] = None
            draining[0] = True
            response = await client.get("/readyz")
            assert (response.status_code, response.json()["status"]) == (503, "draining")
            assert (await client.get("/livez")).status_code == 200

    uvloop.run(main())


def test_a_scrape_counts_the_tasks_of_the_loop() -> None:
    async def main() -> None:
        metrics = Metrics()
        async with probe({}, [False], metrics) as client:

            async def scraped() -> float:
                families = text_string_to_metric_families((await client.get("/metrics")).text)
                return next(f.samples[0].value for f in families if f.name == "asyncio_tasks")

            without = await scraped()
            over = asyncio.Event()
            waiting = [asyncio.create_task(over.wait()) for _ in range(7)]
            assert await scraped() == without + 7
            over.set()
            await asyncio.wait(waiting)
            assert await scraped() == without >= 2  # of the test and of the request

    uvloop.run(main())


def test_metrics_are_exposed_behind_a_key() -> None:
    async def main() -> None:
        metrics = Metrics()
        metrics.observe_turn(
            dict.fromkeys(STAGES, 10.0), 70.0, "twilio", {"stt": "azure", "llm": "groq", "tts": "azure"}
        )
        async with probe({}, [False], metrics, key="k") as client:
            for headers in ({}, {"authorization": "Bearer x"}, {"authorization": "k"}):
                response = await client.get("/metrics", headers=headers)
                assert response.status_code == 401 and json.loads(response.text)["status"] == 401
            response = await client.get("/metrics", headers={"authorization": "Bearer k"})
            families = {f.name: f for f in text_string_to_metric_families(response.text)}
            assert {"turn_latency_seconds", "frame_lateness_seconds", "calls_active", "underruns",
                    "stream_token_fallback", "media_ws_lost", "spool_depth_records"} <= families.keys()  # fmt: skip
            assert {f"turn_{stage}_seconds" for stage in STAGES} <= families.keys()

    uvloop.run(main())


def test_a_turn_goes_to_its_stage_and_provider() -> None:
    metrics = Metrics()
    stages = {"detect": 30.0, "endpointing": 200.0, "stt": 20.0, "llm": 150.0, "tts": 120.0, "own": 3.0}
    metrics.observe_turn(stages, 523.0, "telnyx", {"stt": "azure", "llm": "groq", "tts": "openai"})
    value = metrics.registry.get_sample_value
    for stage, provider in (("detect", "none"), ("stt", "azure"), ("llm", "groq"), ("tts", "openai"), ("own", "none")):
        labels = {"provider": provider, "channel": "telnyx"}
        assert value(f"turn_{stage}_seconds_sum", labels) == pytest.approx(stages[stage] / 1e3)
    labels = {"provider": "groq", "channel": "telnyx"}
    assert value("turn_latency_seconds_bucket", {**labels, "le": "0.5"}) == 0
    assert value("turn_latency_seconds_bucket", {**labels, "le": "0.65"}) == 1
    assert value("turn_own_seconds_bucket", {"provider": "none", "channel": "telnyx", "le": "0.002"}) == 0
    assert value("turn_own_seconds_bucket", {"provider": "none", "channel": "telnyx", "le": "0.005"}) == 1
    with pytest.raises(KeyError):
        metrics.observe_turn({"unknown": 1.0}, 1.0, "twilio", {})


def test_labels_are_bounded() -> None:
    metrics = Metrics()
    for n in range(1_000):
        metrics.observe_turn({}, 1.0, "twilio", {"llm": f"vendor-{n}"})
        metrics.observe_turn({}, 1.0, "+34600000000", {"llm": "Someone's name"})
        metrics.observe_request(f"METHOD{n}", 404)
    assert len({s.labels["provider"] for f in metrics.turn_latency.collect() for s in f.samples}) <= 33
    assert {s.labels["channel"] for f in metrics.turn_latency.collect() for s in f.samples} == {"twilio", "other"}
    assert {s.labels["method"] for f in metrics.http_requests.collect() for s in f.samples} == {"other"}


def test_paths_that_mean_media() -> None:
    for path in ("/media", "/media/", "/media/x", "//media/x", "/./media/x", "/x/../media/y"):
        assert is_media_path(path), path
    for path in ("/", "/mediax", "/api/v1/media", "/console/media.js"):
        assert not is_media_path(path), path
