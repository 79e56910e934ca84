"""One update: accumulation equals the big batch, updates that are not finite are left out, keys, averages."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from tests.tiny import assert_trees_close, labelled, randomised, tiny
from vit_jax.checkpoints.fingerprint import not_finite
from vit_jax.objectives.base import DataInfo, LossOutput, Objective
from vit_jax.objectives.classification.options import ClassificationOptions
from vit_jax.objectives.mae.options import MaeOptions
from vit_jax.objectives.registry import build_objective
from vit_jax.training.parts.treatments import Frozen
from vit_jax.training.state import TrainState, init_state
from vit_jax.training.step import Ema, compile_step, make_step
from vit_jax.trees import flatten

MODEL = tiny(depth=1)
OBJECTIVES = {
    "plain": ClassificationOptions(label_smoothing=0.1),
    "weighted": ClassificationOptions(loss="sigmoid", class_weights=(0.0, 1.0, 2.0, 0.5, 4.0)),
    "mae": MaeOptions(decoder_width=16, decoder_depth=1, decoder_heads=2),
}
OPTIMIZERS = {"sgd": optax.sgd(0.1, momentum=0.9), "adamw": optax.adamw(1e-3, eps=1e-3, weight_decay=0.1)}


def state_of(objective, optimizer, with_ema=False):
    params = randomised(jax.eval_shape(objective.init, jax.random.key(0))[0])
    ema = jax.tree.map(jnp.copy, params) if with_ema else None
    return TrainState(jnp.zeros((), jnp.int32), params, {}, optimizer.init(params), ema)


@pytest.mark.parametrize(
    ("name", "optimizer", "accumulations"),
    [("plain", "sgd", (2, 4)), ("plain", "adamw", (4,)), ("weighted", "sgd", (4,)), ("mae", "adamw", (2,))],
)
def test_accumulation_is_the_big_batch(name, optimizer, accumulations):
    objective, optimizer = build_objective(OBJECTIVES[name], MODEL, DataInfo(5)), OPTIMIZERS[optimizer]
    batch, state = labelled(8), state_of(objective, optimizer)
    results = []
    for accumulation in (1, *accumulations):
        step = make_step(objective, optimizer, lambda step: 0.1, seed=0, accumulation=accumulation)
        with jax.numpy_dtype_promotion("standard"):  # for optax, which mixes its int32 counts with float32
            results.append(jax.jit(step)(state, batch))
    (whole, metrics), *others = results
    moved = jax.tree.map(lambda new, old: float(jnp.abs(new - old).max()), whole.params, state.params)
    assert min(jax.tree.leaves(moved)) > 1e-6
    for other, other_metrics in others:
        assert_trees_close(other.params, whole.params, rtol=1e-6, atol=0)
        for metric in ("loss", "gradient_norm"):
            np.testing.assert_allclose(other_metrics[metric], metrics[metric], rtol=5e-6)
        assert set(other_metrics) == set(metrics)


def test_a_microbatch_without_weight_does_not_spoil_the_rest():
    options = ClassificationOptions(class_weights=(0.0, 1.0, 1.0, 1.0, 1.0))
    objective = build_objective(options, MODEL, DataInfo(5))
    # Microbatches take every second row: the first holds class 0 alone.
    batch = labelled(8) | {"label": jnp.asarray([0, 1, 0, 2, 0, 3, 0, 4], jnp.int32)}
    state = state_of(objective, OPTIMIZERS["sgd"])
    whole, halves = (
        jax.jit(make_step(objective, OPTIMIZERS["sgd"], lambda step: 0.1, seed=0, accumulation=n))(
            state, batch
        )
        for n in (1, 2)
    )
    assert float(halves[1]["finite"]) == 1
    assert_trees_close(halves[0].params, whole[0].params, rtol=1e-6, atol=0)


# ---- a small objective whose every number is known


@dataclasses.dataclass(frozen=True)
class Pull(Objective):
    """Loss `scale * sum(w)` plus noise of its key: the gradient is `scale`, and keys show in the metrics."""

    model: Any = None

    def init(self, key):
        return {"w": jnp.ones(3)}, {"seen": jnp.zeros(())}

    def prepare(self, batch, key):
        return batch | {"drawn": jnp.broadcast_to(jax.random.uniform(key), batch["scale"].shape)}

    def loss(self, params, buffers, batch, key):
        loss = batch["scale"].mean() * params["w"].sum()
        metrics = {"loss": loss, "prepared": batch["drawn"].mean(), "drawn": jax.random.uniform(key)}
        buffers = {"seen": buffers["seen"] + batch["scale"].sum()}
        return loss, LossOutput(metrics, buffers, jnp.float32(batch["scale"].shape[0]))

    def after_update(self, params, buffers, step):
        return {"seen": buffers["seen"] + 1000 * (step + 1).astype(jnp.float32)}

    def evaluate(self, params, buffers, batch):
        return {"count": batch["mask"].sum()}


def pull(scales, *, steps=1, seed=0, **options):
    objective, optimizer = Pull(), optax.sgd(0.1, momentum=0.5)
    state = init_state(objective, optimizer, seed, with_ema="ema" in options)
    step = jax.jit(
        make_step(objective, optimizer, lambda step: 0.5 * step.astype(jnp.float32), seed=seed, **options)
    )
    history = []
    for _ in range(steps):
        state, metrics = step(state, {"scale": jnp.asarray(scales, jnp.float32)})
        history.append((state, {name: float(value) for name, value in metrics.items()}))
    return history


def test_one_update_by_hand():
    ((state, metrics),) = pull([1.0, 3.0])
    np.testing.assert_allclose(state.params["w"], 1 - 0.1 * 2, rtol=1e-6)
    assert int(state.step) == 1
    assert state.step.dtype == jnp.int32
    np.testing.assert_allclose(state.buffers["seen"], 4 + 1000)
    assert metrics["loss"] == 6
    np.testing.assert_allclose(metrics["gradient_norm"], 2 * np.sqrt(3), rtol=1e-6)
    assert (metrics["learning_rate"], metrics["finite"]) == (0, 1)
    assert pull([1.0], steps=3)[-1][1]["learning_rate"] == 1.0  # the step that was made, counted from 0


def test_buffers_go_through_all_microbatches_and_are_updated_once():
    ((state, _),) = pull([1.0, 2.0, 3.0, 4.0], accumulation=4)
    np.testing.assert_allclose(state.buffers["seen"], 10 + 1000)


class Bounded(Pull):
    """Also sums, a bound, progress and a frozen number, beside a buffer that the loss leaves alone."""

    moment: Any = None

    def at(self, moment):
        now = Bounded()
        object.__setattr__(now, "moment", moment)
        return now

    def init(self, key):
        params, buffers = super().init(key)
        return params, buffers | {"total": jnp.zeros(()), "kept": jnp.full((), jnp.inf)}

    def loss(self, params, buffers, batch, key):
        loss, out = super().loss(params, buffers, batch, key)
        sums = {"total": self.moment.constants["factor"] * batch["scale"].sum()}
        return loss, dataclasses.replace(out, sums=sums)

    def combine(self, buffers, sums):
        return buffers | {"total": buffers["total"] + sums["total"]}

    def project(self, params):
        return jax.tree.map(lambda w: jnp.maximum(w, 0.9), params)

    def after_update(self, params, buffers, step):
        progress = step / self.moment.total + self.moment.per_epoch
        return buffers | {"seen": jnp.asarray(progress, jnp.float32) + 0 * params["w"].sum()}


@pytest.mark.parametrize("accumulation", [1, 2, 4])
def test_sums_bounds_progress_and_frozen_numbers(accumulation):
    objective, optimizer = Bounded(), optax.sgd(0.1)
    step = make_step(
        objective, optimizer, lambda step: 0.1, seed=0, accumulation=accumulation, total=2, per_epoch=7
    )
    state = init_state(objective, optimizer, 0, with_ema=False)
    for number in range(2):
        batch = {"scale": jnp.asarray([1.0, 2.0, 3.0, 4.0])}
        with jax.numpy_dtype_promotion("standard"):
            state, metrics = jax.jit(step)(state, batch, {"factor": jnp.float32(10)})
        # A buffer that is not finite and not the loss's to change is nobody's business.
        assert float(metrics["finite"]) == 1
        np.testing.assert_allclose(state.params["w"], 0.9)
        np.testing.assert_allclose(state.buffers["total"], 100 * (number + 1))
        np.testing.assert_allclose(state.buffers["seen"], number / 2 + 7)
        assert np.isinf(state.buffers["kept"])
    with jax.numpy_dtype_promotion("standard"):
        after, metrics = jax.jit(step)(state, batch, {"factor": jnp.float32(np.nan)})
    assert float(metrics["finite"]) == 0  # for the sums
    np.testing.assert_allclose(after.buffers["total"], 200)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_an_update_that_is_not_finite_is_not_made(bad, accumulation):
    objective, optimizer, ema = Pull(), optax.sgd(0.1, momentum=0.5), Ema(0.9)
    step = jax.jit(
        make_step(objective, optimizer, lambda step: 0.1, seed=0, ema=ema, accumulation=accumulation)
    )
    good, wrong = {"scale": jnp.asarray([1.0, 3.0])}, {"scale": jnp.asarray([1.0, bad])}
    before, metrics = step(init_state(objective, optimizer, 0, with_ema=True), good)
    assert float(metrics["finite"]) == 1
    after, metrics = step(before, wrong)
    assert float(metrics["finite"]) == 0
    assert int(after.step) == int(before.step) + 1
    for field in ("params", "buffers", "opt_state", "ema"):
        unchanged, given = getattr(after, field), getattr(before, field)
        assert jax.tree.structure(unchanged) == jax.tree.structure(given)
        for one, other in zip(jax.tree.leaves(unchanged), jax.tree.leaves(given)):
            np.testing.assert_array_equal(one, other)
    resumed, metrics = step(after, good)
    assert float(metrics["finite"]) == 1
    assert not np.array_equal(resumed.params["w"], after.params["w"])


def test_a_gradient_that_is_not_finite_is_enough():
    class Steep(Pull):
        def loss(self, params, buffers, batch, key):
            loss, out = super().loss(params, buffers, batch, key)
            return loss + jnp.sqrt(params["w"] - 1).sum(), out  # finite value, infinite slope at 1

    # An optimizer that looks at signs alone would make a finite update of it.
    objective = Steep()
    optimizer = optax.stateless(lambda updates, params: jax.tree.map(jnp.sign, updates))
    state = init_state(objective, optimizer, 0, with_ema=False)
    step = jax.jit(make_step(objective, optimizer, lambda step: 0.1, seed=0))
    after, metrics = step(state, {"scale": jnp.ones(2)})
    assert np.isfinite(metrics["loss"])
    assert float(metrics["finite"]) == 0
    np.testing.assert_array_equal(after.params["w"], state.params["w"])


def test_an_update_that_the_optimizer_makes_infinite_is_found_in_the_next_step():
    # And not saved: tests/faults/test_numbers.py.
    objective = Pull()
    optimizer = optax.stateless(lambda updates, params: jax.tree.map(lambda u: u / 0.0, updates))
    state = init_state(objective, optimizer, 0, with_ema=False)
    step = jax.jit(make_step(objective, optimizer, lambda step: 0.1, seed=0))
    after, metrics = step(state, {"scale": jnp.ones(2)})
    assert np.isfinite(metrics["gradient_norm"])
    assert not_finite(after) == ["params/w"]
    last, metrics = step(after, {"scale": jnp.ones(2)})
    assert float(metrics["finite"]) == 0
    assert (int(last.step), float(last.buffers["seen"])) == (2, float(after.buffers["seen"]))


def test_every_step_seed_and_purpose_has_its_own_key():
    first, again, other = (pull([1.0], steps=3, seed=seed) for seed in (0, 0, 1))
    drawn = [metrics[name] for _, metrics in first + other for name in ("drawn", "prepared")]
    assert len(set(drawn)) == 12
    assert [metrics for _, metrics in first] == [metrics for _, metrics in again]


def test_microbatches_have_keys_of_their_own_but_are_prepared_together():
    (_, whole), (_, parts) = pull([1.0, 1.0])[0], pull([1.0, 1.0], accumulation=2)[0]
    assert parts["prepared"] == whole["prepared"]
    assert parts["drawn"] != whole["drawn"]


# ---- moving average


def test_the_average_with_and_without_warmup():
    old, new = {"w": jnp.asarray([1.0])}, {"w": jnp.asarray([3.0])}
    for step, decay in ((0, 0.1), (8, 0.5), (80, 0.9), (989, 0.99), (10**6, 0.99)):
        warm = Ema(0.99).update(old, new, jnp.int32(step))
        np.testing.assert_allclose(warm["w"], [decay + 3 * (1 - decay)], rtol=1e-6)
        plain = Ema(0.99, warmup=False).update(old, new, jnp.int32(step))
        np.testing.assert_allclose(plain["w"], [0.99 + 0.03], rtol=1e-6)
    assert Ema(0.99).update(None, new, jnp.int32(0)) is None


@pytest.mark.parametrize("warmup", [True, False])
def test_the_average_follows_the_parameters_of_each_step(warmup):
    history = pull([1.0], steps=4, ema=Ema(0.7, warmup))
    average = 1.0
    for count, (state, _) in enumerate(history):
        decay = min(0.7, (1 + count) / (10 + count)) if warmup else 0.7
        average = decay * average + (1 - decay) * float(state.params["w"][0])
        np.testing.assert_allclose(state.ema["w"], average, rtol=1e-6)


# ---- compiled


def test_donation_takes_the_old_state_and_gives_a_new_one_of_the_same_shardings():
    mesh = Mesh(np.asarray(jax.devices()).reshape(8), ("data",))
    everywhere, rows = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data"))
    objective, optimizer = Pull(), optax.sgd(0.1, momentum=0.9)
    state = jax.jit(lambda: init_state(objective, optimizer, 0, with_ema=True), out_shardings=everywhere)()
    shardings = jax.tree.map(lambda x: x.sharding, state)
    step = compile_step(
        make_step(objective, optimizer, lambda step: 0.1, seed=0, ema=Ema(0.9)), shardings, rows
    )
    batch = {"scale": jax.device_put(np.ones(16, np.float32), rows)}
    old = jax.tree.leaves(state)
    for _ in range(2):
        state, _ = step(state, batch)
        assert jax.tree.map(lambda x: x.sharding, state) == shardings
    assert all(leaf.is_deleted() for leaf in old)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(state))
    assert not batch["scale"].is_deleted()
    # The average and the parameters are two buffers, or they could not both be donated.
    np.testing.assert_array_equal(state.step, 2)


def test_init_state_is_deterministic_by_seed_and_its_average_is_the_parameters():
    objective = build_objective(OBJECTIVES["plain"], MODEL, DataInfo(5))
    optimizer = optax.sgd(0.1)
    make = jax.jit(lambda seed: init_state(objective, optimizer, seed, with_ema=True))
    one, again, other = (make(seed) for seed in (0, 0, 1))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(again)):
        np.testing.assert_array_equal(a, b)
    assert_trees_close(one.ema, one.params, rtol=0, atol=0)
    assert not np.array_equal(one.params["pos_embed"], other.params["pos_embed"])
    assert init_state(Pull(), optimizer, 0, with_ema=False).ema is None


@pytest.mark.parametrize("accumulation", [1, 2])
def test_parameters_that_are_not_trained_have_no_gradient(accumulation):
    objective = build_objective(OBJECTIVES["plain"], MODEL, DataInfo(5))
    batch, optimizer = labelled(8), OPTIMIZERS["sgd"]
    state = state_of(objective, optimizer)
    paths = flatten(state.params)
    frozen = {path for path in paths if not path.startswith("head/")}
    options = dict(seed=0, accumulation=accumulation)
    runs = [
        jax.jit(
            make_step(objective, optimizer, lambda step: 0.1, frozen=Frozen(frozenset(names)), **options)
        )(state, batch)
        for names in (frozen, ())
    ]
    (alone, own), (whole, every) = runs
    for path, leaf in flatten(alone.params).items():
        same = np.array_equal(leaf, paths[path])
        assert same == (path in frozen), path
        if path not in frozen:
            np.testing.assert_allclose(leaf, flatten(whole.params)[path], rtol=1e-6, atol=1e-8)
    assert 0 < float(own["gradient_norm"]) < float(every["gradient_norm"])
