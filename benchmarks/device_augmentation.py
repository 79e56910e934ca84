"""Images per second of multi-crop on the CPU and on the device, by turns, with the very same views.

    python benchmarks/device_augmentation.py [--transforms SPEC] [--batch N] [--rounds N]

The CPU decodes JPEG files and makes the views of DINO; or it decodes, makes all images one size, and the device makes
the views of them. Both end with views on the device. What the device alone takes is measured too, as that runs beside
the CPU's part on machines with an accelerator, where the slower of both counts. Photographs are pieces of the two that
scikit-learn brings, of 500x375 pixels. See benchmarks/README.md.
"""

import argparse
import time
from collections.abc import Callable
from contextlib import closing
from statistics import median

import cv2
import jax
import numpy as np
from sklearn.datasets import load_sample_images

from vit_jax.data.pipeline import train_batches
from vit_jax.data.sources.sequence import as_sources
from vit_jax.data.transforms.spec import parse
from vit_jax.training.augmentation.views import device_views

SIZE, SEED = (375, 500), 0


def photographs(count: int) -> list[dict[str, object]]:
    """Return records of JPEG files."""
    rng, wholes, records = np.random.default_rng(SEED), load_sample_images().images, []
    for number in range(count):
        whole = wholes[number % len(wholes)]
        top, left = (int(rng.integers(a - b + 1)) for a, b in zip(whole.shape, SIZE))
        piece = whole[top : top + SIZE[0], left : left + SIZE[1], ::-1]
        encoded = cv2.imencode(".jpg", piece, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
        records.append({"image": encoded, "label": number % 2})
    return records


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--transforms",
        default="multi_crop(224, 96)",
        metavar="SPEC",
        help="default: DINO's two and eight views",
    )
    add(
        "--canvas",
        default="resize(256)",
        metavar="SPEC",
        help="what makes images one size; default: resize(256)",
    )
    add("--batch", type=int, default=32, metavar="N", help="images; default: 32")
    add("--rounds", type=int, default=7, metavar="N", help="turns of each; default: 7")
    add(
        "--threads",
        type=int,
        default=0,
        metavar="N",
        help="of the CPU's part; default: none beside the main one",
    )
    arguments = parser.parse_args()

    source = as_sources((photographs(4 * arguments.batch),) * 2)[0]
    views = device_views(arguments.transforms)
    make, key = jax.jit(views.__call__), jax.random.key(SEED)

    def batches(spec: str):
        own = parse(spec)
        return train_batches(source, own, arguments.batch, SEED, 0, num_threads=arguments.threads, prefetch=0)

    def pixels(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: rows for name, rows in batch.items() if name == "image" or name.endswith("_crops")}

    with (
        closing(batches(f"decode|{arguments.transforms}")) as whole,
        closing(batches(f"decode|{arguments.canvas}")) as canvases,
    ):
        kept = jax.device_put(pixels(next(canvases)))
        sides: dict[str, Callable[[], object]] = {
            "cpu": lambda: jax.device_put(pixels(next(whole))),
            "device": lambda: make(jax.device_put(pixels(next(canvases))), key),
            "device, its part alone": lambda: make(kept, key),
            "device, the CPU's part alone": lambda: jax.device_put(pixels(next(canvases))),
        }
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for run in sides.values():
            jax.block_until_ready(run())
        for _ in range(arguments.rounds):
            for name, run in sides.items():
                start = time.perf_counter()
                jax.block_until_ready(run())
                seconds[name].append(time.perf_counter() - start)
    print(f"{jax.devices()[0].device_kind}, batches of {arguments.batch}, {arguments.transforms}")
    for name, taken in seconds.items():
        ratio = median(cpu / own for cpu, own in zip(seconds["cpu"], taken))
        print(f"{name:<30} {arguments.batch / median(taken):9.1f} images/s  {ratio:6.2f} times the CPU's")


if __name__ == "__main__":
    main()
