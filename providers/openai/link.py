"""One account at one service: its SDK client, the connections under it, what it said about its limits.

    adapter → Link.post → SDK (address, key, errors) → http client → LaneTransport → socket

The SDK is asked by its own `post` and `get`, which take a body as it is. Its typed methods check every field of every
message against its types first: 7 ms of the event loop for forty messages and eight tools.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx2
import openai
import orjson

from providers.check import Check
from providers.errors import Phase, ProviderError, ProviderRejected, ProviderUnavailable
from providers.openai.failure import SDK_ERRORS, error_fields, translate
from providers.openai.lane import LaneTransport
from providers.openai.limits import LimitWatch
from providers.openai.options import AzureOpenAiOptions, CompatibleOptions, LinkOptions, OpenAiOptions

MAX_MODELS_BYTES = 4 << 20
NO_KEY = "no-key"
ClientMaker = Callable[[Any], Any]
"""(http client) → SDK client."""


class Link:
    """Everything between an adapter and its service's socket. Belongs to one event loop.

    Args:
        name: of the adapter, for errors.
        make: makes the SDK's client on an http client.
        http: httpx or httpx2, whichever the SDK uses.
        prefix: of every path, for SDKs that want whole paths.
        errors: what the SDK raises, besides SDK_ERRORS.
        headers: of every request, besides the SDK's own.
        max_bytes: of one answer.
    """

    def __init__(
        self,
        name: str,
        make: ClientMaker,
        options: LinkOptions,
        *,
        url: str,
        max_bytes: int,
        http: Any = httpx2,
        sdk: Any = openai,
        prefix: str = "",
        errors: tuple[type[Exception], ...] = (),
        headers: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = name
        self.options = options
        self.limits = LimitWatch(name)
        self.errors = (*SDK_ERRORS, *errors)
        self._http = http
        self._sdk = sdk
        self._prefix = prefix
        self._headers = dict(headers or {})
        self._is_closed = False
        self.lanes = LaneTransport(
            http, options, tls=url.startswith("https"), max_bytes=max(max_bytes, MAX_MODELS_BYTES), warm=self._warm
        )
        client = http.AsyncClient(
            transport=self.lanes,
            timeout=http.Timeout(
                connect=options.connect_ms / 1000,
                read=options.read_ms / 1000,
                write=options.write_ms / 1000,
                pool=options.connect_ms / 1000,
            ),
            headers={"accept-encoding": "identity"},
            follow_redirects=False,
            trust_env=False,
        )
        self._client = make(client)

    async def post(self, path: str, *, body: Any = None, files: Any = None) -> Any:
        """Send one request and wait for the head of the answer: an httpx response, open, to be closed by the caller.

        Raises:
            ProviderError: whatever else happens. The service's own error object is in `refusal`.
        """
        if self._is_closed:
            raise ProviderUnavailable("closed", provider=self.name)
        headers = self._headers | ({"Content-Type": "multipart/form-data"} if files is not None else {})
        try:
            response = await self._client.post(
                self._prefix + path,
                cast_to=self._http.Response,
                body=body,
                files=files,
                options={"headers": headers},
                stream=True,
                stream_cls=self._sdk.AsyncStream,
            )
        except self.errors as error:
            refusal = getattr(error, "response", None)
            if refusal is not None:
                self.limits.see(refusal.headers)
            ours = translate(error, provider=self.name, phase="first", link=self.options)
            if isinstance(ours, ProviderRejected):
                raise Refusal(ours, error_fields(getattr(error, "body", None))) from None
            raise ours from None
        self.limits.see(response.headers)
        return response

    async def get(self, path: str) -> Any:
        """A whole answer as JSON. Raises ProviderError."""
        if self._is_closed:
            raise ProviderUnavailable("closed", provider=self.name)
        try:
            options = {"headers": self._headers}
            response = await self._client.get(self._prefix + path, cast_to=self._http.Response, options=options)
            return orjson.loads(response.content)
        except self.errors as error:
            raise self.translate(error, "first") from None

    def translate(self, error: Exception, phase: Phase) -> ProviderError:
        return translate(error, provider=self.name, phase=phase, link=self.options)

    async def aclose(self) -> None:
        self._is_closed = True
        await self._client.close()

    async def check_listed(self, model: str) -> Check:
        """Ask for the list of models, and whether `model` is on it. Never raises."""
        began_s = time.perf_counter()
        try:
            listed = await self.get("/models")
        except ProviderError as error:
            return failed_check(self.name, model, error)
        latency_ms = (time.perf_counter() - began_s) * 1000
        names = _names(listed)
        is_found = model in names if names else None
        problem = "" if is_found is not False else f"model {model} is not on the account's list of {len(names)}"
        return Check(
            provider=self.name, is_reached=True, latency_ms=latency_ms, wanted=model, is_found=is_found, problem=problem
        )

    async def _warm(self) -> None:
        """Whatever the service answers, the connection is open then."""
        try:
            await self.get("/models")
        except ProviderRejected:
            pass


class Refusal(Exception):
    """A ProviderRejected with the service's error object. Between a link and its adapter only."""

    def __init__(self, error: ProviderRejected, fields: Mapping[str, Any]) -> None:
        super().__init__(str(error))
        self.error = error
        self.fields = fields


def failed_check(name: str, wanted: str, error: ProviderError) -> Check:
    is_reached = isinstance(error, ProviderRejected) and error.status not in (401, 403)
    missing = isinstance(error, ProviderRejected) and error.status == 404
    return Check(
        provider=name, is_reached=is_reached, wanted=wanted, is_found=False if missing else None,
        problem=str(error), failure=error,
    )  # fmt: skip


def _names(listed: Any) -> set[str]:
    data = listed.get("data") if isinstance(listed, dict) else None
    return {one["id"] for one in data or () if isinstance(one, dict) and isinstance(one.get("id"), str)}


# ── services ──────────────────────────────────────────────────────────────────────────────────────────────────


def openai_link(name: str, options: OpenAiOptions, *, max_bytes: int) -> Link:
    def make(http: Any) -> Any:
        return _quiet(
            openai.AsyncOpenAI(api_key=options.key, base_url=options.base_url, max_retries=0, http_client=http)
        )

    return Link(name, make, options.link, url=options.base_url, max_bytes=max_bytes)


def azure_link(name: str, options: AzureOpenAiOptions, *, max_bytes: int) -> Link:
    """Classic: the deployment is in the path and the key in `api-key`. v1: OpenAI's own paths, the key as bearer."""

    def make(http: Any) -> Any:
        if options.surface == "v1":
            base_url = f"{options.endpoint.rstrip('/')}/openai/v1/"
            return _quiet(openai.AsyncOpenAI(api_key=options.key, base_url=base_url, max_retries=0, http_client=http))
        return _quiet(
            openai.AsyncAzureOpenAI(
                azure_endpoint=options.endpoint,
                api_version=options.api_version,
                api_key=options.key,
                max_retries=0,
                http_client=http,
            )
        )

    return Link(name, make, options.link, url=options.endpoint, max_bytes=max_bytes)


def compatible_link(name: str, options: CompatibleOptions, *, max_bytes: int) -> Link:
    def make(http: Any) -> Any:
        # Without a key of its own the SDK would take OpenAI's from the environment and send it to a stranger.
        key = options.key or NO_KEY
        return _quiet(openai.AsyncOpenAI(api_key=key, base_url=options.base_url, max_retries=0, http_client=http))

    headers = {} if options.key else {"Authorization": openai.Omit()}
    return Link(name, make, options.link, url=options.base_url, max_bytes=max_bytes, headers=headers)


def _quiet(client: Any) -> Any:
    """Without what the SDK found in the environment: the configuration is read in one place."""
    client.organization = client.project = None
    return client
