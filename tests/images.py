"""A small folder of images whose classes show in their colour."""

import numpy as np
from PIL import Image

COLOURS = ("blue", "green", "red")


def colour_folder(folder, per_class=(12, 4), size=(40, 48)):
    """Write `train/COLOUR/*.png` and `val/COLOUR/*.png` of noise that leans to the colour; return the folder."""
    rng = np.random.default_rng(0)
    for split, count in zip(("train", "val"), per_class):
        for index, name in enumerate(COLOURS):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 120, (*size, 3), dtype=np.uint8)
                pixels[..., 2 - index] += 100
                Image.fromarray(pixels).save(folder / split / name / f"{number}.png")
    return folder
