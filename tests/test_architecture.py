"""Who may import whom. The table is the one of docs/architecture.md; a new folder needs a row here."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = ("audio_native", "providers", "server", "bench", "tests")

# package -> what of ours it may import, besides itself. The longest matching prefix decides.
PURE = {"audio_native", "providers.base", "server.errors"}
EDGE = {"audio_native", "providers.base", "providers.errors", "server"}
ALLOWED: dict[str, set[str]] = {
    "audio_native": set(),
    "providers": {"audio_native"},
    "server.errors": set(),
    "server.clock": set(),
    "server.queues": {"server.errors"},
    "server.metrics": set(),
    "server.logs": {"server.config"},
    "server.memory": set(),
    "server.config": {"server.errors"},
    "server.agent": PURE,
    "server.wire": PURE | {"server.agent"},
    "server.turn": PURE | {"server.agent", "server.wire"},
    "server.dialogue": PURE | {"server.agent", "server.wire", "server.turn"},
    "server.store": {
        "server.config", "server.errors", "server.clock", "server.queues", "server.metrics", "server.agent",
        "server.logs",
    },
    "server.tool": {"server.errors", "server.clock", "server.metrics", "server.agent", "server.store", "server.logs"},
    "server.carrier": {
        "server.config", "server.errors", "server.clock", "server.queues", "server.metrics", "server.agent",
    },
    "server.call": {
        "audio_native", "providers.base", "providers.errors", "providers.deadline", "providers.health",
        "server.wire", "server.turn", "server.dialogue", "server.agent", "server.store", "server.carrier",
        "server.tool", "server.clock", "server.queues", "server.metrics", "server.errors", "server.logs",
    },
    "server.edge": EDGE,
    "server.api": EDGE,
    "server.node": EDGE,
    "server.breakage": {"providers", "server"},
    "server.app": {"audio_native", "providers", "server"},
    "server.catalogue": {"providers", "server"},
    "server.live_check": {"providers", "server"},
    "server.live_hint": {"providers.errors"},
    "server.live_probe": {"providers", "server"},
    "server.live_agents": {"providers", "server"},
    "server.readiness": {"providers", "server"},
    "server.upkeep": {"providers", "server"},
    "server.__main__": {"server"},
    "bench": set(),
    "bench.micro": {"audio_native", "bench.out_file", "server.wire.grammar"},
    "tests": set(OURS),
}  # fmt: skip
# Time comes in as an argument, and nothing waits.
PURE_PACKAGES = ("server.agent", "server.wire", "server.turn", "server.dialogue")
NOT_PURE = {"asyncio", "time", "socket", "threading", "random", "datetime", "os", "uvloop", "httpx", "asyncpg", "redis"}
EXTERNAL_OF_NATIVE = {"numpy", "soxr", "_webrtcvad"}


def module_of(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


def sources(*tops: str) -> list[Path]:
    return sorted(p for top in tops for p in (ROOT / top).rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            # `from server.dialogue import event` imports server.dialogue.event.
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                exists = (ROOT / inner.replace(".", "/")).with_suffix(".py").exists()
                yield inner if exists else node.module


def row(module: str) -> str:
    matches = [name for name in ALLOWED if module == name or module.startswith(name + ".")]
    assert matches, f"{module}: no row in the import table"
    return max(matches, key=len)


def is_within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


@pytest.mark.parametrize("path", sources("audio_native", "providers", "server", "bench"), ids=module_of)
def test_imports_follow_the_table(path: Path) -> None:
    module = module_of(path)
    if module == "server":
        return
    own = row(module)
    for name in imports(path):
        if name.split(".")[0] not in OURS:
            continue
        allowed = ALLOWED[own] | {own, "server.errors"} | ({"providers"} if own == "providers" else set())
        fine = any(is_within(name, one) for one in allowed) and not (
            name.startswith("server.app") and own != "server.__main__"
        )
        assert fine, f"{module} imports {name}"


@pytest.mark.parametrize("path", [p for name in PURE_PACKAGES for p in sources(name.replace(".", "/"))], ids=module_of)
def test_cores_know_no_clock_and_no_io(path: Path) -> None:
    for name in imports(path):
        assert name.split(".")[0] not in NOT_PURE, f"{module_of(path)} imports {name}"


def test_native_knows_only_its_libraries() -> None:
    known = {"audio_native", "__future__", *EXTERNAL_OF_NATIVE}
    import sys

    for path in sources("audio_native"):
        for name in imports(path):
            top = name.split(".")[0]
            assert top in known or top in sys.stdlib_module_names, f"{module_of(path)} imports {name}"


def test_simulators_share_nothing_with_the_product() -> None:
    for path in sources("bench/sim"):
        for name in imports(path):
            assert name.split(".")[0] not in ("server", "providers", "audio_native"), (
                f"{module_of(path)} imports {name}"
            )


def test_broad_excepts_live_only_where_they_may() -> None:
    """CONTRIBUTING.md has the list: files, and folders with a slash; each of them has one."""
    rule = re.search(r"- `except Exception`.*?;", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    assert rule is not None
    may = [one for one in re.findall(r"`([^`]+)`", rule[0]) if "/" in one]
    broad = re.compile(r"except\*?\s+(?:Base)?Exception\b|except\s*:")
    paths = sources("server", "providers", "audio_native")
    found = {path.relative_to(ROOT).as_posix() for path in paths if broad.search(path.read_text())}
    assert {one for one in may if any(path.startswith(one) for path in found)} == set(may)
    assert [path for path in found if not path.startswith(tuple(may))] == []


def test_tasks_are_created_only_where_they_are_owned() -> None:
    owners = {
        "server/call/session.py": "one TaskGroup for a call",
        "server/call/plane.py": "one task for a stream, in the group of the process",
    }
    for path in sources("server/wire", "server/turn", "server/dialogue", "server/call", "server/carrier"):
        if path.relative_to(ROOT).as_posix() not in owners:
            assert "create_task" not in path.read_text(), f"{path.relative_to(ROOT)}: creates a task"
