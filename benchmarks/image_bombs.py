"""Measures what images cost that claim far more than their bytes are worth, decoded or refused.

    python benchmarks/image_bombs.py --json bombs.json
    python benchmarks/image_bombs.py --largest

Each is decoded within 256 MiB of additional address space, and reported with its peak memory and processor time. As
much memory is touched before: what a virtual machine has not touched for long can cost the kernel seconds.
`--largest` measures instead, without a limit, flat images of 64 megapixels in files padded to just the size from which
they are read: the most that a file can cost for its bytes.
"""

import argparse
import ctypes
import io
import json
import resource
import struct
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.data import zoo
from tests.data.zoo_tiff import tiff
from vit_jax.data.images.decode import decode
from vit_jax.errors import DataError

MEMORY = 256 * 2**20
SECONDS = 0.5
FREE = 3464  # the largest side of a square of which any number of pixels may be in a byte
LARGEST = 8000
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """Return a file as Pillow writes it."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name: bytes, contents: bytes) -> bytes:
    """Return a chunk of a PNG file."""
    return struct.pack(">I", len(contents)) + name + contents + struct.pack(">I", zlib.crc32(name + contents))


def png(
    side: int, depth: int, colour: int, *more: bytes, interlaced: bool = False, real: bool = True
) -> bytes:
    """Return a black PNG file; if not `real`, one that only claims its size."""
    row = 1 + -(-side * depth * CHANNELS[colour] // 8)
    size = row * side * (11 if interlaced else 10) // 10 if real else 100
    header = struct.pack(">IIBBBBB", side, side, depth, colour, 0, 0, interlaced)
    parts = [
        chunk(b"IHDR", header),
        *more,
        chunk(b"IDAT", zlib.compress(bytes(size), 1 if side < LARGEST else 6)),
        chunk(b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def webp(side: int, **options: Any) -> bytes:
    """Return a lossless WebP file of one colour: 38 bytes, however large."""
    mode = options.pop("mode", "RGB")
    return encoded(
        Image.new(mode, (side, side), (9,) * len(mode)), "WEBP", lossless=True, quality=0, method=0
    )


def claiming(data: bytes, position: int, form: str, side: int) -> bytes:
    """Return a file that claims another width and height."""
    return data[:position] + struct.pack(form, side, side) + data[position + struct.calcsize(form) :]


def jpeg(side: int, mode: str = "RGB", **options: Any) -> bytes:
    """Return a grey JPEG file as small as can be."""
    return encoded(Image.new(mode, (side, side), (128,) * len(mode)), "JPEG", quality=1, **options)


def scans(side: int, count: int) -> bytes:
    """Return a progressive JPEG that refines its last coefficients over and over."""
    data = jpeg(side, progressive=True)
    return data[:-2] + data[data.rindex(b"\xff\xda") : -2] * count + data[-2:]


def claiming_webp(data: bytes, side: int) -> bytes:
    """Return a lossless WebP file of one colour that claims another width and height: such files need no more."""
    return data[:21] + struct.pack("<I", side - 1 | side - 1 << 14) + data[25:]


def claiming_jpeg(data: bytes, side: int) -> bytes:
    """Return a JPEG file that claims another width and height."""
    frame = max(data.find(b"\xff" + bytes([kind])) for kind in (0xC0, 0xC2, 0xC3, 0xC9))
    return claiming(data, frame + 5, ">HH", side)


def run_length_bmp(side: int) -> bytes:
    """Return a BMP file of rows that end after a pixel."""
    body = b"\1\1\0\0" * side
    info = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(body), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 1078 + len(body), 0, 0, 1078) + info + bytes(1024) + body


def flat_tiff(side: int, channels: int, kind: type) -> bytes:
    """Return a TIFF file of black, of deflated strips with differences."""
    extra = (2,) if channels == 4 else ()
    return tiff(np.zeros((side, side, channels), kind), compression=8, predictor=2, rows=100, extra=extra)


def bombs() -> dict[str, Callable[[], bytes]]:
    """Return how to make each bomb, by name."""
    packed = zlib.compress(bytes(100_000_000), 1)
    small = Image.new("RGB", (8, 8))
    progressive = jpeg(64, progressive=True, subsampling=0)
    second = progressive.index(b"\xff\xc4", progressive.index(b"\xff\xda"))
    one_scan = progressive[:second] + progressive[-2:]
    lossless, arithmetic = (zoo.jpegs()[name].data for name in ("lossless", "arithmetic"))
    grey, bitmap = Image.new("P", (8, 8)), encoded(small, "BMP")
    return {
        "PNG 30000x30000": lambda: png(30000, 8, 2, real=False),
        "PNG flat 8000x8000": lambda: png(LARGEST, 8, 2),
        "PNG flat": lambda: png(FREE, 8, 2),
        "PNG flat, 1-bit": lambda: png(FREE, 1, 0),
        "PNG flat, alpha": lambda: png(FREE, 8, 6),
        "PNG flat, interlaced": lambda: png(FREE, 8, 2, interlaced=True),
        "PNG flat, 16-bit": lambda: png(FREE // 2, 16, 2),
        "PNG flat, 16-bit alpha": lambda: png(FREE // 2, 16, 6),
        "PNG zTXt of 100 MB": lambda: png(8, 8, 2, chunk(b"zTXt", b"a\0\0" + packed)),
        "PNG iTXt of 100 MB": lambda: png(8, 8, 2, chunk(b"iTXt", b"a\0\1\0\0\0" + packed)),
        "PNG iCCP of 100 MB": lambda: png(8, 8, 2, chunk(b"iCCP", b"a\0\0" + packed)),
        "PNG IDAT of 100 MB": lambda: png(8, 8, 2, chunk(b"IDAT", packed)),
        "WebP flat 8000x8000": lambda: claiming_webp(webp(8), LARGEST),
        "WebP flat": lambda: webp(FREE),
        "WebP flat, alpha": lambda: webp(FREE, mode="RGBA"),
        "GIF 60000x60000": lambda: claiming(encoded(grey, "GIF"), 6, "<HH", 60000),
        "GIF flat": lambda: encoded(Image.new("P", (FREE, FREE)), "GIF", transparency=0),
        "BMP 30000x30000": lambda: claiming(bitmap, 18, "<ii", 30000),
        "BMP run-length 8000x8000": lambda: run_length_bmp(LARGEST),
        "BMP run-length": lambda: run_length_bmp(1000),
        "TIFF 30000x30000": lambda: tiff(zoo.RGB, f256=30000, f257=30000),
        "TIFF tiles of 30000x30000": lambda: tiff(zoo.RGB, tile=(16, 16), f322=30000, f323=30000),
        "TIFF flat 8000x8000": lambda: flat_tiff(LARGEST, 3, np.uint8),
        "TIFF flat": lambda: flat_tiff(FREE, 3, np.uint8),
        "TIFF flat, alpha": lambda: flat_tiff(FREE, 4, np.uint8),
        "TIFF flat, 16-bit": lambda: flat_tiff(FREE // 2, 3, np.uint16),
        "TIFF flat, 16-bit alpha": lambda: flat_tiff(FREE // 2, 4, np.uint16),
        "TIFF flat, LZW": lambda: encoded(Image.new("RGB", (FREE, FREE)), "TIFF", compression="tiff_lzw"),
        "TIFF flat, one-bit": lambda: encoded(Image.new("1", (FREE, FREE)), "TIFF", compression="group4"),
        "TIFF flat, JPEG": lambda: encoded(Image.new("RGB", (FREE, FREE)), "TIFF", compression="jpeg"),
        "JPEG 60000x60000": lambda: claiming_jpeg(jpeg(8), 60000),
        "JPEG 8000x8000": lambda: jpeg(LARGEST),
        "JPEG, nothing of 8000x8000": lambda: claiming_jpeg(jpeg(8), LARGEST),
        "JPEG CMYK, nothing of 8000x8000": lambda: claiming_jpeg(jpeg(8, "CMYK"), LARGEST),
        "JPEG lossless, nothing of 8000x8000": lambda: claiming_jpeg(lossless, LARGEST),
        "JPEG arithmetic, nothing of 8000x8000": lambda: claiming_jpeg(arithmetic, LARGEST),
        "JPEG progressive, nothing of 8000x8000": lambda: claiming_jpeg(one_scan, LARGEST),
        "JPEG progressive 8000x8000": lambda: claiming_jpeg(jpeg(64, progressive=True), LARGEST),
        "JPEG progressive": lambda: jpeg(FREE, progressive=True, subsampling=0),
        "JPEG CMYK progressive": lambda: jpeg(2880, "CMYK", progressive=True),
        "JPEG 200 scans of 8000x8000": lambda: claiming_jpeg(scans(64, 200), LARGEST),
        "JPEG 140 scans": lambda: scans(1000, 140),
        "JPEG 500 scans": lambda: scans(1000, 500),
        "JPEG 100000 scans": lambda: scans(8, 100_000),
    }


def largest() -> dict[str, Callable[[], bytes]]:
    """Return how to make flat images of 64 megapixels, padded to the smallest file that is read."""

    def padded(data: bytes, pixels: int = 100) -> bytes:
        return data + bytes(max(0, LARGEST * LARGEST // pixels - len(data)))

    side = LARGEST
    noise = np.random.default_rng(0).integers(0, 256, (side // 8, side // 8, 3), np.uint8)
    photograph = Image.fromarray(noise).resize((side, side), Image.Resampling.BICUBIC)
    return {
        "JPEG": lambda: jpeg(side),
        "JPEG progressive": lambda: padded(jpeg(side, progressive=True)),
        "JPEG CMYK": lambda: jpeg(side, "CMYK"),
        "JPEG of shapes": lambda: encoded(photograph, "JPEG", quality=80),
        "PNG": lambda: padded(png(side, 8, 2)),
        "PNG alpha": lambda: padded(png(side, 8, 6)),
        "PNG 16-bit": lambda: padded(png(side, 16, 2), 25),
        "PNG 16-bit alpha": lambda: padded(png(side, 16, 6), 25),
        "WebP": lambda: padded(webp(side)),
        "WebP alpha": lambda: padded(webp(side, mode="RGBA")),
        "TIFF": lambda: padded(flat_tiff(side, 3, np.uint8)),
        "TIFF 16-bit": lambda: padded(flat_tiff(side, 3, np.uint16), 25),
        "GIF": lambda: padded(encoded(Image.new("P", (side, side)), "GIF", transparency=0)),
    }


def status(name: str) -> int:
    """Return an entry of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))


def measure(data: bytes, limited: bool = True) -> dict[str, Any]:
    """Decode a file; return what came of it, and its cost in MiB and seconds of processor time."""
    # Without it the first page faults may take seconds; the same number take 0.03 s after.
    np.ones(MEMORY, np.uint8)
    ctypes.CDLL(None).malloc_trim(0)  # what was freed is not there to be used again
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins again
    before, start = status("VmRSS"), time.process_time()
    if limited:
        resource.setrlimit(resource.RLIMIT_AS, (status("VmSize") + MEMORY, resource.RLIM_INFINITY))
    try:
        decode(data)
        outcome = "decoded"
    except DataError as error:
        outcome = str(error)
    except MemoryError:
        outcome = "out of memory"
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    seconds = time.process_time() - start
    return {
        "bytes": len(data),
        "mib": round((status("VmHWM") - before) / 2**20),
        "seconds": round(seconds, 2),
        "outcome": outcome,
    }


def main() -> int:
    """Measure all and report; return 1 if one took more than it may."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--largest", action="store_true", help="measure the largest files that are read")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every measurement")
    arguments = parser.parse_args()
    for kind in ("PNG", "WEBP", "GIF", "BMP", "JPEG"):  # imports all that is needed
        decode(encoded(Image.new("RGB", (8, 8)), kind))
    report = {}
    for name, make in (largest() if arguments.largest else bombs()).items():
        report[name] = found = measure(make(), not arguments.largest)
        print(
            f"{name:38} {found['bytes']:9} bytes {found['mib']:5} MiB {found['seconds']:6.2f} s  {found['outcome']}"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1))
    failed = [n for n, f in report.items() if f["seconds"] > SECONDS or f["outcome"] == "out of memory"]
    if failed and not arguments.largest:
        print(f"more than {MEMORY // 2**20} MiB or {SECONDS} s: {', '.join(failed)}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
