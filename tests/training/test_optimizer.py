"""Optimizers: timm's numbers, formulas block by block, who decays, who is frozen, what mistakes say."""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vit_jax import trees
from vit_jax.errors import ConfigError
from vit_jax.models.mae.config import MaeConfig
from vit_jax.models.names.resolve import resolve
from vit_jax.models.registry import model_functions
from vit_jax.models.vit.config import ViTConfig
from vit_jax.training.devices import mesh as meshes
from vit_jax.training.devices import sharding
from vit_jax.training.muon import is_depthwise, orthogonal, scale_by_muon
from vit_jax.training.optimizer import NAMES, make_optimizer, summary
from vit_jax.training.parts.treatments import treatments

REFERENCE = pathlib.Path(__file__).parents[1] / "reference" / "aux_schedules_optim.npz"
DEPTH, WIDTH = 3, 4
NETWORK = ViTConfig(width=8, depth=DEPTH, heads=2)


def _section(**changes):
    section = dict(
        name="adamw",
        b1=0.9,
        b2=0.999,
        epsilon=1e-8,
        momentum=0.9,
        nesterov=False,
        weight_decay=0.0,
        weight_decay_schedule="constant",
        weight_decay_end=0.0,
        decay=(r"kernel$",),
        clip_norm=0.0,
        clip_per_tensor=False,
        layer_decay=1.0,
        layer_decay_rule="beit",
        trained=(),
        frozen=(),
        frozen_blocks=0,
        trained_blocks=-1,
        learning_rate_multipliers=(),
        weight_decay_multipliers=(),
        first_moment_dtype="float32",
        matrices=(r"kernel$",),
    )
    return section | changes


def _tree(seed=0, prefix=""):
    """Parameters or gradients named like a small ViT's, with numbers of very different size in each block."""
    rng = np.random.default_rng(seed)
    blocks = {
        "norm1/scale": (DEPTH, WIDTH),
        "attn/qkv/kernel": (DEPTH, WIDTH, 3, 2, 2),
        "mlp/fc1/kernel": (DEPTH, WIDTH, 40),
    }
    shapes = {
        "patch_embed/kernel": (2, 2, 3, WIDTH),
        "class_token": (1, WIDTH),
        "pos_embed": (5, WIDTH),
        "norm/scale": (WIDTH,),
        "head/kernel": (WIDTH, 6),
        "head/bias": (6,),
    } | {f"blocks/{path}": shape for path, shape in blocks.items()}
    flat = {}
    for path, shape in shapes.items():
        size = np.float32([1, 10, 100]).reshape(-1, *[1] * (len(shape) - 1)) if path in "blocks" else 1
        flat[prefix + path] = np.asarray(rng.normal(size=shape) * size, np.float32)
    return trees.unflatten(flat)


def _part(tree, *names):
    return {name: tree[name] for name in names}


def _run(section, params, gradients, rate=1e-2):
    """Return parameters after one update per gradient, and the last state; under jit."""
    optimizer = make_optimizer(section, lambda step: jnp.float32(rate), params, NETWORK)

    @jax.jit
    def step(params, state, gradient):
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    state = jax.jit(optimizer.init)(params)
    for gradient in gradients:
        params, state = step(params, state, gradient)
    return jax.device_get((params, state))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("adamw", {}),
        ("sgd", dict(nesterov=True)),
        ("lamb", dict(epsilon=1e-6, clip_norm=1.0)),
        ("lion", dict(b2=0.99)),
    ],
)
def test_five_steps_are_timms(name, options):
    with np.load(REFERENCE) as case:
        params = {"kernel": jnp.asarray(case["in.w"]), "bias": jnp.asarray(case["in.b"])}
        gradients = [
            {"kernel": jnp.asarray(w), "bias": jnp.asarray(b)}
            for w, b in zip(case["in.grads_w"], case["in.grads_b"])
        ]
        expected = {"kernel": case[f"out.opt.{name}.w"], "bias": case[f"out.opt.{name}.b"]}
    ours, _ = _run(_section(name=name, weight_decay=0.1, **options), params, gradients)
    for leaf in ours:
        np.testing.assert_allclose(ours[leaf], expected[leaf], rtol=0, atol=2e-6)


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("shape", ["tall", "wide"])
def test_five_steps_of_muon_are_its_closed_form(shape, nesterov):
    name = "muon." + shape + ".match_rms_adamw" + ("" if nesterov else ".heavyball")
    with np.load(REFERENCE.with_name("aux_muon_schedules.npz")) as case:
        suffix = "" if shape == "tall" else "_wide"
        # Torch's matrices map the other way round.
        params = {"kernel": jnp.asarray(case[f"in.w{suffix}"].T), "bias": jnp.ones(3)}
        gradients = [{"kernel": jnp.asarray(g.T), "bias": jnp.ones(3)} for g in case[f"in.grads{suffix}"]]
        expected = case[f"out.{name}"].T
    options = dict(weight_decay=0.1, momentum=0.95, nesterov=nesterov)
    ours, _ = _run(_section(name="muon", **options), params, gradients, rate=0.02)
    np.testing.assert_allclose(ours["kernel"], expected, rtol=0, atol=2e-6)
    theirs, _ = _run(_section(), params, gradients, rate=0.02)
    np.testing.assert_array_equal(ours["bias"], theirs["bias"])  # AdamW's


def test_muon_knows_the_matrices_in_a_kernel():
    """One of each block, of queries, of keys and of values; all that a convolution sums over is its rows."""
    rng = np.random.default_rng(0)
    shapes = {
        "encoder/blocks/attn/qkv/kernel": (2, 8, 3, 2, 4),
        "encoder/blocks/attn/out/kernel": (2, 2, 4, 8),
        "encoder/blocks/mlp/fc1/kernel": (2, 8, 32),
        "encoder/stem/0/conv/kernel": (3, 3, 4, 16),
        "pool/kv/kernel": (8, 2, 2, 4),
        "pool/out/kernel": (2, 4, 8),
        "head/kernel": (8, 5),
    }
    gradient = {path: np.asarray(rng.normal(size=shape), np.float32) for path, shape in shapes.items()}
    rule = scale_by_muon(momentum=0.0, nesterov=False)
    tree = trees.unflatten(gradient)
    updates = trees.flatten(jax.jit(rule.update)(tree, rule.init(tree))[0])

    def expected(matrix):
        return orthogonal(jnp.asarray(matrix)) * 0.2 * max(matrix.shape) ** 0.5

    ours, g = updates["encoder/blocks/attn/qkv/kernel"], gradient["encoder/blocks/attn/qkv/kernel"]
    for block in range(2):
        for part in range(3):
            np.testing.assert_allclose(
                ours[block, :, part].reshape(8, 8), expected(g[block, :, part].reshape(8, 8)), atol=1e-5
            )
    for path, matrix in {
        "encoder/blocks/attn/out/kernel": (8, 8),
        "encoder/blocks/mlp/fc1/kernel": (8, 32),
        "encoder/stem/0/conv/kernel": (36, 16),
        "pool/out/kernel": (8, 8),
        "head/kernel": (8, 5),
    }.items():
        stacked = "blocks" in path
        for i in range(2 if stacked else 1):
            update, g = (tree[path][i] if stacked else tree[path] for tree in (updates, gradient))
            np.testing.assert_allclose(update.reshape(matrix), expected(g.reshape(matrix)), atol=1e-5)
    for part in range(2):
        keys = gradient["pool/kv/kernel"][:, part].reshape(8, 8)
        np.testing.assert_allclose(
            updates["pool/kv/kernel"][:, part].reshape(8, 8), expected(keys), atol=1e-5
        )
    values = np.linalg.svd(orthogonal(jnp.asarray(gradient["head/kernel"])), compute_uv=False)
    assert (values > 0.65).all()
    assert (values < 1.25).all()


@pytest.mark.parametrize("name", ["vit_base_patch16_siglip_224", "cvt-13", "mvitv2_tiny"])
def test_muon_leaves_depthwise_convolutions_to_adamw(name):
    """They are the only kernels of three axes that no family says more of."""
    for path, leaf in trees.flatten(model_functions(resolve(name)[1]).abstract).items():
        if path.endswith("kernel"):
            depthwise = re.search(r"attn/(pool_[qkv]|(query|key|value)/conv)/kernel", path) is not None
            assert is_depthwise(path, leaf) == depthwise, path


def test_depthwise_convolutions_move_as_by_adamw():
    params = {"kernel": jnp.ones((4, 4)), "pool_q": {"kernel": jnp.ones((3, 3, 8))}}
    (muon, _), (adamw, _) = (_run(_section(name=name), params, [params]) for name in ("muon", "adamw"))
    np.testing.assert_array_equal(muon["pool_q"]["kernel"], adamw["pool_q"]["kernel"])
    assert (muon["kernel"] != adamw["kernel"]).any()


def test_muon_of_sharded_kernels_is_that_of_whole_ones():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    kernel = np.asarray(np.random.default_rng(0).normal(size=(DEPTH, 16, 3, 2, 8)), np.float32)
    tree = {"blocks": {"attn": {"qkv": {"kernel": kernel}}}}
    rule = scale_by_muon(momentum=0.9, nesterov=True)

    def update(tree):
        return rule.update(tree, rule.init(tree))[0]

    whole = jax.jit(update)(tree)
    for axis in (1, 4):
        shards = jax.NamedSharding(mesh, jax.P(*[None] * axis, "data"))
        sharded = jax.jit(update, in_shardings=(shards,), out_shardings=shards)(tree)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), sharded, whole)


def test_what_muon_cannot_make_orthogonal_is_named():
    params = {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}
    for patterns, message in {
        (): "optimizer.matrices is empty",
        ("bias$",): "optimizer.matrices matches bias, a vector",
        ("nothing",): "optimizer.matrices",
    }.items():
        with pytest.raises(ConfigError, match=message):
            make_optimizer(_section(name="muon", matrices=patterns), lambda step: 1e-3, params).init(params)
    frozen = _section(name="muon", frozen=("^kernel$",))
    with pytest.raises(ConfigError, match=r"all that it matches is frozen"):
        make_optimizer(frozen, lambda step: 1e-3, params)


def test_layer_decay_is_timms():
    names = {  # timm's name: ours
        "patch_embed.proj.weight": "patch_embed/kernel",
        "cls_token": "class_token",
        "pos_embed": "pos_embed",
        "head.weight": "head/kernel",
        "head.bias": "head/bias",
    }
    block = {
        "norm1.weight": "norm1/scale",
        "attn.qkv.weight": "attn/qkv/kernel",
        "mlp.fc1.weight": "mlp/fc1/kernel",
    }
    table = treatments(_section(layer_decay=0.75, weight_decay=0.05), _tree(), NETWORK)
    with np.load(REFERENCE) as case:
        for theirs, ours in names.items():
            np.testing.assert_allclose(
                [table[ours].rate, 0.05 * table[ours].decay], case[f"out.layer_decay.{theirs}"], rtol=1e-6
            )
        for theirs, ours in block.items():
            treatment = table[f"blocks/{ours}"]
            assert treatment.rate.shape[0] == DEPTH
            for i in range(DEPTH):
                rate, decay = case[f"out.layer_decay.blocks.{i}.{theirs}"]
                np.testing.assert_allclose(treatment.rate.reshape(DEPTH, -1)[i], rate, rtol=1e-6)
                np.testing.assert_allclose(0.05 * treatment.decay, decay, rtol=1e-6)
        # timm counts the last norm to the last block; BEiT and MAE, as we, to the head.
        assert case["out.layer_decay.norm.weight"][0] == 0.75
        assert table["norm/scale"].rate == 1


def test_layers_of_a_model_with_every_option():
    config = ViTConfig(
        width=8,
        depth=2,
        heads=2,
        stem=(4,),
        register_tokens=1,
        pre_norm=True,
        pool="map",
        representation_size=4,
    )
    params = jax.eval_shape(model_functions(config).init, jax.random.key(0))
    layers: dict[float, set[str]] = {}
    for path, treatment in treatments(_section(layer_decay=0.5), params, config).items():
        for rate in treatment.rate.flat:
            layers.setdefault(float(rate), set()).add(path.split("/")[0])
    assert layers == {
        0.125: {"stem", "patch_embed", "class_token", "register_tokens", "pos_embed", "norm_pre"},
        0.25: {"blocks"},
        0.5: {"blocks"},
        1.0: {"norm", "pool", "pre_logits", "head"},
    }


def test_layer_decay_of_an_encoder_with_a_decoder():
    params = _tree(prefix="encoder/") | {"decoder": {"blocks": {"norm1": {"scale": jnp.zeros((7, 4))}}}}
    params["decoder"]["mask_token"] = jnp.zeros((1, 4))
    table = treatments(_section(layer_decay=0.5), params, MaeConfig(NETWORK, NETWORK))
    assert table["encoder/pos_embed"].rate == 0.5**4
    np.testing.assert_array_equal(table["encoder/blocks/norm1/scale"].rate, [[0.125], [0.25], [0.5]])
    assert table["encoder/norm/scale"].rate == 1
    assert table["decoder/blocks/norm1/scale"].rate == 1
    assert table["decoder/mask_token"].rate == 1


def test_layer_decay_scales_the_rate_only():
    params, gradient = _tree(0), _tree(1)
    section = _section(name="sgd", weight_decay=0.5)
    whole, _ = _run(section, params, [gradient])
    scaled, _ = _run(section | dict(layer_decay=0.5), params, [gradient])
    whole, scaled, before = (trees.flatten(tree) for tree in (whole, scaled, params))
    for path, treatment in treatments(section | dict(layer_decay=0.5), params, NETWORK).items():
        expected = before[path] + (whole[path] - before[path]) * treatment.rate
        np.testing.assert_allclose(scaled[path], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["lamb", "lars", "adafactor"])  # The others treat each number alone.
def test_stacked_blocks_are_tensors_of_their_own(name):
    section = _section(name=name, weight_decay=0.1, b2=0.99, clip_norm=1.0)

    def unstack(tree):
        flat = {}
        for path, leaf in trees.flatten(tree).items():
            if path.startswith("blocks/"):
                flat |= {f"{path.replace('blocks', f'block{i}')}": leaf[i] for i in range(DEPTH)}
            else:
                flat[path] = leaf
        return trees.unflatten(flat)

    params, *gradients = (_part(_tree(seed), "blocks", "head") for seed in range(4))
    stacked, _ = _run(section, params, gradients)
    apart, _ = _run(section, unstack(params), [unstack(gradient) for gradient in gradients])
    for ours, theirs in zip(jax.tree.leaves(unstack(stacked)), jax.tree.leaves(apart), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_adafactor_is_the_papers(momentum):
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(40, 50))
    gradients = rng.normal(size=(4, 40, 50))
    section = _section(name="adafactor", b2=0.5, momentum=momentum, weight_decay=0.1)
    params, *gradient_trees = ({"kernel": jnp.asarray(x, jnp.float32)} for x in (weight, *gradients))
    ours, _ = _run(section, params, gradient_trees)

    row, column, average = np.zeros(40), np.zeros(50), np.zeros((40, 50))
    for t, gradient in enumerate(gradients, start=1):
        b2 = min(0.5, 1 - t**-0.8)  # 0.43 at the second step, then the cap
        row = b2 * row + (1 - b2) * np.mean(gradient**2, axis=1)
        column = b2 * column + (1 - b2) * np.mean(gradient**2, axis=0)
        update = gradient / np.sqrt(np.outer(row, column) / row.mean())
        average = momentum * average + (1 - momentum) * update
        weight = weight - 1e-2 * (average + 0.1 * weight)
    np.testing.assert_allclose(ours["kernel"], weight, rtol=1e-5, atol=1e-6)


def test_lamb_adapts_what_decays_only():
    params, gradient = (_part(_tree(seed), "head", "blocks") for seed in (0, 1))
    lamb, _ = _run(_section(name="lamb"), params, [gradient])
    adam, _ = _run(_section(name="adamw"), params, [gradient])
    for path, leaf in trees.flatten(lamb).items():
        same = np.allclose(leaf, trees.flatten(adam)[path], rtol=1e-6)
        assert same != path.endswith("kernel")


def test_lars_is_that_of_maes_linear_probing():
    params, *gradients = (_part(_tree(seed), "head", "blocks") for seed in range(4))
    ours, _ = _run(_section(name="lars", weight_decay=0.1, momentum=0.9), params, gradients, rate=0.5)

    def expected(param, path):
        velocity = np.zeros_like(param)
        for gradient in (np.asarray(trees.flatten(tree)[path], np.float64) for tree in gradients):
            if path.endswith("kernel"):
                gradient = gradient + 0.1 * param
                axes = tuple(range(path.startswith("blocks/"), param.ndim))  # of each block on its own
                norms = [np.sqrt(np.square(x).sum(axes, keepdims=True)) for x in (param, gradient)]
                gradient = gradient * 0.001 * norms[0] / norms[1]
            velocity = 0.9 * velocity + gradient
            param = param - 0.5 * velocity
        return param

    for path, leaf in trees.flatten(ours).items():
        start = np.asarray(trees.flatten(params)[path], np.float64)
        np.testing.assert_allclose(leaf, expected(start, path), rtol=2e-5, atol=1e-6, err_msg=path)


def test_weight_decay_multipliers_first_match_wins():
    section = _section(
        weight_decay=0.1,
        decay=("kernel$", "pos_embed"),
        weight_decay_multipliers=(("^head/", 100.0), ("kernel", 0.5)),
        learning_rate_multipliers=(("head/bias", 2.0), ("head", 10.0)),
    )
    table = treatments(section, _tree())
    assert {path: t.decay for path, t in table.items() if t.decay} == {
        "head/kernel": 100,
        "patch_embed/kernel": 0.5,
        "blocks/attn/qkv/kernel": 0.5,
        "blocks/mlp/fc1/kernel": 0.5,
        "pos_embed": 1,
    }
    assert {path: float(t.rate) for path, t in table.items() if t.rate != 1} == {
        "head/kernel": 10,
        "head/bias": 2,
    }
    zeros = jax.tree.map(jnp.zeros_like, _tree())
    after, _ = _run(section, _tree(), [zeros], rate=1e-3)
    shrunk = {path: leaf for path, leaf in trees.flatten(_tree()).items()}
    shrunk["head/kernel"] *= 1 - 1e-3 * 10 * 100 * 0.1
    shrunk["pos_embed"] *= 1 - 1e-3 * 0.1
    for path in ("head/kernel", "pos_embed", "head/bias", "class_token"):
        np.testing.assert_allclose(trees.flatten(after)[path], shrunk[path], rtol=1e-6)


@pytest.mark.parametrize("name", ["lamb", "adafactor"])
def test_frozen_parameters(name):
    section = _section(name=name, weight_decay=0.1, clip_norm=1.0, frozen=("^blocks/", "embed"))
    params, gradient = _tree(0), _tree(1)
    gradient["blocks"] = jax.tree.map(
        lambda leaf: np.full(leaf.shape, np.nan, np.float32), gradient["blocks"]
    )
    after, state = _run(section, params, [gradient])
    assert not [path for path in trees.flatten(state) if "blocks/" in path or "embed" in path]
    # What is left moves as if it were all there is: frozen gradients do not count in the norm.
    kept = ("head", "norm", "class_token")
    alone, _ = _run(section | dict(frozen=()), _part(params, *kept), [_part(gradient, *kept)])
    expected = trees.flatten(params | alone)
    for path, leaf in trees.flatten(after).items():
        np.testing.assert_allclose(leaf, expected[path], rtol=1e-6)
        frozen = path.startswith("blocks/") or "embed" in path
        assert np.array_equal(leaf, trees.flatten(params)[path]) == frozen


def test_clipping():
    params, gradient = (_part(_tree(seed), "head", "norm") for seed in (0, 1))
    section = _section(name="sgd", momentum=0.0, clip_norm=0.5)
    after, _ = _run(section, params, [gradient], rate=1.0)
    moved = jax.tree.map(lambda a, b: a - b, params, after)
    np.testing.assert_allclose(optax.tree.norm(moved), 0.5, rtol=1e-5)
    after, _ = _run(section | dict(clip_norm=0.0), params, [gradient], rate=1.0)
    for a, b, g in zip(*map(jax.tree.leaves, (params, after, gradient))):
        np.testing.assert_array_equal(b, a - g)


def test_clipping_of_each_tensor_of_each_block():
    params, gradient = (_part(_tree(seed), "head", "blocks") for seed in (0, 1))
    section = _section(name="sgd", momentum=0.0, clip_norm=0.5, clip_per_tensor=True)
    after, _ = _run(section, params, [gradient], rate=1.0)
    flat = [trees.flatten(tree) for tree in (params, after, gradient)]
    for path in flat[0]:
        old, new, expected = (part[path] for part in flat)
        rows = zip(old, new, expected) if path.startswith("blocks/") else [(old, new, expected)]
        for before, moved, g in rows:
            np.testing.assert_allclose(
                before - moved, g * min(1, 0.5 / np.linalg.norm(g)), rtol=1e-4, atol=1e-6
            )


@pytest.mark.parametrize(("name", "middle"), [("linear", 0.25), ("cosine", 0.25)])
def test_weight_decay_goes_from_one_value_to_another(name, middle):
    section = _section(
        name="sgd",
        momentum=0.0,
        weight_decay=0.1,
        weight_decay_schedule=name,
        weight_decay_end=0.4,
        weight_decay_multipliers=(("head", 2.0),),
    )
    params = {"kernel": jnp.ones((2, 2)), "head": {"kernel": jnp.ones(3)}, "bias": jnp.ones(3)}
    zeros = jax.tree.map(jnp.zeros_like, params)
    optimizer = make_optimizer(section, lambda step: jnp.float32(1), params, total_steps=8)
    state, found = optimizer.init(params), []
    for _ in range(10):
        updates, state = jax.jit(optimizer.update)(zeros, state, params)
        assert not updates["bias"].any()
        np.testing.assert_allclose(updates["head"]["kernel"][0], 2 * updates["kernel"][0, 0], rtol=1e-6)
        found.append(-float(updates["kernel"][0, 0]))
    np.testing.assert_allclose([found[0], found[4], found[8], found[9]], [0.1, middle, 0.4, 0.4], rtol=1e-5)
    straight = 0.1 + 0.3 * 2 / 8
    assert (found[2] == pytest.approx(straight, rel=1e-5)) == (name == "linear")
    assert "8 parameters decayed" not in summary(section, params)
    assert "7 parameters decayed, 3 parameters not decayed" in summary(
        section | dict(weight_decay=0.0), params
    )


def test_parameters_that_start_later_have_a_rate_of_their_own():
    section = _section(name="sgd", momentum=0.0)
    params = {"encoder": {"kernel": jnp.ones(2)}, "head": {"kernel": jnp.ones(2)}}
    late = [("^encoder/", lambda step: jnp.where(step < 2, 0.0, 0.5)), ("kernel", lambda step: 7.0)]
    optimizer = make_optimizer(section, lambda step: jnp.float32(1), params, late=late[:1])
    state, rates = optimizer.init(params), []
    for _ in range(3):
        updates, state = optimizer.update(params, state, params)
        rates.append([-float(updates[part]["kernel"][0]) for part in ("encoder", "head")])
    assert rates == [[0, 1], [0, 1], [0.5, 1]]
    updates, _ = make_optimizer(section, lambda step: jnp.float32(1), params, late=late).update(
        params, optimizer.init(params), params
    )
    assert [-float(updates[part]["kernel"][0]) for part in ("encoder", "head")] == [
        0,
        7,
    ]  # the first that matches
    with pytest.raises(ConfigError, match=r"optimizer\.delay has 'encodr', which matches no parameter"):
        make_optimizer(section, lambda step: 1.0, params, late=[("encodr", lambda step: 0.0)])


@pytest.mark.parametrize("name", NAMES)
def test_first_moment_in_bfloat16(name):
    params = jax.eval_shape(_tree)
    optimizer = make_optimizer(_section(name=name, first_moment_dtype="bfloat16"), lambda step: 0.1, params)
    state = jax.eval_shape(optimizer.init, params)
    moments = [leaf for leaf in jax.tree.leaves(state) if leaf.dtype == jnp.bfloat16]
    assert sum(leaf.size for leaf in moments) == trees.count(params)
    updates, after = jax.eval_shape(optimizer.update, params, state, params)
    assert jax.tree.map(lambda leaf: leaf.dtype, after) == jax.tree.map(lambda leaf: leaf.dtype, state)
    assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype("float32")}


def test_bfloat16_moments_change_little():
    gradients = [_tree(seed) for seed in (1, 2)]
    full, _ = _run(_section(), _tree(), gradients)
    half, _ = _run(_section(first_moment_dtype="bfloat16"), _tree(), gradients)
    for a, b in zip(jax.tree.leaves(full), jax.tree.leaves(half)):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-4)  # of two updates of about 1e-2


def test_schedule_counts_steps():
    params = {"kernel": jnp.ones((2, 2))}
    section = _section(name="sgd", momentum=0.0)
    optimizer = make_optimizer(section, lambda step: jnp.asarray(step, jnp.float32), params)
    state = optimizer.init(params)
    for step in range(3):
        updates, state = optimizer.update(params, state, params)
        np.testing.assert_array_equal(updates["kernel"], -float(step))


@pytest.mark.parametrize("name", ["adafactor", "lamb"])
def test_sharded_state(name):
    params, gradient = _tree(0), _tree(1)
    section = _section(name=name, weight_decay=0.1, clip_norm=1.0, layer_decay=0.8, frozen=("pos_embed",))
    optimizer = make_optimizer(section, lambda step: jnp.float32(1e-2), params, NETWORK)
    mesh = meshes.make_mesh(dict(data=2, fsdp=2, tensor=2))
    specs = sharding.parameter_specs(params, mesh, sharding.RULES, min_size=8)
    state_shape = jax.eval_shape(optimizer.init, params)
    shardings = [sharding.state_shardings(tree, specs, mesh) for tree in (params, state_shape)]

    def step(params, state):
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    state = jax.jit(optimizer.init, out_shardings=shardings[1])(params)
    if name != "adafactor":
        moment = trees.flatten(state)["inner_states/trained/inner_state/1/mu/blocks/mlp/fc1/kernel"]
        assert moment.addressable_shards[0].data.shape == (DEPTH, WIDTH // 2, 40 // 2)
    whole = jax.jit(step)(params, optimizer.init(params))
    parts = jax.jit(step, donate_argnums=(0, 1), out_shardings=tuple(shardings))(
        jax.device_put(params, shardings[0]), state
    )
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_summary():
    params = _tree()
    section = _section(weight_decay=0.05, frozen=("^patch_embed/",))
    frozen = trees.count(params["patch_embed"])
    decayed = sum(leaf.size for path, leaf in trees.flatten(params).items() if path.endswith("kernel"))
    decayed -= params["patch_embed"]["kernel"].size
    rest = trees.count(params) - decayed - frozen
    text = f"adamw: {decayed} parameters decayed, {rest} parameters not decayed, {frozen} parameters frozen"
    assert summary(section, params) == text
    assert summary(section | dict(layer_decay=0.5), params, NETWORK) == (
        f"{text}; learning rate multiplied by 0.0625 to 1, layers numbered as in beit"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            dict(frozen=("haed",)),
            "optimizer.frozen has 'haed', which matches no parameter. Did you mean 'head'",
        ),
        (dict(frozen=("^block/attn/",)), "optimizer.frozen .* Did you mean 'blocks/attn'"),
        (
            dict(decay=("weight$",)),
            "optimizer.decay has 'weight\\$', which matches no parameter. Parameters are under",
        ),
        (
            dict(learning_rate_multipliers=(("heads", 2.0),)),
            "optimizer.learning_rate_multipliers has 'heads'",
        ),
        (dict(learning_rate_multipliers=(("head", 0.0),)), "factor of 0; list it in optimizer.frozen"),
        (
            dict(weight_decay_multipliers=(("bias", 2.0),)),
            "weight_decay_multipliers, for parameters that decay, has 'bias', which matches",
        ),
        (dict(frozen=(".",)), r"optimizer.frozen is \('.',\), which leaves no parameter to train"),
        (dict(name="adam"), "optimizer.name is 'adam'; it must be one of adamw, sgd"),
    ],
)
def test_mistakes(changes, message):
    with pytest.raises(ConfigError, match=message):
        make_optimizer(_section(**changes), lambda step: 1.0, _tree())


def test_layer_decay_needs_blocks():
    params = {"kernel": jnp.ones((2, 2))}
    with pytest.raises(ConfigError, match=r"optimizer\.layer_decay is 0.5, but the model has no stack"):
        make_optimizer(_section(layer_decay=0.5), lambda step: 1.0, params, NETWORK)
