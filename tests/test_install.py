"""What is installed works from anywhere, is all that the product uses, and no more."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_the_command_runs_from_another_folder(tmp_path: Path) -> None:
    command = Path(sys.executable).parent / "talkspurt"
    if not command.exists():
        pytest.fail(f"{command} is not installed: make build")
    done = subprocess.run(
        [command, "--help"], cwd=tmp_path, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, timeout=30,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "doctor" in done.stdout and "replay" in done.stdout


def test_every_dependency_is_used_and_defended() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[<>=!~ ;\[]", one)[0].lower() for one in project["dependencies"]}
    page = (ROOT / "docs" / "dependencies.md").read_text().partition("## For tests")[0]
    assert set(re.findall(r"^\| ([a-z][\w-]*)[ \d.]* \|", page, re.MULTILINE)) - {"package"} == names
    product = [path for part in ("server", "providers", "audio_native") for path in (ROOT / part).rglob("*.py")]
    text = "\n".join(path.read_text() for path in product)
    modules: dict[str, set[str]] = {}
    for module, owners in packages_distributions().items():
        for owner in owners:
            modules.setdefault(re.sub(r"[-_.]+", "-", owner).lower(), set()).add(module)
    for name in names:
        # Some are only looked into: `find_spec("moonshine_voice")`.
        found = any(re.search(rf"(?:import|from) {one}\b|\"{one}\"", text) for one in modules[name])
        assert found, f"{name} is used by nothing"


def test_every_pattern_of_shipped_files_matches_one() -> None:
    tree = ast.parse((ROOT / "setup.py").read_text())
    (patterns,) = [
        ast.literal_eval(one.value)
        for one in ast.walk(tree)
        if isinstance(one, ast.keyword) and one.arg == "package_data"
    ]
    for package, globs in patterns.items():
        for one in globs:
            assert any((ROOT / package).glob(one)), f"setup.py: {package}/{one} matches nothing"
