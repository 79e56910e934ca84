"""Uses thousands of hostile names for classes, files, members of archives and runs.

    python benchmarks/hostile_names.py --names 10000

Names have `..`, absolute paths, NUL, backslashes, 300 characters, marks of writing direction, device names, `${HOME}`,
line ends and escape sequences. Each is used as a class of a folder that is checked and prepared, as a member of a tar
archive of ILSVRC2012, as a file in an index of weights, as a tensor, as a file to download and as a workdir. Nothing
may be written outside the folder given, and nothing that is printed may have a control character.
"""

import argparse
import contextlib
import io
import json
import os
import random
import shutil
import struct
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.data.prepare.pictures import picture
from tests.data.prepare.test_imagenet import tar_bytes, write_tar
from vit_jax.cli import main as cli
from vit_jax.data.prepare.folders import TRAIN_TAR
from vit_jax.data.prepare.prepare import prepare
from vit_jax.errors import VitError, is_printable
from vit_jax.paths import check_output
from vit_jax.weights.formats import safetensors_format
from vit_jax.weights.formats.files import open_checkpoint

PIECES = (
    *(
        "..",
        "../",
        "../../",
        "/",
        "\\",
        "\0",
        "\n",
        "\r",
        "\x1b[31m",
        "\x1b]0;title\a",
        "\x7f",
        "\x9b31m",
        "‮",
        "⁦",
    ),
    *(
        "CON",
        "NUL.txt",
        "${HOME}",
        "$(id)",
        "`id`",
        "~",
        "~root",
        "%2e%2e%2f",
        "%s%n",
        "-rf",
        "--help",
        "x" * 300,
        "é" * 130,
    ),
    *(
        "\udcff",
        "\u2028",
        "﻿",
        "نام",
        "名前",
        "🙂",
        " ",
        ".",
        "a",
        "cat",
        "train",
        ".hidden",
        "C:",
        "|",
        "*",
        "?",
        '"',
        "'",
    ),
)


def hostile(rng: random.Random) -> str:
    """Return a name of one to four pieces."""
    return "".join(rng.choice(PIECES) for _ in range(rng.choice((1, 1, 2, 3, 4))))


class Watch:
    """Tells what is opened for writing, made, moved or removed outside a folder."""

    def __init__(self, folder: Path):
        self.folder, self.outside, self.on = os.path.realpath(folder), [], False
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        writes = event == "open" and isinstance(arguments[1], str) and arguments[1].strip("rbtU") != ""
        if writes or event in (
            "os.mkdir",
            "os.rename",
            "os.remove",
            "os.rmdir",
            "os.link",
            "os.symlink",
            "os.truncate",
        ):
            path = arguments[0]
            if isinstance(path, str | bytes | os.PathLike) and path not in (os.devnull, ""):
                real = os.path.realpath(os.fsdecode(path))
                if os.path.commonpath([real, self.folder]) != self.folder:
                    self.outside.append((event, real))


def uses(name: str, folder: Path, turn: int) -> None:
    """Use a name in one of the ways; what goes wrong is an error of ours."""
    work = folder / "work"
    work.mkdir()
    if turn == 0:
        inside = name.replace("/", "_")  # no folder has such a name
        with contextlib.suppress(OSError, ValueError):  # nor all others
            for class_name in ("first", inside):
                (work / "train" / "x" / class_name).mkdir(parents=True)
                (work / "train" / "x" / class_name / f"{inside[:40]}.jpg").write_bytes(picture(1))
        cli(["data", "check", str(work / "train" / "x"), "--workers", "1"])
        prepare(work / "train" / "x", folder / "output", workers=1, bad="skip")
    elif turn == 1:
        try:
            inner = {f"{name}.jpg": picture(1), "other.jpg": picture(2)}
            write_tar(work / TRAIN_TAR, {f"{name}.tar": tar_bytes(inner), "n1.tar": tar_bytes(inner)})
        except (ValueError, UnicodeError):  # no tar has such a name
            return
        prepare(work, folder / "output", workers=1)
    elif turn == 2:
        (work / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
        open_checkpoint(work)
    elif turn == 3:
        header = json.dumps({name: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
        (work / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
        print(*open_checkpoint(work / "model.safetensors").tensors)
    elif turn == 4:
        specs = [("a", (1,), np.dtype(np.float32))]
        target = check_output(work / name.replace("/", "_"), "the file")
        safetensors_format.write(target, specs, lambda _: np.zeros(1, np.float32), {})
    elif turn == 5:
        cli(["train", "--config", name, "--workdir", f"{work}/{name}"])
    elif turn == 6:
        cli(["predict", "--workdir", str(work), name])
    else:
        cli(["train", "--config.data.path", name, "--config", f"{name}.py", "--workdir", str(work)])


def run(names: int, seed: int = 0) -> tuple[Counter[str], list[Any]]:
    """Return counts of outcomes, and the failures."""
    counts: Counter[str] = Counter()
    failures: list[Any] = []
    with tempfile.TemporaryDirectory() as place, contextlib.chdir(place):
        watch = Watch(Path(place))
        for number in range(names):
            name = hostile(random.Random(f"{seed}/{number}"))
            folder, printed, outcome = Path(place) / str(number), io.StringIO(), "used"
            folder.mkdir()
            watch.on = True
            with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
                try:
                    uses(name, folder, number % 8)
                except VitError as error:
                    printed.write(f"{error}\n")
                    outcome = "refused"
                except SystemExit as stop:  # `--help` is a name, too
                    outcome = f"SystemExit {stop.code}" if stop.code else "used"
                except Exception as error:
                    outcome = f"{type(error).__name__} {str(error)[:80]!r}"
            watch.on = False
            text = printed.getvalue()
            bad = [
                line
                for line in text.split("\n")
                if not is_printable(line.replace("\r", "") if "%|" in line else line)
            ]
            if "vit-jax: " in text:
                outcome = "refused"
            counts[outcome] += 1
            if bad or watch.outside or outcome not in ("used", "refused"):
                failures.append((number, number % 8, name[:60], outcome, bad[:1], watch.outside[:2]))
                watch.outside.clear()
            shutil.rmtree(folder)
    return counts, failures


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--names", type=int, default=10_000, metavar="N", help="default: 10000")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    arguments = parser.parse_args()
    counts, failures = run(arguments.names, arguments.seed)
    for failure in failures[:20]:
        print(repr(failure))
    print(
        f"{arguments.names} names: {', '.join(f'{n} {what}' for what, n in counts.items())}; {len(failures)} failed"
    )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
