"""Runs a test under each instruction set that this processor has."""

from collections.abc import Iterator

import pytest

from audio_native import dispatch


@pytest.fixture(params=dispatch.AVAILABLE)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    before = dispatch.ISA
    dispatch.set_isa(request.param)
    yield request.param
    dispatch.set_isa(before)
