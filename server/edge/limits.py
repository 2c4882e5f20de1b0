"""What one peer may take before it has proved anything: numbers, and who has used how much of them.

Guarantees: pure bookkeeping, no socket and no clock; memory is bounded by `MAX_PEERS` entries. An IPv6 peer is its
/64: one host owns all of it. Leaves to others: refusing (front_door.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

MAX_PEERS = 8_192
"""Peers remembered at once, about 250 B each; only those with nothing open are forgotten early."""

LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeLimits:
    """Bounds of the front door. `exempt_networks` are free of the per-peer ones only."""

    head_bytes: int = 8_192
    """Request line and headers; carriers send under 1.5 KiB."""
    head_ms: int = 5_000
    admit_ms: int = 1_000
    """Token look-up before the upgrade; Redis itself has 50 ms."""
    answer_linger_ms: int = 1_000
    """How long a refused peer may take to read why."""
    body_bytes: int = 1_048_576
    body_ms: int = 10_000
    write_ms: int = 10_000
    """Longest wait for a peer to read what was written."""
    keep_alive_ms: int = 5_000
    keep_alive_requests: int = 0
    """Further requests on one connection; 0 closes after each answer, because the front door routes by the first."""
    tls_handshake_ms: int = 5_000
    open_per_peer: int = 200
    """Connections of one peer that are not (yet) media."""
    open_total: int = 2_000
    connections_per_s: float = 20.0
    connections_burst: int = 100
    """A carrier sends the webhooks of many calls from few addresses, each on a connection of its own."""
    exempt_networks: tuple[IPv4Network | IPv6Network, ...] = LOOPBACK
    """A TLS proxy is one address for all callers. It has to limit by itself; put its network here."""

    def __post_init__(self) -> None:
        for name in ("head_bytes", "head_ms", "admit_ms", "answer_linger_ms", "body_bytes", "body_ms", "write_ms",
                     "keep_alive_ms", "tls_handshake_ms", "open_per_peer", "open_total", "connections_per_s",
                     "connections_burst"):  # fmt: skip
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}: expected a positive number, got {getattr(self, name)}")
        if self.keep_alive_requests < 0:
            raise ValueError(f"keep_alive_requests: expected 0 or more, got {self.keep_alive_requests}")


class _Peer:
    __slots__ = ("open", "tokens", "updated_s")

    def __init__(self, tokens: float, now_s: float) -> None:
        self.open = 0
        self.tokens = tokens
        self.updated_s = now_s


class PeerLimits:
    """Counts un-upgraded connections by peer and lets new ones through a token bucket."""

    __slots__ = ("_limits", "_open_total", "_peers")

    def __init__(self, limits: EdgeLimits) -> None:
        self._limits = limits
        self._peers: dict[str, _Peer] = {}
        self._open_total = 0

    @property
    def open_total(self) -> int:
        return self._open_total

    def key(self, host: str) -> str | None:
        """The name under which a socket address is counted; None: exempt, or no address (a Unix socket)."""
        try:
            address = ip_address(host.partition("%")[0])
        except ValueError:
            return None
        if isinstance(address, IPv6Address):
            address = address.ipv4_mapped or address
        if any(address in network for network in self._limits.exempt_networks):
            return None
        return str(ip_network((address, 64), strict=False)) if isinstance(address, IPv6Address) else str(address)

    def enter(self, key: str | None, now_s: float) -> str | None:
        """Take a place. Returns the reason of a refusal (then no place was taken), or None."""
        if self._open_total >= self._limits.open_total:
            return "open_total"
        if key is not None:
            peer = self._peer(key, now_s)
            if peer is None:
                return "peers"
            if peer.open >= self._limits.open_per_peer:
                return "open_per_peer"
            if peer.tokens < 1:
                return "rate"
            peer.tokens -= 1
            peer.open += 1
        self._open_total += 1
        return None

    def leave(self, key: str | None) -> None:
        """Give the place back: the connection is gone, or has become media."""
        self._open_total -= 1
        if key is not None:
            self._peers[key].open -= 1

    def _peer(self, key: str, now_s: float) -> _Peer | None:
        burst = float(self._limits.connections_burst)
        peer = self._peers.get(key)
        if peer is None:
            if len(self._peers) >= MAX_PEERS and not self._forget(now_s):
                return None
            peer = self._peers[key] = _Peer(burst, now_s)
        elapsed_s = now_s - peer.updated_s
        peer.tokens = min(burst, peer.tokens + elapsed_s * self._limits.connections_per_s)
        peer.updated_s = now_s
        return peer

    def _forget(self, now_s: float) -> bool:
        """Drop the peers whose bucket is full again; when there is none, the half that has been idle longest."""
        refill_s = self._limits.connections_burst / self._limits.connections_per_s
        idle = sorted((p.updated_s, key) for key, p in self._peers.items() if p.open == 0)
        full = [key for updated_s, key in idle if now_s - updated_s >= refill_s]
        for key in full or [key for _, key in idle[: len(idle) // 2 + 1]]:
            del self._peers[key]
        return bool(idle)
