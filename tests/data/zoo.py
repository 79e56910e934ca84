"""Odd image files of every kind, built in memory: what each must decode to, or what must be said of it.

`files()` is the whole zoo. The pixels expected are computed from the arrays that files are made from, by the rules in
`vit_jax.data.images.decode`, and never with its code.
"""

import base64
import io
import struct
import zlib
from dataclasses import dataclass

import numpy as np
import simplejpeg
from PIL import Image

H, W = 24, 32
_Y, _X = np.mgrid[:H, :W]
# Smooth, so that lossy formats stay close, and different from every turned version of itself.
RGB = np.stack([20 + 6 * _X, 10 + 8 * _Y, np.full((H, W), 60)], -1).astype(np.uint8)
GREY = RGB[..., 0]
ALPHA = (8 * _X).astype(np.uint8)
SIXTEEN = (RGB.astype(np.uint16) << 8) + (97 * _X + 31 * _Y)[..., None].astype(np.uint16) % 256
LOSSY = 3.0  # mean difference allowed where a format changes pixels
# RGB, written by cjpeg -arithmetic -quality 90 of libjpeg-turbo 2.1.5.
_ARITHMETIC = (
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAMCAgMCAgMDAwMEAwMEBQgFBQQEBQoHBwYIDAoMDAsKCwsNDhIQDQ4RDgsLEBYQ"
    "ERMUFRUVDA8XGBYUGBIUFRT/2wBDAQMEBAUEBQkFBQkUDQsNFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQU"
    "FBQUFBQUFBQUFBQUFBT/yQARCAAYACADASIAAhEBAxEB/8wACgAQEAUBEBEF/9oADAMBAAIRAxEAPwD/AOW11T2Nuu5Mc7C9"
    "Uzxop+J2ggLfiFFh0J/4J+RzfVMPYyXwd8w2kUNQiX9UDtdhM0+rMkPIoJ4ZIARpv5XXTTGuraS2B1OirUhz+KBt8rvp6Oja"
    "j80TImwF/9k="
)


@dataclass(frozen=True)
class File:
    """A file of the zoo.

    Attributes:
      data: the file.
      pixels: what it decodes to, `(h, w, 3)`; or what the error says.
      tolerance: mean difference allowed.
    """

    data: bytes
    pixels: np.ndarray | str
    tolerance: float = 0.0


def encoded(image: np.ndarray | Image.Image, kind: str, **options: object) -> bytes:
    """Return a file as Pillow writes it."""
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, kind, **options)
    return buffer.getvalue()


def grey3(values: np.ndarray) -> np.ndarray:
    """Return grey values as three equal channels."""
    return np.repeat(values[..., None], 3, -1)


def over_white(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Return colours of 0 to 255 laid over white."""
    share = alpha[..., None] / 255
    return colours * share + 255 * (1 - share)


def turned(orientation: int) -> np.ndarray:
    """Return what `RGB` is after an EXIF orientation (EXIF 2.3: where row 0 and column 0 of the file belong)."""
    image = RGB.swapaxes(0, 1) if orientation > 4 else RGB
    rows, columns = {1: (1, 1), 2: (1, -1), 3: (-1, -1), 4: (-1, 1)}.get(orientation, (1, 1))
    if orientation > 4:
        rows, columns = {5: (1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}[orientation]
    return image[::rows, ::columns]


def exif(orientation: int, order: str = "<", kind: int = 3) -> bytes:
    """Return an EXIF block of two entries in the byte order given."""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    entries = struct.pack(order + "HHHIHH", 2, 0x0112, kind, 1, orientation, 0)
    entries += struct.pack(order + "HHII", 0x0213, 3, 1, 0)
    return head + entries + bytes(4)


# JPEG


def segment(marker: int, contents: bytes) -> bytes:
    """Return a segment of a JPEG file."""
    return b"\xff" + bytes([marker]) + struct.pack(">H", 2 + len(contents)) + contents


def put(data: bytes, *segments: bytes) -> bytes:
    """Return a JPEG file with more segments at its beginning."""
    return data[:2] + b"".join(segments) + data[2:]


def patched(data: bytes, position: int, *values: int) -> bytes:
    """Return a file with other bytes at a place."""
    return data[:position] + bytes(values) + data[position + len(values) :]


def lossless_jpeg(image: np.ndarray) -> bytes:
    """Return a lossless JPEG (ITU-T T.81, annex H): differences to the left neighbour, above in the first column."""
    values = image.astype(int)
    predicted = np.empty_like(values)
    predicted[:, 1:], predicted[1:, 0], predicted[0, 0] = values[:, :-1], values[:-1, 0], 128
    bits = []
    for difference in (values - predicted).ravel().tolist():
        size = abs(difference).bit_length()
        extra = difference if difference > 0 else difference + (1 << size) - 1
        bits.append(f"{size:04b}" + (f"{extra:0{size}b}" if size else ""))
    text = "".join(bits)
    text += "1" * (-len(text) % 8)
    packed = bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8)).replace(b"\xff", b"\xff\0")
    height, width, _ = image.shape
    frame = struct.pack(">BHHB", 8, height, width, 3) + b"".join(bytes([c, 0x11, 0]) for c in b"RGB")
    table = b"\0" + bytes([0, 0, 0, 10] + [0] * 12) + bytes(range(10))
    scan = b"\3" + b"".join(bytes([c, 0]) for c in b"RGB") + b"\1\0\0"
    return (
        b"\xff\xd8" + segment(0xC3, frame) + segment(0xC4, table) + segment(0xDA, scan) + packed + b"\xff\xd9"
    )


def jpegs() -> dict[str, File]:
    """Return JPEG files."""
    rgb = encoded(RGB, "JPEG", quality=95, subsampling=0)
    cmyk_image = Image.fromarray(RGB).convert("CMYK")
    cmyk = encoded(cmyk_image, "JPEG", quality=95)
    ycck = bytearray(encoded(_as_ycc(cmyk_image), "JPEG", quality=95, subsampling=0))
    ycck[ycck.index(b"Adobe") + 11] = 2
    adobe_rgb = encoded(RGB, "JPEG", quality=95, subsampling=0, keep_rgb=True)
    restarts = encoded(RGB, "JPEG", quality=95, subsampling=0, restart_marker_rows=1)
    frame, scan = rgb.index(b"\xff\xc0"), rgb.index(b"\xff\xda") + 14
    middle = (scan + len(rgb)) // 2
    thumbnail = encoded(RGB[::4, ::4], "JPEG")
    other = encoded(255 - RGB, "JPEG", quality=95, subsampling=0)
    mpo = io.BytesIO()
    Image.fromarray(RGB).save(
        mpo, "MPO", save_all=True, append_images=[Image.fromarray(255 - RGB)], quality=95, subsampling=0
    )
    xmp = segment(
        0xE1,
        b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta><rdf:Description tiff:Orientation='6'/></x:xmpmeta>",
    )
    first_scan = encoded(RGB, "JPEG", quality=95, subsampling=0, progressive=True)
    good = {
        "plain": rgb,
        "4:2:0": encoded(RGB, "JPEG", quality=95, subsampling=2),
        "4:2:2": encoded(RGB, "JPEG", quality=95, subsampling=1),
        "4:4:0": simplejpeg.encode_jpeg(RGB, 95, colorsubsampling="440"),
        "4:1:1": simplejpeg.encode_jpeg(RGB, 95, colorsubsampling="411"),
        "optimized": encoded(RGB, "JPEG", quality=95, optimize=True),
        "progressive": encoded(RGB, "JPEG", quality=95, progressive=True),
        "restart markers": restarts,
        "restart markers every block": encoded(RGB, "JPEG", quality=95, restart_marker_blocks=1),
        "arithmetic": base64.b64decode("".join(_ARITHMETIC)),
        "CMYK": cmyk,
        "CMYK progressive": encoded(cmyk_image, "JPEG", quality=95, progressive=True),
        "YCCK": bytes(ycck),
        "RGB by component names": adobe_rgb,
        "RGB by Adobe transform 0": put(
            adobe_rgb.replace(b"R\x11\0G\x11\0B\x11\0", b"\1\x11\0\2\x11\0\3\x11\0").replace(
                b"R\0G\0B\0", b"\1\0\2\0\3\0"
            ),
            segment(0xEE, b"Adobe\0\x64\0\0\0\0\0"),
        ),
        "Adobe transform unknown": put(rgb, segment(0xEE, b"Adobe\0\x64\0\0\0\0\7")),
        "JFIF of the future": patched(rgb, rgb.index(b"JFIF") + 5, 7),
        "ICC profile": encoded(RGB, "JPEG", quality=95, icc_profile=b"a profile" * 20000),
        "EXIF thumbnail with an end": put(rgb, segment(0xE1, b"Exif\0\0" + exif(1) + thumbnail)),
        "EXIF cut short": put(rgb, segment(0xE1, b"Exif\0\0" + exif(6)[:12])),
        "EXIF beyond the segment": put(rgb, segment(0xE1, b"Exif\0\0MM\0*\xff\xff\xff\xf0" + bytes(20))),
        "EXIF of no byte order": put(rgb, segment(0xE1, b"Exif\0\0XX*\0" + exif(6)[4:])),
        "EXIF orientation 9": put(rgb, segment(0xE1, b"Exif\0\0" + exif(9))),
        "EXIF orientation as text": put(rgb, segment(0xE1, b"Exif\0\0" + exif(6, kind=2))),
        "XMP orientation": put(rgb, xmp),
        "comment with a marker": put(rgb, segment(0xFE, b"\xff\xd9\xff\xc0\0\x11")),
        "garbage after the end": rgb + b"<html>" * 1000,
        "zeros before the end": rgb[:-2] + bytes(50) + rgb[-2:],
        "fill bytes": put(rgb, b"\xff" * 9),
        "junk between segments": put(rgb, segment(0xE5, b"ab"), b"junk\xff\0junk"),
        "standard Huffman tables left out": rgb.replace(b"\xff\xc4", b"\xff\xe7"),
        "two images": rgb + other,
        "MPO": mpo.getvalue(),
    }
    files = {name: File(data, RGB, LOSSY) for name, data in good.items()}
    files["grey"] = File(encoded(GREY, "JPEG", quality=95), grey3(GREY), LOSSY)
    files["lossless"] = File(lossless_jpeg(RGB), RGB)
    for orientation in range(1, 9):
        for order, name in (("<", "little"), (">", "big")):
            tags = segment(0xE1, b"Exif\0\0" + exif(orientation, order))
            files[f"EXIF {orientation} {name}-endian"] = File(put(rgb, tags), turned(orientation), LOSSY)
    files["EXIF 6, then XMP"] = File(put(rgb, segment(0xE1, b"Exif\0\0" + exif(6)), xmp), turned(6), LOSSY)
    files["XMP, then EXIF 6"] = File(put(rgb, xmp, segment(0xE1, b"Exif\0\0" + exif(6))), turned(6), LOSSY)
    files["two EXIF"] = File(
        put(rgb, *(segment(0xE1, b"Exif\0\0" + exif(way)) for way in (6, 3))), turned(6), LOSSY
    )
    files["CMYK EXIF 8"] = File(put(cmyk, segment(0xE1, b"Exif\0\0" + exif(8))), turned(8), LOSSY)
    empty = "the image has 32x0 pixels"
    damaged = "the JPEG image is damaged"
    bad = {
        "12-bit": (patched(rgb, frame + 4, 12), "has 12 bits per channel; only 8 are read"),
        "height in a DNL segment": (
            patched(rgb, frame + 5, 0, 0)[:-2] + segment(0xDC, b"\0\x18") + rgb[-2:],
            empty,
        ),
        "two channels": (patched(rgb, frame + 9, 2), "has 2 channels; only 1, 3 or 4 are read"),
        "hierarchical": (patched(rgb, frame + 1, 0xC5), damaged),
        "nothing after the signature": (b"\xff\xd8\xff", "it ends within the header"),
        "truncated in the header": (rgb[: frame + 4], "it ends within the header"),
        "truncated in the scan": (rgb[:middle], "its end is missing"),
        "truncated before the end": (rgb[:-2], "its end is missing"),
        "truncated in the scan, with an end": (rgb[:middle] + b"\xff\xd9", damaged),
        "truncated behind a harmless warning": (
            patched(rgb, rgb.index(b"JFIF") + 5, 7)[:middle] + b"\xff\xd9",
            damaged,
        ),
        "truncated behind junk": (put(rgb[:middle] + b"\xff\xd9", segment(0xE5, b""), b"junk"), damaged),
        "truncated between progressive scans": (
            first_scan[: first_scan.rindex(b"\xff\xda")],
            "its end is missing",
        ),
        "CMYK truncated, with an end": (cmyk[: len(cmyk) * 3 // 4] + b"\xff\xd9", damaged),
        "restart marker missing": (restarts.replace(b"\xff\xd0", b"", 1), damaged),
        "no frame": (rgb[:frame] + rgb[frame + 19 :], "its size is missing"),
        "end before the scan": (rgb[: rgb.index(b"\xff\xda")] + b"\xff\xd9", "it ends within the header"),
    }
    return files | {name: File(data, said) for name, (data, said) in bad.items()}


def _as_ycc(ink: Image.Image) -> Image.Image:
    """Return ink whose colours are in YCbCr and inverted: Pillow inverts it again, the file then says YCCK."""
    *colours, black = ink.split()
    coded = Image.merge("RGB", colours).convert("YCbCr").split()
    return Image.merge("CMYK", [*(Image.eval(plane, lambda value: 255 - value) for plane in coded), black])


# PNG


def chunk(name: bytes, contents: bytes) -> bytes:
    """Return a chunk of a PNG file."""
    return struct.pack(">I", len(contents)) + name + contents + struct.pack(">I", zlib.crc32(name + contents))


def png(values: np.ndarray, depth: int, colour: int, *more: bytes, interlaced: bool = False) -> bytes:
    """Return a PNG file of `(h, w, c)` values, for kinds that Pillow does not write; `more` are chunks."""
    height, width = values.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    # First row, first column, and steps of the seven passes of Adam7.
    passes = [
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
        (1, 0, 2, 1),
    ]
    rows = []
    for top, left, down, right in passes if interlaced else [(0, 0, 1, 1)]:
        rows += [b"\0" + _packed(row, depth) for row in values[top::down, left::right] if row.size]
    parts = [
        chunk(b"IHDR", header),
        *more,
        chunk(b"IDAT", zlib.compress(b"".join(rows))),
        chunk(b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _packed(row: np.ndarray, depth: int) -> bytes:
    if depth == 16:
        return row.astype(">u2").tobytes()
    bits = np.unpackbits(row.astype(np.uint8).reshape(-1, 1), axis=1)[:, 8 - depth :]
    return np.packbits(bits).tobytes()


def pngs() -> dict[str, File]:
    """Return PNG files."""
    plain = encoded(RGB, "PNG")
    values = SIXTEEN.astype(float)
    rounded = np.rint(values / 257)
    opacity = ((_X * 2114).astype(np.uint16) & 0xFFFF)[..., None]
    palette = np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90], [200, 210, 220]], np.uint8)
    index = (_X + _Y) % 4
    colours = chunk(b"PLTE", palette.tobytes())
    late = png(index, 8, 3)[:-12] + colours + chunk(b"IEND", b"")
    seen = palette[index].copy()
    seen[index == 1] = 255
    half = over_white(palette[index].astype(float), np.array([255, 0, 128, 255])[index])
    keyed = RGB.copy()
    keyed[5, 7] = 255
    key = struct.pack(">HHH", *RGB[5, 7].tolist())
    keyed16 = rounded.copy()
    keyed16[5, 7] = 255
    key16 = struct.pack(">HHH", *SIXTEEN[5, 7].tolist())
    grey16 = np.rint(values[..., 0] / 257)
    grey_key = grey16.copy()
    grey_key[SIXTEEN[..., 0] == SIXTEEN[5, 7, 0]] = 255
    share = opacity / 65535
    large = np.random.default_rng(0).integers(0, 256, (300, 200, 3), np.uint8)
    large[-40:] = 0
    frame = struct.pack(">IIIIIHHBB", 0, W, H, 0, 0, 1, 10, 0, 0)
    animation = (
        chunk(b"acTL", struct.pack(">II", 2, 0)) + chunk(b"fcTL", frame),
        chunk(b"fcTL", b"\0\0\0\1" + frame[4:])
        + chunk(b"fdAT", b"\0\0\0\2" + zlib.compress(b"".join(b"\0" + r.tobytes() for r in 255 - RGB))),
    )
    end = len(plain) - 12
    bomb = zlib.compress(bytes(10_000_000))
    files = {
        "plain": File(plain, RGB),
        "two-byte text before": File(png(RGB, 8, 2, chunk(b"tEXt", b"a\0b")), RGB),
        "palette 2-bit": File(png(index, 2, 3, colours), palette[index]),
        "palette 8-bit": File(png(index, 8, 3, colours), palette[index]),
        "palette after the pixels": File(late, palette[index]),
        "palette with a transparent colour": File(png(index, 2, 3, colours, chunk(b"tRNS", b"\xff\0")), seen),
        "palette half transparent": File(png(index, 4, 3, colours, chunk(b"tRNS", b"\xff\0\x80")), half, 0.5),
        "RGB with a transparent colour": File(png(RGB, 8, 2, chunk(b"tRNS", key)), keyed),
        "RGBA": File(png(np.dstack([RGB, ALPHA]), 8, 6), over_white(RGB, ALPHA), 0.6),
        "RGBA interlaced": File(
            png(np.dstack([RGB, ALPHA]), 8, 6, interlaced=True), over_white(RGB, ALPHA), 0.6
        ),
        "grey and alpha": File(png(np.dstack([GREY, ALPHA]), 8, 4), over_white(grey3(GREY), ALPHA), 0.6),
        "RGB interlaced": File(png(RGB, 8, 2, interlaced=True), RGB),
        "one pixel interlaced": File(png(RGB[:1, :1], 8, 2, interlaced=True), RGB[:1, :1]),
        "16-bit grey": File(png(SIXTEEN[..., :1], 16, 0), grey3(grey16)),
        "16-bit grey with a transparent value": File(
            png(SIXTEEN[..., :1], 16, 0, chunk(b"tRNS", key16[:2])), grey3(grey_key)
        ),
        "16-bit grey and alpha": File(
            png(np.dstack([SIXTEEN[..., :1], opacity]), 16, 4),
            np.rint((values[..., :1] * share + 65535 * (1 - share)) / 257).repeat(3, -1),
        ),
        "16-bit RGB": File(png(SIXTEEN, 16, 2), rounded),
        "16-bit RGB interlaced": File(png(SIXTEEN, 16, 2, interlaced=True), rounded),
        "16-bit RGB with a transparent colour": File(png(SIXTEEN, 16, 2, chunk(b"tRNS", key16)), keyed16),
        "16-bit RGBA": File(
            png(np.dstack([SIXTEEN, opacity]), 16, 6),
            np.rint((values * share + 65535 * (1 - share)) / 257),
        ),
        "16-bit EXIF 6": File(png(np.uint16(257) * RGB, 16, 2, chunk(b"eXIf", exif(6, ">"))), turned(6)),
        "animated": File(plain[:33] + animation[0] + plain[33:end] + animation[1] + plain[end:], RGB),
        "gamma": File(png(RGB, 8, 2, chunk(b"gAMA", struct.pack(">I", 45455))), RGB),
        "16-bit gamma": File(png(SIXTEEN, 16, 2, chunk(b"gAMA", struct.pack(">I", 20000))), rounded),
        "EXIF 6": File(png(RGB, 8, 2, chunk(b"eXIf", exif(6))), turned(6)),
        "EXIF cut short": File(png(RGB, 8, 2, chunk(b"eXIf", exif(6)[:11])), RGB),
        "text that unpacks to 10 MB": File(png(RGB, 8, 2, chunk(b"zTXt", b"a\0\0" + bomb)), RGB),
        "international text that unpacks to 10 MB": File(
            png(RGB, 8, 2, chunk(b"iTXt", b"a\0\1\0\0\0" + bomb)), RGB
        ),
        "profile that unpacks to 10 MB": File(png(RGB, 8, 2, chunk(b"iCCP", b"a\0\0" + bomb)), RGB),
        "profile of nonsense": File(png(SIXTEEN, 16, 2, chunk(b"iCCP", b"a\0\0xyz")), rounded),
        "long text": File(png(RGB, 8, 2, chunk(b"tEXt", b"a\0" + b"x" * 2_000_000)), RGB),
        "text with a wrong checksum": File(png(RGB, 8, 2, chunk(b"tEXt", b"a\0b")[:-1] + b"!"), RGB),
        "garbage after the end": File(plain + b"garbage", RGB),
        "more rows than it says": File(plain[:33] + png(np.vstack([RGB, RGB]), 8, 2)[33:], RGB),
        "black": File(png(0 * RGB, 8, 2), 0 * RGB),
        "black interlaced": File(png(0 * GREY, 1, 0, interlaced=True), 0 * RGB),
        "16-bit black": File(png(0 * SIXTEEN, 16, 2), 0 * RGB),
        "large with a black end": File(png(large, 8, 2), large),
        "empty pieces": File(plain[:33] + chunk(b"IDAT", b"") * 3 + plain[33:], RGB),
    }
    for depth in (1, 2, 4):
        levels = (_X + 2 * _Y) % (1 << depth)
        grey = grey3(levels * (255 // ((1 << depth) - 1)))
        files[f"grey {depth}-bit"] = File(png(levels, depth, 0), grey)
        files[f"grey {depth}-bit interlaced"] = File(png(levels, depth, 0, interlaced=True), grey)
    files["grey 8-bit"] = File(png(GREY, 8, 0), grey3(GREY))
    damaged = "the PNG image is damaged"
    pixels = plain.index(b"IDAT") + 20
    bad = {
        "zero width": (patched(plain, 16, 0, 0, 0, 0), "the image has 0x24 pixels"),
        "zero height": (patched(plain, 20, 0, 0, 0, 0), "the image has 32x0 pixels"),
        "wrong checksum of the header": (patched(plain, 29, plain[29] ^ 1), "checksum of IHDR is wrong"),
        "wrong checksum of the pixels": (patched(plain, end - 1, plain[end - 1] ^ 1), "checksum of IDAT"),
        "a bit flipped": (patched(plain, pixels, plain[pixels] ^ 4), "checksum of IDAT is wrong"),
        "truncated in the signature": (plain[:8], damaged),
        "truncated in the header": (plain[:20], damaged),
        "truncated in the pixels": (plain[: pixels + 9], "it ends within IDAT"),
        "truncated before the end": (plain[:end], "its end is missing"),
        "fewer rows than it says": (png(RGB, 8, 2)[:33] + png(RGB[:9], 8, 2)[33:], damaged),
        "16-bit, fewer rows than it says": (png(SIXTEEN, 16, 2)[:33] + png(SIXTEEN[:9], 16, 2)[33:], damaged),
        "no pixels": (plain[:33] + plain[end:], damaged),
        "unknown critical chunk": (
            plain[:33] + chunk(b"CgBI", b"abcd") + plain[33:],
            "unknown chunk b'CgBI'",
        ),
        "palette empty": (png(index, 8, 3, chunk(b"PLTE", b"")), "its palette is missing"),
        "palette missing": (png(index, 8, 3), damaged),
        "depth 3": (png(RGB, 8, 2)[:8] + _header(3, 2) + plain[33:], damaged),
        "16-bit palette": (png(RGB, 8, 2)[:8] + _header(16, 3) + plain[33:], damaged),
        "compressed in no known way": (plain[:8] + _header(16, 2, 1) + plain[33:], damaged),
    }
    return files | {name: File(data, said) for name, (data, said) in bad.items()}


def _header(depth: int, colour: int, compression: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", W, H, depth, colour, compression, 0, 0))


# WebP


def webps() -> dict[str, File]:
    """Return WebP files."""
    rgba = np.dstack([RGB, ALPHA])
    lossless = encoded(RGB, "WEBP", lossless=True)
    lossy = encoded(RGB, "WEBP", quality=95)
    frames = [Image.fromarray(RGB), Image.fromarray(255 - RGB)]
    animated = encoded(frames[0], "WEBP", lossless=True, save_all=True, append_images=frames[1:])
    tags = b"Exif\0\0" + exif(6)
    damaged = "the WebP image is damaged"
    files = {
        "lossless": File(lossless, RGB),
        "lossy": File(lossy, RGB, 4.0),
        "lossless with alpha": File(
            encoded(rgba, "WEBP", lossless=True, exact=True), over_white(RGB, ALPHA), 0.6
        ),
        "lossy with alpha": File(encoded(rgba, "WEBP", quality=95, exact=True), over_white(RGB, ALPHA), 4.0),
        "animated": File(animated, RGB),
        "EXIF 6": File(encoded(RGB, "WEBP", lossless=True, exif=tags), turned(6)),
        "profile": File(encoded(RGB, "WEBP", lossless=True, icc_profile=b"a profile"), RGB),
        "XMP orientation": File(
            encoded(RGB, "WEBP", lossless=True, xmp=b"<rdf:Description tiff:Orientation='6'/>"), RGB
        ),
        "garbage after the end": File(lossless + b"garbage", RGB),
    }
    for name, data in (("lossless", lossless), ("lossy", lossy), ("animated", animated)):
        files[f"{name} truncated in the middle"] = File(data[: len(data) // 2], damaged)
        files[f"{name} truncated at the end"] = File(data[:-9], damaged)
        files[f"{name} truncated in the header"] = File(data[:19], "it ends within the header")
    files["no known chunk"] = File(patched(lossless, 12, *b"ABCD"), "it ends within the header")
    return files


# GIF


def gif(
    index: np.ndarray,
    palette: np.ndarray,
    canvas: tuple[int, int] | None = None,
    offset: tuple[int, int] = (0, 0),
    local: bool = False,
    interlaced: bool = False,
    transparent: int | None = None,
) -> bytes:
    """Return a GIF file of one frame with 128 colours, its codes uncompressed; sizes are width and height."""
    height, width = index.shape
    colours = np.zeros((128, 3), np.uint8)
    colours[: len(palette)] = palette
    data = b"GIF89a" + struct.pack("<HHBBB", *(canvas or (width, height)), 0 if local else 0xF6, 0, 0)
    data += b"" if local else colours.tobytes()
    if transparent is not None:
        data += b"!\xf9\x04" + bytes([1, 0, 0, transparent, 0])
    flags = (0x86 if local else 0) | (0x40 if interlaced else 0)
    data += (
        b"," + struct.pack("<HHHHB", *offset, width, height, flags) + (colours.tobytes() if local else b"")
    )
    order = [r for start, step in ((0, 8), (4, 8), (2, 4), (1, 2)) for r in range(start, height, step)]
    # Eight bits a code as long as the table is cleared (128) before it is full.
    codes = bytearray()
    for position, value in enumerate(index[order if interlaced else slice(None)].ravel().tolist()):
        codes += b"\x80" * (position % 100 == 0) + bytes([value])
    codes.append(0x81)
    blocks = [codes[i : i + 255] for i in range(0, len(codes), 255)]
    return data + b"\7" + b"".join(bytes([len(b)]) + b for b in blocks) + b"\0;"


def gifs() -> dict[str, File]:
    """Return GIF files."""
    index = (3 * _X + _Y) % 100
    palette = np.stack([2 * np.arange(100), 255 - np.arange(100), np.full(100, 9)], -1).astype(np.uint8)
    colours = palette[index]
    plain = gif(index, palette)
    white = np.full((H + 10, W + 20, 3), 255, np.uint8)
    inside, larger = white.copy(), white[: H + 4, : W + 6].copy()
    inside[5 : 5 + H, 7 : 7 + W] = colours
    larger[4:, 6:] = colours
    seen = colours.copy()
    seen[index == 5] = 255
    frames = [Image.fromarray(grey3(np.full((H, W), value, np.uint8))) for value in (50, 200)]
    damaged = "the GIF image is damaged"
    start = plain.index(b",\0\0\0\0")
    return {
        "plain": File(plain, colours),
        "version 87": File(b"GIF87a" + plain[6:], colours),
        "interlaced": File(gif(index, palette, interlaced=True), colours),
        "local palette": File(gif(index, palette, local=True), colours),
        "transparent": File(gif(index, palette, transparent=5), seen),
        "inside a larger canvas": File(gif(index, palette, (W + 20, H + 10), (7, 5)), inside),
        "larger than the canvas": File(gif(index, palette, (8, 8)), colours),
        "beyond the canvas": File(gif(index, palette, (W, H), (6, 4)), larger),
        "animated": File(
            encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]), np.full((H, W, 3), 50)
        ),
        "comment": File(plain[:start] + b"!\xfe\5hello\0" + plain[start:], colours),
        "no trailer": File(plain[:-1], colours),
        "garbage after the end": File(plain + b"garbage", colours),
        "truncated in the palette": File(plain[:100], damaged),
        "truncated in the frame": File(plain[: start + 300], damaged),
        "truncated in the frame's size": File(plain[: start + 5], damaged),
        "no frame": File(plain[:start] + b";", damaged),
        "zero canvas, no frame": File(patched(plain[:start], 6, 0, 0, 0, 0), damaged),
    }


# BMP


def bmp(
    rows: bytes, bits: int, palette: bytes = b"", compression: int = 0, masks: bytes = b"", **size: int
) -> bytes:
    """Return a BMP file of packed rows; `size` may give another width or height."""
    width, height = size.get("width", W), size.get("height", H)
    offset = 54 + len(masks) + len(palette)
    info = struct.pack(
        "<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(rows), 0, 0, len(palette) // 4, 0
    )
    return b"BM" + struct.pack("<IHHI", offset + len(rows), 0, 0, offset) + info + masks + palette + rows


def bmps() -> dict[str, File]:
    """Return BMP files."""
    palette = np.stack([np.arange(16) * 3, np.arange(16) * 5, np.arange(16) * 16], -1).astype(np.uint8)
    entries = np.hstack([palette[:, ::-1], np.zeros((16, 1), np.uint8)]).tobytes()
    index = (_X + _Y) % 16
    one = index % 2
    upward = RGB[::-1, :, ::-1]
    bgrx = np.dstack([upward, np.zeros((H, W), np.uint8)])
    bgra = np.dstack([upward, ALPHA[::-1]])
    five = (RGB >> 3).astype(np.uint16)
    packed555 = (five[..., 0] << 10 | five[..., 1] << 5 | five[..., 2])[::-1].astype("<u2").tobytes()
    green = (RGB[..., 1] >> 2).astype(np.uint16)
    packed565 = (five[..., 0] << 11 | green << 5 | five[..., 2])[::-1].astype("<u2").tobytes()
    runs = b"".join(bytes([8, value]) * (W // 8) + b"\0\0" for value in range(H)) + b"\0\1"
    banded = np.repeat((np.arange(H) % 16)[::-1, None], W, 1)
    run_palette = np.tile(palette, (16, 1))
    run_entries = np.hstack([run_palette[:, ::-1], np.zeros((256, 1), np.uint8)]).tobytes()
    runs4 = b"".join(bytes([W, (v % 16) * 17]) + b"\0\0" for v in range(H)) + b"\0\1"
    plain = bmp(upward.tobytes(), 24)
    red_green_blue = struct.pack("<III", 0xF800, 0x7E0, 0x1F)
    v4 = struct.pack("<IiiHHIIiiII", 108, W, H, 1, 32, 3, 0, 0, 0, 0, 0)
    v4 += struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + bytes(52)
    os2 = b"BM" + struct.pack("<IHHI", 26 + len(upward.tobytes()), 0, 0, 26)
    damaged = "the BMP image is damaged"
    return {
        "plain": File(plain, RGB),
        "1-bit": File(bmp(np.packbits(one[::-1].astype(bool), 1).tobytes(), 1, entries[:8]), palette[one]),
        "4-bit": File(
            bmp((index[::-1, ::2] << 4 | index[::-1, 1::2]).astype(np.uint8).tobytes(), 4, entries),
            palette[index],
        ),
        "8-bit": File(bmp(index[::-1].astype(np.uint8).tobytes(), 8, entries), palette[index]),
        "16-bit 555": File(bmp(packed555, 16), RGB, 4.5),
        "16-bit 565": File(bmp(packed565, 16, compression=3, masks=red_green_blue), RGB, 4.5),
        "32-bit": File(bmp(bgrx.tobytes(), 32), RGB),
        "32-bit with alpha": File(
            b"BM" + struct.pack("<IHHI", 122 + bgra.size, 0, 0, 122) + v4 + bgra.tobytes(),
            over_white(RGB, ALPHA),
            0.6,
        ),
        "run-length 8-bit": File(bmp(runs, 8, run_entries, 1), palette[banded]),
        "run-length 4-bit": File(bmp(runs4, 4, entries, 2), palette[banded]),
        "top-down": File(bmp(RGB[..., ::-1].tobytes(), 24, height=-H), RGB),
        "OS/2": File(os2 + struct.pack("<IHHHH", 12, W, H, 1, 24) + upward.tobytes(), RGB),
        "padded rows": File(
            bmp(np.pad(upward[:, :31].reshape(H, -1), ((0, 0), (0, 3))).tobytes(), 24, width=31), RGB[:, :31]
        ),
        "wrong size of the file": File(patched(plain, 2, 1, 2, 3, 4), RGB),
        "garbage after the end": File(plain + b"garbage", RGB),
        "truncated in the pixels": File(plain[: len(plain) // 2], damaged),
        "truncated in the header": File(plain[:30], damaged),
        "larger than its pixels": File(bmp(upward.tobytes(), 24, height=H + 1), damaged),
        "zero width": File(bmp(b"", 24, width=0), damaged),
        "run-length, cut short": File(bmp(runs[:60], 8, run_entries, 1), damaged),
        "JPEG inside": File(bmp(encoded(RGB, "JPEG"), 24, compression=4), damaged),
        "7-bit": File(bmp(upward.tobytes(), 7), damaged),
    }


def strangers() -> dict[str, File]:
    """Return what is no image of a known format."""
    unknown = "not an image of a known format (JPEG, PNG, WebP, GIF, BMP, TIFF)"
    files = {
        "empty": File(b"", "the file is empty"),
        "text": File(b"not an image\n", unknown + ";"),
        "zeros": File(bytes(1000), unknown + ";"),
        "sound": File(b"RIFF\0\0\0\0WAVEfmt ", unknown + ";"),
        "film": File(b"\0\0\0\x20ftypisom", unknown + ";"),
    }
    named = {
        "PSD": (b"8BPS\0\1" + bytes(30),),
        "PDF": (b"%PDF-1.7",),
        "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0",),
        "AVIF": (b"\0\0\0\x20ftypavif",),
        "HEIC": (b"\0\0\0\x18ftypheic",),
        "SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'/>",),
        "XML": (b"<?xml version='1.0'?><svg/>",),
        "HTML": (b"<!DOCTYPE html><p>404",),
        "ICO": (b"\0\0\1\0\1\0",),
        "JPEG 2000": (b"\0\0\0\x0cjP  \r\n\x87\n",),
        "JPEG XL": (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"),
    }
    for name, examples in named.items():
        for number, data in enumerate(examples):
            files[f"{name} {number}"] = File(data, f"{unknown} but {name};")
    return files


def files() -> dict[str, File]:
    """Return the zoo by name."""
    from tests.data.zoo_tiff import tiffs  # which takes its pixels from here

    groups = {
        "JPEG": jpegs(),
        "PNG": pngs(),
        "WebP": webps(),
        "GIF": gifs(),
        "BMP": bmps(),
        "TIFF": tiffs(),
        "other": strangers(),
    }
    return {f"{kind}: {name}": file for kind, group in groups.items() for name, file in group.items()}
