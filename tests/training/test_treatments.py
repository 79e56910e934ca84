"""Layers as the libraries count them, freezing by depth and of single blocks, and what mistakes say."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.tiny import labelled, randomised
from vit_jax import trees
from vit_jax.errors import ConfigError
from vit_jax.models.layers.lora import Lora
from vit_jax.models.mae.config import MaeConfig
from vit_jax.models.registry import model_functions
from vit_jax.models.vit.config import ViTConfig, replace
from vit_jax.models.vit.resnet_config import ResNetConfig
from vit_jax.objectives.adapted import Adapted
from vit_jax.objectives.base import DataInfo
from vit_jax.objectives.classification.options import ClassificationOptions
from vit_jax.objectives.registry import build_objective
from vit_jax.training.config.defaults import default_config
from vit_jax.training.optimizer import make_optimizer, summary
from vit_jax.training.parts.treatments import frozen_of, treatments
from vit_jax.training.state import init_state
from vit_jax.training.step import make_step

TINY = ViTConfig(
    image_size=8, patch_size=4, in_channels=1, width=8, depth=3, heads=2, mlp_dim=16, num_classes=5
)


def section(**changes):
    values = default_config().optimizer
    values.update(changes)
    return values


def shapes(config):
    return jax.eval_shape(model_functions(config).init, jax.random.key(0))


def layers(config, **changes):
    """{first name of a path: layer, counted from the rate of 0.5 ** (4 - layer)} of all that is not in blocks."""
    found = {}
    for path, treatment in treatments(section(layer_decay=0.5, **changes), shapes(config), config).items():
        name = path.split("/")[0]
        numbers = 4 + np.log2(treatment.rate)
        assert found.setdefault(name, numbers.ravel().tolist()) == numbers.ravel().tolist()
    return found


BEFORE = {"patch_embed": [0], "class_token": [0], "pos_embed": [0]}
BLOCKS = {"blocks": [1, 2, 3]}


def test_a_hybrids_resnet_is_before_the_blocks():
    config = replace(TINY, image_size=32, patch_size=1, backbone=ResNetConfig((1,), (128,), 32))
    assert layers(config) == BEFORE | BLOCKS | {"backbone": [0], "norm": [4], "head": [4]}


def test_distillation_and_mask_tokens_are_before_the_blocks():
    config = replace(TINY, distillation_token=True, mask_token=True)
    tokens = {"distillation_token": [0], "mask_token": [0]}
    assert layers(config) == BEFORE | BLOCKS | tokens | {"norm": [4], "head": [4], "head_distillation": [4]}


@pytest.mark.parametrize(
    ("changes", "beit", "timm"),
    [
        ({}, {"norm": [4], "head": [4]}, {"norm": [3], "head": [4]}),
        # timm calls it fc_norm there, and counts it to the head.
        (dict(pool="mean", pool_norm="after"), {"norm": [4], "head": [4]}, {"norm": [4], "head": [4]}),
        (
            dict(position="none", position_bias="shared"),
            {"norm": [4], "head": [4], "position_bias": [4]},
            {"norm": [3], "head": [4], "position_bias": [0]},
        ),
    ],
)
def test_libraries_differ_in_two_parameters(changes, beit, timm):
    config = replace(TINY, **changes)
    before = {name: layer for name, layer in BEFORE.items() if name in shapes(config)}
    assert layers(config) == before | BLOCKS | beit
    assert layers(config, layer_decay_rule="timm") == before | BLOCKS | timm


def test_a_parameter_of_no_layer_is_an_error():
    params = {**shapes(TINY), "mystery": jax.ShapeDtypeStruct((3,), jnp.float32)}
    treatments(section(), params, TINY)  # where nothing goes by layer, nothing is wrong
    for changes in (dict(layer_decay=0.5), dict(frozen_blocks=1)):
        with pytest.raises(ConfigError, match="parameter 'mystery' belongs to no known layer"):
            treatments(section(**changes), params, TINY)


def test_low_rank_factors_learn_as_fast_as_what_they_change():
    objective = Adapted(classifier(), Lora(2, 4.0, ("query",)))
    params = jax.eval_shape(objective.init, jax.random.key(0))[0]
    table = treatments(section(layer_decay=0.5), params, objective.network)
    assert table["lora/blocks/attn/query/a"].rate.ravel().tolist() == [0.125, 0.25, 0.5]


@pytest.mark.parametrize("changes", [dict(frozen_blocks=2), dict(trained_blocks=1)])
def test_freezing_by_depth(changes):
    config = replace(TINY, distillation_token=True)
    table = treatments(section(**changes), shapes(config), config)
    for path, treatment in table.items():
        if path.startswith("blocks/"):
            assert treatment.frozen.tolist() == [True, True, False]
        else:
            assert treatment.whole == (path.split("/")[0] not in ("norm", "head", "head_distillation")), path
    assert frozen_of(table).depth == 2
    assert "; frozen blocks 0 to 1" in summary(section(**changes), shapes(config), config)


def test_freezing_all_or_no_blocks():
    whole = {path for path, t in treatments(section(trained_blocks=0), shapes(TINY), TINY).items() if t.whole}
    assert whole == {path for path in trees.flatten(shapes(TINY)) if not path.startswith(("norm/", "head/"))}
    none = {
        path
        for path, t in treatments(section(trained_blocks=3), shapes(TINY), TINY).items()
        if t.frozen.any()
    }
    assert {path.split("/")[0] for path in none} == set(BEFORE)
    assert not any(t.frozen.any() for t in treatments(section(), shapes(TINY), TINY).values())


def test_a_bias_of_all_blocks_is_frozen_with_them():
    config = replace(TINY, position="none", position_bias="shared")
    assert treatments(section(frozen_blocks=1), shapes(config), config)["position_bias"].whole


def test_the_decoder_of_a_masked_autoencoder_stays_trained():
    encoder = replace(TINY, num_classes=0, pool="none")
    config = MaeConfig(encoder, replace(encoder, num_classes=16))
    table = treatments(section(frozen_blocks=3), shapes(config), config)
    assert all(t.whole for path, t in table.items() if path.startswith("encoder/blocks/"))
    assert not any(t.frozen.any() for path, t in table.items() if path.startswith("decoder/"))


@pytest.mark.parametrize(
    ("pattern", "rows"),
    [
        ("^blocks/0", [True, False, False]),
        ("blocks.1.", [False, True, False]),
        ("^blocks/(0|2)/", [True, False, True]),
        ("^blocks/", [True, True, True]),
    ],
)
def test_patterns_name_single_blocks(pattern, rows):
    for path, treatment in treatments(section(frozen=(pattern,)), shapes(TINY), TINY).items():
        wanted = rows if path.startswith("blocks/") else [False]
        assert np.broadcast_to(treatment.frozen, len(wanted)).tolist() == wanted, path


def test_trained_and_rates_name_single_blocks():
    changes = dict(trained=("^blocks/2/attn", "^head"), learning_rate_multipliers=(("^blocks/2/", 0.5),))
    table = treatments(section(**changes), shapes(TINY), TINY)
    assert table["blocks/attn/qkv/kernel"].rate.ravel().tolist() == [0, 0, 0.5]
    assert table["blocks/mlp/fc1/kernel"].whole
    assert not table["head/kernel"].whole


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            dict(frozen=("^encoder/layer/0",)),
            r"no parameter\..* Blocks are stored stacked; .*'blocks/0/attn'",
        ),
        (dict(decay=("blocks/0/attn/qkv/kernel",)), "optimizer.decay .* Blocks are stored stacked"),
        (dict(frozen_blocks=4), "optimizer.frozen_blocks is 4, but the model has 3 blocks; give 0 to 3"),
        (dict(trained_blocks=5), "optimizer.trained_blocks is 5, but the model has 3 blocks; give 0 to 3"),
        (dict(frozen_blocks=3, frozen=("^(norm|head)",)), "leaves no parameter to train"),
        (
            dict(layer_decay=0.5, layer_decay_rule="mae"),
            "layer_decay_rule .*'mae'; it must be one of beit, timm",
        ),
    ],
)
def test_mistakes(changes, message):
    with pytest.raises(ConfigError, match=message):
        treatments(section(**changes), shapes(TINY), TINY)


def classifier(**changes):
    return build_objective(ClassificationOptions(), replace(TINY, **changes), DataInfo(5))


def one_step(objective, accumulation=1, **changes):
    """Return state before and after a step, its metrics, and the products it computes."""
    settings = section(weight_decay=0.1, clip_norm=0.5, layer_decay=0.7, **changes)
    params = jax.eval_shape(objective.init, jax.random.key(0))[0]
    optimizer = make_optimizer(settings, lambda step: jnp.float32(0.1), params, objective.network)
    frozen = frozen_of(treatments(settings, params, objective.network))
    step = make_step(objective, optimizer, lambda step: 0.1, seed=0, accumulation=accumulation, frozen=frozen)
    state = jax.jit(partial(init_state, objective, optimizer, 0, False))()
    state = dataclasses.replace(state, params=randomised(params))
    batch = labelled(4, 8, 1)
    products = str(jax.make_jaxpr(step)(state, batch)).count("dot_general")
    return state, *jax.jit(step)(state, batch), products


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_step_leaves_the_first_blocks_alone(accumulation):
    before, after, _, products = one_step(classifier(), accumulation, frozen_blocks=2)
    whole = one_step(classifier(), accumulation)
    for path, leaf in trees.flatten(after.params).items():
        old = trees.flatten(before.params)[path]
        moved = [not np.array_equal(a, b) for a, b in zip(leaf, old)]
        if path.startswith("blocks/"):
            assert moved == [False, False, True], path
        else:
            assert any(moved) == path.startswith(("norm/", "head/")), path
    assert products != whole[-1]  # two scans: the first has no backward pass
    state = {path: leaf.shape for path, leaf in trees.flatten(after.opt_state).items() if "blocks/" in path}
    assert state
    assert {shape[0] for shape in state.values()} == {1}  # moments of the block that is trained


def test_no_gradient_is_computed_below_the_trained_blocks():
    def flops(**changes):
        objective = classifier(unroll=3)
        settings = section(**changes)
        params = jax.eval_shape(objective.init, jax.random.key(0))[0]
        optimizer = make_optimizer(settings, lambda step: 0.1, params, objective.network)
        frozen = frozen_of(treatments(settings, params, objective.network))
        step = make_step(objective, optimizer, lambda step: 0.1, seed=0, frozen=frozen)
        state = jax.eval_shape(partial(init_state, objective, optimizer, 0, False))
        return jax.jit(step).lower(state, labelled(4, 8, 1)).compile().cost_analysis()["flops"]

    # Forward 1, backward 2, of three blocks: 9 parts; with two of them frozen 5; with all frozen 3.
    every, some, none = flops(), flops(frozen_blocks=2), flops(frozen_blocks=3)
    assert 0.45 < some / every < 0.68
    assert 0.25 < none / every < 0.48


def test_a_single_frozen_block_has_no_part_in_the_update():
    before, after, metrics, _ = one_step(classifier(), frozen=("^blocks/1/",))
    _, _, every, _ = one_step(classifier())
    moved = [
        not np.array_equal(a, b)
        for a, b in zip(
            after.params["blocks"]["mlp"]["fc1"]["kernel"], before.params["blocks"]["mlp"]["fc1"]["kernel"]
        )
    ]
    assert moved == [True, False, True]
    assert metrics["gradient_norm"] < every["gradient_norm"]


def test_low_rank_factors_of_the_first_blocks_are_frozen():
    objective = Adapted(classifier(), Lora(2, 4.0, ("query",)))
    before, after, _, _ = one_step(objective, frozen_blocks=2)
    for path, leaf in trees.flatten(after.params["lora"]).items():
        moved = [not np.array_equal(a, b) for a, b in zip(leaf, trees.flatten(before.params["lora"])[path])]
        assert moved == [False, False, True], path


@pytest.mark.parametrize("name", ["sgd", "lamb", "lars", "lion", "adafactor", "muon"])
def test_every_update_rule_freezes(name):
    params, settings = (
        shapes(TINY),
        section(name=name, frozen_blocks=1, frozen=("^blocks/2/",), weight_decay=0.1),
    )
    settings.momentum = 0.9
    params = jax.tree.map(lambda x: jnp.ones(x.shape), params)
    optimizer = make_optimizer(settings, lambda step: jnp.float32(0.1), params, TINY)
    gradients = jax.tree.map(jnp.ones_like, params)
    updates, _ = jax.jit(optimizer.update)(gradients, jax.jit(optimizer.init)(params), params)
    after = optax.apply_updates(params, updates)
    moved = [bool((row != 1).any()) for row in after["blocks"]["attn"]["qkv"]["kernel"]]
    assert moved == [False, True, False]
    assert (after["patch_embed"]["kernel"] == 1).all()
