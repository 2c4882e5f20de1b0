"""What a result says of how it came about: whether it was pinned, and every option that was not as usual.

Some options make a run easier or harder to pass, and two move a bound that the server is held to. A table or a JSON
file goes further than the command line, so both say so.
"""

from __future__ import annotations

import argparse
from typing import Any

from bench.load.rig import two_cores
from bench.load.verdict import MAX_CLEAR_P95_MS, MAX_RSS_GROWTH_PERCENT

USUAL: dict[str, Any] = {
    "pin": True,
    "lead_ms": 200,
    "chunk_ms": 100,
    "breakage": "",
    "jitter": False,
    "noise": "babble",
    "snr_db": 10.0,
    "max_clear_ms": MAX_CLEAR_P95_MS,
    "max_growth_percent": MAX_RSS_GROWTH_PERCENT,
}
"""Options by the names of their arguments, with the defaults; a load has those that concern it."""


def conditions(asked: argparse.Namespace) -> dict[str, Any]:
    """`pinned`: server and generator had a core each. `asked_otherwise`: what was not as usual, as text."""
    given = {name: getattr(asked, name) for name in USUAL if hasattr(asked, name)}
    otherwise = [f"{name} {value}" for name, value in given.items() if value != USUAL[name]]
    return {"pinned": asked.pin and two_cores() is not None, "asked_otherwise": otherwise}
