"""Which words leave a turn open."""

from __future__ import annotations

import pytest

from server.turn.endpoint import endpoint_delay_ms, is_open_ended


@pytest.mark.parametrize(
    ("text", "language", "is_open"),
    [
        ("I would like a table and", "en-US", True),
        ("My name is", "en-GB", True),
        ("um", "en-US", True),
        ("On Monday,", "en-US", True),
        ("On Monday", "en-US", False),
        ("I'd", "en-US", True),
        ("quiero una mesa para", "es-ES", True),
        ("quiero una mesa para cuatro", "es-ES", False),
        ("y", "es-MX", True),
        ("and", "de-DE", False),
        ("", "en-US", False),
        ("Yes.", "en-US", False),
    ],
)
def test_open_ended(text: str, language: str, is_open: bool) -> None:
    assert is_open_ended(text, language) is is_open
    assert endpoint_delay_ms(text, language, 500, 1500) == (1500 if is_open else 500)
