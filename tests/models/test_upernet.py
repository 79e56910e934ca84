"""Segmentation with UPerNet: sizes, what reaches which pixel, and which numbers stay as they are in training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.tiny import functions, parameters, pixels, tiny
from vit_jax import trees
from vit_jax.errors import ConfigError
from vit_jax.models.flops import parameter_count
from vit_jax.models.heads.parts import Larger
from vit_jax.models.heads.upernet.config import UperNetConfig
from vit_jax.models.heads.upernet.model import pooling_matrix
from vit_jax.models.vit.config import replace

BARE = tiny(
    pool="none",
    pool_norm="none",
    num_classes=0,
    width=16,
    depth=2,
    position_bias="blocks",
    k_bias=False,
    layer_scale=0.1,
    image_size=(8, 12),
    norm_epsilon=1e-12,
)
PIXELS = UperNetConfig(
    BARE, num_classes=6, taps=(0, 1, 2, 1), pool_scales=(1, 2), auxiliary_channels=4, auxiliary_concat=True
)


def test_logits_cover_the_image_and_no_gradient_reaches_statistics():
    params, model, images = parameters(PIXELS), functions(PIXELS), pixels(2, 8, 12)

    @jax.jit
    def gradient(params):
        def loss(params):
            logits, (auxiliary,) = model.bind(params).with_auxiliary(images)
            return jnp.square(logits).sum() + jnp.square(auxiliary).sum(), (logits, auxiliary)

        return jax.grad(loss, has_aux=True)(params)

    found, (logits, auxiliary) = gradient(params)
    assert logits.shape == (2, 8, 12, 6)
    assert auxiliary.shape == (2, 2, 3, 6)
    for path, leaf in trees.flatten(found).items():
        fixed = path.endswith(("norm/mean", "norm/variance"))
        assert jnp.any(leaf != 0) != fixed, path


def test_bins_cover_everything_and_overlap_where_they_must():
    np.testing.assert_allclose(
        pooling_matrix(5, 2), [[1 / 3, 1 / 3, 1 / 3, 0, 0], [0, 0, 1 / 3, 1 / 3, 1 / 3]]
    )
    np.testing.assert_array_equal(pooling_matrix(3, 3), np.eye(3))
    np.testing.assert_array_equal(pooling_matrix(2, 4), np.repeat(np.eye(2), 2, axis=0))


def test_a_pixel_becomes_four_of_its_own():
    double = Larger(4, 2, rngs=nnx.Rngs(0))
    pixel = jnp.zeros((1, 2, 3, 4)).at[0, 1, 2, 0].set(1.0)
    found = double(pixel)
    np.testing.assert_allclose(found[0, 2:4, 4:6], double.kernel[...][0], atol=1e-6)
    np.testing.assert_array_equal(found.at[0, 2:4, 4:6].set(0), 0)


def test_an_encoder_without_a_norm_counts_its_parameters():
    shapes = jax.eval_shape(functions(BARE).init, jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == parameter_count(BARE)
    assert "norm" not in shapes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(taps=(0, 1, 2)), r"taps is \(0, 1, 2\); it must be four numbers of blocks, 0 to 2"),
        (dict(taps=(0, 1, 2, 3)), r"taps is \(0, 1, 2, 3\); it must be numbers of blocks, 0 to 2"),
        (dict(norm="group"), "norm is 'group'; it must be one of batch, layer"),
        (dict(encoder=replace(BARE, image_size=(4, 8))), "needs at least 2x2"),
    ],
)
def test_what_cannot_be_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        replace(PIXELS, **changes)
