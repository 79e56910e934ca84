"""What a run was evaluated with is what its checkpoint says in other libraries' words, or it is refused."""

import json

import numpy as np
import pytest

from tests.tiny import parameters, tiny
from vit_jax.checkpoints.checkpoints import Checkpoints
from vit_jax.cli import main
from vit_jax.errors import ConfigError
from vit_jax.evaluation.preprocess import Preprocessor
from vit_jax.models.config_json import config_to_json
from vit_jax.weights.convert import convert
from vit_jax.weights.load import open_pretrained

SQUARE, WIDE = (16, 16), (16, 24)
# Evaluation transforms of runs, size of the model, and the formats that can say them.
RUNS = [
    ("", SQUARE, ("hf", "timm")),
    ("resize(16, 'bicubic')", SQUARE, ("hf", "timm")),
    ("decode|resize(16)", SQUARE, ("hf", "timm")),
    ("decode|resize((16, 24), 'lanczos')", WIDE, ("hf", "timm")),
    ("decode|resize_short(20, 'bicubic')|center_crop(16)", SQUARE, ("hf", "timm")),
    ("decode|resize(20)|center_crop(16)", SQUARE, ("hf", "timm")),
    ("decode|resize_long(16)|center_crop(16, fill=(128, 128, 128))", SQUARE, ("timm",)),
    ("decode|resize_short((20, 30), 'bicubic')|center_crop((16, 24))", WIDE, ("timm",)),
    ("decode|resize(24)|resize(16)", SQUARE, ()),
    ("decode|grayscale(1.0)|resize(16)", SQUARE, ()),
]


def workdir(folder, spec, size, **changes):
    """What training leaves behind, as far as it matters here."""
    config = tiny(image_size=size, **changes)
    metadata = {
        "model": json.loads(json.dumps(config_to_json(config))),
        "class_names": list("abcde"),
        "eval_transforms": spec,
    }
    with Checkpoints(folder / "checkpoints") as checkpoints:
        checkpoints.save(0, {"params": parameters(config)}, metadata, {})
    return folder, Preprocessor(config, spec)


@pytest.mark.parametrize("format", ["hf", "timm"])
@pytest.mark.parametrize(("spec", "size", "able"), RUNS)
def test_written_as_evaluated_or_refused(spec, size, able, format, tmp_path):
    run, ours = workdir(tmp_path / "run", spec, size)
    if format not in able:
        with pytest.raises(
            ConfigError, match=r"preprocessing\.transforms|no image processor of transformers"
        ) as caught:
            convert(run, tmp_path / "out", format)
        assert "eval_transforms=" in str(caught.value)
        assert not (tmp_path / "out").exists()
        return
    convert(run, tmp_path / "out", format)
    theirs = Preprocessor(open_pretrained(tmp_path / "out").config)
    rng = np.random.default_rng(0)
    for height, width in ((60, 90), (90, 60), (33, 33), (16, 24)):
        picture = [rng.integers(0, 256, (height, width, 3), dtype=np.uint8)]
        one, other = ours.pixels(picture).astype(int), theirs.pixels(picture).astype(int)
        assert np.abs(one - other).max() == 0, (height, width)


def test_the_remedies_of_a_refusal(tmp_path, capsys):
    run, _ = workdir(tmp_path / "run", "decode|resize_short((20, 30), 'bicubic')|center_crop((16, 24))", WIDE)
    command = ["convert", str(run), str(tmp_path / "out"), "--format", "hf"]
    assert main(command) == 2
    assert "decode|resize((16, 24))" in capsys.readouterr().err
    assert main([*command, "--eval-transforms", "decode|resize((16, 24))"]) == 0
    written = json.loads((tmp_path / "out" / "preprocessor_config.json").read_text())
    assert written["size"] == {"height": 16, "width": 24}
    assert main([*command[:-2], "--format", "timm", "--eval-transforms", "decode|resiz(16)"]) == 2
    assert "--eval-transforms: the transform is 'resiz'" in capsys.readouterr().err


def test_lost_only_when_asked(tmp_path):
    run, _ = workdir(tmp_path / "run", "decode|resize(24)|resize(16)", SQUARE)
    told = convert(run, tmp_path / "out", "timm", ignore=["preprocessing"])
    assert "preprocessing.transforms decode|resize(24)|resize(16), which becomes" in told


def test_our_own_format_keeps_everything(tmp_path):
    run, ours = workdir(tmp_path / "run", "decode|grayscale(1.0)|resize(16)", SQUARE)
    convert(run, tmp_path / "out", "orbax")
    theirs = Preprocessor(open_pretrained(tmp_path / "out").config)
    picture = [np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)]
    np.testing.assert_array_equal(theirs.pixels(picture), ours.pixels(picture))


def test_class_names_are_not_lost_without_a_word(tmp_path):
    run, _ = workdir(tmp_path / "run", "decode|resize(16)", SQUARE)
    told = convert(run, tmp_path / "out.npz", "npz", ignore=["activation"])
    assert "not expressed by Google's npz: class_names 'a' to 'e', which become numbers" in told
