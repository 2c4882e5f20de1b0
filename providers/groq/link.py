"""One account at Groq, by Groq's SDK."""

from __future__ import annotations

from typing import Any

import groq
import httpx

from providers.openai.link import Link
from providers.openai.options import GroqOptions


def groq_link(name: str, options: GroqOptions, *, max_bytes: int) -> Link:
    """The SDK wants whole paths, stands on classic httpx, and lets its errors through while a stream runs."""

    def make(http: Any) -> Any:
        return groq.AsyncGroq(api_key=options.key, base_url=options.base_url, max_retries=0, http_client=http)

    return Link(
        name, make, options.link, url=options.base_url, max_bytes=max_bytes, http=httpx, sdk=groq,
        prefix="/openai/v1", errors=(groq.GroqError,),
    )  # fmt: skip
