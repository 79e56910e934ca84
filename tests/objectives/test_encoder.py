"""Features of whatever an objective learns: what goes into the head."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny import functions, labelled, parameters, randomised, run, tiny
from vit_jax.models.layers.lora import Lora
from vit_jax.models.vit.config import replace
from vit_jax.objectives.adapted import Adapted
from vit_jax.objectives.base import DataInfo
from vit_jax.objectives.classification import Classification
from vit_jax.objectives.classification.options import ClassificationOptions
from vit_jax.objectives.encoder import part_of, pooled_features
from vit_jax.objectives.images import normalise
from vit_jax.objectives.mae.objective import build
from vit_jax.objectives.mae.options import MaeOptions

BATCH = labelled(3)


def features(objective, params):
    return np.asarray(jax.jit(objective.features)(params, {}, BATCH))


@pytest.mark.parametrize(
    ("model", "pooled"),
    [
        (tiny(), lambda tokens: tokens[:, 0]),
        (tiny(pool="none"), lambda tokens: tokens[:, 0]),
        (tiny(pool="none", class_token=False), lambda tokens: tokens.mean(axis=1)),
    ],
)
def test_what_goes_into_the_head(model, pooled):
    params = parameters(model)
    captured = run(model, normalise(BATCH["image"], model.preprocessing), capture=("encoded",))[1]
    expected = pooled(captured["encoded"])
    found = jax.jit(pooled_features, static_argnums=0)(model, params, {}, BATCH)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_an_autoencoder_gives_its_encoder_all_patches():
    model = tiny(num_classes=0)
    objective = build(model, MaeOptions(decoder_width=16, decoder_depth=1, decoder_heads=2), DataInfo(5))
    params = randomised(jax.eval_shape(objective.init, jax.random.key(0))[0])
    encoder = part_of(params, "encoder")
    assert part_of({}, "encoder") == {}
    headless = functions(replace(objective.model, num_classes=0, pool="cls"))
    images = normalise(BATCH["image"], model.preprocessing)
    np.testing.assert_allclose(
        features(objective, params), jax.jit(headless.apply)(encoder, images), rtol=1e-5, atol=1e-5
    )


def test_low_rank_factors_are_merged():
    lora, model = Lora(2, 8.0, ("query", "mlp")), tiny()
    objective = Classification(model, ClassificationOptions(), DataInfo(5))
    params = parameters(model)
    factors = randomised(lora.init(jax.random.key(0), params), seed=1)
    adapted = features(Adapted(objective, lora), params | {"lora": factors})
    np.testing.assert_allclose(
        adapted, features(objective, jax.jit(lora.merge)(params | {"lora": factors})), atol=1e-5
    )
    assert np.abs(adapted - features(objective, params)).max() > 1e-3
    assert adapted.dtype == jnp.float32
