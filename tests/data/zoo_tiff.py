"""TIFF files of every kind, of a writer of our own, of Pillow and of OpenCV."""

import struct
import zlib

import cv2
import numpy as np
from PIL import Image

from tests.data.zoo import ALPHA, GREY, LOSSY, RGB, SIXTEEN, File, encoded, grey3, over_white, turned

_NONE, _DEFLATE, _OLD_DEFLATE = 1, 8, 32946


def tiff(
    values: np.ndarray,
    *,
    order: str = "<",
    big: bool = False,
    compression: int = _NONE,
    predictor: int = 1,
    rows: int = 7,
    tile: tuple[int, int] | None = None,
    colour: int | None = None,
    extra: tuple[int, ...] = (),
    lacking: tuple[int, ...] = (),
    pages: int = 1,
    **fields: int | tuple[int, ...],
) -> bytes:
    """Return a TIFF 6.0 file.

    Args:
      values: `(h, w)` or `(h, w, c)`, of any type.
      order: of bytes, `<` or `>`.
      big: BigTIFF.
      compression: none or deflate.
      predictor: 2 stores differences to the value on the left.
      rows: of a strip.
      tile: height and width of tiles instead.
      colour: photometric interpretation; by default black is zero, or RGB.
      extra: what further channels are.
      lacking: fields to leave out.
      pages: the same picture again, black.
      **fields: further fields, or others, as `f274=6`.
    """
    values = values[..., None] if values.ndim == 2 else values
    height, width, samples = values.shape
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    contents = {
        256: width,
        257: height,
        258: (8 * values.itemsize,) * samples,
        259: compression,
        262: (2 if samples - len(extra) >= 3 else 1) if colour is None else colour,
        277: samples,
        **({338: extra} if extra else {}),
        **({339: (kind,) * samples} if kind != 1 else {}),
        **({317: predictor} if predictor != 1 else {}),
    }
    if tile is None:
        parts = [values[top : top + rows] for top in range(0, height, rows)]
        contents[278], places, sizes = rows, 273, 279
    else:
        down, across = tile
        room = np.pad(values, ((0, -height % down), (0, -width % across), (0, 0)), "edge")
        grid = [(y, x) for y in range(0, height, down) for x in range(0, width, across)]
        parts = [room[y : y + down, x : x + across] for y, x in grid]
        contents |= {322: across, 323: down}
        places, sizes = 324, 325
    pieces = []
    for part in parts:
        if predictor == 2:
            part = np.concatenate([part[:, :1], part[:, 1:] - part[:, :-1]], 1)
        raw = part.astype(f"{order}{part.dtype.str[1:]}").tobytes()
        pieces.append(raw if compression == _NONE else zlib.compress(raw))
    word, counter, inline, start = ("Q", "Q", 8, 16) if big else ("I", "H", 4, 8)
    offsets = np.cumsum([start, *map(len, pieces)]).tolist()
    contents |= {places: tuple(offsets[:-1]), sizes: tuple(map(len, pieces))}
    contents |= {int(name[1:]): value for name, value in fields.items()}
    contents = {field: value for field, value in contents.items() if field not in lacking}
    mark = (b"II" if order == "<" else b"MM") + struct.pack(order + "H", 43 if big else 42)
    head = mark + (struct.pack(order + "HH", 8, 0) if big else b"")
    data = head + struct.pack(order + word, offsets[-1]) + b"".join(pieces)
    for page in range(pages):
        table, rest = struct.pack(order + counter, len(contents)), b""
        behind = len(data) + len(table) + len(contents) * (4 + 2 * inline) + inline
        for field, value in sorted(contents.items()):
            numbers = value if isinstance(value, tuple) else (value,)
            if field == 262 and page:
                numbers = (0,)
            letter, code = ("H", 3) if max(numbers) < 2**16 and field not in (places, sizes) else ("I", 4)
            raw = struct.pack(f"{order}{len(numbers)}{letter}", *numbers)
            table += struct.pack(f"{order}HH{word}", field, code, len(numbers))
            if len(raw) > inline:
                table += struct.pack(order + word, behind + len(rest))
                rest += raw
            else:
                table += raw.ljust(inline, b"\0")
        following = behind + len(rest) if page + 1 < pages else 0
        data += table + struct.pack(order + word, following) + rest
    return data


def _rounded(values: np.ndarray) -> np.ndarray:
    return np.rint(values / 257).astype(np.uint8)


def _coded(image: np.ndarray, compression: int, predictor: int = 1) -> bytes:
    """Return a file as OpenCV writes it."""
    order = [2, 1, 0, 3] if image.shape[-1] == 4 else [2, 1, 0]
    options = [cv2.IMWRITE_TIFF_COMPRESSION, compression, cv2.IMWRITE_TIFF_PREDICTOR, predictor]
    return cv2.imencode(".tif", image[..., order] if image.ndim == 3 else image, options)[1].tobytes()


def tiffs() -> dict[str, File]:
    """Return what is read and what is refused."""
    rgba = np.dstack([RGB, ALPHA])
    alpha16 = ALPHA.astype(np.uint16) * 257
    rgba16, grey16 = np.dstack([SIXTEEN, alpha16]), SIXTEEN[..., 0]
    white8, white16 = over_white(RGB, ALPHA), over_white(SIXTEEN / 257, ALPHA)
    files: dict[str, File] = {}
    for method in (None, "raw", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits"):
        files[f"Pillow RGB {method}"] = File(encoded(RGB, "TIFF", compression=method), RGB)
        files[f"Pillow grey {method}"] = File(encoded(GREY, "TIFF", compression=method), grey3(GREY))
    files["Pillow RGB jpeg"] = File(encoded(RGB, "TIFF", compression="jpeg", quality=95), RGB, LOSSY)
    files["Pillow grey jpeg"] = File(
        encoded(GREY, "TIFF", compression="jpeg", quality=95), grey3(GREY), LOSSY
    )
    files["Pillow RGBA"] = File(encoded(rgba, "TIFF"), white8, 0.6)
    files["Pillow grey and alpha"] = File(
        encoded(Image.fromarray(rgba[..., [0, 3]], "LA"), "TIFF"), over_white(grey3(GREY), ALPHA), 0.6
    )
    files["Pillow palette"] = File(
        encoded(Image.fromarray(RGB).quantize(64), "TIFF"),
        np.asarray(Image.fromarray(RGB).quantize(64).convert("RGB")),
    )
    bits = Image.fromarray(GREY).convert("1")
    for method in ("raw", "group3", "group4", "tiff_ccitt"):
        files[f"Pillow one-bit {method}"] = File(
            encoded(bits, "TIFF", compression=method), grey3(np.asarray(bits).astype(np.uint8) * 255)
        )
    ink = Image.fromarray(RGB).convert("CMYK")
    files["Pillow CMYK"] = File(encoded(ink, "TIFF"), np.asarray(ink.convert("RGB")))
    files["Pillow 16-bit"] = File(encoded(grey16, "TIFF", compression="tiff_lzw"), grey3(_rounded(grey16)))
    for code, name in ((_NONE, "none"), (5, "LZW"), (_DEFLATE, "deflate"), (32773, "PackBits")):
        for predictor in (1, 2):
            name_ = f"{name} predictor {predictor}"
            files[f"OpenCV 16-bit RGB {name_}"] = File(_coded(SIXTEEN, code, predictor), _rounded(SIXTEEN))
            files[f"OpenCV 16-bit grey {name_}"] = File(
                _coded(grey16, code, predictor), grey3(_rounded(grey16))
            )
            files[f"OpenCV RGB {name_}"] = File(_coded(RGB, code, predictor), RGB)
    files["OpenCV RGBA"] = File(_coded(rgba, 5), white8, 0.6)
    files["OpenCV 16-bit RGBA"] = File(_coded(rgba16, 5), white16, 0.6)
    for order in "<>":
        for big in (False, True):
            for tile in (None, (16, 16)):
                for compression, predictor in ((_NONE, 1), (_DEFLATE, 1), (_DEFLATE, 2), (_OLD_DEFLATE, 2)):
                    how = {"order": order, "big": big, "tile": tile}
                    how |= {"compression": compression, "predictor": predictor}
                    name = f"{order}{' big' * big}{' tiled' * bool(tile)} {compression} {predictor}"
                    files[f"RGB {name}"] = File(tiff(RGB, **how), RGB)
                    files[f"16-bit RGB {name}"] = File(tiff(SIXTEEN, **how), _rounded(SIXTEEN))
                    files[f"16-bit grey {name}"] = File(tiff(grey16, **how), grey3(_rounded(grey16)))
    for orientation in range(1, 9):
        files[f"orientation {orientation}"] = File(tiff(RGB, f274=orientation), turned(orientation))
        deep = _rounded(SIXTEEN) if orientation == 1 else None
        if deep is not None:
            files["16-bit orientation 1"] = File(tiff(SIXTEEN, f274=1), deep)
    files["orientation 9"] = File(tiff(RGB, f274=9), RGB)
    files["white is zero"] = File(tiff(255 - GREY, colour=0), grey3(GREY))
    files["16-bit white is zero"] = File(tiff(65535 - grey16, colour=0), grey3(_rounded(grey16)))
    premultiplied = np.dstack([np.rint(RGB * (ALPHA[..., None] / 255)).astype(np.uint8), ALPHA])
    premultiplied16 = np.dstack([np.rint(SIXTEEN * (ALPHA[..., None] / 255)).astype(np.uint16), alpha16])
    files["alpha"] = File(tiff(rgba, extra=(2,)), white8, 0.6)
    files["16-bit alpha"] = File(tiff(rgba16, extra=(2,), tile=(16, 32)), np.rint(white16))
    files["16-bit grey and alpha"] = File(
        tiff(rgba16[..., [0, 3]], extra=(2,)), np.rint(over_white(grey3(SIXTEEN[..., 0] / 257), ALPHA))
    )
    files["associated alpha"] = File(tiff(premultiplied, extra=(1,)), white8, 0.6)
    files["16-bit associated alpha"] = File(tiff(premultiplied16, extra=(1,)), white16, 0.6)
    files["first of three pages"] = File(tiff(RGB, pages=3), RGB)
    files["one strip"] = File(tiff(RGB, rows=1000), RGB)
    files["without rows of a strip"] = File(tiff(RGB, rows=1000, lacking=(278,)), RGB)
    files["a row a strip"] = File(tiff(SIXTEEN, rows=1, compression=_DEFLATE), _rounded(SIXTEEN))
    files["tiles larger than the image"] = File(tiff(RGB, tile=(64, 128)), RGB)
    files["private fields and bytes behind"] = File(tiff(RGB, f65000=7, f700=(1, 2, 3, 4, 5)) + b"more", RGB)
    files["four bits"] = File(
        tiff((GREY[:, ::2] & 0xF0) | (GREY[:, 1::2] >> 4), f256=32, f258=4), grey3((GREY >> 4) * 17)
    )
    for name, data, said in _refused(rgba, rgba16):
        files[name] = File(data, said)
    return files


def _refused(rgba: np.ndarray, rgba16: np.ndarray) -> list[tuple[str, bytes, str]]:
    floats, whole, cut = (RGB / 255).astype(np.float32), tiff(RGB), tiff(SIXTEEN, compression=_DEFLATE)
    many = np.repeat(GREY[..., None], 12, -1)
    wrong = bytearray(cut)
    wrong[60] ^= 0xFF
    damaged = "the TIFF image is damaged ("
    return [
        ("float", tiff(floats), "has floating-point numbers"),
        ("signed", tiff(GREY.astype(np.int16)), "has signed integers"),
        ("32 bits", tiff(GREY.astype(np.uint32)), "has 32 bits per channel"),
        ("12 channels", tiff(many, colour=1, extra=(0,) * 11), "has 12 channels, 1 of grey and others that"),
        ("12 channels, unsaid", tiff(many, colour=1), "has 12 channels"),
        ("infrared", tiff(rgba, extra=(0,)), "has 4 channels, 3 of RGB and others that are not alpha"),
        ("16-bit infrared", tiff(rgba16, extra=(0,)), "has 4 channels"),
        ("two of grey", tiff(rgba[..., :2], colour=1), "has 2 channels, 1 of grey"),
        ("planes", tiff(RGB, f284=2), "has its channels one after the other, as planes"),
        ("CIELab", tiff(RGB, colour=8), "has colours that are CIELab"),
        ("raw of a camera", tiff(GREY.astype(np.uint16), colour=32803), "of a colour filter (raw)"),
        ("old JPEG", tiff(RGB, f259=6), "is compressed with old JPEG"),
        ("Zstandard", tiff(RGB, f259=50000), "is compressed with Zstandard"),
        ("unknown compression", tiff(RGB, f259=777), "is compressed with method 777"),
        ("unequal bits", tiff(RGB, f258=(5, 6, 5)), "has 5+6+5 bits per channel"),
        ("reversed bits", tiff(RGB, f266=2), "has its bits in the reversed order"),
        ("predictor of floats", tiff(RGB, f317=3), "is compressed with predictor 3"),
        ("no colour", tiff(RGB, lacking=(262,)), "has colours that are of kind -1"),
        ("cut", whole[:-30], damaged),
        ("only its beginning", whole[:8], damaged),
        ("only its mark", b"MM\0*\0\0\0\x08", damaged),
        ("no directory", b"II*\0\xff\xff\xff\x7f" + bytes(100), damaged),
        ("no strips", tiff(RGB, lacking=(273,)), damaged + "it has 0 of 4 pieces"),
        ("no sizes of strips", tiff(RGB, lacking=(279,)), damaged + "it has 4 of 4 pieces and 0 sizes"),
        ("too few strips", tiff(RGB, f278=5), damaged + "it has 4 of 5 pieces"),
        ("strips beyond the end", tiff(RGB, f273=(10**6,) * 4), damaged + "it ends within its pixels"),
        ("short strips", tiff(RGB, f279=(9,) * 4), damaged + "it has fewer rows than its header says"),
        ("short compressed strips", tiff(RGB, compression=_DEFLATE, f279=(30,) * 4), damaged),
        ("fewer rows in compressed strips", tiff(RGB, compression=_DEFLATE, f256=64), damaged),
        ("a flipped bit", bytes(wrong), damaged),
        ("tiles without a size", tiff(RGB, tile=(16, 16), f322=0), damaged + "its tiles have no size"),
        ("no pixels", tiff(RGB, f256=0), "the image has 0x24 pixels"),
        (
            "many pixels",
            tiff(RGB, f256=60000, f257=60000),
            "the image has 60000x60000 pixels, more than the 64",
        ),
        ("empty pixels", tiff(RGB, f256=6000, f257=6000), "the image claims 6000x6000 pixels"),
        ("vast tiles", tiff(RGB, tile=(16, 16), f322=60000, f323=60000), "has 60000x60000 pixels, more than"),
        ("many fields", b"II*\0\x08\0\0\0\xff\xff" + bytes(900000), damaged + "it claims 65535 fields"),
        ("JPEG of nothing", tiff(RGB, f259=7), "the JPEG image is damaged"),
    ]
