"""Small pictures, and how a prepared set is read back."""

import io

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

CLASSES = ("ant", "bee", "cat")


def picture(number, size=(30, 40), kind="JPEG", **options):
    """The bytes of an image file, different for each number."""
    noise = np.random.default_rng(number).integers(0, 255, (*size, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, kind, **options)
    return buffer.getvalue()


def write_pictures(folder, counts=(7, 5, 6), start=0):
    """Write `CLASS/N.jpg`, of the first class `CLASS/N.png`; return the bytes by relative name."""
    written = {}
    for name, count in zip(CLASSES, counts):
        (folder / name).mkdir(parents=True)
        for number in range(start, start + count):
            kind, extension = ("PNG", "png") if name == "ant" else ("JPEG", "jpg")
            data = picture(1000 * CLASSES.index(name) + number, kind=kind)
            (folder / name / f"{number}.{extension}").write_bytes(data)
            written[f"{name}/{number}.{extension}"] = data
    return written


def stored(directory, split):
    """File name, label and bytes of every record, as tfds itself reads them."""
    builder = tfds.builder_from_directory(str(directory))
    records = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
    return [(record["file_name"].decode(), int(record["label"]), record["image"]) for record in records]


def contents(folder):
    """The bytes of every file by relative name, without lock files."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
