"""A classifier is not trained on records of one class; what is probably wrong is said, before anything is compiled."""

import numpy as np
import pytest
from PIL import Image

import vit_jax
from vit_jax.data.sources.arrays import ArraySource
from vit_jax.data.sources.folder import FolderSource
from vit_jax.errors import DataError
from vit_jax.training.config import default_config
from vit_jax.training.experiment import build
from vit_jax.training.guard.one_class import check_several_classes
from vit_jax.training.loop import train


@pytest.fixture
def colours(tmp_path):
    """Images in `colours/SPLIT/COLOUR/PLACE/`."""
    for name in (
        f"{split}/{colour}/{place}" for split in ("train", "test") for colour in "ab" for place in "xyz"
    ):
        (tmp_path / "colours" / name).mkdir(parents=True)
        for number in range(12):
            Image.new("RGB", (9, 8), (number, 0, 0)).save(tmp_path / "colours" / name / f"{number}.png")
    return tmp_path / "colours"


def config(path, **changes):
    config = default_config()
    config.model.update(name="vit_mu_patch4_8", in_channels=3, width=16, depth=1, heads=2, mlp_dim=32)
    config.data.update(source="folder", path=str(path), batch_size=8, **changes)
    config.log.update(tensorboard=False, progress=False)
    return config


def refused(config, workdir, **options):
    with pytest.raises(DataError) as caught:
        train(config, workdir, **options)
    assert not list(workdir.glob("*"))
    return str(caught.value)


def test_one_level_too_deep(colours, tmp_path):
    root = colours / "train" / "a"
    for place in "yz":
        (root / place).rename(tmp_path / place)
    said = refused(config(root), tmp_path / "run")
    assert "training records belong to one class, 'x' (such as " in said
    assert said.endswith(f"data.path may be one level too deep; give {str(root.parent)!r}.")
    with pytest.raises(DataError, match=f"if this folder is a class, give the one above, {str(root)!r}"):
        FolderSource(root / "x", "train")


def test_one_level_too_high(colours, tmp_path):
    (tmp_path / "data").mkdir()
    colours.rename(tmp_path / "data" / "colours")
    said = refused(config(tmp_path / "data"), tmp_path / "run")
    assert said.endswith(f"data.path may be one level too high; give {str(tmp_path / 'data' / 'colours')!r}.")


def test_labels_that_are_all_equal(tmp_path):
    images = np.zeros((6, 8, 8, 1), np.uint8)
    for labels, names in ((np.zeros(6, int), None), (np.full(6, 2), ("a", "b", "c"))):
        source = ArraySource(images, labels, names)
        said = refused(default_config(), tmp_path / "run", sources=(source, source))
        assert f"all 6 training records belong to one class, {(names or '000')[2]!r}" in said
        assert said.endswith("give records of several classes.")
    classifier = vit_jax.Classifier("vit_mu_patch4_8", in_channels=1, progress=False)
    with pytest.raises(DataError, match="one class, '0'"):
        classifier.fit(images, [0] * 6, validation=(images, [0] * 6))


def test_what_has_no_classes_to_tell_apart_may_have_one():
    source = ArraySource(np.zeros((6, 8, 8, 1), np.uint8), np.zeros(6, int))
    masked = config("unused")
    masked.objective, masked.model.in_channels = {"name": "mae"}, 1
    assert "label" not in build(masked, (source, source)).task.objective.fields
    section = default_config().data
    check_several_classes(section, ArraySource(np.zeros((2, 8, 8, 1), np.uint8), [0, 1]))
    # A single record, as of `train[:1]`, to see whether a model can learn it by heart.
    check_several_classes(section, ArraySource(np.zeros((1, 8, 8, 1), np.uint8), [1]))
