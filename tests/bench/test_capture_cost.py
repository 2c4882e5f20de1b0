"""What the bench of captures makes of its cells, and of callgrind's dumps."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from bench.load.capture_cost import NUMBERS, VARIANTS, Cell, Run, told, write_agents
from bench.load.capture_instructions import count


def test_a_slow_server_and_a_slow_window_favour_nobody() -> None:
    """Each variant once at each server and in each window; what those do to it cancels out."""
    names, costs = list(VARIANTS), {"off": 2.0, "on": 2.06, "audio": 2.2}
    servers, windows = (1.0, 1.3, 0.9), (1.0, 1.0, 1.5)
    cells = []
    for window in range(6):
        for server in range(3):
            variant = names[(server + window) % 3]
            cost = costs[variant] * servers[server] * windows[window % 3] * (1.1 if window >= 3 else 1.0)
            cells.append(Cell(server, window // 3, variant, cost))
    run = Run(cells, [])
    assert run.share("on") == pytest.approx(0.03) and run.share("audio") == pytest.approx(0.1)
    assert run.shares("on") == pytest.approx([0.03, 0.03])
    assert run.as_dict()["cost"]["audio"]["share"] == 0.1
    assert "+3.0%" in told(run) and "+10.0%" in told(run)


def test_the_agents_differ_in_their_captures_only(tmp_path: Path) -> None:
    write_agents(tmp_path, "silero")
    agents = [yaml.safe_load(path.read_text()) for path in sorted(tmp_path.glob("*.yaml"))]
    assert {agent.pop("name"): agent.pop("capture") for agent in agents} == VARIANTS
    assert sorted(agent.pop("numbers")[0] for agent in agents) == sorted(NUMBERS.values())
    assert agents[0] == agents[1] == agents[2]


def test_instructions_are_counted_once_and_without_the_collector(tmp_path: Path) -> None:
    dump = tmp_path / "out.1"
    dump.write_text(
        "version: 1\nevents: Ir\nob=(1) /usr/lib/python\nfl=(1) ceval.c\n"
        "fn=(1) _PyEval_EvalFrameDefault\n10 100\n+2 20\ncfn=(2) gc_collect_main\ncalls=1 5\n* 5000\n-1 3\n\n"
        "fn=(2)\n5 4000\n\nfn=(3) dict_traverse\n7 1000\n\nfn=(1)\n12 7\n\ntotals: 5130\n"
    )
    assert count(dump) == 130
