"""What `make_golden.py` stored, and images to try operations on."""

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np

_FOLDER = Path(__file__).parent


@functools.cache
def arrays() -> dict[str, np.ndarray]:
    """Return the stored images by name; `image` is what all others were made from."""
    with np.load(_FOLDER / "golden_augmentations.npz") as stored:
        return dict(stored)


@functools.cache
def tables() -> dict[str, Any]:
    """Return the stored tables of policies and levels."""
    return json.loads((_FOLDER / "golden_policies.json").read_text())


def images() -> dict[str, np.ndarray]:
    """Return images of several kinds: like a photograph, grey, noise, one value, small, and not contiguous."""
    photograph = arrays()["image"]
    rng = np.random.default_rng(3)
    return {
        "photograph": photograph,
        "grey": photograph[..., :1],
        "noise": rng.integers(0, 256, (33, 21, 3), np.uint8),
        "grey noise": rng.integers(0, 256, (21, 33, 1), np.uint8),
        "flat": np.full((16, 20, 3), 77, np.uint8),
        "two values": np.where(rng.random((16, 20, 3)) < 0.5, 3, 250).astype(np.uint8),
        "tiny": photograph[:2, :3],
        "mirrored": photograph[:, ::-1],
    }


class Fixed:
    """Stands in for a generator whose uniform draws are all the same."""

    def __init__(self, draw: float):
        self._draw = draw

    def random(self) -> float:
        """Return the draw."""
        return self._draw
