"""What a failed probe of `talkspurt doctor --live` means and what to do about it, in one line.

    ProviderError ─► what happened, in few words; what to check, by its type, with the account's variables

Pure. A refused key's answer is never quoted: services put a part of the key into it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from providers.errors import ProviderError, ProviderProtocolError, ProviderRejected, ProviderTimeout

MAX_QUOTED_CHARS = 120
_NO_MORE_MONEY = ("insufficient_quota", "credit_balance_exhausted", "billing_hard_limit_reached")


Reason = Literal["name", "refused", "timeout", "network"]


class NotReachable(ProviderError):
    """No connection to the service's address."""

    def __init__(self, host: str, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.host = host
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Account:
    """Where the settings of one account come from. `models`: probe -> variable of its model."""

    key: str
    address: str
    models: Mapping[str, str]
    region: str = ""  # of Azure Speech, where it is set in place of an endpoint


def explain(error: ProviderError, probe: str, account: Account) -> str:
    """What happened; what to check."""
    match error:
        case NotReachable():
            return _not_reachable(error, account)
        case ProviderRejected():
            return _rejected(error, probe, account)
        case ProviderTimeout():
            return f"{_plain(error)}; reached but silent: check {account.address} and proxies in between, or try later"
        case ProviderProtocolError():
            return f"{_plain(error)}; it answers in another language: check {account.address}"
    text = _plain(error)
    status = _status(text)
    if status == 404:
        return _wrong_address(f"status 404: {text}", account)
    if status >= 500:
        return f"status {status}: the service fails; look at the vendor's status page, try later"
    if re.search(r"(?i)certificate|\bssl\b|\btls\b", text):
        return f"{text}; check the clock, the CA certificates, and proxies in between that open TLS"
    return f"{text}; the connection broke: check {account.address} and proxies in between, or try later"


def _rejected(error: ProviderRejected, probe: str, account: Account) -> str:
    status, model = error.status, account.models.get(probe, "")
    if status == 401:
        belongs = f", and that it belongs to {account.address}" if "AZURE" in account.key else ""
        return f"status 401: the key is not accepted; check {account.key}{belongs}"
    if status == 403:
        of_model = f", whether it may use {model}" if model else ""
        return (
            f"status 403: forbidden; the key is known: check the account's rights{of_model}, its firewall rules and "
            "the countries that it may be used from"
        )
    if status == 404:
        wrong = f"{_plain(error)}"
        return f"{wrong}; check {model} and {account.address}" if model else _wrong_address(wrong, account)
    if status == 402 or error.code in _NO_MORE_MONEY:
        return f"status {status}: the quota is used up; check the account's plan and credit"
    if status in (429, 498):
        return f"status {status}: too many requests for the account's quota; wait, or have the limit raised"
    return f"{_plain(error)}; check {model or account.address}"


def _not_reachable(error: NotReachable, account: Account) -> str:
    if error.reason == "name":
        region = f"; there is no region {account.region}, or no name service" if account.region else ""
        return f"not reachable: no address for {error.host}{region}; check {account.address}"
    if error.reason == "refused":
        return f"not reachable: {error.host} refused the connection; check {account.address}"
    if error.reason == "timeout":
        return f"not reachable: {_plain(error)}; check {account.address}, the firewall and the network"
    return f"not reachable: {_plain(error)}; check {account.address} and the network"


def _wrong_address(what: str, account: Account) -> str:
    return f"{what}; no such service at this address: check {account.address}"


def _status(text: str) -> int:
    found = re.search(r"\(([45]\d\d)\)|\b(?:status|HTTP) ([45]\d\d)\b", text)
    return int(found[1] or found[2]) if found else 0


def _plain(error: ProviderError) -> str:
    """The error's own words, on one line, without the adapter's name."""
    text = " ".join(str(error).split()).removeprefix(f"{error.provider}: ")
    return text if len(text) <= MAX_QUOTED_CHARS else f"{text[:MAX_QUOTED_CHARS].rstrip()}…"
