"""Two processes behind one address: a webhook that comes twice gets one answer, whichever process it reaches."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import uvloop
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from bench.load.server_process import PUBLIC_URL, ServerProcess
from bench.sim import telnyx
from bench.sim.twilio import Account, Exchange
from bench.sim.twiml import Stream, parse_twiml
from server.node.embedded import EmbeddedServers
from tests.e2e.test_calls import AGENT, NUMBER

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(120)]

ANSWERS, TOKENS = "webhook_answer_fallback_total", "stream_token_fallback_total"


@pytest.fixture
def valkey() -> Iterator[EmbeddedServers]:
    """A Valkey of the test's own, which may be stopped."""
    folder = Path(tempfile.mkdtemp(prefix="ts-", dir="/tmp"))  # short, because of the socket in it
    folder.chmod(0o711)
    try:
        with EmbeddedServers.start(folder, postgres=False, valkey=True) as servers:
            yield servers
    finally:
        shutil.rmtree(folder)


async def counted(server: ServerProcess) -> tuple[float, ...]:
    values = dict(line.rsplit(" ", 1) for line in (await server.metrics()).splitlines() if line[0] != "#")
    return tuple(float(values[name]) for name in (ANSWERS, TOKENS))


def twilio_env(exchange: Exchange, agents: Path, valkey: EmbeddedServers) -> dict[str, str]:
    """What both processes are told; each may add its database."""
    return {
        "PUBLIC_URL": PUBLIC_URL,
        "TWILIO_ACCOUNT_SID": exchange.account.account_sid,
        "TWILIO_AUTH_TOKEN": exchange.account.auth_token,
        "TWILIO_API_URL": exchange.rest_url,
        "AGENTS_DIR": str(agents),
        "TALKSPURT_SECRET": "s" * 40,
        "REDIS_URL": valkey.redis_url,
    }


def test_a_repeated_webhook_gets_the_same_answer_from_both(
    tmp_path: Path, database_url: str, valkey: EmbeddedServers
) -> None:
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "test.yaml").write_text(AGENT)

    async def main() -> None:
        account = Account()
        async with Exchange(public_url=PUBLIC_URL, local_url="", account=account) as exchange:
            env = {**twilio_env(exchange, tmp_path / "agents", valkey), "DATABASE_URL": database_url}

            async def ask(server: ServerProcess, call: str) -> bytes:
                exchange.local_url = server.url
                form = {"CallSid": call, "AccountSid": account.account_sid, "From": "+15552000007", "To": NUMBER}
                answer = await exchange.post(f"{PUBLIC_URL}/twilio/voice", form)
                assert answer.status_code == 200 and b"<Stream" in answer.content
                return answer.content

            async with (
                ServerProcess(env, data_dir=tmp_path / "a") as a,
                ServerProcess(env, data_dir=tmp_path / "b") as b,
            ):
                assert len({await ask(server, "CA" + "1" * 32) for server in (a, b, a, b)}) == 1
                both = await asyncio.gather(ask(a, "CA" + "2" * 32), ask(b, "CA" + "2" * 32))
                assert both[0] == both[1]
                assert await ask(b, "CA" + "1" * 32) != both[0]
                assert (await counted(a), await counted(b)) == ((0, 0), (0, 0))
                valkey.stop()
                # A call that both know from before, and one that comes while Redis is gone.
                assert await ask(a, "CA" + "1" * 32) == await ask(b, "CA" + "1" * 32)
                alone = [await ask(a, "CA" + "3" * 32) for _ in range(2)]
                assert alone[0] == alone[1] != await ask(b, "CA" + "3" * 32)
                # Each counts what it made while Redis was gone, once each although they come together.
                await asyncio.gather(*(ask(b, "CA" + f"{n:032d}") for n in range(4, 8)))
                assert (await counted(a), await counted(b)) == ((1, 1), (5, 5))

    uvloop.run(main())


def test_an_event_of_telnyx_is_acted_upon_by_one_of_both(
    tmp_path: Path, database_url: str, valkey: EmbeddedServers
) -> None:
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "test.yaml").write_text(AGENT)

    async def main() -> None:
        async with telnyx.Exchange(public_url=PUBLIC_URL, local_url="") as exchange:
            env = {
                "PUBLIC_URL": PUBLIC_URL,
                "AGENTS_DIR": str(tmp_path / "agents"),
                "TALKSPURT_SECRET": "s" * 40,
                "DATABASE_URL": database_url,
                "REDIS_URL": valkey.redis_url,
                **exchange.server_env,
            }

            async def tell(server: ServerProcess, kind: str, **payload: str) -> None:
                exchange.local_url = server.url
                event = {"event_type": kind, "id": "1", "payload": {"call_control_id": "v3:one", **payload}}
                answer = await exchange.post(json.dumps({"data": event}).encode())
                assert answer.status_code == 200

            def asked(action: str) -> list[dict[str, str]]:
                return [asked for _, path, asked, _ in exchange.rest.requests if path.endswith(f"/{action}")]

            async with (
                ServerProcess(env, data_dir=tmp_path / "a") as a,
                ServerProcess(env, data_dir=tmp_path / "b") as b,
            ):
                comes = {"direction": "incoming", "from": "+15552000007", "to": NUMBER}
                for server in (a, b):
                    await asyncio.gather(*(tell(one, "call.initiated", **comes) for one in (a, b, server)))
                while not asked("answer"):
                    await asyncio.sleep(0.02)
                gone = {"stream_url": asked("answer")[0]["stream_url"]}
                for server in (a, b):
                    await asyncio.gather(*(tell(one, "streaming.stopped", **gone) for one in (a, b, server)))
                while not asked("hangup"):
                    await asyncio.sleep(0.02)
                assert (await counted(a), await counted(b)) == ((0, 0), (0, 0))
            # Both have stopped, and have carried out what they had to.
            assert (len(asked("answer")), len(asked("hangup"))) == (1, 1)

    uvloop.run(main())


def test_a_stream_that_reaches_a_process_without_its_agent_is_ended_with_words(
    tmp_path: Path, database_url: str, valkey: EmbeddedServers
) -> None:
    """The other process has another database: it holds the secret and cannot know the version of the agent."""
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "test.yaml").write_text(AGENT + '  farewell: "We cannot go on."\n')

    async def main() -> None:
        account = Account()
        async with Exchange(public_url=PUBLIC_URL, local_url="", account=account) as exchange:
            env = twilio_env(exchange, tmp_path / "agents", valkey)
            sid = "CA" + "1" * 32
            form = {"CallSid": sid, "AccountSid": account.account_sid, "From": "+15552000007", "To": NUMBER}
            async with (
                ServerProcess({**env, "DATABASE_URL": database_url}, data_dir=tmp_path / "a") as a,
                ServerProcess(env, data_dir=tmp_path / "b") as b,
            ):
                exchange.local_url = a.url
                answer = await exchange.post(f"{PUBLIC_URL}/twilio/voice", form)
                (stream,) = parse_twiml(answer.content, "text/xml")
                assert isinstance(stream, Stream)
                signed = {"X-Twilio-Signature": exchange.sign(stream.url, {}), "X-Forwarded-Proto": "https"}
                address = b.url.replace("http", "ws") + urlsplit(stream.url).path
                start = {
                    "event": "start",
                    "sequenceNumber": "1",
                    "streamSid": "MZ" + "1" * 32,
                    "start": {
                        "streamSid": "MZ" + "1" * 32,
                        "accountSid": account.account_sid,
                        "callSid": sid,
                        "tracks": ["inbound"],
                        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
                        "customParameters": stream.parameters,
                    },
                }
                async with connect(address, additional_headers=signed) as socket:
                    await socket.send(json.dumps({"event": "connected", "protocol": "Call", "version": "1.0.0"}))
                    await socket.send(json.dumps(start))
                    with pytest.raises(ConnectionClosed) as closed:
                        await socket.recv()
                assert closed.value.rcvd is not None and closed.value.rcvd.code == 1011
                exchange.local_url = b.url
                after = await exchange.post(stream.action, form)
                assert [verb.name for verb in parse_twiml(after.content, "text/xml")] == [
                    "Say",
                    "Hangup",
                ]
                assert b"We cannot go on." in after.content
                assert 'calls_total{channel="twilio",outcome="error"} 1.0' in await b.metrics()
                # The process goes on: a call of its own is taken.
                form["CallSid"] = "CA" + "2" * 32
                assert b"<Stream" in (await exchange.post(f"{PUBLIC_URL}/twilio/voice", form)).content

    uvloop.run(main())
