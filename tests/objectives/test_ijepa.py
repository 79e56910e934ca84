"""I-JEPA: blocks, what each network sees, the loss in closed form, the moving encoder, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.objectives.steps import assert_divided_steps_are_whole_ones, configuration
from tests.parity.sources import prepare
from tests.reference.cases import assert_close, load_case, nhwc, tolerance, weights_file
from tests.tiny import labelled, randomised, tiny
from vit_jax.errors import ConfigError
from vit_jax.models.functional import parameters as parameters_of
from vit_jax.models.layers.positions.absolute import sincos2d
from vit_jax.models.swin.config import SwinConfig
from vit_jax.objectives.base import DataInfo, Moment
from vit_jax.objectives.ijepa.losses import spread_of
from vit_jax.objectives.ijepa.masks import Masks, block_sizes, draw_masks
from vit_jax.objectives.ijepa.objective import build
from vit_jax.objectives.ijepa.options import IJepaOptions
from vit_jax.objectives.losses import normalised, smooth_l1
from vit_jax.trees import flatten
from vit_jax.weights.load import load

KEY = jax.random.key(0)
MODEL = tiny(depth=1, position="sincos2d_mae")
SMALL = dict(targets=2, predictor_width=16, predictor_depth=1, predictor_heads=2)


def objective(model=MODEL, **options):
    return build(model, IJepaOptions(**SMALL | options), DataInfo(5))


@pytest.fixture(scope="module")
def ours():
    return objective(context_ratio=0.4)


@pytest.fixture(scope="module")
def state(ours):
    return [randomised(tree, seed) for seed, tree in enumerate(jax.eval_shape(ours.init, KEY))]


def test_sizes_of_blocks_are_those_of_the_paper():
    targets = block_sizes((16, 16), (0.15, 0.2), (0.75, 1.5))
    # A random number r gives int(256 (0.15 + 0.05 r)) patches and a height of 0.75 + 0.75 r widths.
    assert {tuple(size) for size in (targets[0].tolist(), targets[-1].tolist())} == {(5, 7), (9, 6)}
    assert targets.prod(axis=1).max() == 54
    context = block_sizes((16, 16), (0.85, 1.0), (1.0, 1.0))
    assert {tuple(size) for size in context.tolist()} == {(15, 15), (16, 16)}


def test_the_context_never_overlaps_targets_and_blocks_are_rectangles():
    grid, images = (8, 10), 64
    sizes = block_sizes(grid, (0.1, 0.2), (0.5, 2.0)), block_sizes(grid, (0.85, 1.0), (1.0, 1.0))
    draw = jax.jit(lambda key: draw_masks(key, images, grid, *sizes, 3, 30))
    shapes, corners, padded = set(), set(), 0
    for seed in range(12):
        masks = Masks(*map(np.asarray, draw(jax.random.key(seed))))
        assert masks.context.shape == masks.seen.shape == (images, 30)
        assert masks.valid.sum(axis=1).min() == masks.valid.sum(axis=1).max()  # one size in a batch
        for image in range(images):
            kept = masks.context[image][masks.seen[image]]
            assert len(set(kept.tolist())) == len(kept) > 0
            padded += len(kept) < 30
            for block in masks.targets[image]:
                block = block[masks.valid[image]]
                rows, columns = block // grid[1], block % grid[1]
                h, w = np.ptp(rows) + 1, np.ptp(columns) + 1
                assert len(set(block.tolist())) == len(block) == h * w
                assert not set(block.tolist()) & set(kept.tolist())
                shapes.add((h, w))
                corners.add((rows.min() == 0, rows.max() == 7, columns.min() == 0, columns.max() == 9))
    assert len(shapes) > 2
    assert {True} <= set(np.array([*corners]).any(axis=0).tolist())  # blocks reach every side
    assert padded  # an image with fewer patches left is padded, and no other image loses any for it


def test_the_loss_and_targets_in_closed_form():
    x = np.random.default_rng(0).normal(3, 2, (2, 3, 8)).astype(np.float32)
    expected = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(normalised(jnp.asarray(x)), expected, atol=1e-6)
    errors = jnp.asarray([[0.5, -3.0]])
    np.testing.assert_allclose(smooth_l1(errors, jnp.zeros((1, 2))), [(0.125 + 2.5) / 2])
    assert float(spread_of(jnp.ones((4, 3, 2)))) == 0


def test_the_encoder_is_that_of_transformers(tmp_path):
    about, arrays, _ = load_case("ijepa_hf")
    model = load(prepare(about, weights_file("ijepa_hf"), tmp_path)[0], verbose=False, num_classes=0)
    ours = objective(model.config)
    images = jnp.asarray(nhwc(arrays["in.pixel_values"]))
    params = {path: leaf for path, leaf in parameters_of(model).items() if path in ours.functions.abstract}
    encode = jax.jit(lambda images: ours.encode(params, images, None))
    limit = tolerance(about, "last_hidden_state")
    assert_close(encode(images), arrays["out.last_hidden_state"], limit, "last_hidden_state")


def test_each_network_sees_what_it_may(ours, state):
    params, _ = state
    batch = ours.prepare(labelled(6), KEY)
    masks = Masks(**{name: batch[name] for name in Masks._fields})
    # Which pixels the context covers.
    seen = np.zeros((6, 16), bool)
    for image in range(6):
        seen[image, np.asarray(masks.context)[image][np.asarray(masks.seen)[image]]] = True
    pixels = np.kron(seen.reshape(6, 4, 4), np.ones((1, 4, 4)))[..., None] > 0
    encode = jax.jit(lambda images: ours.encode(params["encoder"], images, masks))
    valid, features = np.asarray(masks.seen), np.asarray(encode(batch["image"]))
    hidden = np.asarray(encode(jnp.where(pixels, batch["image"], 7.0)))
    np.testing.assert_array_equal(hidden[valid], features[valid])
    assert (
        np.abs(np.asarray(encode(jnp.where(pixels, 7.0, batch["image"])))[valid] - features[valid]).max()
        > 0.1
    )
    # Alone and in order, without padding, the same patches have the same features: so positions are their own.
    image = int(np.argmax(valid.sum(axis=1)))
    own = np.flatnonzero(seen[image])[None]
    alone = ours.encode(
        params["encoder"],
        batch["image"][image : image + 1],
        Masks(jnp.asarray(own), jnp.ones(own.shape, bool), masks.targets, masks.valid),
    )
    order = np.argsort(np.asarray(masks.context)[image][valid[image]])
    np.testing.assert_allclose(alone[0], features[image][valid[image]][order], atol=1e-5)


def test_the_predictor_knows_places_and_neither_padding_nor_other_blocks(ours, state):
    params, rng = state[0]["predictor"], np.random.default_rng(0)
    context = jnp.asarray(rng.standard_normal((1, 4, 32)), jnp.float32)
    places, seen = jnp.asarray([[0, 5, 6, 9]]), jnp.asarray([[True, True, True, False]])
    wanted, valid = jnp.asarray([[[1, 2, 3], [7, 11, 0]]]), jnp.asarray([[True, True, False]])
    predict = jax.jit(lambda *arguments: ours.predictor.apply(params, *arguments))
    out = predict(context, places, seen, wanted, valid)
    assert out.shape == (1, 2, 3, 32)
    other = predict(
        context.at[0, 3].set(9.0), places.at[0, 3].set(2), seen, wanted.at[0, 0, 2].set(15), valid
    )
    np.testing.assert_allclose(other[:, :, :2], out[:, :, :2], atol=1e-5)
    moved = predict(context, places, seen, wanted.at[0, 0, 0].set(4), valid)
    np.testing.assert_array_equal(moved[0, 1], out[0, 1])  # each block on its own
    assert np.abs(moved[0, 0] - out[0, 0]).max() > 0.01
    swapped = predict(context, places[:, jnp.asarray([1, 0, 2, 3])], seen, wanted, valid)
    assert np.abs(swapped - out).max() > 0.01
    # Its table is that of its own width on the encoder's grid.
    assert sincos2d((4, 4), 16, "mae").shape == (16, 16)


def test_the_loss_is_the_mean_over_valid_patches_of_all_blocks(ours, state):
    params, buffers = state
    batch = ours.prepare(labelled(6), KEY)
    loss, out = jax.jit(ours.loss)(params, buffers, batch, None)
    losses, _ = jax.jit(lambda: ours._losses(params, buffers, batch, None))()
    valid = np.broadcast_to(np.asarray(batch["valid"])[:, None], losses.shape)
    np.testing.assert_allclose(loss, np.asarray(losses)[valid].mean(), rtol=1e-5)
    assert float(out.weight) == valid.sum()
    data = labelled(6) | {"mask": jnp.arange(6) < 4}
    evaluate = jax.jit(ours.evaluate)
    sums = evaluate(params, buffers, data)
    rows = [float(evaluate(params, buffers, data | {"mask": jnp.arange(6) == i})["loss"]) for i in range(4)]
    np.testing.assert_allclose(sums["loss"], sum(rows), rtol=1e-5)
    picture = ours.illustrate(params, buffers, {"image": np.asarray(data["image"])}, list("abcdef"))
    image, context, targets = picture.examples[0].images
    assert not ((context == image).all(-1) & (targets == image).all(-1)).any()
    assert ours.concerns({"target_std": 0.001})["collapse"].startswith(
        "the target encoder's features vary by 0.001"
    )
    assert not ours.concerns({"target_std": 0.1})


def test_the_target_encoder_follows(ours):
    now = ours.at(Moment(jnp.int32(5), 10, 1, {}))
    new = now.after_update({"encoder": {"w": jnp.ones(2)}}, {"target": {"w": jnp.zeros(2)}}, jnp.int32(5))
    np.testing.assert_allclose(new["target"]["w"], 1 - 0.998, rtol=1e-4)  # half way from 0.996 to 1


def run(**options):
    settings = dict(name="ijepa", context_ratio=0.4, momentum=0.5) | SMALL | options
    return configuration(settings, position="sincos2d_mae")


def test_divided_steps_are_whole_ones():
    experiment, state, _ = assert_divided_steps_are_whole_ones(run)
    assert set(state.params) == {"encoder", "predictor"}
    assert flatten(state.buffers["target"]).keys() == flatten(state.params["encoder"]).keys()
    assert experiment.task.objective.train_flops > 0


def test_features_are_the_moving_encoders_mean_over_all_patches(ours, state):
    params, buffers = state
    data = labelled(3)
    expected = ours.encode(buffers["target"], ours.prepare(data, KEY)["image"], None).mean(axis=1)
    np.testing.assert_allclose(jax.jit(ours.features)(params, buffers, data), expected, atol=1e-5)
    assert ours.encoders == {"target": "buffers/target", "context": "params/encoder"}
    started = ours.begin(params, buffers)["target"]
    np.testing.assert_array_equal(
        started["patch_embed"]["kernel"], params["encoder"]["patch_embed"]["kernel"]
    )


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (SwinConfig(), {}, "family 'swin' does not take single patches, .*; choose one of vit"),
        (
            tiny(rope="dinov3", position="none"),
            {},
            "model.rope is 'dinov3'; an encoder that sees some patches",
        ),
        (tiny(position="none"), {}, "model.position is 'none', so patches that are seen alone"),
        (
            MODEL,
            dict(targets=5),
            "targets is 5 .* together they may hide 20 of 16 patches and leave no context",
        ),
        (MODEL, dict(context_ratio=0.05), "context_ratio is 0.05, which is none of 16 patches"),
        (MODEL, dict(predictor_heads=3), "predictor_heads is 3, which does not divide predictor_width 16"),
        (MODEL, dict(predictor_width=18), "predictor_width is 18; it must be a multiple of 4"),
        (MODEL, dict(target_scale=(0.3, 0.1)), "target_scale is .* the smaller one first"),
        (MODEL, dict(context_scale=(0.0, 0.1)), "context_scale is .* both numbers must be above 0"),
        (
            MODEL,
            dict(momentum=1.0, momentum_end=0.5),
            "momentum is 1.0 and momentum_end 0.5; it must not go down",
        ),
    ],
)
def test_what_cannot_be_learned_is_refused(model, options, message):
    with pytest.raises(ConfigError, match=message):
        objective(model, **options)
