"""How calls end: one closed set, which the code, the metric and the operator's page have in common."""

from __future__ import annotations

import ast
import logging
import re
from pathlib import Path

import pytest

from server.call.plane import UNFINISHED
from server.metrics import OUTCOMES, Metrics

ROOT = Path(__file__).parent.parent


def outcomes_of(metrics: Metrics) -> dict[str, float]:
    (family,) = metrics.calls.collect()
    return {one.labels["outcome"]: one.value for one in family.samples if one.name == "calls_total"}


def ends_in_code() -> set[str]:
    """Every text by which server/call ends a call: what `end` and `_leave` are given, what `end_reason` is set to."""
    found: set[str] = set()
    for path in (ROOT / "server" / "call").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            values: list[ast.expr] = []
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in ("end", "_leave", "_never_began", "_expire")
            ):
                values = node.args
            elif isinstance(node, ast.Assign) and any(
                isinstance(one, ast.Attribute) and one.attr == "end_reason" for one in node.targets
            ):
                values = [node.value]
            texts = [one.value for value in values for one in ast.walk(value) if isinstance(one, ast.Constant)]
            found |= {text.partition(":")[0] for text in texts if isinstance(text, str) and text}
    return found


def test_every_end_of_the_code_is_an_outcome_and_the_other_way_round() -> None:
    assert ends_in_code() == set(OUTCOMES)
    assert UNFINISHED - {""} <= set(OUTCOMES)


def test_the_operators_page_has_the_same_set_with_the_same_words() -> None:
    page = (ROOT / "docs" / "operating.md").read_text()
    table = page.partition("| outcome | meaning |\n|---|---|\n")[2].partition("\n\n")[0]
    rows = dict(re.fullmatch(r"\| `(\w+)` \| (.*) \|", line).groups() for line in table.splitlines())  # type: ignore[union-attr]
    assert rows.pop("other")
    assert rows == OUTCOMES


def test_the_detail_of_a_reason_makes_no_series() -> None:
    metrics = Metrics()
    for reason in (*OUTCOMES, "agent_hung_up:idle", "agent_hung_up:goodbye"):
        metrics.observe_call_end("twilio", reason)
    assert outcomes_of(metrics) == {name: 3.0 if name == "agent_hung_up" else 1.0 for name in OUTCOMES}


@pytest.mark.parametrize("reason", ["", "tired", "tired:of it", "Caller_hung_up", "other"])
def test_an_unknown_reason_is_other_and_is_logged(reason: str, caplog: pytest.LogCaptureFixture) -> None:
    metrics = Metrics()
    with caplog.at_level(logging.ERROR, "server.metrics"):
        metrics.observe_call_end("twilio", reason)
    assert outcomes_of(metrics) == {"other": 1.0}
    (line,) = caplog.records
    assert vars(line)["event"] == "unknown_outcome" and vars(line)["reason"] == reason
