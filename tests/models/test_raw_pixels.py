"""Pixels as files have them are refused by every model that takes images, and the remedy gives its logits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vit_jax
from tests.tiny import tiny
from vit_jax.errors import ConfigError
from vit_jax.models.mae.config import MaeConfig
from vit_jax.models.patches import Patches
from vit_jax.models.registry import model_functions
from vit_jax.models.vit.config import replace

ENCODER = tiny(num_classes=0, pool="none")
CONFIGS = {
    "classifier": tiny(),
    "mae": MaeConfig(ENCODER, replace(ENCODER, num_classes=48)),
}


@pytest.mark.parametrize("dtype", ["uint8", "int32", "bool"])
@pytest.mark.parametrize("name", CONFIGS)
def test_whole_numbers_are_refused(name, dtype):
    functions = model_functions(CONFIGS[name])
    params = jax.eval_shape(functions.init, jax.random.key(0))
    images = jax.ShapeDtypeStruct((2, 16, 16, 3), jnp.dtype(dtype))
    arguments = (jnp.zeros((2, 16)), 0.75) if name == "mae" else ()
    with pytest.raises(ConfigError, match=rf"images are {dtype}, .*vit_jax\.preprocessing\(model\)"):
        jax.eval_shape(lambda params, images: functions.apply(params, images, *arguments), params, images)


def test_patches_of_whole_numbers_are_refused():
    config = tiny(class_token=False, pool="mean", image_size=16, resample="bilinear")
    functions = model_functions(config)
    params = jax.eval_shape(functions.init, jax.random.key(0))
    patches = Patches(jnp.zeros((1, 16, 48), jnp.uint8), jnp.array([[4, 4]]))
    with pytest.raises(ConfigError, match="images are uint8"):
        jax.eval_shape(functions.apply, params, patches)


def test_the_remedy_works():
    model = vit_jax.create_model("vit_mu_patch2_8", num_classes=3, in_channels=3)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    normalised = vit_jax.preprocessing(model)(list(pixels))
    np.testing.assert_allclose(normalised, pixels / 127.5 - 1, atol=1e-6)
    assert model(normalised).shape == (2, 3)
