"""docs/start.ipynb in a fresh kernel: it runs, and shows what it shows in the repository."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).resolve().parent.parent / "docs" / "start.ipynb"
BAR = "application/vnd.jupyter.widget-view+json"


def shown(notebook) -> list[list[tuple[str, ...]]]:
    """What kinds of output each cell has: pictures, tables, texts; progress bars left out."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    outputs = [[out for out in cell.outputs if BAR not in out.get("data", {})] for cell in cells]
    return [
        sorted({tuple(sorted(out.get("data", {"stream": 0}))) for out in its}) for its in outputs
    ]


def texts(notebook) -> str:
    """All that cells gave as plain text."""
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    return "\n".join(out.data["text/plain"] for out in outputs if "data" in out)


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:.*:RuntimeWarning")
def test_the_notebook_runs_and_shows_what_it_shows_in_the_repository(store_folder, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    kept, fresh = (nbformat.read(NOTEBOOK, as_version=4) for _ in range(2))
    place = {"metadata": {"path": str(store_folder)}}
    NotebookClient(fresh, timeout=300, kernel_name="python3", resources=place).execute()
    assert shown(fresh) == shown(kept)
    pictures = [its for its in shown(fresh) if any("image/png" in kinds for kinds in its)]
    assert len(pictures) >= 2
    for text in (texts(kept), texts(fresh)):
        assert "7.25021" in text  # the first notebook's figure
