"""Decodes thousands of damaged images: each must be read or be refused with one line.

    python benchmarks/fuzz_images.py --files 10000 --json fuzz.json

Every file is decoded whole and together with a random crop, in processes that fail if a file takes more than 512 MiB
or 2 seconds of processor time, executes something, opens a file for writing, connects or imports a module, if
libraries print or warn, or if the crop has other pixels than the whole. The seed of a failure gives the same file
again; `--keep FOLDER` stores those files. What few bytes can cost at most is measured by `image_bombs.py`.
"""

import os
import struct
import sys
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fuzzing
import numpy as np
from damaged_weights import Damage

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.data import zoo
from vit_jax.data.images.decode import decode
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
    for method in ("tiff_lzw", "tiff_adobe_deflate", "jpeg"):
        files["TIFF"].append(zoo.encoded(image, "TIFF", compression=method))
    files["GIF"].append(zoo.encoded(image, "GIF"))
    return files


class ImageDamage(Damage):
    """All choices for one damaged image, drawn from its seed."""

    def make(self) -> tuple[str, str, bytes]:
        """Return the format, the kind of damage and the file."""
        kinds = ("JPEG", "JPEG", "JPEG", "PNG", "PNG", "WebP", "WebP", "TIFF", "TIFF", "GIF", "BMP")
        kind = self._random.choice(kinds)
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
    except fuzzing.Slow:
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
    tally = fuzzing.Tally(GOOD, seed, keep)
    files = valid_files()
    for number, content in enumerate([file for group in files.values() for file in group]):
        if (outcome := read(content, number)) != "loaded":  # also imports all that is needed
            raise SystemExit(f"valid file {number} is not read: {outcome}")
    limits = fuzzing.Limits()
    with tempfile.TemporaryFile() as printed:
        stderr = os.dup(2)
        os.dup2(printed.fileno(), 2)  # also what C libraries print
        for limits.number in range(first, last):
            kind, way, content = ImageDamage(f"{seed}/{limits.number}", files, []).make()
            with limits:
                outcome = read(content, limits.number)
            if executed := limits.executed():
                outcome = f"executed {executed}"
            if os.fstat(2).st_size:
                outcome = f"printed {os.pread(2, 200, 0)!r}"
                os.ftruncate(2, 0)
                os.lseek(2, 0, os.SEEK_SET)
            tally.add(limits.number, kind, way, outcome, content)
        os.dup2(stderr, 2)
    return tally.result(limits)


if __name__ == "__main__":
    sys.exit(fuzzing.main(__doc__, __file__, work, GOOD))
