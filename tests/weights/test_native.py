"""Our own checkpoints, of training and of `save`, load like anybody's."""

import jax
import numpy as np
import pytest

from tests.tiny import parameters
from tests.weights.checks import refused
from tests.weights.models import GOOGLE, PLAIN, assert_same, flat, opened, write
from vit_jax import trees
from vit_jax.checkpoints.checkpoints import Checkpoints
from vit_jax.models.config_json import config_to_json
from vit_jax.models.layers.encoder_config import replace
from vit_jax.models.layers.lora import Lora
from vit_jax.weights.load import open_pretrained
from vit_jax.weights.native import is_native


def train(folder, state, steps=(3,), **metadata):
    """What training leaves behind."""
    with Checkpoints(folder / "checkpoints", keep_last=9) as checkpoints:
        for step in steps:
            checkpoints.save(step, state(step), {"model": config_to_json(PLAIN), **metadata}, {})
            checkpoints.wait()
    return folder


def test_the_newest_checkpoint_or_the_one_named(tmp_path):
    folder = train(
        tmp_path, lambda step: {"params": parameters(PLAIN, step)}, (1, 2), class_names=list("abcde")
    )
    assert is_native(folder)
    config, params = opened(folder)
    assert config == PLAIN
    assert_same(flat(PLAIN, 2), params)
    assert open_pretrained(folder).class_names == tuple("abcde")
    assert_same(flat(PLAIN, 1), opened(folder / "checkpoints" / "1")[1])


def test_averaged_parameters_are_what_is_loaded(tmp_path):
    train(tmp_path, lambda _: {"params": parameters(PLAIN, 0), "ema": parameters(PLAIN, 1)})
    assert_same(flat(PLAIN, 1), opened(tmp_path)[1])
    report = open_pretrained(tmp_path).report
    assert (report.weights, report.other_weights) == ("ema", ("params",))
    assert_same(flat(PLAIN, 0), opened(tmp_path, weights="params")[1])
    refused(lambda: open_pretrained(tmp_path, weights="raw"), "has no weights 'raw'; it has 'ema', 'params'")


@pytest.mark.parametrize("part", ["params", "ema"])
def test_low_rank_factors_are_merged(part, tmp_path):
    lora = Lora(2, 4.0, ("query", "fc1"))
    factors = lora.init(jax.random.key(0), parameters(PLAIN))
    factors = jax.tree.map(lambda leaf: leaf + 0.1, factors)
    adapted = {**parameters(PLAIN), "lora": factors}
    about = {"lora": {"rank": 2, "alpha": 4.0, "targets": ["query", "fc1"]}}
    state = {"params": {**parameters(PLAIN, 5), "lora": factors}, part: adapted}
    train(tmp_path, lambda _: state, config=about)
    config, params = opened(tmp_path)
    assert config == PLAIN
    expected = trees.flatten(lora.merge(adapted))
    assert not np.array_equal(expected["blocks/attn/qkv/kernel"], flat(PLAIN)["blocks/attn/qkv/kernel"])
    assert params.keys() == expected.keys()
    for path, array in expected.items():
        assert np.allclose(array, params[path], atol=1e-6), path


def test_sizes_change_as_of_any_checkpoint(tmp_path):
    write(GOOGLE, tmp_path / "model", "orbax")
    config, params = opened(tmp_path / "model", num_classes=3, image_size=24)
    assert config == replace(GOOGLE, num_classes=3, image_size=24)
    assert params["pos_embed"].shape == (37, 32)


def test_what_is_no_checkpoint(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    refused(lambda: open_pretrained(tmp_path), "holds no checkpoint yet")
    with Checkpoints(tmp_path / "old" / "checkpoints") as checkpoints:
        checkpoints.save(1, {"params": {"w": np.zeros(2, np.float32)}}, {}, {})
    refused(lambda: open_pretrained(tmp_path / "old"), "does not tell what model it holds")
    with Checkpoints(tmp_path / "odd" / "checkpoints") as checkpoints:
        checkpoints.save(1, {"params": {"w": np.zeros(2, np.float32)}}, {"model": {"wide": 3}}, {})
    refused(lambda: open_pretrained(tmp_path / "odd"), "describes no model: 'wide' is not a model option")
