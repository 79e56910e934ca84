"""Reads thousands of damaged and malicious weight files: each must load or be refused with one line.

    python benchmarks/fuzz_weights.py --files 10000 --json fuzz.json

Every file is opened and read completely, in processes that fail if a file takes more than 512 MiB or 2 seconds of
processor time, executes something, opens a file for writing, connects or imports a module. The seed of a failure
gives the same file again; `--keep FOLDER` stores those files.
"""

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from damaged_weights import Damage, attacks, valid_files

from vit_jax.errors import CheckpointError
from vit_jax.weights.files import open_checkpoint

MEMORY = 512 * 2**20
SECONDS = 2.0
BATCH = 250
# What Python announces before it executes code, starts programs, connects or changes files.
FORBIDDEN = (
    "os.",
    "subprocess.",
    "socket.",
    "pickle.",
    "exec",
    "compile",
    "ctypes.",
    "shutil.",
    "import",
    "marshal.",
)


class _Slow(BaseException):
    """A file takes too long."""


class _Watch:
    """Notes forbidden events while a file is read."""

    def __init__(self):
        self.active = False
        self.seen: list[str] = []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.active:
            writes = event == "open" and isinstance(arguments[1], str) and arguments[1].strip("rbtU") != ""
            if writes or (event.startswith(FORBIDDEN) and event not in ("os.listdir", "os.scandir")):
                self.seen.append(event)


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
    except _Slow:
        return "slow"
    except BaseException as error:
        return type(error).__name__
    return "loaded"


def work(first: int, last: int, seed: int, keep: Path | None) -> dict[str, Any]:
    """Make and read the files of a batch within the limits; return what each came to, by format and damage."""

    def slow(*_: object) -> None:
        raise _Slow

    signal.signal(signal.SIGPROF, slow)
    counts: Counter[str] = Counter()
    failures = []
    watch = _Watch()
    with tempfile.TemporaryDirectory() as folder:
        path, canary = Path(folder) / "weights", Path(folder) / "canary"
        files, evil = valid_files(), attacks(canary)
        for content in [file for group in files.values() for file in group]:
            path.write_bytes(content)
            if read(path) != "loaded":  # also imports all that is needed
                raise SystemExit("a valid file is not read")
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        for index in range(first, last):
            kind, way, content = Damage(f"{seed}/{index}", files, evil).make()
            path.write_bytes(content)
            resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            watch.active = True
            outcome = read(path)
            watch.active = False
            signal.setitimer(signal.ITIMER_PROF, 0)
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            if watch.seen or canary.exists():
                outcome = f"executed {watch.seen}"
                watch.seen.clear()
                canary.unlink(missing_ok=True)
            counts[f"{kind} {way} {outcome if outcome in ('loaded', 'refused') else 'failed'}"] += 1
            if outcome not in ("loaded", "refused"):
                failures.append({"index": index, "format": kind, "damage": way, "outcome": outcome})
                if keep:
                    (keep / f"{seed}-{index}.{kind}").write_bytes(content)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"counts": dict(counts), "failures": failures, "peak_mib": peak // 1024}


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
    failures, peak = [], 0
    for first in range(0, arguments.files, BATCH):
        batch = [str(first), str(min(first + BATCH, arguments.files))]
        command = [sys.executable, __file__, *sys.argv[1:], "--batch", *batch]
        # One thread: those of numpy's libraries would each reserve memory.
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
        process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if process.returncode:
            failures.append({"index": first, "outcome": f"the process died: {process.stderr[-300:]}"})
            continue
        result = json.loads(process.stdout)
        counts.update(result["counts"])
        failures += result["failures"]
        peak = max(peak, result["peak_mib"])
    report = {
        "files": sum(counts.values()),
        "loaded": sum(n for name, n in counts.items() if name.endswith("loaded")),
        "refused": sum(n for name, n in counts.items() if name.endswith("refused")),
        "failures": failures,
        "peak_mib": peak,
        "seconds": round(time.monotonic() - start, 1),
        "counts": dict(sorted(counts.items())),
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1))
    for failure in failures[:20]:
        print(failure)
    print(
        f"{report['files']} files: {report['loaded']} loaded, {report['refused']} refused with one line, "
        f"{len(failures)} failed; peak memory {peak} MiB, {report['seconds']} s"
    )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
