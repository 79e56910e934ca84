"""Hiera: the order of its tokens, its stages and maps, its counts, and how it is trained."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import vit_jax
from tests.starts import initial
from tests.tiny import assert_trees_close, functions, parameters, pixels, run
from vit_jax import trees
from vit_jax.errors import ConfigError
from vit_jax.models.config_json import config_from_json, config_to_json
from vit_jax.models.families import image_config
from vit_jax.models.flops import forward_macs, parameter_count
from vit_jax.models.hiera import names
from vit_jax.models.hiera.config import HieraConfig
from vit_jax.models.hiera.family import explanation, layer_of, levels
from vit_jax.models.hiera.order import fours, largest_of_four, raster, reroll, unroll
from vit_jax.models.layers.encoder_config import replace
from vit_jax.models.layers.lora import Lora
from vit_jax.models.names.resolve import resolve
from vit_jax.models.storage import stored
from vit_jax.training.config import default_config
from vit_jax.training.experiment import build
from vit_jax.training.parts.treatments import treatments

# Three stages on a grid of 8x8 tokens, of which a mask unit has 4x4.
TINY = HieraConfig(
    image_size=32, width=8, heads=1, depths=(1, 2, 2), num_classes=5, mlp_ratio=2.0, mask_unit=4, pooled_stages=2,
)  # fmt: skip
KEY = jax.random.key(3)


def test_the_order_is_undone():
    for depth, grid in ((0, (3, 5)), (1, (2, 4)), (2, (4, 12)), (3, (16, 8))):
        x = pixels(2, *grid, 3)
        tokens = unroll(x, depth)
        assert tokens.shape == (2, grid[0] * grid[1], 3)
        np.testing.assert_array_equal(reroll(tokens, depth, grid), x)
        np.testing.assert_array_equal(tokens[:, raster(depth, grid)].reshape(x.shape), x)


@pytest.mark.parametrize("side", [2, 4, 8])
def test_squares_are_neighbours_at_every_depth(side):
    grid = (16, 24)
    places = jnp.stack(jnp.meshgrid(*map(jnp.arange, grid), indexing="ij"), -1)[None]
    squares = np.asarray(unroll(places, 3)).reshape(-1, side * side, 2)
    corners = squares.min(1)
    assert (corners % side == 0).all()
    assert (squares.max(1) - corners == side - 1).all()
    assert len({tuple(corner) for corner in corners}) == len(squares)


def test_pooling_is_that_of_maps():
    x = pixels(2, 8, 8, 3)
    pooled = reroll(largest_of_four(unroll(x, 3)), 2, (4, 4))
    np.testing.assert_array_equal(pooled, x.reshape(2, 4, 2, 4, 2, 3).max((2, 4)))
    assert fours(unroll(x, 3)).shape == (2, 16, 4, 3)


def test_the_gradient_of_pooling_goes_to_the_first_of_the_largest():
    x = jnp.asarray([3.0, 1, 3, 2, 0, 0, 0, 0, 1, 2, 3, 4, 1, 5, 5, 2]).reshape(1, 16, 1)
    gradient = jax.grad(lambda x: (largest_of_four(x)[0, :, 0] * jnp.asarray([1.0, 2, 3, 4])).sum())(x)
    assert gradient.ravel().tolist() == [1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 3, 0, 4, 0, 0]


# Millions of parameters and GMACs: the paper's Table 2 and timm's model cards.
PUBLISHED = {
    "tiny": (27.91, 4.91), "small": (35.01, 6.42), "base": (51.52, 9.40), "base_plus": (69.90, 12.67),
    "large": (213.74, 40.34), "huge": (672.78, 124.9),
}  # fmt: skip


@pytest.mark.parametrize("size", PUBLISHED)
def test_counts_are_those_published(size):
    config = names.resolve(f"hiera_{size}_224")[1]
    millions, gmacs = PUBLISHED[size]
    assert parameter_count(config) == trees.count(functions(config).abstract)
    assert round(parameter_count(config) / 1e6, 2) == millions
    assert abs(forward_macs(config) / 1e9 / gmacs - 1) < 0.01


VARIANTS = {
    "plain": TINY,
    "headless": replace(TINY, num_classes=0),
    "mask units": replace(TINY, position="window", position_grid=(3, 5), resample_antialias=True),
    "pooled shortcut": replace(TINY, shortcut="pool", layer_scale=0.1),
    "less pooling": replace(TINY, pooled_stages=1, mask_unit=2, windowed_stages=1),
    "backbone": replace(TINY, num_classes=0, pool_norm=False, level_norms=(0, 1, 3), reordered=False),
    "all windowed": replace(TINY, windowed_stages=3),
    "none windowed": replace(TINY, windowed_stages=0),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_are_counted_and_go_through_json(name):
    config = VARIANTS[name]
    assert parameter_count(config) == trees.count(functions(config).abstract)
    document = json.loads(json.dumps(config_to_json(config)))
    assert (document["family"], config_from_json(document)) == ("hiera", config)


def products(config, *arguments):
    """Multiply-adds of the products in the program of one image."""

    def count(jaxpr):
        found = 0
        for equation in jaxpr.eqns:
            if equation.primitive.name == "dot_general":
                (contracted, _), _ = equation.params["dimension_numbers"]
                left = equation.invars[0].aval.shape
                found += equation.outvars[0].aval.size * int(np.prod([left[axis] for axis in contracted]))
            elif equation.primitive.name == "conv_general_dilated":
                found += equation.outvars[0].aval.size * int(np.prod(equation.invars[1].aval.shape[:3]))
            repeats = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
            for value in equation.params.values():
                inner = getattr(value, "jaxpr", value)
                found += repeats * count(inner) if hasattr(inner, "eqns") else 0
        return found

    run = lambda params, images: functions(config).apply(params, images, *arguments)  # noqa: E731
    images = jax.ShapeDtypeStruct((1, *image_config(config).input_shape), jnp.float32)
    return count(jax.make_jaxpr(run)(functions(config).abstract, images).jaxpr)


@pytest.mark.parametrize("name", [name for name in VARIANTS if name != "mask units"])
def test_multiply_adds_are_those_of_the_program(name):
    assert forward_macs(VARIANTS[name]) == products(VARIANTS[name])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            dict(image_size=40),
            "image_size has height 40, not divisible by stride 16; the nearest sizes are 32 or 48",
        ),
        (dict(mask_unit=3), "mask_unit is 3; with 3 stages it must be one of 1, 2, 4"),
        (
            dict(mask_unit=2, windowed_stages=2),
            "mask_unit is 2, but with windowed_stages 2 squares of 4 tokens",
        ),
        (dict(pooled_stages=3), "pooled_stages is 3, but there are 3 stages; give 0 to 2"),
        (dict(windowed_stages=4), "windowed_stages is 4, but there are 3 stages; give 0 to 3"),
        (dict(depths=()), r"depths is \(\); it must say the blocks"),
        (dict(depths=(1, 0, 1)), r"depths is \(1, 0, 1\); it must be at least 1"),
        (dict(heads=3), "heads is 3, which does not divide width 8"),
        (dict(level_norms=(4,)), r"level_norms is \(4,\); it must name maps from 0 to 3"),
        (dict(patch_kernel=4), "patch_kernel is 4; it must be odd"),
        (dict(mlp_ratio=0.0), "mlp_ratio is 0.0; it must be above 0"),
        (dict(position="sincos"), "position is 'sincos'"),
        (dict(drop_path_rate=1.0), "drop_path_rate is 1.0"),
    ],
)
def test_bad_configurations_are_one_line(fields, message):
    with pytest.raises(ConfigError, match=message) as caught:
        replace(TINY, **fields)
    assert "\n" not in str(caught.value)


def test_bad_images_and_captures_are_one_line():
    cases = [
        (pixels(1, 32, 48), (), "images are 32x48 and the model was made for 32x32"),
        (pixels(1, 32, 32, 1), (), "the model takes"),
        (jnp.zeros((1, 32, 32, 3), jnp.uint8), (), "raw pixels"),
        (pixels(1, 32, 32), ("block/1",), "Did you mean 'blocks'"),
        (
            pixels(1, 32, 32),
            ("blocks",),
            "'blocks' has no number, but blocks are counted; the last is blocks/-1",
        ),
        (pixels(1, 32, 32), ("pooled/1",), "only stages, blocks, attention are counted"),
        (pixels(1, 32, 32), ("stages/3",), "it has 3 stages, counted from 0"),
        (pixels(1, 32, 32), ("attention/0",), "the first that attends over all tokens is 4"),
    ]
    for images, capture, message in cases:
        with pytest.raises(ConfigError, match=message):
            functions(TINY).apply(parameters(TINY), images, capture=capture)
    with pytest.raises(ConfigError, match="height 40, not divisible by stride 16"):
        functions(replace(TINY, dynamic_image_size=True)).apply(parameters(TINY), pixels(1, 40, 32))


@pytest.mark.parametrize("name", ["plain", "pooled shortcut"])
def test_scanned_and_checkpointed_equals_unrolled(name):
    config, images = VARIANTS[name], pixels(2, 32, 32)

    def gradients(config):
        loss = lambda params: jnp.square(functions(config).apply(params, images)).sum()  # noqa: E731
        return jax.jit(jax.value_and_grad(loss))(parameters(VARIANTS[name]))

    expected = gradients(config)
    for changes in (dict(unroll=1, remat="full"), dict(remat="attention"))[: 2 if name == "plain" else 1]:
        assert_trees_close(gradients(replace(config, **changes)), expected, rtol=1e-5)


def test_maps_are_in_place_and_levels_describe_them():
    images = pixels(2, 32, 32)
    wanted = ("embedded", "blocks/-1", "stages/0", "encoded", "attention/4", "pooled")
    _, values = run(TINY, images, capture=wanted)
    assert [level.name for level in levels(TINY)] == ["stages/0", "stages/1", "stages/2"]
    assert [level.stride for level in levels(TINY)] == [(4, 4), (8, 8), (16, 16)]
    maps = functions(TINY).features(parameters(TINY), {}, images)
    for level, found in zip(levels(TINY), maps, strict=True):
        assert found.shape == (2, *level.grid, level.channels)
    np.testing.assert_allclose(maps[0], values["stages/0"], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(values["blocks/-1"], values["encoded"])
    np.testing.assert_allclose(values["encoded"].mean((1, 2)), values["pooled"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(values["attention/4"].sum(-1), 1, rtol=1e-5)
    assert explanation(TINY).capture == "attention/-1"
    assert explanation(VARIANTS["all windowed"]) is None


def test_a_token_sees_its_mask_unit_alone():
    """A pixel in the middle of a unit changes nothing in other units until attention goes over all tokens."""
    images = pixels(1, 32, 32)
    changed = images.at[0, 8, 8].add(5.0)
    capture = ("stages/0", "stages/1", "stages/2")
    ours, other = (run(TINY, x, capture=capture)[1] for x in (images, changed))
    for name, units in (("stages/0", 4), ("stages/1", 2)):
        differs = np.asarray((ours[name] != other[name]).any(-1)[0])
        assert differs[:units, :units].any()
        assert not differs[units:].any()
        assert not differs[:, units:].any()
    assert (ours["stages/2"] != other["stages/2"]).any(-1).all()


def test_attention_is_row_by_row_whatever_the_order():
    """Where stages are left that could pool, tokens are not row by row; the weights are."""
    config = replace(VARIANTS["none windowed"], pooled_stages=0)
    _, values = run(config, pixels(1, 32, 32), capture=("attention/0", "embedded"))
    params = parameters(config)
    block = jax.tree.map(lambda leaf: leaf[0], params["stages"]["0"]["blocks"])
    x = values["embedded"].reshape(1, -1, config.width)
    norm = block["norm1"]
    x = (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-6) * norm["scale"] + norm[
        "bias"
    ]
    q, k, _ = jnp.moveaxis(
        jnp.einsum("bni,ichk->bnchk", x, block["attn"]["qkv"]["kernel"]) + block["attn"]["qkv"]["bias"], 2, 0
    )
    weights = jax.nn.softmax(jnp.einsum("bnhk,bmhk->bhnm", q, k) * q.shape[-1] ** -0.5)
    np.testing.assert_allclose(values["attention/0"], weights, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["plain", "mask units"])
def test_other_sizes_are_those_of_the_adapted_model(name, tmp_path):
    config, images = VARIANTS[name], pixels(2, 32, 64)
    vit_jax.save(functions(config).bind(parameters(config)), tmp_path / "model")
    expected = vit_jax.load(tmp_path / "model", image_size=(32, 64), verbose=False)(images)
    found = run(replace(config, dynamic_image_size=True), images, params=parameters(config))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["plain", "mask units"])
def test_one_program_serves_any_size(name):
    config = replace(VARIANTS[name], dynamic_image_size=True)
    params = parameters(config)
    h, w = export.symbolic_shape("h, w")
    shape = jax.ShapeDtypeStruct((1, 16 * h, 16 * w, 3), jnp.float32)
    program = export.export(jax.jit(lambda x: functions(config).apply(params, x)))(shape)
    images = pixels(1, 48, 32)
    np.testing.assert_allclose(program.call(images), run(config, images), rtol=1e-4, atol=1e-5)


def test_it_computes_in_bfloat16():
    images = pixels(2, 32, 32)
    half = run(replace(TINY, dtype="bfloat16"), images, params=parameters(TINY))
    assert half.dtype == jnp.float32
    np.testing.assert_allclose(half, run(TINY, images), atol=0.05)


def test_drop_path_leaves_out_branches_of_whole_examples():
    config, images = replace(TINY, drop_path_rate=0.9), jnp.repeat(pixels(1, 32, 32), 64, axis=0)
    capture = ("blocks/0", "blocks/4", "blocks/3")
    _, values = run(config, images, KEY, capture=capture)
    _, still = run(config, images, capture=capture)
    # The first block is never dropped; the last has rate 0.9, so that most examples pass it unchanged.
    np.testing.assert_allclose(values["blocks/0"], still["blocks/0"], rtol=1e-5, atol=1e-6)
    same = np.asarray((values["blocks/4"] == values["blocks/3"]).all((1, 2, 3)))
    assert 0.6 < same.mean() < 0.98
    np.testing.assert_array_equal(run(config, images, KEY), run(config, images, KEY))


def test_each_parameter_is_of_a_layer():
    found = {}
    for path, leaf in trees.flatten(functions(VARIANTS["mask units"]).abstract).items():
        for rule in ("timm", "beit"):
            layer = layer_of(TINY, path, rule)
            if isinstance(layer, range):
                assert len(layer) == leaf.shape[0]
        found.setdefault(path.split("norm1")[0] if "norm1/scale" in path else path.split("/")[0], layer)
    layers = [number for path, layer in found.items() if path.endswith("blocks/") for number in layer]
    assert sorted(layers) == [1, 2, 3, 4, 5]
    assert (found["pos_embed"], found["pos_embed_window"], found["patch_embed"]) == (0, 0, 0)
    assert (found["norm"], found["head"]) == (6, 6)
    with pytest.raises(ConfigError, match="'neck/kernel' is of no known layer"):
        layer_of(TINY, "neck/kernel", "timm")


def test_every_layer_of_a_block_takes_low_rank_factors_and_eight_bits():
    params = functions(TINY).abstract
    factors = trees.flatten(Lora(2, 2.0, ("proj", "query", "out", "fc1")).init(KEY, params))
    assert "stages/1/entry/blocks/proj/a" in factors
    assert "stages/1/blocks/attn/query/b" in factors
    assert factors["stages/2/entry/blocks/attn/query/a"].shape == (1, 16, 2)
    whole, images = run(TINY, pixels(2, 32, 32)), pixels(2, 32, 32)
    eighth = run(TINY, images, params=stored(parameters(TINY), "int8"))
    assert 0 < float(jnp.abs(eighth - whole).max()) < 0.1 * float(jnp.abs(whole).max())


def test_names_are_timms_the_papers_and_the_hubs():
    listed = vit_jax.list_models("hiera*")
    assert listed == sorted(names.architectures())
    assert len(vit_jax.list_models("hiera*", pretrained=True)) == 16
    assert len(vit_jax.list_models("facebook/hiera*")) == 30
    every = [*listed, *vit_jax.list_models("timm/hiera*"), *vit_jax.list_models("facebook/hiera*")]
    for name in [*every, *vit_jax.list_models("Hiera-*")]:
        assert isinstance(image_config(resolve(name)[1]), HieraConfig), name
    assert resolve("Hiera-B+") == resolve("hiera_base_plus_224")
    assert resolve("timm/hiera_tiny_224.mae")[1].num_classes == 0
    abswin = resolve("hiera_small_abswin_256.sbb2_e200_in12k")[1]
    assert (abswin.num_classes, abswin.image_size, abswin.preprocessing.crop) == (11821, (256, 256), 0.95)
    assert round(parameter_count(resolve("hiera_small_abswin_256")[1]) / 1e6, 1) == 34.4
    assert resolve("hiera_tiny_448")[1].image_size == (448, 448)
    for name in ("hiera_tiny_224.openai", "hiera_giant_224", "Hiera-Q", "facebook/hiera-giant-224-hf"):
        with pytest.raises(ConfigError, match="does not exist"):
            resolve(name)
    with pytest.raises(
        ConfigError, match="height 100, not divisible by stride 32; the nearest sizes are 96 or 128"
    ):
        resolve("hiera_tiny_100")


# ---- training


def configuration(**changes):
    config = default_config()
    config.duration = "24 steps"
    config.model = {
        "name": "hiera_tiny_224", "image_size": (8, 8), "in_channels": 1, "width": 16, "depths": (1, 2, 1),
        "patch_kernel": 3, "patch_stride": 1, "mask_unit": 4, "pooled_stages": 2, "drop_path_rate": 0.1,
    }  # fmt: skip
    config.data.update(batch_size=64, eval_batch_size=360)
    config.optimizer.update(learning_rate=3e-3, layer_decay=0.9)
    config.mesh.fsdp = 2
    config.sharding.min_size = 0
    config.evaluation.update(every="24 steps", illustrate=2)
    config.checkpoint.every = "12 steps"
    config.log.update(every="1 step", tensorboard=False, progress=False)
    for key, value in changes.items():
        section, _, name = key.partition("__")
        config[section][name] = value
    return config


def test_it_is_trained_on_digits_and_resumed_bitwise(compile_cache, tmp_path):
    whole = vit_jax.train(configuration(), tmp_path / "whole")
    assert whole.metrics["loss"] < np.log(10)
    shutil.copytree(tmp_path / "whole", tmp_path / "half")
    shutil.rmtree(tmp_path / "half" / "checkpoints" / "24")
    resumed = vit_jax.train(configuration(), tmp_path / "half")
    ours, theirs = (trees.flatten(result.state.params) for result in (resumed, whole))
    assert ours.keys() == theirs.keys()
    for path, leaf in ours.items():
        np.testing.assert_array_equal(np.asarray(leaf), np.asarray(theirs[path]), path)


def test_eight_devices_do_what_one_does(compile_cache):
    def step(devices, **mesh):
        config = configuration()
        config.mesh.update(**mesh)
        config.optimizer.update(name="sgd", learning_rate=0.1)
        experiment = build(config, devices=jax.devices()[:devices])
        state = initial(experiment)
        entry = state.params["stages"]["1"]["entry"]["blocks"]["attn"]["qkv"]["kernel"]
        assert entry.sharding.is_fully_replicated == (devices == 1)
        batches = experiment.data.train_batches(0)
        batch = experiment.devices.put(next(batches))
        batches.close()
        state, metrics = jax.jit(experiment.step)(state, batch)
        return jax.device_get((state.params, metrics["loss"]))

    assert_trees_close(step(8, fsdp=2, tensor=2), step(1, fsdp=1, tensor=1), rtol=1e-4, atol=1e-6)


def test_rates_fall_by_layer_over_all_stages():
    found = treatments(configuration(optimizer__layer_decay=0.5).optimizer, functions(TINY).abstract, TINY)
    rates = {path: treatment.rate.ravel().tolist() for path, treatment in found.items()}
    assert rates["patch_embed/kernel"] == [0.5**6]
    assert rates["stages/0/blocks/mlp/fc1/kernel"] == [0.5**5]
    assert rates["stages/1/entry/blocks/proj/kernel"] == [0.5**4]
    assert rates["stages/2/blocks/norm1/scale"] == [0.5]
    assert rates["norm/scale"] == rates["head/kernel"] == [1.0]
