"""Where Azure Speech is, with which account, and how the SDK is run there. No call knows any of this."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit

SCHEMES = ("https", "http", "wss", "ws")


@dataclass(frozen=True, slots=True, kw_only=True)
class AzureSpeechOptions:
    """The account and the SDK's settings; the defaults are for telephony.

    Args:
        key: of the Speech resource; bound to the region.
        region: like westeurope. Either it or `endpoint`.
        endpoint: base address without a path. https://name.cognitiveservices.azure.com (custom domain, private link)
            or ws://127.0.0.1:9000 (a host that serves the regional paths, such as a simulator).
        use_token: exchange the key for a token of ten minutes, so that the key itself is sent to one address only.
        commit: our own VAD ends the utterance by the service's force-commit feature (a preview); without it silence
            is fed until the service's own segmentation ends the phrase.
        final_wait_ms: from our commit on; then the last interim is taken for the final.
        empty_wait_ms: the same while there is no text at all: a short word may not have had an interim yet.
        connect_ms: longest wait for the socket of a recogniser.
        silent_ms: audio of speech without any answer after which the recogniser is held for dead.
        keepalive_ms: pause between two utterances after which 100 ms of silence are sent; 0 sends none.
        polling_ms: of the SDK's socket; 0 leaves the SDK's 10 ms. 50: recognition costs a third less, some 60 ms later.
        sdk_retries: attempts that the SDK makes itself, 260 ms each, before it tells us.
        warm_limit: synthesizers kept connected and idle at most.
        warm_s: age at which an idle synthesizer is replaced; the service drops sockets that idle for minutes.
        text_stream: clauses go by the text-streaming input (a preview, no SSML).
        telephone_effect: the service's equaliser for telephone audio, at 8 kHz only.
        voices_ttl_s: how long the list of voices is kept.
    """

    key: str = field(default="", repr=False)
    region: str = ""
    endpoint: str = ""
    use_token: bool = False
    commit: bool = True
    final_wait_ms: int = 400
    empty_wait_ms: int = 1500
    connect_ms: int = 2500
    silent_ms: int = 3000
    keepalive_ms: int = 20_000
    polling_ms: int = 0
    sdk_retries: int = 0
    warm_limit: int = 40
    warm_s: int = 240
    text_stream: bool = False
    telephone_effect: bool = False
    voices_ttl_s: int = 3600

    def __post_init__(self) -> None:
        if not self.key:
            raise ValueError("key: expected the key of a Speech resource")
        if bool(self.region) == bool(self.endpoint):
            raise ValueError("expected either a region or an endpoint")
        if self.endpoint:
            parts = urlsplit(self.endpoint)
            if parts.scheme not in SCHEMES or not parts.hostname or parts.path.strip("/"):
                raise ValueError(f"endpoint: expected {'|'.join(SCHEMES)}://host without a path, got {self.endpoint!r}")
        for name, low, high in (
            ("final_wait_ms", 1, 10_000), ("empty_wait_ms", 1, 10_000), ("connect_ms", 1, 60_000),
            ("silent_ms", 1, 60_000), ("keepalive_ms", 0, 600_000), ("polling_ms", 0, 200),
            ("sdk_retries", 0, 10), ("warm_limit", 0, 1000), ("warm_s", 1, 3600), ("voices_ttl_s", 0, 86_400),
        ):  # fmt: skip
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name}: expected {low} to {high}, got {value}")

    @property
    def is_host(self) -> bool:
        """Whether `endpoint` serves the regional paths (a ws address) rather than those of a custom domain."""
        return self.endpoint.startswith(("ws:", "wss:"))

    @property
    def synthesis_url(self) -> str:
        """Base of the synthesis service over HTTP: the list of voices is below it."""
        if self.region:
            return f"https://{self.region}.tts.speech.microsoft.com"
        base = self.endpoint.rstrip("/")
        return base.replace("ws", "http", 1) if self.is_host else f"{base}/tts"

    @property
    def token_url(self) -> str:
        if self.region:
            return f"https://{self.region}.api.cognitive.microsoft.com/sts/v1.0/issueToken"
        base = self.endpoint.rstrip("/")
        return (base.replace("ws", "http", 1) if self.is_host else base) + "/sts/v1.0/issueToken"

    @property
    def text_stream_url(self) -> str:
        """Where clauses stream in; the classic address takes SSML only."""
        if self.region:
            return f"wss://{self.region}.tts.speech.microsoft.com/cognitiveservices/websocket/v2"
        base = self.endpoint.rstrip("/")
        return (base if self.is_host else base.replace("http", "ws", 1) + "/tts") + "/cognitiveservices/websocket/v2"
