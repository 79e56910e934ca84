"""From one library's checkpoint to another's, in Python and on the command line."""

import pytest

from tests.weights.models import (
    CLIP_PAIR,
    GOOGLE,
    MAE,
    PLAIN,
    SIGLIP_PAIR,
    SQUASH,
    assert_same,
    computing,
    flat,
    opened,
    write,
)  # fmt: skip
from vit_jax.cli import main
from vit_jax.errors import ConfigError
from vit_jax.models.layers.encoder_config import replace
from vit_jax.weights.convert import convert
from vit_jax.weights.load import open_pretrained


def test_formats_convert_into_each_other(tmp_path):
    config = replace(PLAIN, num_classes=3)
    write(config, tmp_path / "a", "timm", class_names=("cat", "dog", "owl"))
    for source, target, format in (("a", "b", "hf"), ("b", "c", "orbax"), ("c", "d", "timm")):
        said = convert(tmp_path / source, tmp_path / target, format)
        assert "arrays loaded" in said
    pretrained = open_pretrained(tmp_path / "d")
    assert pretrained.class_names == ("cat", "dog", "owl")
    assert computing(pretrained.config) == computing(config)
    assert_same(flat(config), opened(tmp_path / "d")[1])


def test_the_command_converts(tmp_path, capsys):
    write(GOOGLE, tmp_path / "model.npz", "npz")
    assert main(["convert", str(tmp_path / "model.npz"), str(tmp_path / "hf"), "--format", "hf"]) == 0
    assert "config.json and preprocessor_config.json" in capsys.readouterr().out
    assert_same(flat(GOOGLE), opened(tmp_path / "hf")[1])
    assert (
        main(
            ["convert", str(tmp_path / "hf"), str(tmp_path / "x.npz"), "--format", "npz", "--ignore", "pool"]
        )
        == 2
    )
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("config", "first", "second"),
    [
        (SIGLIP_PAIR, "hf", "orbax"),
        (CLIP_PAIR, "orbax", "hf"),
        (MAE, "hf", "orbax"),
        (replace(SIGLIP_PAIR, image=replace(SIGLIP_PAIR.image, preprocessing=SQUASH)), "npz", "hf"),
    ],
)
def test_models_of_several_parts_convert(config, first, second, tmp_path):
    names = {
        format: tmp_path / (f"{format}.npz" if format == "npz" else format) for format in (first, second)
    }
    write(config, names[first], first)
    convert(names[first], names[second], second)
    read, params = opened(names[second])
    assert computing(read) == computing(config)
    assert_same(flat(config), params)


def test_a_part_converts_alone(tmp_path):
    write(MAE, tmp_path / "mae", "hf")
    convert(tmp_path / "mae", tmp_path / "vit", "timm", part="encoder")
    own = {path.removeprefix("encoder/"): a for path, a in flat(MAE).items() if path.startswith("encoder/")}
    assert_same(own, opened(tmp_path / "vit")[1])
    with pytest.raises(ConfigError, match="timm has no Mae; load one part of it"):
        convert(tmp_path / "mae", tmp_path / "other", "timm")
