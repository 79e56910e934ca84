"""What the options of a Vision Transformer do, and that those for speed change nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.tiny import TINY, assert_trees_close, functions, parameters, pixels, run, tiny
from vit_jax.errors import ConfigError
from vit_jax.models.layers.encoder import REMAT_POLICIES, drop_path_rates
from vit_jax.models.layers.encoder_config import CHOICES as ENCODER_CHOICES
from vit_jax.models.layers.norm import layer_norm
from vit_jax.models.layers.pixels.patches import patchify, unpatchify
from vit_jax.models.vit.config import CHOICES, replace
from vit_jax.models.vit.embedding import drop_patches, kept_patches
from vit_jax.models.vit.model import CAPTURES, DROPPED, VisionTransformer
from vit_jax.random import fold
from vit_jax.trees import flatten

DEEP = tiny(depth=3, drop_path_rate=0.3, attention_dropout_rate=0.1)
KEY = jax.random.key(3)


def loss_and_gradient(config):
    params, images = parameters(DEEP), pixels()

    def loss(params):
        logits = functions(config).apply(params, images, KEY)
        return jnp.sum(jnp.sin(logits))

    return jax.jit(jax.value_and_grad(loss))(params)


@pytest.fixture(scope="module")
def rolled():
    return loss_and_gradient(DEEP)


@pytest.mark.parametrize("unroll", [0, 2])
def test_unrolled_is_rolled(rolled, unroll):
    assert DEEP.unroll == 1
    assert_trees_close(loss_and_gradient(replace(DEEP, unroll=unroll)), rolled, rtol=2e-6)


@pytest.mark.parametrize(
    ("remat", "unroll"), [("full", 1), ("dots", 1), ("dots_no_batch", 1), ("attention", 1), ("full", 0)]
)
def test_remat_changes_no_number(rolled, remat, unroll):
    assert set(REMAT_POLICIES) == set(ENCODER_CHOICES["remat"])
    assert_trees_close(loss_and_gradient(replace(DEEP, remat=remat, unroll=unroll)), rolled, rtol=2e-6)


@pytest.mark.parametrize("implementation", ["explicit", "xla"])
def test_remat_keeps_less(implementation):
    def kept(remat):
        """Shapes that the forward pass keeps for the backward pass."""
        config = tiny(remat=remat, attention=implementation)
        apply, params = functions(config).apply, parameters(TINY)
        # Linearisation is the forward pass and a tree of what it keeps.
        _, backward = jax.eval_shape(lambda p: jax.vjp(lambda p: apply(p, pixels(5)), p), params)
        return [leaf.shape for leaf in jax.tree.leaves(backward)]

    def size(shapes):
        return sum(int(np.prod(shape)) for shape in shapes)

    def scores(shapes):
        return [shape for shape in shapes if shape.count(17) == 2]

    shapes = {remat: kept(remat) for remat in REMAT_POLICIES}
    sizes = {remat: size(shapes) for remat, shapes in shapes.items()}
    assert sizes["full"] < sizes["dots_no_batch"] < sizes["dots"] < sizes["none"]
    assert sizes["attention"] < sizes["none"]
    assert scores(shapes["none"])
    assert scores(shapes["dots"])
    for remat in ("full", "dots_no_batch", "attention"):
        assert not scores(shapes[remat])
    # Of a block, `full` keeps its input alone.
    tokens = (TINY.depth, 5, 17, TINY.width)
    assert [shape for shape in shapes["full"] if shape[:2] == tokens[:2]] == [tokens]


# ---- captures


def test_captures_have_their_shapes_and_change_nothing():
    names = tuple(
        name for name in CAPTURES if name != "stem" and ("_logits" not in name or name == "pre_logits")
    )
    logits, values = run(DEEP, pixels(), capture=names)
    b, n, d, depth = 2, 17, 32, 3
    shapes = {name: value.shape for name, value in values.items()}
    assert shapes == dict(
        embedded=(b, n, d),
        blocks=(depth, b, n, d),
        attention=(depth, b, 2, n, n),
        encoded=(b, n, d),
        pooled=(b, d),
        pre_logits=(b, d),
    )
    np.testing.assert_allclose(logits, run(DEEP, pixels()), rtol=0, atol=1e-6)
    np.testing.assert_allclose(values["attention"].sum(-1), 1, rtol=1e-6)
    norm = parameters(DEEP)["norm"]
    encoded = layer_norm(values["blocks"][-1], norm["scale"], norm["bias"], DEEP.norm_epsilon)
    np.testing.assert_allclose(values["encoded"], encoded, atol=1e-6)
    np.testing.assert_array_equal(values["pooled"], values["encoded"][:, 0])
    head = parameters(DEEP)["head"]
    np.testing.assert_allclose(logits, values["pre_logits"] @ head["kernel"] + head["bias"], atol=2e-6)


def test_captures_of_single_layers():
    names = ("blocks", "blocks/0", "blocks/-1", "attention/1", "attention/-2", "attention/-3", "attention/0")
    _, values = run(DEEP, pixels(), capture=names)
    assert set(values) == set(names)
    np.testing.assert_array_equal(values["blocks/0"], values["blocks"][0])
    np.testing.assert_array_equal(values["blocks/-1"], values["blocks"][2])
    np.testing.assert_array_equal(values["attention/1"], values["attention/-2"])
    np.testing.assert_array_equal(values["attention/0"], values["attention/-3"])
    assert np.abs(values["attention/0"] - values["attention/1"]).max() > 1e-4


@pytest.mark.parametrize("implementation", ["xla", "cudnn"])
def test_attention_is_captured_whatever_the_implementation(implementation):
    config = tiny(attention=implementation)
    logits, values = run(config, pixels(), capture=("attention/-1",))
    np.testing.assert_allclose(values["attention/-1"].sum(-1), 1, rtol=1e-6)
    np.testing.assert_allclose(logits, run(TINY, pixels()), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("atention", "'atention' cannot be captured; names are stem, .* Did you mean 'attention'"),
        ("attention/x", "'attention/x' cannot be captured"),
        ("pooled/0", "'pooled/0' has a layer, but only blocks, attention, stem have layers"),
        ("blocks/2", "'blocks/2' is not a layer of this model; it has 2"),
        ("attention/-3", "'attention/-3' is not a layer of this model; it has 2"),
    ],
)
def test_wrong_captures(name, message):
    with pytest.raises(ConfigError, match=message):
        functions(TINY).apply(parameters(TINY), pixels(), capture=(name,))


# ---- pooling and head


@pytest.mark.parametrize("pool_norm", ["before", "after"])
@pytest.mark.parametrize("pool", ["cls", "mean", "none"])
def test_pooling_and_its_norm(pool, pool_norm):
    config = tiny(pool=pool, pool_norm=pool_norm, register_tokens=2)
    logits, values = run(config, pixels(), capture=("blocks/-1", "encoded", "pooled"))
    params = parameters(config)

    def norm(x):
        return layer_norm(x, params["norm"]["scale"], params["norm"]["bias"], config.norm_epsilon)

    def pooled(x):
        return {"cls": lambda: x[:, 0], "mean": lambda: x[:, 3:].mean(axis=1), "none": lambda: x}[pool]()

    tokens = values["blocks/-1"]
    expected = norm(pooled(tokens)) if pool_norm == "after" else pooled(norm(tokens))
    np.testing.assert_allclose(values["pooled"], expected, atol=2e-6)
    np.testing.assert_allclose(
        values["encoded"], norm(tokens) if pool_norm == "before" else tokens, atol=2e-6
    )
    assert logits.shape == ((2, 19, 5) if pool == "none" else (2, 5))
    np.testing.assert_allclose(
        logits, expected @ params["head"]["kernel"] + params["head"]["bias"], atol=5e-6
    )


def test_attention_pooling_is_a_weighted_mean_and_an_mlp():
    config = tiny(pool="map", class_token=False)
    _, values = run(config, pixels(), capture=("encoded", "pooled"))
    model = functions(config).bind(parameters(config))
    pool, x = model.pool, values["encoded"]
    q, (k, v) = pool.q(pool.probe[...])[0], jnp.moveaxis(pool.kv(x), 2, 0)
    weights = jax.nn.softmax(jnp.einsum("hk,bnhk->bhn", q, k) / 4, axis=-1)
    y = jnp.einsum("bhn,bnhk,hkd->bd", weights, v, pool.out.kernel[...]) + pool.out.bias[...]
    np.testing.assert_allclose(values["pooled"], y + pool.mlp(pool.norm(y), None), atol=5e-6)


def test_representation_layer_is_a_tanh_before_the_head():
    config = tiny(representation_size=24)
    logits, values = run(config, pixels(), capture=("pooled", "pre_logits"))
    layer = parameters(config)["pre_logits"]
    expected = np.tanh(values["pooled"] @ layer["kernel"] + layer["bias"])
    np.testing.assert_allclose(values["pre_logits"], expected, atol=1e-6)
    assert (values["pre_logits"].shape, logits.shape) == ((2, 24), (2, 5))


def test_a_batch_norm_before_the_head_takes_statistics_of_features():
    config = tiny(head_batch_norm=True)
    model, params, images = functions(config), parameters(config), pixels(6)
    head, statistics = params["head"], params["head_norm"]
    logits, values = run(config, images, capture=("pooled",))
    x = values["pooled"]
    expected = (x - statistics["mean"]) / np.sqrt(statistics["variance"] + 1e-6)
    np.testing.assert_allclose(logits, expected @ head["kernel"] + head["bias"], atol=5e-6)
    buffers = {"head_norm": params.pop("head_norm")}
    assert flatten(model.abstract_buffers).keys() == flatten(buffers).keys()
    logits, changed = jax.jit(model.apply_state)(params, buffers, images, KEY)
    expected = (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + 1e-6)
    np.testing.assert_allclose(logits, expected @ head["kernel"] + head["bias"], atol=5e-5)
    new = changed["head_norm"]
    np.testing.assert_allclose(new["mean"], 0.9 * statistics["mean"] + 0.1 * x.mean(axis=0), atol=1e-6)
    unbiased = x.var(axis=0) * 6 / 5
    np.testing.assert_allclose(new["variance"], 0.9 * statistics["variance"] + 0.1 * unbiased, atol=1e-5)


def test_without_a_head_the_output_is_the_pooled_vector():
    out, values = run(tiny(num_classes=0), pixels(), capture=("pooled",))
    np.testing.assert_array_equal(out, values["pooled"])


def test_a_new_head_starts_at_zero_and_at_its_bias():
    head = jax.jit(lambda key: functions(tiny(head_bias_init=-6.9)).init(key)["head"])(KEY)
    assert not head["kernel"].any()
    np.testing.assert_array_equal(head["bias"], np.float32(-6.9))


TOKENS = {"none": (17,), "patches": (16,)}


@pytest.mark.parametrize("classes", [0, 5])
@pytest.mark.parametrize("pool", CHOICES["pool"])
def test_reset_classifier_goes_from_anything_to_anything(pool, classes):
    images, start = pixels(), tiny(pool=pool, num_classes=classes)
    forward = jax.jit(lambda model, images: model(images))
    for new_pool in (None, *CHOICES["pool"]):
        for new_classes in (0, 7):
            model = functions(start).bind(parameters(start))
            model.reset_classifier(new_classes, new_pool)
            config = replace(start, pool=new_pool or pool, num_classes=new_classes)
            assert model.config == config
            out = jax.eval_shape(forward, model, images)
            width = 64 if config.pool == "cls_mean" else 32
            assert out.shape == (2, *TOKENS.get(config.pool, ()), new_classes or width)
            if new_classes:
                assert not model.head.kernel[...].any()
                assert not model.head.bias[...].any()
            # The rest is as it was, and the parameters are those of a model made like this.
            before, after = parameters(start), nnx.to_pure_dict(nnx.state(model, nnx.Param))
            assert jax.tree.structure(after) == jax.tree.structure(parameters(config))
            np.testing.assert_array_equal(after["norm"]["scale"], before["norm"]["scale"])
            if (pool, config.pool) == ("map", "map"):
                np.testing.assert_array_equal(after["pool"]["probe"], before["pool"]["probe"])


def test_reset_classifier_works_on_and_refuses_what_is_wrong_leaving_the_model_alone():
    config = tiny(class_token=False, pool="mean")
    model = functions(config).bind(parameters(config))
    forward = jax.jit(lambda model: model(pixels()))
    expected = forward(model)
    for arguments, message in [
        ((7, "cls"), "pool is 'cls' but class_token is False"),
        ((7, "max"), "pool is 'max'; it must be one of cls, mean, cls_mean, map, patches, none"),
        ((-1,), "num_classes is -1"),
        (("7",), "num_classes is '7'; it must be an integer"),
    ]:
        with pytest.raises(ConfigError, match=message):
            model.reset_classifier(*arguments)
    assert model.config == config
    np.testing.assert_array_equal(forward(model), expected)
    model.reset_classifier(7)
    np.testing.assert_array_equal(forward(model), np.zeros((2, 7)))


# ---- inputs


@pytest.mark.parametrize(
    ("image_size", "patch_size", "channels", "tokens"),
    [((8, 24), (4, 4), 3, 12), ((16, 12), (8, 3), 1, 8), (16, 16, 7, 1)],
)
def test_any_shape_of_image_and_patch_and_any_channels(image_size, patch_size, channels, tokens):
    config = tiny(image_size=image_size, patch_size=patch_size, in_channels=channels)
    images = pixels(2, *config.image_size, channels)
    logits, values = run(config, images, capture=("embedded",))
    assert values["embedded"].shape == (2, tokens + 1, 32)
    assert logits.shape == (2, 5)
    # A patch's token is what a convolution makes of it, row by row.
    params = parameters(config)
    strides = config.patch_size
    by_convolution = jax.lax.conv_general_dilated(
        images, params["patch_embed"]["kernel"], strides, "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    ).reshape(2, tokens, 32)
    expected = by_convolution + params["patch_embed"]["bias"] + params["pos_embed"][1:]
    np.testing.assert_allclose(values["embedded"][:, 1:], expected, rtol=0, atol=3e-5)
    np.testing.assert_allclose(
        values["embedded"][:, 0],
        np.broadcast_to(params["class_token"][0] + params["pos_embed"][0], (2, 32)),
        atol=1e-6,
    )


def test_unpatchify_is_the_inverse_of_patchify():
    images = pixels(2, 6, 20, 3)
    patches = patchify(images, (3, 5))
    assert patches.shape == (2, 8, 45)
    np.testing.assert_array_equal(patches[1, 5], images[1, 3:6, 5:10].reshape(-1))
    np.testing.assert_array_equal(unpatchify(patches, (3, 5), (2, 4)), images)


@pytest.mark.parametrize(("strides", "patch"), [((), 4), ((1, 2), 2)])
def test_stem_is_convolutions_before_the_patches(strides, patch):
    config = tiny(stem=(8, 6), stem_strides=strides, patch_size=patch, activation="relu")
    params = parameters(config)
    assert [params["stem"][i]["kernel"].shape for i in "01"] == [(3, 3, 3, 8), (3, 3, 8, 6)]
    assert params["patch_embed"]["kernel"].shape == (patch, patch, 6, 32)
    assert config.token_stride == (4, 4)
    x, maps = pixels(), []
    for i, stride in zip("01", strides or (1, 1)):
        p = params["stem"][i]
        # As TensorFlow pads: of an even side and windows two apart, behind alone.
        around = (1, 1) if stride == 1 else (0, 1)
        padded = jnp.pad(x, ((0, 0), around, around, (0, 0)))
        windows = jnp.stack(
            [padded[:, r : r + 16 : stride, c : c + 16 : stride] for r in range(3) for c in range(3)], axis=3
        )
        x = jnp.einsum("bhwtc,tco->bhwo", windows, p["kernel"].reshape(9, *p["kernel"].shape[2:])) + p["bias"]
        x = jax.nn.relu(layer_norm(x, p["norm"]["scale"], p["norm"]["bias"], config.norm_epsilon))
        maps.append(x)
    tokens = patchify(x, (patch, patch)) @ params["patch_embed"]["kernel"].reshape(-1, 32)
    expected = tokens + params["patch_embed"]["bias"] + params["pos_embed"][1:]
    _, values = run(config, pixels(), capture=("embedded", "stem/0", "stem", "stem/-1"))
    np.testing.assert_allclose(values["embedded"][:, 1:], expected, atol=1e-5)
    np.testing.assert_allclose(values["stem/0"], maps[0], atol=1e-5)
    np.testing.assert_allclose(values["stem"], maps[1], atol=1e-5)
    np.testing.assert_array_equal(values["stem"], values["stem/-1"])


def test_captured_stem_is_the_one_that_the_patches_are_of():
    config = tiny(stem=(8, 6), stem_strides=(2, 1), stem_kind="mci", patch_size=2, position="none")
    params = parameters(config)
    embedding = params["patch_embed"]
    # In training, where batch norms take the statistics of the batch.
    _, values = run(config, pixels(), KEY, capture=("embedded", "stem"))
    tokens = patchify(values["stem"], (2, 2)) @ embedding["kernel"].reshape(-1, 32) + embedding["bias"]
    np.testing.assert_allclose(values["embedded"][:, 1:], tokens, atol=1e-5)

    def convolutions(capture):
        """How many are computed for the gradients of the logits and of what is captured."""

        def loss(params):
            return sum(
                map(jnp.sum, jax.tree.leaves(functions(config).apply(params, pixels(), capture=capture)))
            )

        return str(jax.make_jaxpr(jax.grad(loss))(params)).count("conv_general_dilated[")

    assert convolutions(("stem/0",)) == convolutions(())


def test_registers_stand_after_the_class_token_without_positions():
    config = tiny(register_tokens=3, class_position=False)
    _, values = run(config, pixels(), capture=("embedded",))
    params = parameters(config)
    assert params["pos_embed"].shape == (16, 32)
    assert values["embedded"].shape == (2, 20, 32)
    first = np.concatenate([params["class_token"], params["register_tokens"]])
    np.testing.assert_array_equal(values["embedded"][:, :4], np.broadcast_to(first, (2, 4, 32)))
    _, bare = run(tiny(class_token=False, register_tokens=3, pool="mean"), pixels(), capture=("embedded",))
    assert bare["embedded"].shape == (2, 19, 32)


def test_dynamic_size_is_static_size_at_its_own_and_takes_others():
    config = tiny(dynamic_image_size=True)
    np.testing.assert_array_equal(run(config, pixels()), run(TINY, pixels()))
    params = parameters(TINY)
    assert run(config, pixels(2, 24, 8), params=params).shape == (2, 5)
    with pytest.raises(ConfigError, match="image_size has height 18, not divisible by patch size 4"):
        functions(config).apply(params, pixels(2, 18, 16))
    fixed = tiny(position="sincos2d_big_vision", dynamic_image_size=True)
    other = tiny(position="sincos2d_big_vision", image_size=(24, 8))
    ours = run(fixed, pixels(2, 24, 8), params=parameters(other))
    np.testing.assert_allclose(ours, run(other, pixels(2, 24, 8)), atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 16, 16, 1), r"images have shape \(2, 16, 16, 1\); the model takes \(batch, height, width, 3\)"),
        ((16, 16, 3), "images have shape"),
        ((2, 16, 20, 3), "images are 16x20 and the model was made for 16x16; resize them"),
    ],
)
def test_wrong_images(shape, message):
    with pytest.raises(ConfigError, match=message):
        functions(TINY).apply(parameters(TINY), jnp.zeros(shape))


# ---- randomness


@pytest.mark.parametrize(("rate", "kept"), [(0.25, 12), (0.5, 8), (0.75, 4), (0.99, 1)])
def test_patch_drop_keeps_a_share_in_training_and_all_in_evaluation(rate, kept):
    config = tiny(patch_drop_rate=rate, register_tokens=2)
    shapes = [
        jax.eval_shape(
            lambda key: functions(config).apply(parameters(config), pixels(), key, capture=("embedded",)), key
        )[1]["embedded"].shape
        for key in (None, KEY)
    ]
    assert shapes == [(2, 19, 32), (2, 3 + kept, 32)]


@pytest.mark.parametrize("rope", ["eva", "dinov3"])
def test_patches_that_stay_keep_their_rotary_positions(rope):
    """They are what they would be in a whole image of which attention does not see the others."""
    config = tiny(rope=rope, position="none", patch_drop_rate=0.5, depth=1)
    params, model, whole = (
        parameters(config),
        functions(config),
        functions(replace(config, patch_drop_rate=0.0)),
    )

    @jax.jit
    def encoded(images, key):
        kept = kept_patches((len(images), 16), 0.5, fold(fold(key, "embed"), DROPPED))
        rows = jnp.pad(kept + 1, ((0, 0), (1, 0)))  # the class token is always seen
        seen = (jnp.arange(17) == rows[..., None]).any(1)
        bound = whole.bind(params)
        around = bound.surroundings(images)._replace(mask=seen[:, None, None, :])
        every, _ = bound.encode(bound.embed(images), None, around)
        expected = jnp.take_along_axis(every, rows[..., None], axis=1)
        return model.apply(params, images, key, capture="encoded")[1]["encoded"], expected

    found, expected = encoded(pixels(), KEY)
    assert found.shape == (2, 9, 32)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_dropped_patches_are_a_random_subset_in_order_for_each_image():
    tokens = jnp.broadcast_to(jnp.arange(64.0)[None, :, None], (500, 64, 1))
    kept = np.asarray(drop_patches(tokens, 0.75, KEY))[..., 0]
    assert kept.shape == (500, 16)
    assert (np.diff(kept, axis=1) > 0).all()
    assert len(np.unique(kept, axis=0)) == 500
    counts = np.bincount(kept.astype(int).ravel(), minlength=64)
    assert abs(counts - 125).max() < 5 * np.sqrt(500 * 0.25 * 0.75)
    assert drop_patches(tokens, 0.75, None) is tokens


def test_drop_path_rates_over_depth():
    config = tiny(depth=5, drop_path_rate=0.4)
    np.testing.assert_allclose(drop_path_rates(config), [0, 0.1, 0.2, 0.3, 0.4], rtol=1e-6)
    constant = replace(config, drop_path_schedule="constant")
    np.testing.assert_allclose(drop_path_rates(constant), [0.4] * 5, rtol=1e-6)


@pytest.mark.parametrize(("schedule", "dropped"), [("linear", (0, 1)), ("constant", (1, 1))])
def test_drop_path_skips_branches_of_whole_examples(schedule, dropped):
    config = tiny(drop_path_rate=0.999, drop_path_schedule=schedule)
    _, values = run(config, pixels(8), KEY, params=parameters(TINY), capture=("embedded", "blocks"))
    inputs = [values["embedded"], *values["blocks"]]
    for layer, everything in enumerate(dropped):
        same = (np.asarray(inputs[layer]) == inputs[layer + 1]).all(axis=(1, 2))
        assert same.mean() == everything


RANDOM = ("dropout_rate", "attention_dropout_rate", "drop_path_rate", "patch_drop_rate")


@pytest.mark.parametrize("option", RANDOM)
def test_every_rate_acts_in_training_and_only_there(option):
    config = tiny(**{option: 0.5})
    params = parameters(TINY)
    images = pixels(4)
    apply = jax.jit(functions(config).apply)
    clean = run(TINY, images)
    np.testing.assert_array_equal(apply(params, images, None), clean)
    one, again, other = (apply(params, images, jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 1e-3
    assert np.abs(one - clean).max() > 1e-3


def test_with_all_rates_zero_a_key_changes_nothing():
    np.testing.assert_allclose(run(TINY, pixels(), KEY), run(TINY, pixels()), atol=1e-6)


def test_layers_draw_their_own_randomness():
    config = tiny(drop_path_rate=0.5, drop_path_schedule="constant", depth=2)
    params = jax.tree.map(lambda x: x, parameters(config))
    params["blocks"] = jax.tree.map(lambda x: jnp.broadcast_to(x[:1], x.shape), params["blocks"])
    _, values = run(config, pixels(64), KEY, params=params, capture=("embedded", "blocks"))
    inputs = [values["embedded"], *values["blocks"]]
    skipped = [(np.asarray(inputs[i]) == inputs[i + 1]).all(axis=(1, 2)) for i in range(2)]
    # Both branches of a block are dropped with probability 1/4, and each block decides for itself.
    for skip in skipped:
        assert 4 <= skip.sum() <= 32
    assert (skipped[0] != skipped[1]).any()


# ---- dtypes


def test_bfloat16_compute_keeps_float32_parameters_and_logits():
    exact, wide = run(TINY, pixels(), capture=("blocks",))
    logits, values = run(tiny(dtype="bfloat16"), pixels(), params=parameters(TINY), capture=("blocks",))
    assert logits.dtype == jnp.float32
    assert values["blocks"].dtype == jnp.bfloat16
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(functions(tiny(dtype="bfloat16")).init(KEY)))
    for ours, expected in ((logits, exact), (values["blocks"], wide["blocks"])):
        difference = np.abs(np.asarray(ours, np.float32) - expected).max()
        assert 0 < difference < 0.03 * np.abs(expected).max()


@pytest.mark.parametrize(
    "changes",
    [
        dict(stem=(4,), qk_norm=True, layer_scale=0.1, mlp="swiglu", pool="map", register_tokens=1),
        dict(pre_norm=True, position="sincos2d_mae", activation="quick_gelu", representation_size=8),
    ],
)
def test_every_option_computes_in_bfloat16_and_trains(changes):
    """Strict promotion would refuse a float32 that slips in."""
    config = tiny(dtype="bfloat16", dropout_rate=0.1, drop_path_rate=0.1, **changes)
    apply = functions(config).apply

    def loss(params):
        logits, values = apply(params, pixels(), KEY, capture=("blocks", "pooled"))
        assert (values["blocks"].dtype, values["pooled"].dtype) == (jnp.bfloat16, jnp.bfloat16)
        return jnp.square(logits).sum()

    shapes = jax.eval_shape(jax.grad(loss), parameters(config))
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}


# ---- as a pytree


def test_a_model_is_a_pytree():
    model = functions(TINY).bind(parameters(TINY))
    assert isinstance(model, VisionTransformer)

    @jax.jit
    def gradient(model):
        return jax.grad(lambda model: jnp.square(model(pixels())).sum())(model)

    by_module = nnx.to_pure_dict(nnx.state(gradient(model), nnx.Param))
    loss = lambda params: jnp.square(functions(TINY).apply(params, pixels())).sum()  # noqa: E731
    assert_trees_close(by_module, jax.jit(jax.grad(loss))(parameters(TINY)), rtol=2e-6)


def test_forward_mode_is_refused_by_jax():
    params = parameters(TINY)
    with pytest.raises(TypeError, match="forward-mode autodiff"):
        jax.jvp(lambda p: functions(TINY).apply(p, pixels()), (params,), (params,))
