"""One suite over every adapter: the table of table.py, each cell at the adapter's own simulator, and no cell empty."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.sim.azure import AzureSim
from providers.errors import ProviderTimeout
from providers.observer import Unobserved
from server.catalogue import Catalogue
from server.config import Config
from tests.bench.azure_client import serving
from tests.providers.azure_service import book, let_go
from tests.providers.cells import try_cell
from tests.providers.openai_service import run
from tests.providers.rigs import rig_of
from tests.providers.table import ROWS, STANDS_FOR, TABLE, Case, as_markdown

RUN = [(name, row) for name, column in TABLE.items() for row in ROWS if not isinstance(column.get(row), str)]


@pytest.fixture(scope="module")
def served() -> Iterator[AzureSim]:
    with serving(AzureSim(book=book())) as one:
        yield one


@pytest.fixture
def azure(request: pytest.FixtureRequest) -> Iterator[Callable[[], AzureSim]]:
    used: list[AzureSim] = []

    def get() -> AzureSim:
        used.append(request.getfixturevalue("served"))
        return used[-1]

    yield get
    if used:
        used[-1].faults.clear()
        let_go()


@pytest.mark.parametrize(("name", "row"), RUN)
def test_cell(name: str, row: str, azure: Callable[[], AzureSim]) -> None:
    async def main() -> None:
        async with rig_of(name, azure) as rig:
            cell = TABLE[name][row]
            assert isinstance(cell, tuple)
            await try_cell(rig, row, cell)

    run(main)


# ── the table itself ──────────────────────────────────────────────────────────────────────────────────────────


def test_no_cell_is_empty() -> None:
    for name, column in TABLE.items():
        assert list(column) == list(ROWS), f"{name}: rows without a cell, or cells without a row"
        for row, cell in column.items():
            if isinstance(cell, str):
                assert len(cell.split()) >= 4, f"{name}, {row}: expected a reason in words"
            else:
                assert cell and all(isinstance(case, Case) for case in cell), f"{name}, {row}"
                assert (name, row) in RUN
            assert not isinstance(cell, str) or row not in ("stream", "cancel"), f"{name}: that has a meaning for all"


def test_every_adapter_of_the_product_has_a_column() -> None:
    accounts = {
        "AZURE_SPEECH_KEY": "some-key", "AZURE_SPEECH_REGION": "westeurope", "OPENAI_API_KEY": "some-key",
        "GROQ_API_KEY": "some-key", "AZURE_OPENAI_API_KEY": "some-key",
        "AZURE_OPENAI_ENDPOINT": "https://x.openai.azure.com",
        "AZURE_OPENAI_DEPLOYMENT": "d", "COMPATIBLE_BASE_URL": "http://127.0.0.1:1/v1", "COMPATIBLE_MODEL": "m",
    }  # fmt: skip
    catalogue = Catalogue(Config.from_env(accounts).providers, Unobserved())
    shelves = {"stt": catalogue._ears, "llm": catalogue._models, "tts": catalogue._voices}
    wanted = {(service, name) for service, shelf in shelves.items() for name in shelf.makers}
    assert wanted == {(service, name) for service, names in STANDS_FOR.values() for name in names}
    assert set(STANDS_FOR) == set(TABLE)


def test_each_deadline_is_asked_for_by_its_phase() -> None:
    """A first and an idle timeout are never taken for each other."""
    for name, column in TABLE.items():
        for row, cell in column.items():
            for case in () if isinstance(cell, str) else cell:
                if case.error is ProviderTimeout:
                    assert case.attributes["phase"] in ("connect", "first", "idle", "total"), (name, row)
        phases = {row: {case.attributes.get("phase") for case in column[row]} for row in ("first", "idle")
                  if not isinstance(column[row], str)}  # fmt: skip
        assert phases.get("first", {"first"}) == {"first"}, name
        # groq-stt answers in one piece only: there is no beginning that was heard.
        assert "idle" in phases.get("idle", {"idle"}) or name == "groq-stt", name


def test_the_documentation_shows_the_table() -> None:
    page = (Path(__file__).parents[2] / "docs" / "providers.md").read_text()
    assert as_markdown() in page, "run python -m tests.providers.table"
