"""Checking finds what was put there, in folders and in prepared sets."""

import io
import zlib
from collections import Counter

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.data.prepare.pictures import CLASSES, picture, write_pictures
from tests.runs import run
from vit_jax.data.images.decode import decode
from vit_jax.data.prepare.check import LAYOUT, NAMED, check
from vit_jax.data.prepare.images import read_header
from vit_jax.data.prepare.prepare import prepare
from vit_jax.data.prepare.shards import serialized
from vit_jax.errors import DataError


def saved(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


RGB = Image.fromarray(np.arange(300, dtype=np.uint8).reshape(10, 10, 3))
EXIF = Image.Exif()
EXIF[0x0112] = 3
ODD = {
    "grey.jpg": (saved(RGB.convert("L"), "JPEG"), "JPEG", ("grey",)),
    "ink.jpg": (saved(RGB.convert("CMYK"), "JPEG"), "JPEG", ("CMYK",)),
    "progressive.jpeg": (saved(RGB, "JPEG", progressive=True), "JPEG", ("progressive",)),
    "rotated.jpg": (saved(RGB, "JPEG", exif=EXIF), "JPEG", ("EXIF-rotated",)),
    "named.jpg": (saved(RGB, "PNG"), "PNG", ("PNG named .jpg",)),
    "deep.png": (saved(Image.fromarray(np.zeros((9, 9), np.uint16)), "PNG"), "PNG", ("16-bit",)),
    "alpha.png": (saved(RGB.convert("RGBA"), "PNG"), "PNG", ("alpha",)),
    "few.png": (saved(RGB.convert("P"), "PNG"), "PNG", ("palette",)),
    "bits.bmp": (saved(RGB.convert("1"), "BMP"), "BMP", ("one-bit",)),
    "moving.gif": (
        saved(RGB, "GIF", save_all=True, append_images=[RGB.rotate(90)]),
        "GIF",
        ("palette", "animated"),
    ),
    "plain.tif": (saved(RGB, "TIFF"), "TIFF", ()),
    "deep.tiff": (saved(Image.fromarray(np.zeros((9, 9), np.uint16)), "TIFF"), "TIFF", ("grey", "16-bit")),
    "pages.tif": (
        saved(RGB.convert("RGBA"), "TIFF", save_all=True, append_images=[RGB]),
        "TIFF",
        ("alpha", "several pages"),
    ),
    "scan.TIF": (saved(RGB.convert("1"), "TIFF", compression="group4"), "TIFF", ("one-bit",)),
    "tiff.png": (saved(RGB.convert("P"), "TIFF"), "TIFF", ("TIFF named .png", "palette")),
    "camera.jpe": (saved(RGB.rotate(90), "JPEG"), "JPEG", ()),
    "photo.jfif": (saved(RGB.rotate(90), "PNG"), "PNG", ("PNG named .jfif",)),
    "plain.webp": (saved(RGB, "WEBP"), "WebP", ()),
}


@pytest.mark.parametrize("name", ODD)
def test_headers(name):
    data, kind, oddities = ODD[name]
    header = read_header(data, name)
    assert (header.format, header.oddities) == (kind, oddities)
    assert (header.width, header.height) == Image.open(io.BytesIO(data)).size


@pytest.mark.parametrize(
    "data", [b"", b"text", picture(1)[:60], picture(1)[:-2], saved(RGB, "PNG")[:20], saved(RGB, "TIFF")[:20]]
)
def test_headers_of_what_is_no_image(data):
    with pytest.raises(DataError):
        read_header(data)


def test_an_end_within_a_thumbnail_is_not_the_end():
    thumbnail = Image.Exif()
    thumbnail[0x010E] = "\xff\xd9"
    data = saved(RGB, "JPEG", exif=thumbnail.tobytes() + b"\xff\xd9")
    read_header(data)
    with pytest.raises(DataError, match="its end is missing"):
        read_header(data[:-2])


def test_a_bomb_is_told_from_its_header():
    header = bytearray(saved(Image.new("1", (8, 8)), "PNG"))
    header[16:24] = (20000).to_bytes(4, "big") * 2
    header[29:33] = zlib.crc32(header[12:29]).to_bytes(4, "big")
    with pytest.raises(DataError, match=r"known format|megapixels"):
        read_header(bytes(header))


def test_a_good_folder(tmp_path):
    write_pictures(tmp_path / "train")
    report = check(tmp_path)
    split = report.splits["train"]
    assert report.good
    assert split.records == 18
    assert split.classes == dict(zip(CLASSES, (7, 5, 6)))
    assert split.formats == {"JPEG": 11, "PNG": 7}
    assert split.sizes["height"] == {f"{share}%": 30 for share in (0, 5, 25, 50, 75, 95, 100)}
    assert (split.oddities, report.duplicates.count) == ({}, 0)


def test_a_folder_of_images_and_masks_is_recognised(tmp_path):
    random = np.random.default_rng(0)
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
        for i in range(12):
            array = random.integers(
                0, 256 if name == "images" else 2, (6, 5, 3)[: 3 - (name == "masks")], np.uint8
            )
            Image.fromarray(array).save(tmp_path / name / f"{i}.png")
    (tmp_path / "classes.txt").write_text("sky\nroad\n")
    report = check(tmp_path)
    assert (report.good, report.layout) == (True, LAYOUT)
    assert {split.fields for split in report.splits.values()} == {("image", "segmentation")}
    assert sum(split.records for split in report.splits.values()) == 12
    assert report.splits["train"].classes["road"] == report.splits["train"].records
    outcome = run("data", "check", tmp_path)
    assert outcome.out.splitlines()[0] == f"{tmp_path}: {LAYOUT}"
    done = prepare(tmp_path, tmp_path / "out", name="scenes", workers=1)
    assert done.counts == {name: split.records for name, split in report.splits.items()}
    again = check(done.directory)
    assert (again.good, again.layout) == (True, "")
    assert {name: split.classes for name, split in again.splits.items()} == {
        name: split.classes for name, split in report.splits.items()
    }
    (tmp_path / "cat").mkdir()
    (tmp_path / "images" / "0.png").rename(tmp_path / "cat" / "0.png")
    for action in (["check"], ["prepare", "--output", tmp_path / "more"]):
        refused = run("data", *action[:1], tmp_path, *action[1:])
        assert (refused.status, refused.err.count("\n")) == (3, 1)
        assert "and images in cat too, so it may be images with masks or class folders" in refused.err


def test_findings_in_a_folder(tmp_path):
    files = write_pictures(tmp_path / "train")
    write_pictures(tmp_path / "val", (3, 1, 1), start=90)
    for name, (data, _, _) in ODD.items():
        (tmp_path / "train" / "bee" / name).write_bytes(data)
    (tmp_path / "val" / "cat" / "copy.jpg").write_bytes(files["cat/1.jpg"])
    (tmp_path / "train" / "ant" / "bad.jpg").write_bytes(b"no image")
    # Whole as far as its header and end go.
    whole = picture(7)
    (tmp_path / "train" / "ant" / "short.jpg").write_bytes(whole[:400] + b"\xff\xd9")
    for number in range(NAMED + 5):
        (tmp_path / "train" / "cat" / f"empty{number}.jpg").write_bytes(b"")
    report = check(tmp_path, workers=1)
    train = report.splits["train"]
    assert not report.good
    assert train.unreadable.count >= NAMED + 6
    assert len(train.unreadable.examples) == NAMED
    assert train.unreadable.examples[0].startswith(f"{tmp_path}/train/ant/bad.jpg: ")
    assert {kind: found.count for kind, found in train.oddities.items()} == Counter(
        kind for _, _, kinds in ODD.values() for kind in kinds
    )
    assert train.oddities["CMYK"].examples == [f"{tmp_path}/train/bee/ink.jpg"]
    assert report.duplicates.examples == [f"{tmp_path}/val/cat/copy.jpg is {tmp_path}/train/cat/1.jpg"]
    assert check(tmp_path, "val").good


def test_findings_in_a_prepared_set(tmp_path):
    write_pictures(tmp_path / "insects" / "train")
    directory = prepare(tmp_path / "insects", tmp_path / "out").directory
    assert check(directory).good
    assert check("insects", "train", data_dir=str(tmp_path / "out")).splits["train"].records == 18
    path = next(directory.glob("*.array_record-*"))
    writer = ArrayRecordWriter(str(path), "group_size:1,uncompressed")
    for index in range(18):
        writer.write(
            serialized(b"?" if index == 4 else picture(index), 3 if index == 5 else index % 3, f"{index}.png")
        )
    writer.close()
    np.save(directory / "insects-train.labels.npy", np.arange(18, dtype=np.int32) % 3)
    split = check(directory).splits["train"]
    assert (split.unreadable.count, split.bad_labels.count) == (1, 1)
    assert split.unreadable.examples[0].startswith("record 4 of insects/1.0.0 train (4.png): not an image")
    assert split.oddities["JPEG named .png"].count == 17
    assert split.bad_labels.examples[0].endswith("label 3, not below 3")
    np.save(directory / "insects-train.labels.npy", np.zeros(18, np.int32))
    assert check(directory).splits["train"].bad_labels.count == 11  # of 12, one is unreadable
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 300] = bytes(300)
    path.write_bytes(data)
    assert check(directory).splits["train"].unreadable.count >= 1


@pytest.mark.parametrize(
    ("source", "options", "said"),
    [
        ("nothing", {}, "'nothing' is neither a folder nor a dataset of tfds"),
        ("mnist", {"data_dir": "nowhere"}, "mnist is not prepared; run `vit-jax data prepare mnist`."),
        ("out", {}, "is a data_dir of prepared datasets; name one of them, for example"),
        (
            "out/insects/1.0.0",
            {"split": "trian"},
            "has no split 'trian'; it has train. Did you mean 'train'?",
        ),
        ("insects", {"split": "tset"}, "has no split 'tset'"),
    ],
)
def test_mistakes(tmp_path, monkeypatch, source, options, said):
    monkeypatch.chdir(tmp_path)
    write_pictures(tmp_path / "insects" / "train", (1, 1, 1))
    prepare("insects", "out")
    with pytest.raises(DataError) as caught:
        check(source, **options)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_png_with_much_compressed_text_is_read_as_training_reads_it():
    text = PngInfo()
    text.add_text("notes", "x" * 3_000_000, zip=True)
    data = saved(Image.new("L", (7, 9)), "PNG", pnginfo=text)
    header = read_header(data, "notes.png")
    assert (header.width, header.height, header.oddities) == (7, 9, ("grey",))
    assert decode(data).shape == (9, 7, 3)
    with pytest.raises(DataError, match="it ends within the header"):
        read_header(data[:20])
