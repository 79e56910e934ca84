"""Token merging: equal tokens merge without a trace, what is counted, what is captured, and how it trains."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import vit_jax
from tests.tiny import (
    TINY,
    assert_trees_close,
    functions,
    labelled,
    parameters,
    pixels,
    randomised,
    run,
    tiny,
)
from vit_jax.errors import ConfigError
from vit_jax.models import functional
from vit_jax.models.config_json import config_from_json, config_to_json
from vit_jax.models.flops import forward_macs, training_flops
from vit_jax.models.mae.config import AUTOENCODER
from vit_jax.models.names.resolve import resolve
from vit_jax.models.vit.config import replace
from vit_jax.models.vit.family import FAMILY
from vit_jax.models.vit.merging import Merged, matched, merged
from vit_jax.models.vit.tokens import block_tokens, merge_counts
from vit_jax.objectives.base import DataInfo
from vit_jax.objectives.classification.options import ClassificationOptions
from vit_jax.objectives.registry import build_objective
from vit_jax.training.state import TrainState
from vit_jax.training.step import make_step

MERGING = tiny(merge_tokens=3)
KEY = jax.random.key(3)


def test_merging_nothing_is_the_plain_model():
    for nothing in (0, (0,), (0, 0), [], ()):
        assert tiny(merge_tokens=nothing) == TINY
    assert config_from_json(config_to_json(MERGING)) == MERGING


def test_counts_are_as_published():
    small = resolve("vit_small_patch16_224")[1]
    merging = replace(small, merge_tokens=13)
    assert block_tokens(merging, 197)[:2] == ((197, 184), (184, 171))
    assert sum(merge_counts(merging, 197)) == 156
    # Table 1 and Table 4 of the paper, in thousands of millions.
    for name, r, gmacs in (
        ("vit_small_patch16_224", 13, 2.7),
        ("vit_large_patch16_224", 8, 31.0),
    ):
        count = forward_macs(replace(resolve(name)[1], merge_tokens=r)) / 1e9
        assert abs(count - gmacs) < 0.05 * gmacs, (name, count)
    assert training_flops(merging) == 6 * forward_macs(merging) < training_flops(small)
    # Where few are left, half of them.
    assert merge_counts(replace(small, merge_tokens=98), 197) == (98, 49, 24, 12, 6, 3, 2, 1, 0, 0, 0, 0)
    decreasing = replace(small, merge_tokens=10, merge_schedule="decreasing")
    assert merge_counts(decreasing, 197) == (20, 18, 16, 14, 12, 10, 9, 7, 5, 3, 1, 0)
    assert merge_counts(tiny(merge_tokens=(1, 7)), 17) == (1, 7)


@pytest.mark.parametrize("pool", ["cls", "mean", "map", "none"])
def test_equal_tokens_merge_without_a_trace(pool):
    """Without positions, patches that come in pairs: a token that is attended to twice is as good as two."""
    config = tiny(position="none", pool=pool, register_tokens=1)
    images = jnp.repeat(pixels(2, 16, 8).reshape(2, 16, 2, 4, 3), 2, axis=2).reshape(2, 16, 16, 3)
    params, capture = parameters(config), ("blocks", "attention", "encoded")
    out, values = run(config, images, capture=capture)
    ours, found = run(replace(config, merge_tokens=(8, 0)), images, params=params, capture=capture)
    np.testing.assert_allclose(ours, out, rtol=1e-4, atol=1e-5)
    for name in capture:
        assert found[name].shape == values[name].shape
        np.testing.assert_allclose(found[name], values[name], rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("prefix", [0, 2, 3])
def test_the_prefix_stays_in_front_and_sizes_add_up(prefix):
    @jax.jit
    def merge(x):
        first, state = merged(x, Merged.nothing(x), matched(x, 3, prefix), prefix)
        return merged(first, state, matched(first, 2, prefix), prefix)

    x = np.asarray(pixels(3, 1, 12, 6))[:, 0]
    y, (sizes, place) = jax.tree.map(np.asarray, merge(x))
    np.testing.assert_array_equal(y[:, :prefix], x[:, :prefix])
    np.testing.assert_array_equal(sizes[:, :prefix], 1.0)
    np.testing.assert_array_equal(sizes.sum(1), 12.0)
    # Each is the mean of those whose place it is.
    for image in range(3):
        for token, made in enumerate(y[image]):
            members = x[image][place[image] == token]
            assert len(members) == int(sizes[image, token])
            np.testing.assert_allclose(made, members.mean(0), atol=1e-6)


def test_dense_maps_are_of_all_patches():
    (found,) = jax.jit(functions(MERGING).features)(parameters(MERGING), {}, pixels())
    assert found.shape == (2, 4, 4, 32)
    rows = found.reshape(2, 16, 32)
    assert [len(np.unique(np.asarray(row), axis=0)) for row in rows] == [10, 10]


def trained(config, accumulation=1, devices=1):
    objective = build_objective(ClassificationOptions(), config, DataInfo(5))
    optimizer = optax.sgd(0.1)
    params = randomised(jax.eval_shape(objective.init, jax.random.key(0))[0])
    state = TrainState(jnp.zeros((), jnp.int32), params, {}, optimizer.init(params), None)
    batch = labelled(16)
    if devices > 1:
        mesh = Mesh(np.asarray(jax.devices()[:devices]), ("data",))
        batch = jax.device_put(batch, NamedSharding(mesh, PartitionSpec("data")))
        state = jax.device_put(state, NamedSharding(mesh, PartitionSpec()))
    step = make_step(objective, optimizer, lambda step: 0.1, seed=0, accumulation=accumulation)
    with jax.numpy_dtype_promotion("standard"):  # for optax
        after, metrics = jax.jit(step)(state, batch)
    return after.params, {name: float(value) for name, value in metrics.items()}


def test_one_step_is_the_same_on_many_devices_in_parts_and_checkpointed():
    expected, metrics = trained(MERGING)
    assert metrics["gradient_norm"] > 0
    found, other = trained(replace(MERGING, remat="full"), accumulation=2, devices=8)
    assert_trees_close(found, expected, rtol=2e-6)
    np.testing.assert_allclose(other["loss"], metrics["loss"], rtol=1e-5)


def test_it_computes_in_bfloat16_and_drops_patches_before_it_merges():
    config = replace(MERGING, dtype="bfloat16", patch_drop_rate=0.5, pool="mean")
    _, values = run(config, pixels(), KEY, params=parameters(MERGING), capture=("embedded", "blocks"))
    assert values["blocks"].shape == (2, 2, 9, 32)
    assert values["blocks"].dtype == jnp.bfloat16
    assert np.isfinite(np.asarray(values["blocks"], np.float32)).all()


def test_any_loaded_model_merges(tmp_path):
    vit_jax.save(functions(TINY).bind(parameters(TINY)), tmp_path)
    model = vit_jax.load(tmp_path, merge_tokens=3, verbose=False)
    assert model.config == MERGING
    found = run(model.config, pixels(), params=functional.parameters(model))
    assert np.abs(found - run(TINY, pixels())).max() > 1e-3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(merge_tokens=9), "merge_tokens is 9 in block 0; of 16 patches a block can merge 0 to 8"),
        (dict(merge_tokens=(1, -1)), "merge_tokens is -1 in block 1"),
        (dict(merge_tokens=(1, 2, 3)), "merge_tokens has 3 numbers; give one for each of the 2 blocks"),
        (dict(merge_tokens=True), "merge_tokens is True; it must be"),
        (dict(merge_tokens="4"), "merge_tokens is '4'; it must be"),
        (dict(merge_tokens=5, merge_schedule="decreasing"), "merge_tokens is 10 in block 0"),
        (
            dict(merge_tokens=(1, 2), merge_schedule="decreasing"),
            "beside merge_tokens of each block; give one",
        ),
        (dict(merge_tokens=1, merge_schedule="up"), "merge_schedule is 'up'"),
        (dict(merge_tokens=1, rope="eva"), "merge_tokens needs positions that are added .* rope is 'eva'"),
        (dict(merge_tokens=1, position_bias="blocks"), "position_bias is 'blocks'; set merge_tokens=0"),
    ],
)
def test_what_cannot_be_merged_is_one_line(options, message):
    with pytest.raises(ConfigError, match=message) as caught:
        tiny(**options)
    assert "\n" not in str(caught.value)


def test_who_cannot_merge_says_so():
    with pytest.raises(ConfigError, match=r"encoder of a masked autoencoder has merge_tokens \(3,\)"):
        AUTOENCODER.whole(AUTOENCODER.encoder(MERGING), width=16, depth=1, heads=1, mlp_dim=32)
    with pytest.raises(ConfigError, match="how many tokens it merges is made for one at a time"):
        FAMILY.any_size(replace(MERGING, dynamic_image_size=True))
    with pytest.raises(ConfigError, match="'merge_tokens' is not a model option"):
        replace(resolve("swin_tiny_patch4_window7_224")[1], merge_tokens=3)
    assert "merge_tokens" in {field.name for field in dataclasses.fields(TINY)}
