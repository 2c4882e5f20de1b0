"""Bookkeeping of peers, without a socket."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from server.edge.limits import MAX_PEERS, EdgeLimits, PeerLimits


def limits(**changes: object) -> PeerLimits:
    return PeerLimits(EdgeLimits(**{"exempt_networks": (), **changes}))  # type: ignore[arg-type]


def test_open_connections_of_a_peer() -> None:
    peers = limits(open_per_peer=2, connections_burst=10)
    assert [peers.enter("a", 0.0) for _ in range(3)] == [None, None, "open_per_peer"]
    assert peers.enter("b", 0.0) is None
    peers.leave("a")
    assert peers.enter("a", 0.0) is None
    assert peers.open_total == 3


def test_rate_of_a_peer_refills() -> None:
    peers = limits(connections_per_s=20.0, connections_burst=3)
    assert [peers.enter("a", 0.0) for _ in range(4)] == [None, None, None, "rate"]
    assert peers.enter("a", 0.04) == "rate"
    assert peers.enter("a", 0.06) is None
    assert [peers.enter("a", 60.0) for _ in range(4)] == [None, None, None, "rate"]


def test_total_holds_for_exempt_peers_too() -> None:
    peers = limits(open_total=2)
    assert [peers.enter(None, 0.0) for _ in range(3)] == [None, None, "open_total"]


def test_names_of_peers() -> None:
    peers = PeerLimits(EdgeLimits(exempt_networks=(ip_network("10.0.0.0/8"),)))
    assert peers.key("10.1.2.3") is None
    assert peers.key("::ffff:10.1.2.3") is None
    assert peers.key("192.0.2.1") == peers.key("::ffff:192.0.2.1") == "192.0.2.1"
    assert peers.key("2001:db8:0:1::1") == peers.key("2001:db8:0:1:ffff::2") == "2001:db8:0:1::/64"
    assert peers.key("fe80::1%eth0") == "fe80::/64"
    assert peers.key("") is None
    assert PeerLimits(EdgeLimits()).key("127.0.0.1") is None


def test_memory_of_peers_is_bounded() -> None:
    peers = limits(open_total=10 * MAX_PEERS)
    for n in range(3 * MAX_PEERS):
        assert peers.enter(f"peer {n}", n / 1e3) is None
        peers.leave(f"peer {n}")
    assert len(peers._peers) <= MAX_PEERS


def test_a_peer_with_open_connections_is_never_forgotten() -> None:
    peers = limits(open_total=10 * MAX_PEERS)
    for n in range(MAX_PEERS):
        assert peers.enter(f"peer {n}", 0.0) is None
    assert peers.enter("one more", 0.0) == "peers"
    peers.leave("peer 7")
    assert peers.enter("one more", 0.0) is None


def test_wrong_limits_are_refused() -> None:
    for name in ("head_bytes", "admit_ms", "open_per_peer", "connections_per_s"):
        with pytest.raises(ValueError, match=name):
            EdgeLimits(**{name: 0})
    with pytest.raises(ValueError, match="keep_alive_requests"):
        EdgeLimits(keep_alive_requests=-1)
