"""Reads thousands of damaged and malicious weight files: each must load or be refused with one line.

    python benchmarks/fuzz_weights.py --files 10000 --json fuzz.json

Every file is opened and read completely, in processes that fail if a file takes more than 512 MiB or 2 seconds of
processor time, executes something, opens a file for writing, connects or imports a module. The seed of a failure
gives the same file again; `--keep FOLDER` stores those files.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import fuzzing
from damaged_weights import Damage, attacks, valid_files

from vit_jax.errors import CheckpointError
from vit_jax.weights.formats.files import open_checkpoint

GOOD = ("loaded", "refused")


def read(path: Path) -> str:
    """Return what reading a file comes to: `loaded`, `refused`, or what is wrong with how it failed."""
    try:
        checkpoint = open_checkpoint(path)
        for tensor in checkpoint.tensors.values():
            array = tensor.read()
            if array.shape != tensor.shape or array.dtype != tensor.dtype:
                return "another array than declared"
    except CheckpointError as error:
        line = str(error)
        return "refused" if line.isprintable() and len(line) < 1000 else "more than a line"
    except fuzzing.Slow:
        return "slow"
    except BaseException as error:
        return type(error).__name__
    return "loaded"


def work(first: int, last: int, seed: int, keep: Path | None) -> dict[str, Any]:
    """Make and read the files of a batch within the limits; return what each came to, by format and damage."""
    tally = fuzzing.Tally(GOOD, seed, keep)
    with tempfile.TemporaryDirectory() as folder:
        path, canary = Path(folder) / "weights", Path(folder) / "canary"
        files, evil = valid_files(), attacks(canary)
        for content in [file for group in files.values() for file in group]:
            path.write_bytes(content)
            if read(path) != "loaded":  # also imports all that is needed
                raise SystemExit("a valid file is not read")
        limits = fuzzing.Limits()
        for limits.number in range(first, last):
            kind, way, content = Damage(f"{seed}/{limits.number}", files, evil).make()
            path.write_bytes(content)
            with limits:
                outcome = read(path)
            if (executed := limits.executed()) or canary.exists():
                outcome = f"executed {executed}"
                canary.unlink(missing_ok=True)
            tally.add(limits.number, kind, way, outcome, content)
    return tally.result(limits)


if __name__ == "__main__":
    sys.exit(fuzzing.main(__doc__, __file__, work, GOOD))
