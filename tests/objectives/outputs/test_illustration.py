"""Pictures of predictions: as the output draws them, at the size that this asks for; else their words."""

from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image

from vit_jax.evaluation.figure import draw
from vit_jax.objectives.outputs.base import NOT_FINITE, Output
from vit_jax.objectives.outputs.illustration import AT_ONCE, SIDE, illustrated
from vit_jax.objectives.outputs.values import Values

IMAGES = np.random.default_rng(0).integers(0, 256, (AT_ONCE + 3, 8, 8, 3), dtype=np.uint8)
NAMES = [f"{i}.png" for i in range(len(IMAGES))]


@dataclass(frozen=True)
class Inverted(Output):
    """Drawn as the negative of the image."""

    kind = "inverted"

    @property
    def columns(self):
        return {"mean": float}

    def record(self, outputs, size=None, geometry=None):
        return {"mean": float(outputs["mean"])}

    def text(self, record):
        return f"mean {record['mean']:.2f}"

    def draw(self, image, outputs):
        return 255 - image


def predict(images):
    return {"mean": images.mean(axis=(1, 2, 3))}


def test_what_the_output_draws_is_shown_larger(tmp_path):
    found = illustrated(predict, Inverted(), IMAGES, IMAGES, NAMES)
    assert (found.columns, found.side) == (("image", "prediction"), SIDE)
    for example, image, name in zip(found.examples, IMAGES, NAMES, strict=True):
        assert (example.record, example.caption) == (name, f"mean {image.mean():.2f}")
        np.testing.assert_array_equal(example.images[1], 255 - image)
    alone = illustrated(predict, Inverted(), IMAGES[:1], IMAGES[:1], NAMES[:1])
    with Image.open(draw(alone, tmp_path / "large.png")) as image:
        assert image.width > 2 * SIDE


def test_predictions_that_are_not_drawn_are_said():
    output = Values(("mean",))
    means = IMAGES.reshape(len(IMAGES), -1).mean(axis=1, keepdims=True)
    means[1] = np.nan
    found = illustrated(
        lambda images: {"values": means[: len(images)]}, output, IMAGES[:2], IMAGES[:2], NAMES[:2]
    )
    assert found.columns == ("image",)
    assert [example.caption for example in found.examples] == [f"mean {means[0, 0]:.6g}", NOT_FINITE]
    assert found.side == pytest.approx(SIDE / 2)
