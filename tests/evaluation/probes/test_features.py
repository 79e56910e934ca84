"""Features of every record that can be read, once and in order, on any number of devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.errors import DataError, DivergedError
from vit_jax.evaluation.probes.features import compile_features, features_of_all
from vit_jax.training.devices.mesh import make_mesh, replicated, shard_batch

IMAGES = np.random.default_rng(0).integers(0, 255, (11, 2, 2, 1), np.uint8)


def embed(params, buffers, batch):
    return params * batch["image"].reshape(-1, 4).astype(jnp.float32)


def gathered(devices=8, skipped=(), scale=2.0, order=1, label=True):
    mesh = make_mesh(dict(data=-1, fsdp=1, tensor=1), jax.devices()[:devices])

    def batches():
        for first in (0, 8)[::order]:
            index = np.arange(first, first + 8)
            known = np.minimum(index, 10)
            batch = {"image": IMAGES[known], "mask": (index < 11) & ~np.isin(index, skipped)}
            batch |= {"index": index.astype(np.int32)}
            yield shard_batch(batch | {"label": known.astype(np.int32)} if label else batch, mesh)

    step = compile_features(embed, replicated(mesh))
    return features_of_all(step, jnp.float32(scale), {}, batches(), "the records")


@pytest.mark.parametrize(("devices", "order"), [(1, 1), (8, 1), (8, -1)])
def test_every_record_once_and_in_order(devices, order):
    found = gathered(devices, order=order)
    np.testing.assert_array_equal(found.values, 2 * IMAGES.reshape(-1, 4).astype(np.float32))
    np.testing.assert_array_equal(found.labels, np.arange(11))


def test_what_could_not_be_read_is_left_out():
    np.testing.assert_array_equal(gathered(skipped=(3, 9)).labels, [0, 1, 2, 4, 5, 6, 7, 8, 10])
    with pytest.raises(DataError, match="no record of the records could be read"):
        gathered(skipped=range(16))


def test_records_without_labels_have_features():
    np.testing.assert_array_equal(gathered(label=False).labels, np.full(11, -1))


def test_features_that_are_not_finite_are_told():
    with pytest.raises(
        DivergedError, match=r"the features of 11 of 11 records \(the records\) are not finite"
    ):
        gathered(scale=np.nan)
