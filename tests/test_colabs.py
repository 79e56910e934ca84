"""The notebooks run from top to bottom, and install the library where it is not there, saying from where."""

import importlib.util
import os
import subprocess
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.reference.cases import weights_file
from tests.runs import on_one_device

COLABS = Path(__file__).parent.parent / "colabs"
# What a notebook prints when it has come to something, and how many figures it draws.
NOTEBOOKS = {
    "finetune.ipynb": ("accuracy on held-out images", 1),
    "quickstart.ipynb": ("accuracy on held-out digits", 2),
    "self_supervised.ipynb": ("accuracy with 5% of the labels", 1),
}
# Stands for the hub's: three blocks of width 32 for 32 pixels, as timm writes them.
CHECKPOINT = weights_file("vit_timm_token")


def test_every_notebook_is_listed():
    assert {path.name for path in COLABS.glob("*.ipynb")} == set(NOTEBOOKS)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_runs(name, monkeypatch):
    path, (said, drawn) = COLABS / name, NOTEBOOKS[name]
    # One device, as for a person on Colab; the kernel inherits the environment.
    monkeypatch.setenv("XLA_FLAGS", on_one_device()["XLA_FLAGS"])
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


@pytest.mark.parametrize(
    ("place", "source", "requirement"),
    [
        ("content", "", "vit-jax[colab]"),  # Colab: a folder of its own, no checkout beside it
        ("content", "git+https://host/vit_jax", "vit-jax[colab] @ git+https://host/vit_jax"),
        ("content", "==0.1.0", "vit-jax[colab]==0.1.0"),
        ("content", "/a folder", "/a folder[colab]"),
        ("checkout/colabs", "", "{place}/checkout[colab]"),
        ("checkout/colabs", "==0.1.0", "vit-jax[colab]==0.1.0"),
    ],
)
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_installs(name, place, source, requirement, tmp_path, monkeypatch, capsys):
    cell = nbformat.read(COLABS / name, as_version=4).cells[2].source
    assert 'SOURCE = ""' in cell
    commands, status = [], 0

    def run(command):
        commands.append(command)
        return subprocess.CompletedProcess(command, status)

    (tmp_path / "checkout" / "vit_jax").mkdir(parents=True)
    (tmp_path / "checkout" / "vit_jax" / "version.py").write_text("")
    (tmp_path / place).mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path / place)
    cell = cell.replace('SOURCE = ""', f"SOURCE = {source!r}")
    exec(cell, {})
    assert capsys.readouterr().out == "vit_jax is installed already\n"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(subprocess, "run", run)
    requirement = requirement.format(place=tmp_path)
    exec(cell, {})
    assert commands[0][-4:] == ["pip", "install", "-q", requirement]
    assert capsys.readouterr().out == f"installing {requirement}\n"
    status = 1
    with pytest.raises(SystemExit, match="cannot be installed; say in SOURCE where vit_jax is"):
        exec(cell, {})
