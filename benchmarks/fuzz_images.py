"""Decodes thousands of damaged images: each must be read or be refused with one line.

    python benchmarks/fuzz_images.py --files 10000 --json fuzz.json

Every file is decoded whole and together with a random crop, in processes that fail if a file takes more than 512 MiB
or 2 seconds of processor time, executes something, opens a file for writing, connects or imports a module, if
libraries print or warn, or if the crop has other pixels than the whole. The seed of a failure gives the same file
again; `--keep FOLDER` stores those files. What few bytes can cost at most is measured by `image_bombs.py`.
"""

import argparse
import json
import os
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from damaged_weights import Damage
from fuzz_weights import BATCH, MEMORY, SECONDS, _Slow, _Watch

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.data import zoo
from vit_jax.data.decode import decode
from vit_jax.data.transforms.fusion import fused
from vit_jax.data.transforms.spec import parse
from vit_jax.errors import DataError

CROP = fused(parse("decode|random_resized_crop(32)|flip_lr"))
# With this interpolation, parts that are larger than the result are not reduced while they are decoded.
APART = parse("decode|random_resized_crop(32, interpolation='nearest')|flip_lr")
EXACT = fused(APART)
NUMBERS = (0, 1, 2, 3, 7, 8, 16, 255, 256, 3000, 16383, 32767, 65535, 2**24, 2**31 - 1, 2**31, 2**32 - 1)


def valid_files() -> dict[str, list[bytes]]:
    """Return the images of the zoo that decode, and larger ones with texture, by format."""
    files: dict[str, list[bytes]] = {}
    for name, file in zoo.files().items():
        kind = name.partition(":")[0]
        if not isinstance(file.pixels, str) and len(file.data) < 50_000:
            files.setdefault(kind, []).append(file.data)
    rng = np.random.default_rng(0)
    texture = np.clip(np.kron(zoo.RGB, np.ones((5, 5, 1))) + rng.normal(0, 20, (120, 160, 3)), 0, 255)
    image = texture.astype(np.uint8)
    files["JPEG"] += [zoo.encoded(image, "JPEG"), zoo.encoded(image, "JPEG", progressive=True)] * 5
    files["PNG"] += [zoo.encoded(image, "PNG")] * 3
    files["WebP"] += [zoo.encoded(image, "WEBP"), zoo.encoded(image, "WEBP", lossless=True)] * 2
    files["GIF"].append(zoo.encoded(image, "GIF"))
    return files


class ImageDamage(Damage):
    """All choices for one damaged image, drawn from its seed."""

    def make(self) -> tuple[str, str, bytes]:
        """Return the format, the kind of damage and the file."""
        kind = self._random.choice(("JPEG", "JPEG", "JPEG", "PNG", "PNG", "WebP", "WebP", "GIF", "BMP"))
        content = self._random.choice(self._files[kind])
        ways: list[Callable[[bytes], bytes]] = [self.flip, self.cut, self.splice, self.lengths, self.header]
        ways += {"JPEG": [self.segments, self.hole], "PNG": [self.chunks]}.get(kind, [])
        way = self._random.choice(ways)
        for _ in range(self._random.choice((1, 1, 1, 2, 4))):
            content = way(content) or b"\0"
        if kind == "PNG" and self._random.random() < 0.7:
            content = with_checksums(content)
        return kind, way.__name__, content

    def header(self, content: bytes) -> bytes:
        """Write an odd number into the first bytes or after a frame marker of a JPEG, in either byte order."""
        width = self._random.choice((1, 2, 4))
        order = "little" if self._random.random() < 0.5 else "big"
        number = (self._random.choice(NUMBERS) % 2 ** (8 * width)).to_bytes(width, order)
        frame = max(content.find(b"\xff\xc0"), content.find(b"\xff\xc2"), 2)
        place = self._random.choice((frame, 0)) + self._random.randrange(40)
        return content[:place] + number + content[place + width :]

    def segments(self, content: bytes) -> bytes:
        """Move, repeat, drop or rename a segment of a JPEG."""
        marks = [i for i in range(len(content) - 1) if content[i] == 0xFF and content[i + 1] not in (0, 0xFF)]
        if len(marks) < 3:
            return content
        first, last = sorted(self._random.sample(range(len(marks)), 2))
        a, b = marks[first], marks[last]
        piece, place = content[a:b], self._random.choice(marks)
        return self._random.choice(
            (
                content[:a] + content[b:],
                content[:place] + piece + content[place:],
                content[:a] + b"\xff" + self._random.randbytes(1) + content[a + 2 :],
            )
        )

    def hole(self, content: bytes) -> bytes:
        """Lose coded pixels of a JPEG whose end stays."""
        start, end = sorted(self._random.randrange(len(content) // 3, len(content) - 1) for _ in range(2))
        return content[:start] + (b"" if self._random.random() < 0.5 else content[end:-2]) + content[-2:]

    def chunks(self, content: bytes) -> bytes:
        """Change a byte of what a chunk of a PNG says, or of its pixels when unpacked; move or drop chunks."""
        parts = png_chunks(content)
        if not parts:
            return content
        place = self._random.randrange(len(parts))
        name, contents = parts[place]
        way = self._random.randrange(4)
        if way == 0:
            parts.insert(self._random.randrange(len(parts)), parts.pop(place))
        elif way == 1:
            del parts[place]
        elif name == b"IDAT" and way == 2:
            try:
                pixels = zlib.decompress(contents)
            except zlib.error:
                return content
            parts[place] = name, zlib.compress(self._random.choice((self.flip, self.cut))(pixels or b"\0"))
        elif contents:
            parts[place] = name, self._random.choice((self.flip, self.cut))(contents)
        return content[:8] + b"".join(zoo.chunk(*part) for part in parts)


def png_chunks(content: bytes) -> list[tuple[bytes, bytes]]:
    """Return names and contents of the chunks of a PNG, as far as there are any."""
    parts, position = [], 8
    while position + 12 <= len(content):
        length, name = struct.unpack_from(">I4s", content, position)
        parts.append((name, content[position + 8 : position + 8 + length]))
        position += 12 + length
    return parts


def with_checksums(content: bytes) -> bytes:
    """Return a PNG with the checksums that its chunks should have, so that damage gets past them."""
    return content[:8] + b"".join(zoo.chunk(*part) for part in png_chunks(content))


def read(data: bytes, seed: int) -> str:
    """Return what decoding a file comes to: `loaded`, `refused`, or what is wrong with how it failed."""
    try:
        outcomes = [attempt(lambda: decode(data))]
        example = {"image": data, "label": 0, "record": "r"}
        outcomes += [attempt(lambda: run(CROP, example, seed)), attempt(lambda: run(EXACT, example, seed))]
        whole, crop, exact = outcomes
        if not isinstance(crop, str) and crop.shape != (32, 32, 3):
            return "another size"
        if not isinstance(whole, str) and not isinstance(exact, str):
            apart = run(APART, example | {"image": whole}, seed)
            if not np.array_equal(apart, exact):
                return "other pixels in the crop"
        for line in outcomes:
            if isinstance(line, str) and not (line.isprintable() and len(line) < 400):
                return "more than a line"
        if isinstance(whole, str):
            return "refused" if isinstance(exact, str) else "loaded above the damage"
        return "refused when cropped" if isinstance(exact, str) else "loaded"
    except _Slow:
        return "slow"
    except BaseException as error:
        return f"{type(error).__name__} {error}"


def attempt(action: Callable[[], np.ndarray]) -> np.ndarray | str:
    """Return what an action returns, or the line with which it refuses."""
    try:
        return action()
    except DataError as error:
        return str(error)


def run(transforms: list[Any], example: dict[str, Any], seed: int) -> np.ndarray:
    """Return the image after transforms."""
    rng = np.random.default_rng(seed)
    for transform in transforms:
        example = transform(example, rng)
    return example["image"]


GOOD = ("loaded", "refused", "loaded above the damage")


def work(first: int, last: int, seed: int, keep: Path | None) -> dict[str, Any]:
    """Make and decode the files of a batch within the limits; return what each came to, by format and damage."""

    def slow(*_: object) -> None:
        raise _Slow

    signal.signal(signal.SIGPROF, slow)
    counts: Counter[str] = Counter()
    failures: list[dict[str, Any]] = []
    slowest = (0.0, -1)
    watch = _Watch()
    files = valid_files()
    for number, content in enumerate([file for group in files.values() for file in group]):
        if (outcome := read(content, number)) != "loaded":  # also imports all that is needed
            raise SystemExit(f"valid file {number} is not read: {outcome}")
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    with tempfile.TemporaryFile() as printed:
        stderr = os.dup(2)
        os.dup2(printed.fileno(), 2)  # also what C libraries print
        for index in range(first, last):
            kind, way, content = ImageDamage(f"{seed}/{index}", files, []).make()
            resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            start = time.process_time()
            watch.active = True
            outcome = read(content, index)
            watch.active = False
            signal.setitimer(signal.ITIMER_PROF, 0)
            slowest = max(slowest, (time.process_time() - start, index))
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            if watch.seen:
                outcome = f"executed {watch.seen}"
                watch.seen.clear()
            if os.fstat(2).st_size:
                outcome = f"printed {os.pread(2, 200, 0)!r}"
                os.ftruncate(2, 0)
                os.lseek(2, 0, os.SEEK_SET)
            counts[f"{kind} {way} {outcome if outcome in GOOD else 'failed'}"] += 1
            if outcome not in GOOD:
                failures.append({"index": index, "format": kind, "damage": way, "outcome": outcome})
                if keep:
                    (keep / f"{seed}-{index}.{kind}").write_bytes(content)
        os.dup2(stderr, 2)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return {"counts": dict(counts), "failures": failures, "peak_mib": peak, "slowest": slowest}


def main() -> int:
    """Run the batches and report; return 1 if a file failed otherwise than with one line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=10_000, metavar="N", help="default: 10000")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="store the files that failed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every count")
    parser.add_argument("--batch", nargs=2, type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.keep:
        arguments.keep.mkdir(parents=True, exist_ok=True)
    if arguments.batch:
        print(json.dumps(work(arguments.batch[0], arguments.batch[1], arguments.seed, arguments.keep)))
        return 0
    start = time.monotonic()
    counts: Counter[str] = Counter()
    failures, peak, slowest = [], 0, (0.0, -1)
    for first in range(0, arguments.files, BATCH):
        batch = [str(first), str(min(first + BATCH, arguments.files))]
        command = [sys.executable, "-W", "error", __file__, *sys.argv[1:], "--batch", *batch]
        # One thread: those of numpy's libraries would each reserve memory.
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
        process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if process.returncode or process.stderr:
            failures.append({"index": first, "outcome": f"the process died: {process.stderr[-300:]}"})
            continue
        result = json.loads(process.stdout)
        counts.update(result["counts"])
        failures += result["failures"]
        peak, slowest = max(peak, result["peak_mib"]), max(slowest, tuple(result["slowest"]))
    report = {
        "files": sum(counts.values()),
        **{way: sum(n for name, n in counts.items() if name.split(" ", 2)[2] == way) for way in GOOD},
        "failures": failures,
        "peak_mib": peak,
        "slowest": {"seconds": round(slowest[0], 2), "index": slowest[1]},
        "seconds": round(time.monotonic() - start, 1),
        "counts": dict(sorted(counts.items())),
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1))
    for failure in failures[:20]:
        print(failure)
    print(
        f"{report['files']} files: {report['loaded']} loaded, {report['refused']} refused with one line, "
        f"{report['loaded above the damage']} loaded in part, {len(failures)} failed; peak memory {peak} MiB, "
        f"slowest file {slowest[0]:.2f} s, {report['seconds']} s"
    )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
