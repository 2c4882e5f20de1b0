"""`talkspurt doctor` and the command line: every check says what is wrong with what it looks at, and nothing secret."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from server.__main__ import main
from server.config import VARIABLES, Config
from server.node import doctor
from server.node.embedded import EmbeddedServers, holder
from tests.support.certificate import write_certificate

ROOT = Path(__file__).parent.parent.parent
NAMES = ["extensions", "speech", "configuration", "data folder", "agents", "hearing", "calls", "open files", "address"]
NAMES += ["postgres", "redis"]


@pytest.fixture
def env(embedded: EmbeddedServers, database_url: str) -> Iterator[dict[str, str]]:
    folder = Path(tempfile.mkdtemp(prefix="ts-", dir="/tmp"))
    yield {
        "DATABASE_URL": database_url,
        "REDIS_URL": embedded.redis_url,
        "DATA_DIR": str(folder),
        "AGENTS_DIR": str(ROOT / "agents"),
        "HOST": "127.0.0.1",
        "PORT": "0",
    }
    shutil.rmtree(folder)


def examine(env: dict[str, str], capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, tuple[str, str]]]:
    status = doctor.run(env)
    lines = capsys.readouterr().out.splitlines()
    return status, {line[7:21].strip(): (line[:6].strip(), line[22:]) for line in lines}


def test_all_is_well(env: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    status, found = examine(env, capsys)
    assert list(found) == NAMES
    assert {name for name, (verdict, _) in found.items() if verdict != "ok"} == {"hearing"}, found
    assert status == 0
    assert "clinic_en (en-US)" in found["agents"][1] and "instruction set" in found["extensions"][1]
    assert found["postgres"][1].endswith("schema applied")


def test_every_extension_is_looked_for(
    env: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    built = {path.stem for path in (ROOT / "audio_native").glob("*.pyx")}
    assert set(doctor.extensions()) == built
    assert f"{len(built)} built;" in doctor._extensions()
    monkeypatch.setitem(sys.modules, "audio_native.tape", None)
    _, found = examine(env | {"PORT": "x"}, capsys)
    assert found["extensions"] == ("WRONG", "not built: tape; build them: make build")


@pytest.mark.parametrize(
    ("carriers", "says"), [((), "no carrier"), (("TELNYX",), "Telnyx"), (("TWILIO", "TELNYX"), "Twilio and Telnyx")]
)
def test_the_carriers_are_named(
    env: dict[str, str], capsys: pytest.CaptureFixture[str], carriers: tuple[str, ...], says: str
) -> None:
    credentials = {
        "TWILIO_ACCOUNT_SID": "AC" + "0" * 32,
        "TWILIO_AUTH_TOKEN": "token",
        "TELNYX_API_KEY": "KEY",
        "TELNYX_PUBLIC_KEY": "A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=",
    }
    given = {name: value for name, value in credentials.items() if name.startswith(carriers)} if carriers else {}
    more = {"PUBLIC_URL": "https://voice.example.com", "TALKSPURT_SECRET": "s" * 40}
    _, found = examine(env | given | more, capsys)
    assert found["configuration"][1].startswith(f"production, {says}, https://voice.example.com, no browser calls")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, "browser calls without a key"),
        ({"API_KEY": "k" * 16}, "browser calls with API_KEY"),
        ({"PUBLIC_URL": "https://a.example", "ALLOW_KEYLESS_CALLS": "on"}, "browser calls without a key"),
        ({"PUBLIC_URL": "https://a.example"}, "no browser calls (they need API_KEY)"),
    ],
)
def test_who_may_call_from_a_browser_is_said(changes: dict[str, str], says: str) -> None:
    config = Config.from_env({"AGENTS_DIR": str(ROOT / "agents"), "ALLOW_EMBEDDED": "1"} | changes)
    assert doctor._configuration(config).endswith(f", {says}")


AZURE = {"AZURE_SPEECH_KEY": "azure-speech-key", "AZURE_SPEECH_REGION": "westeurope"}


@pytest.mark.parametrize(
    ("changes", "verdict", "says"),
    [
        ({}, "ok", "at most 200 at once (default)"),
        ({"MAX_CALLS": "300"}, "ok", "at most 300 at once"),
        (AZURE, "ok", "at most 40 at once (Azure Speech is there)"),
        (AZURE | {"MAX_CALLS": "12"}, "ok", "at most 12 at once"),
        (AZURE | {"MAX_CALLS": "41"}, "note", "MAX_CALLS=41 with Azure Speech, whose SDK has eight threads a call"),
    ],
)
def test_calls_that_are_too_many_for_the_sdk_of_azure_are_noted(
    env: dict[str, str], capsys: pytest.CaptureFixture[str], changes: dict[str, str], verdict: str, says: str
) -> None:
    _, found = examine(env | changes | {"DATABASE_URL": "postgresql://me@127.0.0.1:1/x"}, capsys)
    assert found["calls"][0] == verdict and found["calls"][1].startswith(says)


@pytest.mark.parametrize(
    ("name", "changes", "says"),
    [
        ("configuration", {"PORT": "x"}, "PORT: expected a whole number"),
        ("data folder", {"DATA_DIR": "/proc/nothing"}, "/proc"),
        ("agents", {"AGENTS_DIR": str(ROOT / "docs")}, "no *.yaml"),
        ("open files", {"MAX_CALLS": "5000"}, "expected 20256 for MAX_CALLS=5000"),
        ("postgres", {"DATABASE_URL": "postgresql://me:hunter2@127.0.0.1:1/x"}, "check DATABASE_URL"),
        ("redis", {"REDIS_URL": "redis://:hunter2@127.0.0.1:1/0"}, "check REDIS_URL"),
        (
            "address",
            {"HOST": "192.0.2.1"},
            "HOST: expected an address of this machine (Cannot assign requested address), got '192.0.2.1'",
        ),
    ],
)
def test_one_thing_is_wrong(
    env: dict[str, str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    changes: dict[str, str],
    says: str,
) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda which: (1024, 4096))
    status, found = examine(env | changes, capsys)
    assert status == 1
    assert [one for one, (verdict, _) in found.items() if verdict == "WRONG"] == [name], found
    assert says in found[name][1] and "hunter2" not in str(found)


def test_an_agent_that_cannot_hear_is_named(
    env: dict[str, str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    status, found = examine(env, capsys)
    text = "nobody hears for restaurante_es (moonshine-es: Spanish recognition is opt-in: set TALKSPURT_SPANISH_STT"
    assert status == 0 and found["hearing"][0] == "note" and found["hearing"][1].startswith(text)
    production = {"PUBLIC_URL": "https://voice.example.com", "TALKSPURT_SECRET": "s" * 40}
    status, found = examine(env | production, capsys)
    assert status == 1 and found["hearing"][0] == "WRONG"
    (tmp_path / "weights").mkdir()
    for changes in ({"TALKSPURT_SPANISH_STT": str(tmp_path / "weights")}, {"STT_PROVIDER": "scripted"}):
        status, found = examine(env | production | changes, capsys)
        assert (status, found["hearing"]) == (0, ("ok", "somebody hears for every agent"))
    # Of several ears one is enough, and each channel is looked at.
    fallback, channel = tmp_path / "fallback", tmp_path / "channel"
    fallback.mkdir()
    channel.mkdir()
    (fallback / "a.yaml").write_text("language: es-ES\nstt: {provider: moonshine-es, fallbacks: [scripted]}\n")
    (channel / "a.yaml").write_text("language: en-US\nchannels: {browser: {stt: {provider: moonshine-es}}}\n")
    assert examine(env | {"AGENTS_DIR": str(fallback)}, capsys)[1]["hearing"][0] == "ok"
    assert "moonshine-es: recognises es only" in examine(env | {"AGENTS_DIR": str(channel)}, capsys)[1]["hearing"][1]


def test_a_wrong_agent_is_named(env: dict[str, str], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("colour: red")
    _, found = examine(env | {"AGENTS_DIR": str(tmp_path)}, capsys)
    assert found["agents"][1].startswith("bad.yaml: colour: unknown setting")


def test_a_port_that_somebody_else_has(env: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        # It takes connections and says nothing: not one of ours.
        _, found = examine(env | {"PORT": str(taken.getsockname()[1])}, capsys)
    assert found["address"][0] == "WRONG"
    assert found["address"][1].startswith("PORT: expected a port that can be listened on at 127.0.0.1")


def test_a_running_server_keeps_its_port_and_its_servers(
    env: dict[str, str], capsys: pytest.CaptureFixture[str], embedded: EmbeddedServers
) -> None:
    del env["DATABASE_URL"], env["REDIS_URL"]
    data_dir = embedded.place.base.parent
    assert holder(data_dir) == os.getpid()
    status, found = examine(env | {"DATA_DIR": str(data_dir)}, capsys)
    assert status == 0, found
    assert found["postgres"][1].startswith(f"embedded in process {os.getpid()}, PostgreSQL 18")
    assert found["redis"][1].startswith(f"embedded in process {os.getpid()}, answers")
    assert embedded.dead() == []


@pytest.mark.slow
def test_migrate_and_doctor_start_embedded_servers_of_their_own(
    env: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name in ("DATA_DIR", "AGENTS_DIR", "PORT"):
        monkeypatch.setenv(name, env[name])
    assert main(["doctor"]) == 0
    assert "schema not applied yet" in capsys.readouterr().out
    assert main(["migrate"]) == 0
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "schema applied\n" in out and "schema not applied" not in out
    assert holder(Path(env["DATA_DIR"])) is None


def test_the_certificate_is_looked_at(env: dict[str, str], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    cert, key, other = tmp_path / "cert.pem", tmp_path / "key.pem", tmp_path / "other.pem"
    write_certificate(cert, key, serial=1)
    write_certificate(other, tmp_path / "other.key", serial=2)
    status, found = examine(env | {"TLS_CERT_FILE": str(cert), "TLS_KEY_FILE": str(key)}, capsys)
    assert (status, found["certificate"]) == (0, ("ok", f"{cert}, 30 days left"))
    _, found = examine(env | {"TLS_CERT_FILE": str(other), "TLS_KEY_FILE": str(key)}, capsys)
    assert found["certificate"][0] == "WRONG" and "fits TLS_KEY_FILE" in found["certificate"][1]
    write_certificate(cert, key, serial=3, days=0)
    _, found = examine(env | {"TLS_CERT_FILE": str(cert), "TLS_KEY_FILE": str(key)}, capsys)
    assert found["certificate"][0] == "WRONG" and "has expired" in found["certificate"][1]


def test_migrate_on_a_database_of_its_own(env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    async def drop() -> None:
        connection = await asyncpg.connect(env["DATABASE_URL"])
        await connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        await connection.close()

    asyncio.run(drop())
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert main(["migrate"]) == 0
    assert main(["migrate"]) == 0


TWILIO = {"TWILIO_ACCOUNT_SID": "AC" + "0" * 32, "TWILIO_AUTH_TOKEN": "token", "ALLOW_EMBEDDED": "1"}
OPEN = {"ALLOW_EMBEDDED": "1", "PORT": "0"}


@pytest.mark.parametrize(
    ("arguments", "changes", "status", "says"),
    [
        ([], {}, 2, "usage: talkspurt"),
        (["dance"], {}, 2, "invalid choice"),
        (["serve"], {"PORT": "x"}, 2, "talkspurt: PORT: expected a whole number, got 'x'"),
        (["serve"], {**TWILIO, "PUBLIC_URL": "http://voice.example.com"}, 2, "talkspurt: PUBLIC_URL: expected https,"),
        (["serve"], {**OPEN, "HOST": "nonsense.invalid"}, 2, "talkspurt: HOST: expected an address of this machine ("),
        (["serve"], {**OPEN, "HOST": "192.0.2.1"}, 2, "talkspurt: HOST: expected an address of this machine ("),
        (["serve"], {"PORT": "{taken}"}, 2, "talkspurt: PORT: expected a port that can be listened on at 127.0.0.1 ("),
        (
            ["serve"],
            {"TLS_CERT_FILE": "a", "TLS_KEY_FILE": "b"},
            2,
            "talkspurt: TLS_CERT_FILE: expected a PEM certificate",
        ),
        (["migrate"], {"DATABASE_URL": "postgresql://127.0.0.1:1/x"}, 1, "talkspurt: no connection"),
    ],
)
def test_exit_status(arguments: list[str], changes: dict[str, str], status: int, says: str, tmp_path: Path) -> None:
    clean = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = str(other.getsockname()[1])
        given = {name: value.replace("{taken}", taken) for name, value in changes.items()}
        done = subprocess.run(
            [sys.executable, "-m", "server", *arguments],
            cwd=ROOT,
            env=clean | {"DATA_DIR": str(tmp_path)} | given,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert (done.returncode, done.stdout) == (status, "")
    assert says in done.stderr and "Traceback" not in done.stderr
