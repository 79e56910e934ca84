"""Predictions take the frozen networks that they ask for, and no others; what is exported has them too."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from tests.tiny import tiny
from vit_jax.inference.export.export import export_predictor
from vit_jax.inference.export.exported import BUFFERS, ExportedPredictor
from vit_jax.inference.frozen import frozen_of
from vit_jax.inference.predictor import Predictor
from vit_jax.objectives.base import Constant, Moment, Objective
from vit_jax.objectives.outputs.values import Values
from vit_jax.training.config.defaults import default_config


@dataclasses.dataclass(frozen=True)
class Guided(Objective):
    """The mean of an image by a factor, shifted by a buffer, times what a frozen network says."""

    model: object
    moment: Moment | None = None
    output = Values(("mean",))

    def constants(self):
        draw = lambda key: {"scale": jax.random.uniform(key, (1,))}  # noqa: E731
        return {"guide": Constant(init=draw), "teacher": Constant(init=draw)}

    def at(self, moment):
        return dataclasses.replace(self, moment=moment)

    def init(self, key):
        return {"factor": jnp.ones((1,))}, {"shift": jnp.ones((1,))}

    def loss(self, params, buffers, batch, key):
        raise NotImplementedError

    def evaluate(self, params, buffers, batch):
        raise NotImplementedError

    def predict(self, params, buffers, batch):
        mean = batch["image"].astype(jnp.float32).mean(axis=(1, 2, 3))[:, None] * params["factor"]
        return {"values": (mean + buffers["shift"]) * self.moment.constants["guide"]["scale"]}


def test_only_what_predictions_ask_for_is_loaded_and_exported(tmp_path):
    objective = Guided(tiny(image_size=(8, 8)))
    frozen = frozen_of(objective, 3, (8, 8, 3), seed=0)
    assert frozen.keys() == {"guide"}
    params, buffers = jax.jit(objective.init)(jax.random.key(0))
    predictor = Predictor(objective, params, default_config(), "", buffers=buffers, frozen=frozen, steps=3)
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    expected = (images.mean(axis=(1, 2, 3)) + 1) * float(frozen["guide"]["scale"][0])
    np.testing.assert_allclose([p.values[0] for p in predictor.predict(images)], expected, rtol=1e-5)
    export_predictor(predictor, tmp_path / "exported")
    assert (tmp_path / "exported" / BUFFERS).exists()
    there = ExportedPredictor.load(tmp_path / "exported")
    np.testing.assert_allclose([p.values[0] for p in there.predict(images)], expected, rtol=1e-5)
    assert there.buffers.keys() == {"buffers/shift", "frozen/guide/scale"}
