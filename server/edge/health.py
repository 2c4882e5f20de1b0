"""/livez, /readyz and /metrics: what a load balancer and Prometheus ask.

Guarantees: /livez says only that the loop turns; /readyz answers within `CHECK_MS` whatever its checks do, and never
shows an exception's text; /metrics renders off the loop. Leaves to others: what is checked (server/app.py), how fast
to drain.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable, Mapping

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from server.edge.app import problem
from server.metrics import Metrics

CHECK_MS = 500
"""Probes time out after 1 s by default; a check that takes half of it is not ready."""

Check = Callable[[], Awaitable[str | None]]
"""None: fine. Text: what is missing, in words that anybody may read."""
Degraded = Callable[[], Mapping[str, Mapping[str, str]]]
"""What does not work but is not needed to be ready: name -> what is known of it, in words that anybody may read."""


def health_routes(
    checks: Mapping[str, Check],
    is_draining: Callable[[], bool],
    metrics: Metrics,
    degraded: Degraded = dict,
    metrics_key: str = "",
) -> list[Route]:
    """Routes for `build_app`.

    Args:
        checks: name -> check; all run at once for each /readyz.
        degraded: asked for each /readyz; must not wait. What it lists makes the status "degraded", which is still 200.
        metrics_key: unless empty, /metrics wants `Authorization: Bearer <key>`.
    """

    async def livez(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(request: Request) -> Response:
        draining = is_draining()
        problems = dict(zip(checks, await asyncio.gather(*map(_run, checks.values())), strict=True))
        is_ready = not draining and not any(problems.values())
        failing = degraded()
        well = "degraded" if failing else "ready"
        body = {
            "status": well if is_ready else "draining" if draining else "not ready",
            "checks": {name: {"status": "ok"} if text is None else {"status": "failed", "detail": text}
                       for name, text in problems.items()},
            "degraded": failing,
        }  # fmt: skip
        return JSONResponse(body, status_code=200 if is_ready else 503)

    async def exposition(request: Request) -> Response:
        if metrics_key:
            expected = f"Bearer {metrics_key}".encode()
            if not hmac.compare_digest(request.headers.get("authorization", "").encode("latin-1"), expected):
                return problem(401, headers={"www-authenticate": "Bearer"})
        # Here and not in the thread, where the last reference to a task could die: 0.25 ms for 1,000 of them.
        metrics.tasks.set(len(asyncio.all_tasks()))
        # Several ms with all series: in a thread, so that no frame waits for a scrape.
        text = await asyncio.to_thread(generate_latest, metrics.registry)
        return Response(text, media_type=CONTENT_TYPE_LATEST)

    return [Route("/livez", livez), Route("/readyz", readyz), Route("/metrics", exposition)]


async def _run(check: Check) -> str | None:
    try:
        async with asyncio.timeout(CHECK_MS / 1e3):
            # gather() keeps an unexpected exception as a value: a broken check means not ready, not a 500.
            (result,) = await asyncio.gather(check(), return_exceptions=True)
    except TimeoutError:
        return f"no answer within {CHECK_MS} ms"
    return f"check failed: {type(result).__name__}" if isinstance(result, BaseException) else result
