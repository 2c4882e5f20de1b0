"""Configuration: every refusal names its variable, production is strict, no secret is shown, the example is true."""

from __future__ import annotations

import re
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from server.config import VARIABLES, Config, shared_file
from server.errors import ConfigError

ROOT = Path(__file__).parent.parent
SID = "AC" + "0" * 32
TELNYX_KEY = "A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg="
SECRET = "s3cr3t-" * 6
PRODUCTION = {
    "PUBLIC_URL": "https://voice.example.com/",
    "DATABASE_URL": "postgresql://talkspurt:pw-in-url@db/talkspurt",
    "REDIS_URL": "redis://:redis-pw@cache:6379/0",
    "TALKSPURT_SECRET": SECRET,
    "TWILIO_ACCOUNT_SID": SID,
    "TWILIO_AUTH_TOKEN": "twilio-token",
    "TWILIO_AUTH_TOKEN_NEXT": "twilio-token-next",
    "TWILIO_SHARED_KEYS": "key_1=shared-secret=1, key_2=shared-secret-2",
    "TELNYX_API_KEY": "KEY-of-telnyx",
    "TELNYX_PUBLIC_KEY": TELNYX_KEY,
    "API_KEY": "browser-key-0123456789",
    "METRICS_KEY": "metrics-key-0123456789",
    "AZURE_SPEECH_KEY": "azure-speech-key",
    "AZURE_SPEECH_REGION": "westeurope",
    "AZURE_SPEECH_KEY_2": "azure-speech-key-2",
    "OPENAI_API_KEY": "sk-openai-key",
    "GROQ_API_KEY": "gsk-groq-key",
    "AZURE_OPENAI_API_KEY": "azure-openai-key",
    "AZURE_OPENAI_ENDPOINT": "https://name.openai.azure.com/",
    "AZURE_OPENAI_DEPLOYMENT": "voice",
    "COMPATIBLE_BASE_URL": "http://llm.internal:8000/v1/",
    "COMPATIBLE_API_KEY": "compatible-key",
    "COMPATIBLE_MODEL": "small",
    "TOOL_SECRETS": '{"crm": "Bearer tool-secret"}',
    "TOOL_PRIVATE_HOSTS": "crm.internal, 10.1.2.3",
}
PROVIDER_KEYS = {"azure-speech-key", "azure-speech-key-2"}
PROVIDER_KEYS |= {"sk-openai-key", "gsk-groq-key", "azure-openai-key", "compatible-key"}
AZURE = {"AZURE_SPEECH_KEY": "azure-speech-key"}
AZURE_WEST = AZURE | {"AZURE_SPEECH_REGION": "westeurope"}
AZURE_OPENAI = {"AZURE_OPENAI_API_KEY": "azure-openai-key"}


@pytest.fixture(autouse=True)
def agents_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "agents").mkdir()
    monkeypatch.chdir(tmp_path)


def test_nothing_set_is_a_local_embedded_server(tmp_path: Path) -> None:
    config = Config.from_env({})
    assert (config.host, config.server.port, config.is_production) == ("127.0.0.1", 8080, False)
    assert config.store.is_embedded
    assert config.store.data_dir == tmp_path / "var"
    assert config.store.agents_dir == tmp_path / "agents"
    assert (config.media.pacer_lead_ms, config.media.pacer_chunk_ms) == (200, 100)
    assert (config.captures.max_total_bytes, config.captures.max_days) == (10 << 30, 7)
    assert Config.from_env({"CAPTURE_MIN_FREE_BYTES": "20000000000"}).captures.min_free_bytes == 20_000_000_000
    assert (config.log.level, config.log.format, config.log.transcripts) == ("info", "json", False)
    providers = config.providers
    services = (providers.azure_speech, providers.openai, providers.groq, providers.azure_openai, providers.compatible)
    assert not any(one.is_configured for one in services)


def test_production_is_read_whole() -> None:
    config = Config.from_env(PRODUCTION | {"ALLOWED_ORIGINS": "https://a.example, https://b.example/"})
    assert config.is_production and not config.store.is_embedded and config.host == "0.0.0.0"
    assert config.server.public_url == "https://voice.example.com"
    assert config.server.allowed_origins == ("https://a.example", "https://b.example")
    assert config.twilio.auth_tokens == ("twilio-token", "twilio-token-next")
    assert config.twilio.shared_keys == {"key_1": "shared-secret=1", "key_2": "shared-secret-2"}
    assert (config.telnyx.api_key, config.telnyx.public_key) == ("KEY-of-telnyx", TELNYX_KEY)
    assert (config.telnyx.api_url, config.carriers) == ("https://api.telnyx.com", ("Twilio", "Telnyx"))
    providers = config.providers
    assert providers.azure_speech.is_configured and providers.azure_speech.region == "westeurope"
    second = providers.azure_speech.second
    assert second is not None and (second.key, second.region) == ("azure-speech-key-2", "westeurope")
    assert providers.azure_openai.endpoint == "https://name.openai.azure.com" and providers.azure_openai.is_configured
    assert providers.openai.is_configured and providers.groq.is_configured and providers.compatible.is_configured


@pytest.mark.parametrize(
    ("changes", "variable"),
    [
        ({"PORT": "eighty"}, "PORT"),
        ({"PORT": "70000"}, "PORT"),
        ({"PORT": "8080.5"}, "PORT"),
        ({"MAX_CALLS": "0"}, "MAX_CALLS"),
        ({"CONNECTIONS_PER_IP": "0"}, "CONNECTIONS_PER_IP"),
        ({"HANDSHAKES_PER_S": "-1"}, "HANDSHAKES_PER_S"),
        ({"TRUSTED_PROXIES": "10.0.0.1/8"}, "TRUSTED_PROXIES"),
        ({"TRUSTED_PROXIES": "proxy.example.com"}, "TRUSTED_PROXIES"),
        ({"TRUSTED_PROXIES": "10.0.0.0/8 10.0.0.0/9"}, "TRUSTED_PROXIES"),
        ({"STREAM_TOKEN_TTL_S": "4"}, "STREAM_TOKEN_TTL_S"),
        ({"PUBLIC_URL": "voice.example.com"}, "PUBLIC_URL"),
        ({"PUBLIC_URL": "https://voice.example.com/?a=1"}, "PUBLIC_URL"),
        ({"PUBLIC_URL": "ftp://voice.example.com"}, "PUBLIC_URL"),
        ({"DATABASE_URL": "mysql://db/x"}, "DATABASE_URL"),
        ({"REDIS_URL": "cache:6379"}, "REDIS_URL"),
        ({"TALKSPURT_SECRET": "short"}, "TALKSPURT_SECRET"),
        ({"API_KEY": "short"}, "API_KEY"),
        ({"METRICS_KEY": "short"}, "METRICS_KEY"),
        ({"TLS_CERT_FILE": "cert.pem"}, "TLS_KEY_FILE"),
        ({"TLS_KEY_FILE": "key.pem"}, "TLS_CERT_FILE"),
        ({"ALLOWED_ORIGINS": "https://a.example/path"}, "ALLOWED_ORIGINS"),
        ({"ALLOWED_ORIGINS": "*"}, "ALLOWED_ORIGINS"),
        ({"ALLOW_EMBEDDED": "maybe"}, "ALLOW_EMBEDDED"),
        ({"ALLOW_KEYLESS_CALLS": "maybe"}, "ALLOW_KEYLESS_CALLS"),
        ({"AGENTS_DIR": "/does/not/exist"}, "AGENTS_DIR"),
        ({"TWILIO_ACCOUNT_SID": "AC12"}, "TWILIO_ACCOUNT_SID"),
        ({"TWILIO_ACCOUNT_SID": SID}, "TWILIO_AUTH_TOKEN"),
        ({"TWILIO_AUTH_TOKEN": "x"}, "TWILIO_ACCOUNT_SID"),
        ({"TWILIO_AUTH_TOKEN_NEXT": "x"}, "TWILIO_AUTH_TOKEN_NEXT"),
        ({"TWILIO_SHARED_KEYS": "key_1=secret"}, "TWILIO_SHARED_KEYS"),
        ({"TWILIO_SHARED_KEYS": "secret"}, "TWILIO_SHARED_KEYS"),
        ({"TWILIO_SHARED_KEYS": "key_1="}, "TWILIO_SHARED_KEYS"),
        ({"TWILIO_SHARED_KEYS": "key_1=a,key_1=b"}, "TWILIO_SHARED_KEYS"),
        ({"TWILIO_API_URL": "api.twilio.com"}, "TWILIO_API_URL"),
        ({"TELNYX_API_KEY": "KEY1"}, "TELNYX_PUBLIC_KEY"),
        ({"TELNYX_API_KEY": "KEY 1", "TELNYX_PUBLIC_KEY": TELNYX_KEY}, "TELNYX_API_KEY"),
        ({"TELNYX_PUBLIC_KEY": TELNYX_KEY}, "TELNYX_API_KEY"),
        ({"TELNYX_API_KEY": "KEY1", "TELNYX_PUBLIC_KEY": TELNYX_KEY[:-4]}, "TELNYX_PUBLIC_KEY"),
        ({"TELNYX_API_KEY": "KEY1", "TELNYX_PUBLIC_KEY": "no base64"}, "TELNYX_PUBLIC_KEY"),
        ({"TELNYX_API_URL": "https://api.telnyx.com/?v=2"}, "TELNYX_API_URL"),
        ({"STT_PROVIDER": "No Such"}, "STT_PROVIDER"),
        (AZURE, "AZURE_SPEECH_REGION"),
        (AZURE | {"AZURE_SPEECH_REGION": "West Europe"}, "AZURE_SPEECH_REGION"),
        (AZURE | {"AZURE_SPEECH_REGION": "westus", "AZURE_SPEECH_ENDPOINT": "ws://x"}, "AZURE_SPEECH_REGION"),
        (AZURE | {"AZURE_SPEECH_ENDPOINT": "x:y"}, "AZURE_SPEECH_ENDPOINT"),
        ({"AZURE_SPEECH_KEY": "short"}, "AZURE_SPEECH_KEY"),
        ({"AZURE_SPEECH_COMMIT": "2"}, "AZURE_SPEECH_COMMIT"),
        ({"AZURE_SPEECH_FINAL_WAIT_MS": "49"}, "AZURE_SPEECH_FINAL_WAIT_MS"),
        ({"AZURE_SPEECH_POLLING_MS": "201"}, "AZURE_SPEECH_POLLING_MS"),
        ({"AZURE_SPEECH_TEXT_STREAM": "x"}, "AZURE_SPEECH_TEXT_STREAM"),
        ({"AZURE_SPEECH_TELEPHONE_EFFECT": "x"}, "AZURE_SPEECH_TELEPHONE_EFFECT"),
        ({"AZURE_SPEECH_USE_TOKEN": "x"}, "AZURE_SPEECH_USE_TOKEN"),
        ({"AZURE_SPEECH_KEY_2": "other-key"}, "AZURE_SPEECH_KEY"),
        (AZURE_WEST | {"AZURE_SPEECH_KEY_2": "short"}, "AZURE_SPEECH_KEY_2"),
        (AZURE_WEST | {"AZURE_SPEECH_KEY_2": AZURE["AZURE_SPEECH_KEY"]}, "AZURE_SPEECH_KEY_2"),
        (
            AZURE_WEST | {"AZURE_SPEECH_KEY_2": AZURE["AZURE_SPEECH_KEY"], "AZURE_SPEECH_REGION_2": "westeurope"},
            "AZURE_SPEECH_KEY_2",
        ),
        (AZURE_WEST | {"AZURE_SPEECH_REGION_2": "eastus"}, "AZURE_SPEECH_KEY_2"),
        (AZURE_WEST | {"AZURE_SPEECH_ENDPOINT_2": "ws://x"}, "AZURE_SPEECH_KEY_2"),
        (AZURE_WEST | {"AZURE_SPEECH_KEY_2": "other-key", "AZURE_SPEECH_REGION_2": "East US"}, "AZURE_SPEECH_REGION_2"),
        (AZURE_WEST | {"AZURE_SPEECH_KEY_2": "other-key", "AZURE_SPEECH_ENDPOINT_2": "x:y"}, "AZURE_SPEECH_ENDPOINT_2"),
        (
            AZURE_WEST
            | {
                "AZURE_SPEECH_KEY_2": "other-key",
                "AZURE_SPEECH_REGION_2": "eastus",
                "AZURE_SPEECH_ENDPOINT_2": "ws://x",
            },
            "AZURE_SPEECH_REGION_2",
        ),
        ({"OPENAI_API_KEY": "two words"}, "OPENAI_API_KEY"),
        ({"OPENAI_BASE_URL": "api.openai.com"}, "OPENAI_BASE_URL"),
        ({"GROQ_API_KEY": "short"}, "GROQ_API_KEY"),
        ({"GROQ_BASE_URL": "ftp://api.groq.com"}, "GROQ_BASE_URL"),
        (AZURE_OPENAI, "AZURE_OPENAI_ENDPOINT"),
        (AZURE_OPENAI | {"AZURE_OPENAI_ENDPOINT": "https://x"}, "AZURE_OPENAI_DEPLOYMENT"),
        ({"AZURE_OPENAI_API_VERSION": "latest"}, "AZURE_OPENAI_API_VERSION"),
        ({"AZURE_OPENAI_SURFACE": "v2"}, "AZURE_OPENAI_SURFACE"),
        ({"COMPATIBLE_BASE_URL": "http://x/v1"}, "COMPATIBLE_MODEL"),
        ({"COMPATIBLE_API_KEY": "compatible-key"}, "COMPATIBLE_BASE_URL"),
        ({"TALKSPURT_SPANISH_STT": "/does/not/exist"}, "TALKSPURT_SPANISH_STT"),
        ({"CAPTURE_MAX_TOTAL_BYTES": "1000000"}, "CAPTURE_MAX_TOTAL_BYTES"),
        ({"CAPTURE_MAX_TOTAL_BYTES": "1000000000000001"}, "CAPTURE_MAX_TOTAL_BYTES"),
        ({"CAPTURE_MAX_DAYS": "0"}, "CAPTURE_MAX_DAYS"),
        ({"CAPTURE_MIN_FREE_BYTES": "-1"}, "CAPTURE_MIN_FREE_BYTES"),
        ({"CAPTURE_MIN_FREE_BYTES": "1" * 19}, "CAPTURE_MIN_FREE_BYTES"),
        ({"PACER_LEAD_MS": "59"}, "PACER_LEAD_MS"),
        ({"PACER_LEAD_MS": "1001"}, "PACER_LEAD_MS"),
        ({"PACER_CHUNK_MS": "50"}, "PACER_CHUNK_MS"),
        ({"PACER_CHUNK_MS": "220"}, "PACER_CHUNK_MS"),
        ({"LOG_LEVEL": "loud"}, "LOG_LEVEL"),
        ({"LOG_FORMAT": "xml"}, "LOG_FORMAT"),
        ({"LOG_TRANSCRIPTS": "some"}, "LOG_TRANSCRIPTS"),
    ],
)
def test_a_wrong_value_is_refused_by_name(changes: dict[str, str], variable: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Config.from_env(changes)
    assert refused.value.variable == variable
    assert str(refused.value).startswith(f"{variable}: expected ")


@pytest.mark.parametrize(
    ("missing", "variable"),
    [
        (("DATABASE_URL",), "DATABASE_URL"),
        (("REDIS_URL",), "REDIS_URL"),
        (("TALKSPURT_SECRET",), "TALKSPURT_SECRET"),
        (("PUBLIC_URL",), "PUBLIC_URL"),
    ],
)
def test_production_refuses_what_is_missing(missing: tuple[str, ...], variable: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Config.from_env({name: text for name, text in PRODUCTION.items() if name not in missing})
    assert refused.value.variable == variable


@pytest.mark.parametrize(
    "url",
    ["http://voice.example.com", "HTTP://10.0.0.7:8080", "http://localhost@voice.example.com", "http://localhost.x"],
)
@pytest.mark.parametrize("carrier", ["Twilio", "Telnyx"])
def test_a_carrier_is_never_spoken_to_in_the_clear(carrier: str, url: str) -> None:
    other = "TELNYX" if carrier == "Twilio" else "TWILIO"
    with pytest.raises(ConfigError, match=f"because {carrier} is configured") as refused:
        Config.from_env({n: text for n, text in PRODUCTION.items() if not n.startswith(other)} | {"PUBLIC_URL": url})
    assert refused.value.variable == "PUBLIC_URL" and str(refused.value).startswith("PUBLIC_URL: expected https,")
    assert "\n" not in str(refused.value) and url not in str(refused.value)
    # Behind a page of one's own, without a carrier, it is the operator's matter.
    pages = {name: text for name, text in PRODUCTION.items() if not name.startswith(("TWILIO", "TELNYX"))}
    assert Config.from_env(pages | {"PUBLIC_URL": url}).server.public_url == url


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080", "http://localhost", "http://[::1]:8080", "https://a.example"])
def test_a_simulator_on_this_machine_needs_no_encryption(url: str) -> None:
    assert Config.from_env(PRODUCTION | {"PUBLIC_URL": url}).server.public_url == url


def test_embedded_production_and_open_address_need_consent() -> None:
    public = {"PUBLIC_URL": "https://voice.example.com"}
    with pytest.raises(ConfigError, match="ALLOW_EMBEDDED"):
        Config.from_env(public)
    assert Config.from_env(public | {"ALLOW_EMBEDDED": "1"}).host == "127.0.0.1"
    with pytest.raises(ConfigError, match="HOST"):
        Config.from_env({"HOST": "0.0.0.0"})
    assert Config.from_env({"HOST": "0.0.0.0", "ALLOW_EMBEDDED": "1"}).host == "0.0.0.0"


KEYLESS = {name: text for name, text in PRODUCTION.items() if name != "API_KEY"}
PAGES = {"ALLOWED_ORIGINS": "https://a.example"}


@pytest.mark.parametrize(
    ("env", "takes"),
    [
        ({}, True),
        ({"HOST": "0.0.0.0", "ALLOW_EMBEDDED": "1"}, False),
        ({"DATABASE_URL": "postgresql://db/x", "REDIS_URL": "redis://cache"}, False),
        ({"PUBLIC_URL": "https://voice.example.com", "ALLOW_EMBEDDED": "1"}, False),
        (KEYLESS, False),
        (KEYLESS | {"HOST": "127.0.0.1"} | PAGES, False),
        (KEYLESS | {"ALLOW_KEYLESS_CALLS": "on"}, True),
        (PRODUCTION, True),
    ],
)
def test_browser_calls_need_a_key_where_strangers_come(env: dict[str, str], takes: bool) -> None:
    assert Config.from_env(env).takes_browser_calls is takes


def test_no_secret_is_shown() -> None:
    config = Config.from_env(PRODUCTION)
    shown = repr(config)
    expected = {SECRET, "twilio-token", "twilio-token-next", "browser-key-0123456789", "pw-in-url", "redis-pw"}
    expected |= {"KEY-of-telnyx", "shared-secret=1", "shared-secret-2", "metrics-key-0123456789"}
    expected |= PROVIDER_KEYS | {"Bearer tool-secret", "tool-secret"}
    assert set(config.secrets) == expected
    for secret in expected:
        assert secret not in shown


@pytest.mark.parametrize(
    "name",
    ["TOOL_SECRETS", "DATABASE_URL", "TALKSPURT_SECRET", "API_KEY", "TWILIO_SHARED_KEYS", "AZURE_SPEECH_ENDPOINT"],
)
def test_a_refused_secret_is_not_shown(name: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Config.from_env({name: "pass:w0rd"})
    assert "w0rd" not in str(refused.value)


def test_tools_have_secrets_by_name_and_hosts_of_their_own() -> None:
    tools = Config.from_env(PRODUCTION).tools
    assert tools.secrets == {"crm": "Bearer tool-secret"}
    assert tools.private_hosts == ("crm.internal", "10.1.2.3")
    for name, wrong in (
        ("TOOL_SECRETS", "[]"), ("TOOL_SECRETS", '{"crm": 1}'), ("TOOL_SECRETS", '{"crm": "short"}'),
        ("TOOL_SECRETS", '{"a b": "long enough"}'), ("TOOL_SECRETS", '{"crm": "two\\nlines"}'),
        ("TOOL_PRIVATE_HOSTS", "crm.internal:8080"), ("TOOL_PRIVATE_HOSTS", "http://crm"),
    ):  # fmt: skip
        with pytest.raises(ConfigError) as refused:
            Config.from_env({name: wrong})
        assert refused.value.variable == name


def test_the_signing_key_is_made_once_and_kept_private(tmp_path: Path) -> None:
    first = Config.from_env({}).store.signing_key()
    path = tmp_path / "var" / "secret"
    assert len(first) == 64 and path.stat().st_mode & 0o777 == 0o600
    assert Config.from_env({}).store.signing_key() == first
    assert [p.name for p in path.parent.iterdir()] == ["secret"]
    path.write_text("cut")
    with pytest.raises(ConfigError, match="DATA_DIR"):
        Config.from_env({}).store.signing_key()
    assert Config.from_env(PRODUCTION).store.signing_key() == SECRET.encode()


def test_the_example_lists_exactly_the_variables_that_are_read() -> None:
    text = (ROOT / "deploy" / "talkspurt.env.example").read_text()
    assert tuple(sorted(re.findall(r"^#?([A-Z][A-Z0-9_]+)=", text, re.M))) == tuple(sorted(VARIABLES))


def test_every_variable_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    read: set[str] = set()

    class Spy(dict[str, str]):
        def get(self, key: str, default: str = "") -> str:  # type: ignore[override]
            read.add(key)
            return super().get(key, default)

    Config.from_env(Spy())
    assert read == set(VARIABLES)


def test_the_values_of_the_example_are_accepted() -> None:
    text = (ROOT / "deploy" / "talkspurt.env.example").read_text()
    values = dict(re.findall(r"^#([A-Z][A-Z0-9_]+)=(.*)$", text, re.M))
    values |= {"TWILIO_ACCOUNT_SID": SID, "TWILIO_AUTH_TOKEN": "t", "TALKSPURT_SECRET": SECRET}
    values |= {"TELNYX_API_KEY": "KEY1", "TELNYX_PUBLIC_KEY": TELNYX_KEY}
    config = Config.from_env(values)
    defaults = Config.from_env({})
    # Nobody's proxies are a default.
    limits = replace(config.limits, trusted_proxies=())
    assert (limits, config.media, config.log) == (defaults.limits, defaults.media, defaults.log)
    assert config.limits.trusted_proxies == (ip_network("10.0.0.0/24"), ip_network("2001:db8:1::/64"))


def test_shared_files_are_found_or_named() -> None:
    assert shared_file("schema.sql").name == "schema.sql"
    with pytest.raises(FileNotFoundError, match=r"no\.sql"):
        shared_file("no.sql")
