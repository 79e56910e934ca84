"""The notebooks run from top to bottom."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

COLABS = Path(__file__).parent.parent / "colabs"
NOTEBOOKS = sorted(COLABS.glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_runs(path, monkeypatch):
    # One device, as for a person on Colab; the kernel inherits the environment.
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.delenv("MPLBACKEND", raising=False)  # the kernel draws into the notebook
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        # The same cells, fewer steps: this is about whether they run.
        cell.source = cell.source.replace("STEPS = 600", "STEPS = 40")
        assert not cell.get("outputs"), f"{path.name} has outputs; clear them"
    resources = {"metadata": {"path": os.getcwd()}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert "accuracy on held-out digits" in "".join(output.get("text", "") for output in outputs)
    figures = sum("image/png" in output.get("data", {}) for output in outputs)
    assert figures == 2
