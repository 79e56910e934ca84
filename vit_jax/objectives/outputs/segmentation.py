"""A class for each pixel: indexed PNG in the image's own size, an overlay, and how much each class covers."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from vit_jax.data.images.label_maps import encode_labels
from vit_jax.data.images.overlays import colours, overlaid
from vit_jax.evaluation.metrics.segmentation import ious
from vit_jax.objectives.outputs.base import Columns, Output, Outputs

_STRIP = 2**16  # pixels whose logits are resampled together


@dataclass(frozen=True)
class Segmentation(Output):
    """A class for each pixel.

    `predict` gives `logits` `(b, rows, columns, c)` over what the model saw; `evaluate_rows` gives of each image the
    pixels `(b, c)` of each class that are `labelled`, `predicted` and both, `hits`.

    Attributes:
      class_names: in order of their numbers.
      image_size: height and width of what the model sees.
    """

    kind = "segmentation"
    class_names: tuple[str, ...]
    image_size: tuple[int, int]

    @property
    def columns(self) -> Columns:
        """The classes that there are, and the share of the pixels that each covers."""
        count = len(self.class_names)
        return {"classes": (str, count), "shares": (float, count)}

    def record(
        self, outputs: Outputs, size: tuple[int, int] | None = None, geometry: np.ndarray | None = None
    ) -> dict[str, Any]:
        """Return the classes that cover any pixel, the largest first."""
        labels = self.label_map(outputs, size, geometry)
        pixels = np.bincount(labels[labels >= 0], minlength=len(self.class_names))
        return self._shares(pixels, labels.size)

    def text(self, record: Mapping[str, Any]) -> str:
        """Return `road 61.0%   sky 20.5%`."""
        return "   ".join(f"{name} {share:.1%}" for name, share in zip(record["classes"], record["shares"]))

    def line(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Return the share of each class by name."""
        return {"segmentation": dict(zip(record["classes"], record["shares"]))}

    @property
    def evaluated_columns(self) -> Columns:
        """Of each image how much of it is right, and what is predicted."""
        return {"pixel_accuracy": float, "miou": float, **self.columns}

    def evaluated(self, row: Outputs) -> dict[str, Any]:
        """Return the accuracy of an image, its mean IoU over the classes that it has, and the shares of classes."""
        labelled, predicted, hits = (row[name].astype(np.int64) for name in ("labelled", "predicted", "hits"))
        known = int(labelled.sum())
        return {
            "pixel_accuracy": float(hits.sum() / known) if known else None,
            "miou": float(np.nanmean(ious(labelled, predicted, hits))) if known else None,
            **self._shares(predicted, known),
        }

    def files(
        self, outputs: Outputs, stem: str, image: np.ndarray, geometry: np.ndarray | None = None
    ) -> dict[str, bytes]:
        """Return the classes of all pixels of an image as PNG with a palette, and the image with their colours.

        A pixel's index is the number of its class; 255 (65535 in PNG of 16 bits, for more than 255 classes) is a pixel
        that the model did not see.
        """
        labels, count = self.label_map(outputs, image.shape[:2], geometry), len(self.class_names)
        unseen = 255 if count <= 255 else 65535
        return {
            f"{stem}.png": encode_labels(np.where(labels < 0, unseen, labels), colours(count)),
            f"{stem}_overlay.png": _png(overlaid(image, labels)),
        }

    def draw(self, image: np.ndarray, outputs: Outputs) -> np.ndarray:
        """Return an image with the colours of its classes."""
        return overlaid(image, self.label_map(outputs, image.shape[:2], None))

    def label_map(
        self, outputs: Outputs, size: tuple[int, int] | None, geometry: np.ndarray | None
    ) -> np.ndarray:
        """Return the class of each pixel, int32 `(h, w)`, -1 where the model did not see it.

        Logits are interpolated, and not classes.

        Args:
          outputs: `logits` `(rows, columns, c)`.
          size: height and width; None for what the model saw.
          geometry: float32 `(2, 3)`, from the pixels of such an image to those of what the model saw; None where it
            saw the whole of it.
        """
        logits, (height, width) = outputs["logits"], size or self.image_size
        rows, columns = logits.shape[:2]
        if geometry is None:
            scales = self.image_size[1] / width, self.image_size[0] / height
            geometry = np.array([[scales[0], 0, 0], [0, scales[1], 0]])
        labels = np.empty((height, width), np.int32)
        strip = max(1, _STRIP // width)
        for top in range(0, height, strip):
            y, x = np.mgrid[top : min(top + strip, height), :width] + 0.5
            across, down = np.einsum("ij,jhw->ihw", geometry[:, :2], np.stack([x, y])) + geometry[:, 2:, None]
            seen = (across >= 0) & (across <= self.image_size[1]) & (down >= 0) & (down <= self.image_size[0])
            values = _interpolated(
                logits, down * rows / self.image_size[0] - 0.5, across * columns / self.image_size[1] - 0.5
            )
            labels[top : top + strip] = np.where(seen, values.argmax(axis=-1), -1)
        return labels

    def _shares(self, pixels: np.ndarray, total: int) -> dict[str, Any]:
        order = [int(i) for i in np.argsort(-pixels, kind="stable") if pixels[i]]
        return {
            "classes": [self.class_names[i] for i in order],
            "shares": [float(pixels[i] / total) for i in order] if total else [],
        }


def painted(classes: np.ndarray) -> np.ndarray:
    """Return classes int `(h, w)` in their colours, uint8 `(h, w, 3)`; what is below 0 is black."""
    table = np.concatenate([np.zeros((1, 3), np.uint8), colours(int(classes.max(initial=0)) + 1)])
    return table[np.maximum(classes, -1) + 1]


def _png(image: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(image).save(content, "PNG")
    return content.getvalue()


def _interpolated(grid: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return values of `(h, w, c)` between the centres of its places, at the border those of the border."""
    rows, columns = np.clip(rows, 0, grid.shape[0] - 1), np.clip(columns, 0, grid.shape[1] - 1)
    top, left = rows.astype(np.int64), columns.astype(np.int64)
    bottom, right = np.minimum(top + 1, grid.shape[0] - 1), np.minimum(left + 1, grid.shape[1] - 1)
    down, across = (rows - top)[..., None], (columns - left)[..., None]
    upper = grid[top, left] * (1 - across) + grid[top, right] * across
    lower = grid[bottom, left] * (1 - across) + grid[bottom, right] * across
    return upper * (1 - down) + lower * down
