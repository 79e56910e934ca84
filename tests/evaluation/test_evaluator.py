"""Means over every record once, whatever the batch and the devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.data.arrays import ArraySource
from vit_jax.data.pipeline import eval_batches
from vit_jax.errors import DataError
from vit_jax.evaluation.evaluator import compile_evaluation, evaluate
from vit_jax.training.mesh import make_mesh, replicated, shard_batch


class Brightness:
    """The least objective to evaluate: how bright images are, and how often as bright as their label says."""

    def evaluate(self, params, buffers, batch):
        bright = params + batch["image"].astype(jnp.float32).mean((1, 2, 3))
        rows = {
            "bright": bright,
            "accuracy": (jnp.round(bright).astype(jnp.int32) == batch["label"]).astype(jnp.float32),
        }
        sums = {name: jnp.sum(jnp.where(batch["mask"], values, 0.0)) for name, values in rows.items()}
        return sums | {"count": batch["mask"].sum().astype(jnp.float32)}


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


def test_nothing_to_evaluate():
    with pytest.raises(DataError, match="the evaluation split has no records"):
        evaluate(lambda *_: {}, {}, {}, [])
