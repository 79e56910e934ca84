"""mIoU on digit scenes: a baseline without learning, and `configs/scenes_segmentation.py` beside it.

python benchmarks/digit_scenes.py --train runs/scenes --picture scenes.jpg --json scenes.json

The baseline takes for a digit what differs from the median colour of its scene, and names each connected piece after
the training digit whose 8 by 8 pixels are nearest; the rest is the photograph whose mean colour is nearer.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

import vit_jax
from vit_jax.allocation import start_tuned
from vit_jax.data.images.overlays import overlaid
from vit_jax.data.sources.digit_scenes import SceneSource
from vit_jax.data.sources.digits import open_digits
from vit_jax.evaluation.metrics.segmentation import class_ious, summary
from vit_jax.objectives.outputs.segmentation import Segmentation

Predict = Callable[[np.ndarray], np.ndarray]  # from a scene to the class of each pixel

CONFIG = Path(__file__).parent.parent / "configs" / "scenes_segmentation.py"
THRESHOLDS = range(100, 500, 50)  # of the distance to the median, over three channels
FEWEST = 20  # pixels of a piece


class Baseline:
    """Threshold, connected pieces, nearest neighbour; the threshold is the best of some training scenes."""

    def __init__(self, scenes: int = 100):
        digits = open_digits("train")
        self.digits = _normalised(digits.take(np.arange(len(digits)))["image"][..., 0])
        assert digits.labels is not None
        self.labels = digits.labels
        train = [SceneSource("train", scenes)[index] for index in range(scenes)]
        photographs = [[scene["image"][scene["segmentation"] == 10 + i] for scene in train] for i in range(2)]
        self.means = np.stack([np.concatenate(pixels).mean(axis=0) for pixels in photographs])
        scores: dict[int, float] = {}
        for self.threshold in THRESHOLDS:
            scores[self.threshold] = summary(_confusion(self, train))["miou"]
        self.threshold = max(scores, key=scores.__getitem__)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Return the class of each pixel of a scene."""
        distance = np.abs(image.astype(np.int32) - np.median(image, axis=(0, 1))).sum(axis=-1)
        nearer = np.square(image[:, :, None] - self.means).sum(axis=-1).argmin(axis=-1)
        classes = (10 + nearer).astype(np.int32)
        count, pieces, boxes, _ = cv2.connectedComponentsWithStats(
            (distance > self.threshold).astype(np.uint8)
        )
        for piece in range(1, count):
            left, top, width, height, area = boxes[piece]
            if area >= FEWEST:
                mask = pieces == piece
                crop = mask[top : top + height, left : left + width].astype(np.float32)
                small = _normalised(cv2.resize(_square(crop), (8, 8), interpolation=cv2.INTER_AREA)[None])
                nearest = np.square(self.digits - small).sum(axis=-1).argmin()
                classes[mask] = self.labels[nearest]
        return classes


def _square(crop: np.ndarray) -> np.ndarray:
    side = max(crop.shape)
    return np.pad(crop, [((side - axis) // 2, side - axis - (side - axis) // 2) for axis in crop.shape])


def _normalised(images: np.ndarray) -> np.ndarray:
    flat = images.reshape(len(images), -1).astype(np.float32)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)


def _confusion(predict: Predict, scenes: list[dict]) -> np.ndarray:
    matrix = np.zeros((12, 12), np.int64)
    for scene in scenes:
        pairs = 12 * scene["segmentation"] + predict(scene["image"])
        matrix += np.bincount(pairs.reshape(-1), minlength=144).reshape(12, 12)
    return matrix


def main() -> None:
    """Print the numbers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenes", type=int, default=500, help="to test on (default 500)")
    parser.add_argument(
        "--train", metavar="WORKDIR", help="train the configuration there too, or take what is there"
    )
    parser.add_argument(
        "--picture", metavar="FILE", help="draw some scenes, their classes and what is predicted"
    )
    parser.add_argument("--json", metavar="FILE", help="write every number")
    arguments = parser.parse_args()
    scenes = [SceneSource("test", arguments.scenes)[index] for index in range(arguments.scenes)]
    baseline = Baseline()
    found = {"baseline": _confusion(baseline, scenes)}
    predict: dict[str, Predict] = {"baseline": baseline}
    if arguments.train:
        start = time.perf_counter()
        config = vit_jax.load_config(str(CONFIG), ["log.progress=false"])
        vit_jax.train(config, arguments.train)
        print(f"trained in {time.perf_counter() - start:.0f} s")
        predictor = vit_jax.Predictor.load(arguments.train)
        output = predictor.output
        assert isinstance(output, Segmentation)

        def classes_of(image: np.ndarray) -> np.ndarray:
            (prediction,) = predictor.predict([image])
            return output.label_map(prediction.outputs, image.shape[:2], None)

        predict["ViT"] = classes_of
        found["ViT"] = _confusion(classes_of, scenes)
    numbers = {name: summary(matrix) | {"iou": class_ious(matrix).tolist()} for name, matrix in found.items()}
    for name, values in numbers.items():
        print(f"{name:<9} mIoU {values['miou']:.4f}, pixel accuracy {values['pixel_accuracy']:.4f}")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(numbers, indent=2) + "\n")
    if arguments.picture:
        rows = []
        for scene in scenes[:4]:
            image = scene["image"]
            maps = [scene["segmentation"], *(one(image) for one in predict.values())]
            rows.append(np.concatenate([image, *(overlaid(image, classes) for classes in maps)], axis=1))
        cv2.imwrite(arguments.picture, np.concatenate(rows)[..., ::-1])


if __name__ == "__main__":
    start_tuned()  # as the command does
    main()
