"""Variables of the port itself, seen from outside, on the server as a user runs it: who is counted, who may sign,
what is read in the clear."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import socket
import ssl
from pathlib import Path

import httpx
import psutil
import pytest
import uvloop

from bench.load.server_process import PUBLIC_URL, ServerProcess
from bench.sim.twilio import Exchange
from tests.e2e.test_calls import NUMBER, serve, stores
from tests.support.certificate import write_certificate

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
GET = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"


def other_address() -> str:
    """An address of this machine that is not loopback, as a proxy on another host would have."""
    for found in psutil.net_if_addrs().values():
        for one in found:
            if one.family == socket.AF_INET and not one.address.startswith("127."):
                return one.address
    pytest.skip("this machine has no address but loopback")


async def status_beside_an_idle_one(host: str, port: int) -> bytes:
    """The first line that a second connection is answered with, while a first one says nothing; empty: cut off."""
    idle = await asyncio.open_connection(host, port)
    second = await asyncio.open_connection(host, port)
    try:
        second[1].write(GET)
        return await second[0].readline()
    except ConnectionError:
        return b""
    finally:
        for _, writer in (idle, second):
            writer.close()


@pytest.mark.parametrize("proxies", ["203.0.113.0/24", "203.0.113.0/24, {own}"])
def test_only_a_trusted_proxy_is_one_address_for_many(
    tmp_path: Path, database_url: str, redis_url: str, proxies: str
) -> None:
    own = other_address()
    env = {"HOST": "0.0.0.0", "CONNECTIONS_PER_IP": "1", "AGENTS_DIR": str(ROOT / "agents")}
    env |= {"TRUSTED_PROXIES": proxies.format(own=own)}

    async def main() -> None:
        async with ServerProcess({**env, **stores(database_url, redis_url)}, data_dir=tmp_path) as server:
            answered = b"HTTP/1.1 200" in await status_beside_an_idle_one(own, server.port)
            assert answered is ("{own}" in proxies)
            assert b"HTTP/1.1 200" in await status_beside_an_idle_one("127.0.0.1", server.port)

    uvloop.run(main())


def test_a_webhook_may_be_signed_by_a_shared_key(tmp_path: Path, database_url: str, redis_url: str) -> None:
    form = {"AccountSid": "AC" + "0" * 32, "CallSid": "CA" + "1" * 32, "To": NUMBER, "From": "+15552000007"}

    async def answer(server: ServerProcess, key: str, secret: str) -> httpx.Response:
        text = f"{PUBLIC_URL}/twilio/voice" + "".join(f"{name}{value}" for name, value in sorted(form.items()))
        digest = hmac.new(secret.encode(), text.encode(), hashlib.sha256).digest()
        headers = {
            "X-Twilio-Signature": base64.b64encode(digest).decode(),
            "X-Twilio-Webhooks-Signature-Settings": f"key={key},algorithm=HMAC_SHA256",
        }
        async with httpx.AsyncClient(base_url=server.url) as http:
            return await http.post("/twilio/voice", data=form, headers=headers)

    async def body(server: ServerProcess, exchange: Exchange) -> None:
        taken = await answer(server, "key_2", "two")
        assert taken.status_code == 200 and "<Stream" in taken.text
        assert (await answer(server, "key_1", "two")).status_code == 403
        assert (await answer(server, "key_3", "two")).status_code == 403

    serve(tmp_path, body, {**stores(database_url, redis_url), "TWILIO_SHARED_KEYS": "key_1=one, key_2=two"})


class TlsServer(ServerProcess):
    """One that only speaks TLS; `http` trusts its certificate."""

    http: httpx.AsyncClient

    async def _wait_ready(self) -> None:
        async with asyncio.timeout(self.ready_s):
            while self.is_running:
                try:
                    if (await self.http.get("/readyz")).status_code == 200:
                        return
                except httpx.ConnectError:
                    pass
                await asyncio.sleep(0.1)
        raise AssertionError(self.log_tail())


def test_the_port_speaks_tls_and_metrics_ask_for_their_key(tmp_path: Path, database_url: str, redis_url: str) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    write_certificate(cert, key, serial=0x11)
    env = {"TLS_CERT_FILE": str(cert), "TLS_KEY_FILE": str(key), "METRICS_KEY": "metrics-key-0123456789"}
    env |= {"AGENTS_DIR": str(ROOT / "agents"), **stores(database_url, redis_url)}

    async def main() -> None:
        server = TlsServer(env, data_dir=tmp_path / "data")
        url = f"https://localhost:{server.port}"
        verify = ssl.create_default_context(cafile=str(cert))
        async with httpx.AsyncClient(base_url=url, verify=verify) as server.http, server:
            asked = await server.http.post("/api/v1/browser-calls", json={"agent": "clinic_en"})
            assert asked.status_code == 201
            assert asked.json()["url"].startswith(f"wss://127.0.0.1:{server.port}/media/browser/")
            assert (await server.http.get("/metrics")).status_code == 401
            shown = await server.http.get("/metrics", headers={"Authorization": f"Bearer {env['METRICS_KEY']}"})
            assert shown.status_code == 200 and "\ntls_cert_expiry_seconds " in shown.text
        assert server.returncode == 0

    uvloop.run(main())
