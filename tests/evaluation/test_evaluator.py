"""Means over every record once, whatever the batch and the devices."""

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.data.pipeline import eval_batches
from vit_jax.data.sources.arrays import ArraySource
from vit_jax.errors import ConfigError, DataError
from vit_jax.evaluation.evaluator import Compiled, compile_evaluation, declared, evaluate, metric_names
from vit_jax.objectives.base import Moment, Objective
from vit_jax.training.devices.mesh import make_mesh, replicated, shard_batch


class Brightness(Objective):
    """The least objective to evaluate: how bright images are, and how often as bright as their label says."""

    metric_modes: ClassVar = {"bright": "max", "accuracy": "max"}

    def init(self, key):
        return {}, {}

    def loss(self, params, buffers, batch, key):
        raise NotImplementedError

    def evaluate(self, params, buffers, batch):
        bright = params + batch["image"].astype(jnp.float32).mean((1, 2, 3))
        rows = {
            "bright": bright,
            "accuracy": (jnp.round(bright).astype(jnp.int32) == batch["label"]).astype(jnp.float32),
        }
        sums = {name: jnp.sum(jnp.where(batch["mask"], values, 0.0)) for name, values in rows.items()}
        return sums | {"count": batch["mask"].sum().astype(jnp.float32)}

    def evaluate_rows(self, params, buffers, batch):
        bright = params + batch["image"].astype(jnp.float32).mean((1, 2, 3))
        return self.evaluate(params, buffers, batch), {"bright": bright}


def source(count):
    rng = np.random.default_rng(count)
    return ArraySource(
        rng.integers(0, 9, (count, 4, 4, 1), np.uint8), rng.integers(0, 9, count), num_classes=9
    )


def means(records, batch_size, devices):
    mesh = make_mesh(dict(data=-1, fsdp=1, tensor=1), jax.devices()[:devices])
    batches = (shard_batch(batch, mesh) for batch in eval_batches(records, [], batch_size))
    return evaluate(compile_evaluation(Brightness(), replicated(mesh)), jnp.float32(0.25), {}, batches)


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize(("count", "batch_size"), [(37, 8), (16, 8), (5, 8), (1, 16)])
def test_the_mean_over_all_records(count, batch_size, devices):
    records = source(count)
    every = records.take(np.arange(count))
    bright = 0.25 + every["image"].astype(np.float64).mean((1, 2, 3))
    metrics = means(records, batch_size, devices)
    assert set(metrics) == {"bright", "accuracy"}
    assert metrics["bright"] == pytest.approx(bright.mean(), rel=1e-6)
    assert metrics["accuracy"] == np.mean(np.round(bright) == every["label"])


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize(("count", "batch_size"), [(37, 8), (16, 8), (1, 16)])
def test_every_record_is_shown_once_and_in_order(count, batch_size, devices):
    records, seen = source(count), []
    mesh = make_mesh(dict(data=-1, fsdp=1, tensor=1), jax.devices()[:devices])
    rng = np.random.default_rng(0)

    def batches():
        for number, batch in enumerate(eval_batches(records, [], batch_size)):
            batch["index"] = number * batch_size + np.arange(batch_size, dtype=np.int32)
            shuffled = rng.permutation(batch_size)  # as meshes may have it, on which hosts are interleaved
            yield shard_batch({name: rows[shuffled] for name, rows in batch.items()}, mesh)

    step = compile_evaluation(Brightness(), replicated(mesh), rows=True)
    metrics = evaluate(step, jnp.float32(0.25), {}, batches(), seen.append)
    every = records.take(np.arange(count))
    together = {name: np.concatenate([rows[name] for rows in seen]) for name in seen[0]}
    assert set(together) == {"index", "label", "bright"}
    np.testing.assert_array_equal(together["index"], np.arange(count))
    np.testing.assert_array_equal(together["label"], every["label"])
    np.testing.assert_allclose(together["bright"], 0.25 + every["image"].mean((1, 2, 3)), rtol=1e-6)
    assert len(seen) == -(-count // batch_size)  # batch by batch
    assert metrics == pytest.approx(means(records, batch_size, devices), rel=1e-6)


def test_nothing_to_evaluate():
    with pytest.raises(DataError, match="the evaluation split has no records"):
        evaluate(Compiled(Brightness(), False, print), {}, {}, [])
    with pytest.raises(DataError, match="the evaluation split has no records"):
        evaluate(Compiled(Brightness(), True, print), {}, {}, [], print)


class Bands(Brightness):
    """Array sums, a scorer of the rows, and how both become metrics."""

    metric_modes: ClassVar = {"bright": "max", "spread": "min", "median": "max"}

    def evaluate(self, params, buffers, batch):
        bright = params + batch["image"].astype(jnp.float32).mean((1, 2, 3))
        moments = jnp.where(batch["mask"], jnp.stack([bright, bright**2]), 0.0).sum(1)
        return {"moments": moments, "count": batch["mask"].sum().astype(jnp.float32)}

    def evaluate_rows(self, params, buffers, batch):
        bright = params + batch["image"].astype(jnp.float32).mean((1, 2, 3))
        return self.evaluate(params, buffers, batch), {"bright": bright}

    def summarise(self, sums):
        mean, square = sums["moments"] / sums["count"]
        return {"bright": float(mean), "spread": float(square - mean**2)}

    def scorer(self):
        return Median()


class Median:
    """A metric that no sum makes."""

    def __init__(self):
        self.seen = []

    def see(self, rows):
        self.seen.append(rows["bright"])

    def metrics(self):
        return {"median": float(np.median(np.concatenate(self.seen)))}


@pytest.mark.parametrize("devices", [1, 8])
def test_metrics_of_arrays_and_of_the_whole_set(devices):
    records = source(37)
    mesh = make_mesh(dict(data=-1, fsdp=1, tensor=1), jax.devices()[:devices])

    def batches():
        for number, batch in enumerate(eval_batches(records, [], 8)):
            yield shard_batch(batch | {"index": number * 8 + np.arange(8, dtype=np.int32)}, mesh)

    step = compile_evaluation(Bands(), replicated(mesh))
    assert step.rows
    metrics = evaluate(step, jnp.float32(0.25), {}, batches())
    bright = 0.25 + records.take(np.arange(37))["image"].astype(np.float64).mean((1, 2, 3))
    expected = {"bright": bright.mean(), "spread": bright.var(), "median": np.median(bright)}
    assert metrics == pytest.approx(expected, rel=1e-5)
    assert evaluate(step, jnp.float32(0.25), {}, batches()) == metrics  # with a scorer of its own


def test_a_metric_must_be_declared():
    class Silent(Bands):
        metric_modes: ClassVar = {"bright": "max"}

    end = Moment(np.int32(1), 1, 1, {})
    batch = {
        "image": jax.ShapeDtypeStruct((8, 4, 4, 1), np.uint8),
        "mask": jax.ShapeDtypeStruct((8,), np.bool_),
    }

    class Abstract(Bands):
        def evaluate(self, params, buffers, batch):
            return super().evaluate(0.0, buffers, batch)

    assert metric_names(Abstract(), batch, end) == {"bright", "spread", "median"}
    with pytest.raises(ConfigError, match="Silent measures 'spread', which is missing from its metric_modes"):
        declared(Silent(), {"bright": 1.0, "spread": 0.0})
