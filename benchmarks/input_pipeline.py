"""Images per CPU-second of our input pipeline, of tf.data and of torchvision's DataLoader, on the same photographs.

    python benchmarks/input_pipeline.py --tf-python PATH --torch-python PATH [--images FOLDER]

Every side decodes JPEG files, takes a random resized crop of 224 pixels, flips, and makes batches of uint8; also with
RandAugment. tf.data takes the very crops and flips of ours. Sides work in turns, each until its buffers are full again,
and processor time is that of a side's whole process tree; so background work is counted, and nobody's in another's
turn. Photographs are pieces of those in FOLDER (any *.jpg below it), else of the two that scikit-learn brings, put
together without resampling to 500x375 and 2000x1500 pixels. See benchmarks/README.md.
"""

import argparse
import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from worker import Worker

CROP, BATCH, SEED = 224, 64, 0
SIZES = {"500x375": (375, 500), "2000x1500": (1500, 2000)}
CEILING, REFERENCE = "decoder alone", "fast"
LINEAR = f"decode|random_resized_crop({CROP}, antialias='none')|flip_lr"
FAST = f"decode|random_resized_crop({CROP})|flip_lr"
# What each side runs: transforms or library settings, and how it is read.
OURS = {
    "fast": (FAST, {}),
    "linear": (LINEAR, {}),
    "fast, randaug(2, 10)": (f"{FAST}|randaug(2, 10)", {}),
    "fast, rand-m9-mstd0.5-inc1": (f"{FAST}|rand_augment('rand-m9-mstd0.5-inc1')", {}),
    "fast, 2 threads": (FAST, {"num_threads": 2}),
    "fast, 2 processes": (FAST, {"num_workers": 2}),
    "linear, 2 threads": (LINEAR, {"num_threads": 2}),
}
TF = {"linear, default decoding": "INTEGER_FAST", "linear, accurate decoding": "INTEGER_ACCURATE"}
OPTIONS = {"tf.data": "--tf-python", "torchvision": "--torch-python"}
TORCH = {"no workers": (0, False), "2 workers": (2, False), "2 workers, RandAugment": (2, True)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--images", metavar="FOLDER", type=Path, help="photographs; default: the two of scikit-learn")
    add("--tf-python", metavar="PATH", help="a Python that has tensorflow, to measure tf.data")
    add("--torch-python", metavar="PATH", help="a Python that has torchvision, to measure its DataLoader")
    add("--sizes", nargs="+", default=list(SIZES), choices=SIZES, help="default: both")
    add("--rounds", type=int, default=7, metavar="N", help="turns of every side; default: 7")
    add("--batches", type=int, default=4, metavar="N", help=f"of {BATCH} images in a turn; default: 4")
    add("--json", metavar="FILE", type=Path, help="also write everything that was measured")
    add("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        serve({"ours": ours, "tf.data": tf_data, "torchvision": torchvision}[arguments.worker])
        return
    pythons = {"ours": sys.executable, "tf.data": arguments.tf_python, "torchvision": arguments.torch_python}
    report = {"load_before": os.getloadavg()[0], "cores": os.cpu_count(), "batch": BATCH, "sizes": {}}
    with tempfile.TemporaryDirectory() as folder:
        for size in arguments.sizes:
            photographs(arguments.images, Path(folder) / size, SIZES[size], 192 if size == "500x375" else 64)
            measured = measure(Path(folder) / size, pythons, arguments.rounds, arguments.batches)
            report["sizes"][size] = measured
            show(size, measured)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


def photographs(source: Path | None, target: Path, size: tuple[int, int], count: int) -> None:
    """Write JPEG files of a size: pieces of photographs side by side, none of their pixels resampled."""
    from PIL import Image

    if source is None:
        from sklearn.datasets import load_sample_images

        pieces = [np.asarray(image) for image in load_sample_images().images]
    else:
        files = sorted(source.rglob("*.jpg"))[:200]
        pieces = [np.asarray(Image.open(file).convert("RGB")) for file in files]
    rng = np.random.default_rng(0)
    (target / "photo").mkdir(parents=True)
    for number in range(count):
        canvas = np.zeros((*size, 3), np.uint8)
        top = 0
        while top < size[0]:
            left, lowest = 0, size[0]
            while left < size[1]:
                piece = pieces[rng.integers(len(pieces))]
                if len(pieces) == 2:  # the same two would repeat: begin anywhere
                    piece = piece[rng.integers(200) :, rng.integers(300) :]
                part = piece[: size[0] - top, : size[1] - left]
                canvas[top : top + part.shape[0], left : left + part.shape[1]] = part
                left, lowest = left + part.shape[1], min(lowest, top + part.shape[0])
            top = lowest
        buffer = io.BytesIO()
        Image.fromarray(canvas).save(buffer, "JPEG", quality=95)
        (target / "photo" / f"{number:03}.jpg").write_bytes(buffer.getvalue())


def draws(folder: Path, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return which file, box and flip ours has at each of the first positions of training."""
    from vit_jax.data.images.decode import jpeg_header
    from vit_jax.data.sources.folder import FolderSource
    from vit_jax.data.transforms.crops import RandomResizedCrop

    source, crop = FolderSource(folder, "train"), RandomResizedCrop(CROP)
    indices = source.order(np.arange(count), SEED)
    boxes, flips = [], []
    for position, index in enumerate(indices):
        generator = np.random.Generator(np.random.Philox(key=SEED, counter=[0, 0, 0, position]))
        header = jpeg_header(source[int(index)]["image"])
        assert header is not None
        boxes.append(crop.box(header.height, header.width, generator))
        flips.append(generator.random() < 0.5)
    names = [source[int(index)]["record"] for index in indices]
    return np.array(names), np.array(boxes, np.int32), np.array(flips)


def measure(folder: Path, pythons: dict[str, str | None], rounds: int, batches: int) -> dict[str, Any]:
    """Return the images per CPU-second and per second of every side and variant, one number a round."""
    files, boxes, flips = draws(folder, 64 * BATCH)
    np.savez(folder / "draws.npz", files=files, boxes=boxes, flips=flips)
    photos = list((folder / "photo").iterdir())
    missing = {
        side: f"no Python for it was given ({OPTIONS[side]})"
        for side, python in pythons.items()
        if not python
    }
    workers = {
        side: Worker(side, [python, sys.argv[0], "--worker", side], os.environ | {"JAX_PLATFORMS": "cpu"})
        for side, python in pythons.items()
        if python
    }
    turns = []
    for side, worker in list(workers.items()):
        worker.send({"folder": str(folder), "batches": batches})
        answer = worker.receive(missing)
        if answer is None:
            del workers[side]
            continue
        turns += [(side, variant) for variant in answer]
    results: dict[tuple[str, str], list[dict[str, float]]] = {turn: [] for turn in turns}
    for number in range(rounds):
        print(f"{time.strftime('%H:%M:%S')} round {number + 1} of {rounds}", file=sys.stderr, flush=True)
        for side, variant in turns if number % 2 == 0 else reversed(turns):
            if side not in missing:
                workers[side].send({"variant": variant})
                answer = workers[side].receive(missing)
                results[side, variant] += [answer] if answer else []
    for worker in workers.values():
        worker.process.communicate()
    compared = {}
    for name in TF:
        if (folder / f"{name}.npy").exists():
            ours = np.load(folder / "linear.npy").astype(int)
            difference = np.abs(np.load(folder / f"{name}.npy").astype(int) - ours)
            compared[name] = {"mean": float(difference.mean()), "largest": int(difference.max())}
    return {
        "files": {
            "count": len(photos),
            "mean_bytes": sum(file.stat().st_size for file in photos) / len(photos),
        },
        "turns": [
            {"side": side, "variant": variant, "rounds": measured}
            for (side, variant), measured in results.items()
            if side not in missing
        ],
        "difference_from_ours": compared,
        "not_measured": missing,
    }


def show(size: str, measured: dict[str, Any]) -> None:
    """Print the rates, and paired ratios of processor time to ours."""
    turns = {(turn["side"], turn["variant"]): turn["rounds"] for turn in measured["turns"]}
    cpu = {turn: [a_round["cpu"] for a_round in rounds] for turn, rounds in turns.items()}
    about = measured["files"]
    print(
        f"\n{size}: {about['count']} files of {about['mean_bytes'] / 1000:.0f} kB; milliseconds of CPU an image"
    )
    print(f"{'side':12} {'variant':28} {'CPU ms':>7} {'images/CPU s':>13} {'images/s':>9}  ours takes")
    for (side, variant), rounds in turns.items():
        wall = median(a_round["wall"] for a_round in rounds)
        middle, ratio = median(cpu[side, variant]), ""
        if side != "ours":
            own = "linear, 2 threads" if side == "tf.data" else REFERENCE
            own = "fast, randaug(2, 10)" if "RandAugment" in variant else own
            ratio = _ratio(cpu["ours", own], cpu[side, variant]) + f" ({own})"
        print(f"{side:12} {variant:28} {1e3 * middle:7.2f} {1 / middle:13.0f} {1 / wall:9.0f}  {ratio}")
    print("\nwhat ours takes, in these terms:")
    for name, above, below in (
        ("decoder's ceiling reached, linear", CEILING, "linear"),
        ("decoder's ceiling reached, fast", CEILING, "fast"),
        ("randaug(2, 10) adds to fast", "fast, randaug(2, 10)", "fast"),
        ("rand-m9-mstd0.5-inc1 adds to fast", "fast, rand-m9-mstd0.5-inc1", "fast"),
    ):
        print(f"  {name:36} {_ratio(cpu['ours', above], cpu['ours', below])}")
    for how in ("2 threads", "2 processes"):
        extra = [1e6 * (a - b) for a, b in zip(cpu["ours", f"fast, {how}"], cpu["ours", "fast"])]
        print(f"  {f'fast, {how}, beyond none':36} {median(extra):.0f} microseconds an image")
    alone = [1e6 * (a - b) for a, b in zip(cpu["ours", "nothing, in grain"], cpu["ours", "nothing"])]
    print(f"  {'grain itself, on batches of nothing':36} {median(alone):.1f} microseconds an image")
    for name, difference in measured["difference_from_ours"].items():
        print(
            f"  pixels of tf.data, {name}: {difference['mean']:.2f} on average, {difference['largest']} at most"
        )
    for side, reason in measured["not_measured"].items():
        print(f"  {side}: not measured, {reason}")


def _ratio(above: list[float], below: list[float]) -> str:
    ratios = [a / b for a, b in zip(above, below)]
    return f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def serve(build: Callable[[Path], dict[str, Iterator[Any]]]) -> None:
    """Be one side: take so many batches whenever told to, then wait until nothing is read ahead any more."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    settings = json.loads(sys.stdin.readline())
    variants = build(Path(settings["folder"]))
    for batches in variants.values():  # start threads and processes, fill buffers
        next(batches)
    _quiet()
    print(json.dumps(list(variants)), file=answers)
    for line in sys.stdin:
        batches = variants[json.loads(line)["variant"]]
        wall, cpu = time.perf_counter(), _cpu_seconds()
        images = sum(len(next(batches)) for _ in range(settings["batches"]))
        ended = time.perf_counter()
        cpu, refilled = _quiet(cpu)
        seconds = max(ended, refilled) - wall
        print(json.dumps({"cpu": cpu / images, "wall": seconds / images}), file=answers)
    # Libraries end their workers in ways that print; nobody reads that.
    os._exit(0)


def _quiet(since: float = 0.0) -> tuple[float, float]:
    """Wait until this process tree does nothing; return the CPU seconds since then, and when it was last busy."""
    busy, last = time.perf_counter(), _cpu_seconds()
    while time.perf_counter() - busy < 0.3:
        time.sleep(0.05)
        now = _cpu_seconds()
        if now - last > 0.015:  # more than one tick of the clock by which the system counts other processes
            busy, last = time.perf_counter(), now
    return _cpu_seconds() - since, busy


_looking = 0.0  # CPU seconds that looking took so far


def _cpu_seconds() -> float:
    """Return the processor time of this process and all below it, but for what it takes to find out."""
    global _looking
    start = time.thread_time()
    below, ticks = [os.getpid()], 0
    while below:
        process = Path("/proc", str(below.pop()))
        try:
            for task in (process / "task").iterdir():
                below += [int(child) for child in (task / "children").read_text().split()]
            if process.name != str(os.getpid()):
                fields = (process / "stat").read_text().rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12])
        except OSError:  # it has ended
            continue
    _looking += time.thread_time() - start
    return time.process_time() - _looking + ticks / os.sysconf("SC_CLK_TCK")


def ours(folder: Path) -> dict[str, Iterator[Any]]:
    """Return our variants: the decoder alone, one thread without Grain, and with it."""
    import simplejpeg

    from vit_jax.data.pipeline import train_batches
    from vit_jax.data.reader import BatchReader
    from vit_jax.data.sources.folder import FolderSource
    from vit_jax.data.sources.opening import SyntheticSource
    from vit_jax.data.transforms.spec import parse

    source = FolderSource(folder, "train")

    def decoder() -> Iterator[Any]:
        step = 0
        while True:
            indices = source.order(np.arange(step * BATCH, (step + 1) * BATCH), SEED)
            for index in indices:
                simplejpeg.decode_jpeg(source[int(index)]["image"], "RGB")
            step += 1
            yield indices

    def alone(source: Any, spec: str) -> Iterator[Any]:
        reader, step = BatchReader(source, parse(spec), BATCH, SEED, shuffle=True), 0
        while True:
            yield reader(step)["image"]
            step += 1

    def images(batches: Any) -> Iterator[Any]:
        for batch in batches:
            yield batch["image"]

    nothing = SyntheticSource(1024, (CROP, CROP, 3), 2)
    np.save(folder / "linear.npy", next(alone(source, LINEAR)))
    found = {CEILING: decoder(), "nothing": alone(nothing, "")}
    found["nothing, in grain"] = images(train_batches(nothing, [], BATCH, SEED, num_threads=2))
    for name, (spec, options) in OURS.items():
        if options:
            batches = train_batches(source, parse(spec), BATCH, SEED, **options)
            found[name] = images(batches)
        else:
            found[name] = alone(source, spec)
    return found


def tf_data(folder: Path) -> dict[str, Iterator[Any]]:
    """Return tf.data's fused decoding and cropping, on the boxes and flips of ours."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(2)
    drawn = np.load(folder / "draws.npz")
    rows = (drawn["files"], drawn["boxes"], drawn["flips"])

    def variant(method: str) -> Iterator[Any]:
        def example(file: Any, box: Any, flip: Any) -> Any:
            image = tf.image.decode_and_crop_jpeg(tf.io.read_file(file), box, channels=3, dct_method=method)
            image = tf.image.resize(image, (CROP, CROP), "bilinear")
            image = tf.cond(flip, lambda: tf.reverse(image, [1]), lambda: image)
            return tf.cast(tf.round(image), tf.uint8)

        data = tf.data.Dataset.from_tensor_slices(rows).repeat()
        data = data.map(example, num_parallel_calls=2).batch(BATCH, drop_remainder=True).prefetch(2)
        return data.as_numpy_iterator()

    for name, method in TF.items():
        np.save(folder / f"{name}.npy", next(variant(method)))
    return {name: variant(method) for name, method in TF.items()}


def torchvision(folder: Path) -> dict[str, Iterator[Any]]:
    """Return torchvision's usual pipeline: Pillow, antialiased, uint8 tensors."""
    import torch
    from PIL import Image
    from torchvision import transforms

    torch.set_num_threads(1)
    files = [str(file) for file in np.load(folder / "draws.npz")["files"]]

    class Photographs(torch.utils.data.Dataset):
        def __init__(self, augment: bool):
            more = [transforms.RandAugment(2, 10)] if augment else []
            crop = transforms.RandomResizedCrop(CROP)
            self.transform = transforms.Compose(
                [crop, transforms.RandomHorizontalFlip(), *more, transforms.PILToTensor()]
            )

        def __len__(self) -> int:
            return len(files)

        def __getitem__(self, index: int) -> Any:
            with open(files[index], "rb") as file:
                return self.transform(Image.open(file).convert("RGB"))

    def variant(workers: int, augment: bool) -> Iterator[Any]:
        loader = torch.utils.data.DataLoader(Photographs(augment), BATCH, num_workers=workers, drop_last=True)
        while True:
            yield from loader

    return {name: variant(*settings) for name, settings in TORCH.items()}


if __name__ == "__main__":
    main()
