"""A leading `~` is the home folder in every path that a user gives."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vit_jax.checkpoints.checkpoints import Checkpoints
from vit_jax.cli import main
from vit_jax.data.images.decode import read_bytes
from vit_jax.data.section import mixture_parts
from vit_jax.data.sources.arrays import open_npz
from vit_jax.data.sources.folder import FolderSource
from vit_jax.data.sources.opening import open_mixture
from vit_jax.errors import CheckpointError
from vit_jax.inference.published import is_checkpoint, is_run
from vit_jax.inference.workdir import find
from vit_jax.paths import check_output, expanded
from vit_jax.training.config import load_config
from vit_jax.weights.remote.fetch import fetch


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder with images in `images/CLASS`; the working folder is another one."""
    home, work = tmp_path / "home", tmp_path / "work"
    work.mkdir(parents=True)
    for name in ("a", "b"):
        (home / "images" / name).mkdir(parents=True)
        for number in range(12):
            Image.new("RGB", (9, 8), (number, 0, 0)).save(home / "images" / name / f"{number}.png")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(work)
    yield home
    assert not (work / "~").exists()


@pytest.mark.parametrize("text", ["gs://bucket//x", "https://a/~b", "a/~", "~nobody-of-this-name/x", "", "."])
def test_other_text_stays_as_it_is(text):
    assert expanded(text) == text


def test_sources(home):
    assert len(FolderSource("~/images", "train")) + len(FolderSource("~/images", "test")) == 24
    part = {"source": "folder", "path": "~/images"}
    assert len(open_mixture(mixture_parts([part]))) == len(FolderSource("~/images", "train"))
    np.savez(home / "train.npz", images=np.zeros((2, 4, 4, 3), np.uint8), labels=np.arange(2))
    assert len(open_npz("~", "train")) == 2


def test_outputs_and_files(home):
    assert check_output("~/out", "--output") == home / "out"
    assert read_bytes("~/images/a/0.png") == (home / "images/a/0.png").read_bytes()
    (home / "config.json").write_text('{"seed": 7}')
    assert load_config("~/config.json").seed == 7


def test_checkpoints(home):
    with Checkpoints("~/run/checkpoints") as checkpoints:
        assert checkpoints.directory == home / "run" / "checkpoints"
    with pytest.raises(CheckpointError, match="no checkpoint yet"):
        find("~/run")
    assert is_checkpoint("~")
    assert is_run(Path("~/run"))
    (home / "weights.safetensors").write_bytes(b"")
    assert fetch("~/weights.safetensors") == home / "weights.safetensors"


def test_data_commands(home, capsys):
    assert main(["data", "check", "~/images"]) == 0
    assert main(["data", "prepare", "~/images", "--output", "~/prepared"]) == 0
    assert list((home / "prepared").glob("*/*/dataset_info.json"))
    assert main(["data", "check", "images", "--data-dir", "~/prepared"]) == 0
    (home / "config.json").write_text(
        '{"data": {"source": "folder", "path": "~/images", "eval_split": "test"}}'
    )
    assert main(["data", "show", "--config", "~/config.json", "--output", "~/samples.png"]) == 0
    assert (home / "samples.png").exists()
