"""Reads thousands of damaged data sets: each must be read or be refused with one line.

    python benchmarks/fuzz_datasets.py --files 80000 --json fuzz.json

Files go through the kinds in turn, so that each kind has an eighth: arrays (npz), archives of ILSVRC2012 (tar of tar)
and their devkit (gzip, MATLAB), TFRecord, ArrayRecord, the metadata of a prepared data set (JSON) and its labels beside
the records (npy), and the metadata of a checkpoint with its configuration. They are read in processes that fail if one
takes more than 512 MiB or 2 seconds of processor time, executes something, opens a file for writing, connects or
imports a module. The seed of a failure gives the same file again; `--keep FOLDER` stores those files.
"""

import contextlib
import gzip
import io
import json
import shutil
import struct
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fuzzing
import numpy as np
from damaged_weights import LENGTHS, Damage

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.data.prepare.pictures import picture
from tests.data.prepare.test_imagenet import tar_bytes, write_archives
from vit_jax.checkpoints.files import checksum
from vit_jax.data.prepare import tfrecord
from vit_jax.data.prepare.crc32c import masked_crc32c
from vit_jax.data.prepare.folders import DEVKIT, TRAIN_TAR, list_imagenet
from vit_jax.data.prepare.prepare import prepare
from vit_jax.data.prepare.shards import Options, _example
from vit_jax.data.sources.opening import open_source
from vit_jax.data.sources.tfds_source import TfdsSource
from vit_jax.errors import VitError
from vit_jax.inference.workdir import find
from vit_jax.models.config_json import config_from_json, config_to_json
from vit_jax.models.registry import model_config
from vit_jax.training.config import default_config, to_json, validate

KINDS = ("npz", "tar", "devkit", "tfrecord", "array_record", "json", "npy", "checkpoint")
GOOD = ("loaded", "refused")
VALUES = (
    *(
        None,
        True,
        -1,
        0,
        2**31,
        2**63,
        1e300,
        -0.5,
        "",
        "x" * 5000,
        "a\nb\x1b[31m",
        [],
        {},
        [[]],
        [2**40] * 3,
    ),
    *("../..", "os.system", "antigravity.Feature", {"a": {"b": {}}}),
)


class Files:
    """Valid data sets in a folder, and how one file of a kind is put in its place and read."""

    def __init__(self, folder: Path):
        self.folder = folder
        write_archives(folder / "imagenet")
        for name in ("cat", "dog"):
            (folder / "pictures" / "train" / name).mkdir(parents=True)
            for number in range(4):
                (folder / "pictures" / "train" / name / f"{number}.jpg").write_bytes(picture(number))
        done = prepare(folder / "pictures", folder / "prepared", workers=1)
        self.prepared = done.directory
        (folder / "arrays").mkdir()
        arrays = dict(
            images=np.zeros((6, 4, 4), np.uint8), labels=np.arange(6) % 3, class_names=["a", "b", "ç"]
        )
        np.savez(folder / "arrays" / "train.npz", **arrays)  # pyright: ignore[reportArgumentType]
        packed = io.BytesIO()
        np.savez_compressed(packed, **arrays)  # pyright: ignore[reportArgumentType]
        (folder / "records").mkdir()
        with (folder / "records" / "x.tfrecord").open("wb") as file:
            for path in sorted((folder / "pictures").rglob("*.jpg")):
                tfrecord.write(file, _serialized(path))
        step = folder / "run" / "checkpoints" / "3"
        (step / "metadata").mkdir(parents=True)
        (step / "state").mkdir()
        model = model_config("vit_mu_patch4_8", in_channels=1)
        metadata: dict[str, Any] = {
            "config": json.loads(to_json(default_config())),
            "model": json.loads(json.dumps(config_to_json(model))),
            "arrays": {"params/head/kernel": ["float32", [32, 10], "00"]},
            **{"step": 3, "class_names": ["a", "b"], "eval_transforms": "", "metrics": {"accuracy": 0.5}},
            **{"monitor": "accuracy", "monitor_mode": "max", "fingerprint": "00"},
        }
        (step / "metadata" / "metadata").write_text(json.dumps(metadata | {"checksum": checksum(metadata)}))
        self.places: dict[str, list[Path]] = {
            "npz": [folder / "arrays" / "train.npz"],
            "tar": [folder / "imagenet" / TRAIN_TAR],
            "devkit": [folder / "imagenet" / DEVKIT],
            "tfrecord": [folder / "records" / "x.tfrecord"],
            "array_record": sorted(self.prepared.glob("*.array_record-*")),
            "json": [
                self.prepared / "dataset_info.json",
                self.prepared / "features.json",
                *self.prepared.glob("*.txt"),
            ],
            "npy": sorted(self.prepared.glob("*.npy")),
            "checkpoint": [step / "metadata" / "metadata"],
        }
        self.valid = {str(path): path.read_bytes() for paths in self.places.values() for path in paths}
        self.contents = {
            kind: [self.valid[str(path)] for path in paths] for kind, paths in self.places.items()
        }
        self.contents["npz"].append(packed.getvalue())

    def read(self, kind: str) -> None:
        """Read all that there is of a kind."""
        section = SimpleNamespace(source="arrays", path=str(self.folder / "arrays"), train_split="train")
        if kind == "npz":
            source = open_source(section, "train")
            [source[index] for index in range(len(source))]
        elif kind in ("tar", "devkit"):
            split = {"tar": "train", "devkit": "validation"}[kind]
            list_imagenet(self.folder / "imagenet", "imagenet2012", {split: split}, progress=False)
        elif kind == "tfrecord":
            path = self.places[kind][0]
            with path.open("rb") as file:
                for offset, size in tfrecord.scan(path):
                    data = tfrecord.read(file, offset, size)
                    record: Any = SimpleNamespace(name="x", label=-1)
                    _example(record, data, Options(True, 2, 0, 90, "error"))
        elif kind == "checkpoint":
            saved = find(self.folder / "run")
            validate(saved.config)
            if saved.model is not None:
                config_from_json(saved.model)
        else:
            source = TfdsSource("", "train", str(self.prepared))
            for index in range(len(source)):
                with contextlib.suppress(VitError):  # a record; the next may be good
                    source[index]


def _serialized(path: Path) -> bytes:
    from vit_jax.data.prepare.shards import serialized

    return serialized(path.read_bytes(), 1 if "dog" in str(path) else 0, path.name)


class DataDamage(Damage):
    """All choices for one damaged file, drawn from its seed."""

    def damaged(self, kind: str) -> tuple[int, str, bytes]:
        """Return which file of the kind, the kind of damage and the content."""
        which = self._random.randrange(len(self._files[kind]))
        content = self._files[kind][which]
        ways: list[Callable[[bytes], bytes]] = [self.flip, self.cut, self.splice, self.lengths]
        ways += {
            "npz": [self.member, self.member, self.archive],
            "tar": [self.tar_header] * 4 + [self.inner_header] * 4,
            "devkit": [self.packed] * 4,
            "tfrecord": [self.record] * 4,
            "npy": [self._numpy_header] * 3,
        }.get(kind, [])
        if content.startswith(b"{"):
            ways += [self.value] * 8
        way = self._random.choice(ways)
        for _ in range(self._random.choice((1, 1, 1, 2, 4)) if way in ways[:4] else 1):
            content = way(content) or b"\0"
        if kind == "checkpoint" and self._random.random() < 0.9:
            content = _with_checksum(content)
        return which, way.__name__, content

    def value(self, content: bytes) -> bytes:
        """Change a value, drop it or call it otherwise, anywhere in a JSON document."""
        document: Any = json.loads(content)
        place, parents = document, []
        while isinstance(place, dict | list) and place and (not parents or self._random.random() < 0.75):
            key = (
                self._random.choice(list(place))
                if isinstance(place, dict)
                else self._random.randrange(len(place))
            )
            parents.append((place, key))
            place = place[key]
        inside, key = parents[-1]
        match self._random.randrange(5):
            case 0:
                del inside[key]
            case 1 if isinstance(inside, dict):
                inside[self._random.choice((str(key) + "x", "", "a.b", "__class__", "items", "\n"))] = (
                    inside.pop(key)
                )
            case _:
                inside[key] = self._random.choice(VALUES)
        return json.dumps(document).encode()

    def tar_header(self, content: bytes) -> bytes:
        """Write something odd into a field of a header, whose checksum stays right."""
        headers = [i for i in range(0, len(content) - 511, 512) if content[i + 257 : i + 262] == b"ustar"]
        if not headers:
            return self.flip(content)
        start = self._random.choice(headers)
        header = bytearray(content[start : start + 512])
        offset, size = self._random.choice(
            ((0, 100), (100, 8), (124, 12), (124, 12), (136, 12), (156, 1), (157, 100), (345, 155))
        )
        value = self._random.choice(
            (
                *(
                    b"../../x",
                    b"/etc/passwd",
                    b"7" * size,
                    b"\x80" + b"\xff" * 11,
                    b"\xff" * 12,
                    b"-1",
                    b"",
                    b"x",
                ),
                *(b"1", b"2", b"5", b"L", b"K", b"g", b"S", b"77777777777", b"a\nb\x1b[31m"),
                self._random.randbytes(size),
            )
        )
        header[offset : offset + size] = value[:size].ljust(size, b"\0")
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        return content[:start] + bytes(header) + content[start + 512 :]

    def inner_header(self, content: bytes) -> bytes:
        """As `tar_header`, in an archive within the archive."""
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            members = {entry.name: file.read() for entry in archive if (file := archive.extractfile(entry))}
        name = self._random.choice(list(members))
        members[name] = (
            self._random.choice((self.tar_header, self.flip, self.cut))(members[name] or b"\0") or b"\0"
        )
        return tar_bytes(members)

    def packed(self, content: bytes) -> bytes:
        """Damage what gzip holds: headers, the file of MATLAB, the numbers; or a bomb."""
        plain = gzip.decompress(content)
        if self._random.random() < 0.05:
            return gzip.compress(plain[:512] + bytes(30_000_000), 1)
        way = self._random.choice(
            (self.tar_header, self.inner_header, self.flip, self.cut, self.splice, self.lengths)
        )
        return gzip.compress(way(plain) or b"\0", 1)

    def record(self, content: bytes) -> bytes:
        """Change lengths or data of a TFRecord, whose checksums stay right."""
        (size,) = struct.unpack_from("<Q", content)
        data = content[12 : 12 + size]
        data = self._random.choice((self.flip, self.cut, self.splice, self.lengths, bytes))(data) or b"\0"
        length = len(data) if self._random.random() < 0.8 else self._random.choice(LENGTHS) % 2**64
        head = struct.pack("<Q", length)
        crcs = struct.pack("<I", masked_crc32c(head)), struct.pack("<I", masked_crc32c(data))
        return head + crcs[0] + data + crcs[1] + content[16 + size :]


def _with_checksum(content: bytes) -> bytes:
    try:
        metadata = json.loads(content)
        return json.dumps(metadata | {"checksum": checksum(metadata)}).encode()
    except (ValueError, TypeError, AttributeError, RecursionError):
        return content


def attempt(files: Files, kind: str) -> str:
    """Return what reading comes to: `loaded`, `refused`, or what is wrong with how it failed."""
    try:
        files.read(kind)
    except VitError as error:
        line = str(error)
        return "refused" if line.isprintable() and len(line) < 2100 else "more than a line"
    except fuzzing.Slow:
        return "slow"
    except BaseException as error:
        trace, place = error.__traceback__, ""
        while trace:
            name = trace.tb_frame.f_code.co_filename
            place = f"{Path(name).name}:{trace.tb_lineno}" if "vit_jax/" in name else place
            trace = trace.tb_next
        return f"{type(error).__name__} {place} {str(error)[:100]}"
    return "loaded"


def work(first: int, last: int, seed: int, keep: Path | None) -> dict[str, Any]:
    """Make and read the files of a batch within the limits; return what each came to, by kind and damage."""
    tally = fuzzing.Tally(GOOD, seed, keep)
    folder = Path(tempfile.mkdtemp())
    try:
        files = Files(folder)
        for kind in KINDS:
            if (outcome := attempt(files, kind)) != "loaded":  # also imports all that is needed
                raise SystemExit(f"valid {kind} is not read: {outcome}")
        # numpy parses the headers of arrays as Python literals, which compiles without executing.
        limits = fuzzing.Limits(allowed=("compile",))
        for limits.number in range(first, last):
            kind = KINDS[limits.number % len(KINDS)]
            damage = DataDamage(f"{seed}/{limits.number}", files.contents, [b"cos\nsystem\n."])
            which, way, content = damage.damaged(kind)
            path = files.places[kind][min(which, len(files.places[kind]) - 1)]
            path.write_bytes(content)
            with limits:
                outcome = attempt(files, kind)
            if executed := limits.executed():
                outcome = f"executed {executed}"
            path.write_bytes(files.valid[str(path)])
            tally.add(limits.number, kind, way, outcome, content)
    finally:
        shutil.rmtree(folder)
    return tally.result(limits)


if __name__ == "__main__":
    sys.exit(fuzzing.main(__doc__, __file__, work, GOOD, size=4000))
