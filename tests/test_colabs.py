"""The notebooks run from top to bottom."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

COLABS = Path(__file__).parent.parent / "colabs"
# What a notebook prints when it has come to something, and how many figures it draws.
NOTEBOOKS = {
    "finetune.ipynb": ("accuracy on held-out images", 1),
    "quickstart.ipynb": ("accuracy on held-out digits", 2),
}
# Stands for the hub's: three blocks of width 32 for 32 pixels, as timm writes them.
CHECKPOINT = Path(__file__).parent / "reference" / "vit_timm_token.safetensors"


def test_every_notebook_is_listed():
    assert {path.name for path in COLABS.glob("*.ipynb")} == set(NOTEBOOKS)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_runs(name, monkeypatch):
    path, (said, drawn) = COLABS / name, NOTEBOOKS[name]
    # One device, as for a person on Colab; the kernel inherits the environment.
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.delenv("MPLBACKEND", raising=False)  # the kernel draws into the notebook
    monkeypatch.setenv("VIT_JAX_CHECKPOINT", str(CHECKPOINT))
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        # The same cells, fewer steps: this is about whether they run.
        cell.source = cell.source.replace("STEPS = 600", "STEPS = 40")
        assert not cell.get("outputs"), f"{name} has outputs; clear them"
    resources = {"metadata": {"path": os.getcwd()}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert said in "".join(output.get("text", "") for output in outputs)
    figures = sum("image/png" in output.get("data", {}) for output in outputs)
    assert figures == drawn
