"""The bound socket: what is wrong names HOST or PORT, also when the port is lost between binding and listening."""

from __future__ import annotations

import pytest

from server.edge.listener import bind, listen
from server.errors import ConfigError


def test_who_listens_second_is_told_the_port() -> None:
    with bind("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with bind("127.0.0.1", port) as second:
            listen(first)
            with pytest.raises(ConfigError, match="Address already in use") as refused:
                listen(second)
            assert (refused.value.variable, refused.value.got) == ("PORT", str(port))
        with pytest.raises(ConfigError) as refused:
            bind("127.0.0.1", port)
        assert refused.value.variable == "PORT"


def test_processes_that_ask_for_it_share_a_port() -> None:
    with bind("127.0.0.1", 0, reuse_port=True) as first:
        listen(first)
        with bind("127.0.0.1", first.getsockname()[1], reuse_port=True) as second:
            listen(second)


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "nonsense.invalid", "a..b", "ä..b"])
def test_an_address_that_is_not_here_is_told(host: str) -> None:
    with pytest.raises(ConfigError) as refused:
        bind(host, 0)
    assert (refused.value.variable, refused.value.got) == ("HOST", host)
