"""Make `attention.png`: two photographs, and where a classifier that tells their crops apart looks in them.

    python docs/images/photographs.py

The model is small and trained for some minutes on crops of the left halves of the photographs that come with
scikit-learn, from scratch: it shows what the library draws, not what a large model would see. The photographs are
CC BY 2.0: china.jpg by danielbuechele, flower.jpg by vultilion, both from Flickr.
"""

import tempfile
from pathlib import Path

import jax
import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

import vit_jax
from vit_jax.data.sources.arrays import ArraySource
from vit_jax.evaluation.figure import draw
from vit_jax.models.families import family_of
from vit_jax.objectives.base import Example, Illustration
from vit_jax.objectives.pictures import attention_overlay
from vit_jax.training.config import default_config

HERE = Path(__file__).parent
NAMES = ("temple", "flower")
SIZE, PATCH, CROPS = 96, 8, 400


def crops(photographs, first, last, count, seed):
    """Return random crops `(n, 96, 96, 3)` of columns `first` to `last`, and which photograph each is of."""
    rng, images = np.random.default_rng(seed), []
    for photograph in photographs:
        for _ in range(count):
            side = rng.integers(SIZE, 240)
            top = rng.integers(0, photograph.shape[0] - side)
            left = rng.integers(first, last - side)
            crop = Image.fromarray(photograph[top : top + side, left : left + side])
            images.append(np.asarray(crop.resize((SIZE, SIZE), Image.Resampling.BICUBIC)))
    return np.stack(images), np.repeat(np.arange(len(photographs)), count)


def configuration():
    """Return the configuration of a small classifier of crops."""
    config = default_config()
    config.duration = "100 steps"
    config.model.update(
        name="vit_mu_patch16_224", image_size=SIZE, patch_size=PATCH, width=96, depth=4, heads=4, mlp_dim=288
    )
    config.data.update(source="arrays", batch_size=32, train_transforms="flip_lr")
    config.optimizer.learning_rate, config.schedule.warmup = 1e-3, "10%"
    config.log.tensorboard = False
    return config


def attention(run, photographs):
    """Return the whole photographs with the attention of a run's last block."""
    size = tuple(side // 2 // PATCH * PATCH for side in photographs[0].shape[:2])
    model = vit_jax.load(run, image_size=size)
    examples = []
    for label, photograph in enumerate(photographs):
        image = np.asarray(Image.fromarray(photograph).resize(size[::-1], Image.Resampling.BICUBIC))
        mean, std = np.float32(model.config.preprocessing.mean), np.float32(model.config.preprocessing.std)
        inputs = (image[None].astype(np.float32) / 255 - mean) / std
        logits, captured = model(inputs, capture=("attention/-1",))
        chances = np.asarray(jax.nn.softmax(logits))[0]
        best = int(chances.argmax())
        explanation = family_of(model.config).explain(model.config)
        overlay = attention_overlay(image, np.asarray(captured[explanation.capture])[0], explanation)
        caption = f"{NAMES[best]}  {chances[best]:.1%}  {'right' if best == label else 'WRONG'}"
        examples.append(Example(caption, [image, overlay], "", best == label))
    return Illustration("What tells two photographs apart", ("image", "attention, last block"), examples)


def main():
    """Train the model and write the picture."""
    photographs = load_sample_images().images
    middle = photographs[0].shape[1] // 2
    train, test = (
        ArraySource(*crops(photographs, first, first + middle, count, seed), NAMES, name=name)
        for first, count, seed, name in ((0, CROPS, 0, "the left crops"), (middle, 60, 1, "the right crops"))
    )
    with tempfile.TemporaryDirectory() as folder:
        vit_jax.train(configuration(), folder, sources=(train, test))
        draw(attention(folder, photographs), HERE / "attention.png")


if __name__ == "__main__":
    main()
