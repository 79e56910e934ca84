"""What the fuzzers share: batches in processes of their own, limits and a watch around each file, and the report."""

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

MEMORY = 512 * 2**20  # bytes of address space that a file may take
SECONDS = 2.0  # of processor time
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

# Makes and reads the files from one number to another with a seed: `work(first, last, seed, keep)`.
Work = Callable[[int, int, int, Path | None], dict[str, Any]]


class Slow(BaseException):
    """A file takes too long."""


class Limits:
    """A context in which one file is read: within bounds, and watched.

    Args:
      allowed: events that are forbidden otherwise.

    Attributes:
      seen: forbidden events so far.
      slowest: processor seconds of the slowest file, and its number.
    """

    def __init__(self, allowed: Sequence[str] = ()):
        self._allowed = ("os.listdir", "os.scandir", *allowed)
        self.seen: list[str] = []
        self.slowest = (0.0, -1)
        self.number = -1
        self._active, self._start = False, 0.0
        self._used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        # Python imports this codec of its own when it first shows a strange character.
        "".encode("unicode_escape")
        signal.signal(signal.SIGPROF, self._slow)
        sys.addaudithook(self._hook)

    def __enter__(self) -> None:
        resource.setrlimit(resource.RLIMIT_AS, (self._used + MEMORY, resource.RLIM_INFINITY))
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        self._start, self._active = time.process_time(), True

    def __exit__(self, *error: object) -> None:
        self._active = False
        signal.setitimer(signal.ITIMER_PROF, 0)
        self.slowest = max(self.slowest, (time.process_time() - self._start, self.number))
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    def executed(self) -> list[str]:
        """Return the forbidden events since the last call."""
        seen, self.seen = self.seen, []
        return seen

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._active:
            writes = event == "open" and isinstance(arguments[1], str) and arguments[1].strip("rbtU") != ""
            if writes or (event.startswith(FORBIDDEN) and event not in self._allowed):
                self.seen.append(f"import {arguments[0]}" if event == "import" else event)

    @staticmethod
    def _slow(*_: object) -> None:
        raise Slow


class Tally:
    """What the files of a batch came to.

    Args:
      good: outcomes that are no failure.
      seed: of the run.
      keep: where files that failed are stored, if anywhere.
    """

    def __init__(self, good: Sequence[str], seed: int, keep: Path | None):
        self._good, self._seed, self._keep = good, seed, keep
        self._counts: Counter[str] = Counter()
        self._failures: list[dict[str, Any]] = []

    def add(self, number: int, kind: str, damage: str, outcome: str, content: bytes) -> None:
        """Count a file by format, kind of damage and what it came to."""
        good = outcome in self._good
        self._counts[f"{kind} {damage} {outcome if good else 'failed'}"] += 1
        if not good:
            self._failures.append({"index": number, "format": kind, "damage": damage, "outcome": outcome})
            if self._keep:
                (self._keep / f"{self._seed}-{number}.{kind}").write_bytes(content)

    def result(self, limits: Limits) -> dict[str, Any]:
        """Return what `work` returns."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        return {
            "counts": dict(self._counts),
            "failures": self._failures,
            "peak_mib": peak,
            "slowest": limits.slowest,
        }


def main(description: str | None, script: str, work: Work, good: Sequence[str], size: int = BATCH) -> int:
    """Run the batches of a fuzzer, `size` files each, and report; return 1 if a file came to anything but `good`."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
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
    failures, peak, slowest = [], 0, (0.0, -1)
    for first in range(0, arguments.files, size):
        batch = [str(first), str(min(first + size, arguments.files))]
        command = [sys.executable, "-W", "error", script, *sys.argv[1:], "--batch", *batch]
        # One thread: those of numpy's libraries would each reserve memory.
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
        process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if process.returncode or process.stderr:
            failures.append({"index": first, "outcome": f"the process died: {process.stderr[-300:]}"})
            continue
        result = json.loads(process.stdout.splitlines()[-1])  # libraries may print, too
        counts.update(result["counts"])
        failures += result["failures"]
        peak, slowest = max(peak, result["peak_mib"]), max(slowest, tuple(result["slowest"]))
    totals = {way: sum(n for name, n in counts.items() if name.split(" ", 2)[2] == way) for way in good}
    report = {
        "files": sum(counts.values()),
        **totals,
        "failures": failures,
        "peak_mib": peak,
        "slowest": {"seconds": round(slowest[0], 2), "index": slowest[1]},
        "seconds": round(time.monotonic() - start, 1),
        "counts": dict(sorted(counts.items())),
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1))
    for failure in failures[:20]:
        print(failure)
    ways = ", ".join(f"{number} {way}" for way, number in totals.items())
    print(
        f"{report['files']} files: {ways} (with one line), {len(failures)} failed; peak memory {peak} MiB, "
        f"slowest file {slowest[0]:.2f} s, {report['seconds']} s"
    )
    return 1 if failures else 0
