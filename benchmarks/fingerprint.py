"""What it costs to tell whether a run's data is what it was: a folder as large as ImageNet's, listed and summed up.

python benchmarks/fingerprint.py --json fingerprint.json

Makes empty and sparse files of other sizes (`train/CLASS/NAME.JPEG`) in a temporary folder, which takes a minute or two
and as many inodes, and removes them. Listing is what every start does, and what the fingerprint shares: it asks the
system only for the size of each file, once. `--cold` has the system forget names and inodes first (as root, on Linux;
all programs of the machine feel it), as after it was switched on.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vit_jax.data.sources.folder import FolderSource

DROP_CACHES = Path("/proc/sys/vm/drop_caches")
LARGEST = 200_000  # bytes


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=1_281_167, help="default: 1281167, as ImageNet")
    parser.add_argument("--classes", type=int, default=1000, help="default: 1000")
    parser.add_argument("--repeats", type=int, default=3, help="of which the median counts; default: 3")
    parser.add_argument("--folder", help="where to make them; default: the system's temporary folder")
    parser.add_argument("--cold", action="store_true", help="measure with nothing in memory too")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write every number")
    arguments = parser.parse_args()
    if not 0 < arguments.classes <= arguments.files or arguments.repeats < 1:
        parser.error("--files must be at least --classes, and that and --repeats at least 1")
    if arguments.cold and not os.access(DROP_CACHES, os.W_OK):
        parser.error(f"--cold needs to write {DROP_CACHES}: be root, on Linux")
    with tempfile.TemporaryDirectory(dir=arguments.folder, ignore_cleanup_errors=True) as folder:
        made = seconds(lambda: make(Path(folder), arguments.files, arguments.classes))[0]
        print(f"{arguments.files:,} files in {arguments.classes:,} folders, made in {made:.0f} s", flush=True)
        results: dict[str, Any] = {"files": arguments.files, "classes": arguments.classes}
        if arguments.cold:
            os.sync()
            DROP_CACHES.write_text("2")
            results["cold"] = measure(folder)
        runs = [measure(folder) for _ in range(arguments.repeats)]
        results["warm"] = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    for kind in ("cold", "warm"):
        for name, value in results.get(kind, {}).items():
            print(f"{kind}  {name:<23} {value:6.2f} s  {value / arguments.files * 1e6:5.2f} us a file")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))


def make(folder: Path, files: int, classes: int) -> None:
    """Make files of different sizes that take no room."""
    for label in range(classes):
        inside = folder / "train" / f"n{label:08d}"
        inside.mkdir(parents=True)
        for number in range(label, files, classes):
            descriptor = os.open(inside / f"n{label:08d}_{number}.JPEG", os.O_WRONLY | os.O_CREAT)
            os.ftruncate(descriptor, number * 7919 % LARGEST)
            os.close(descriptor)


def measure(folder: str) -> dict[str, float]:
    """Return the seconds that a start takes to list the folder, and for the fingerprint of what was listed.

    Those of processors too: they say it where the machine does something else beside.
    """
    *listing, source = seconds(lambda: FolderSource(folder, "train"))
    *fingerprint, _ = seconds(source.fingerprint)
    names = [f"{what}, {clock}" for what in ("listing", "fingerprint") for clock in ("elapsed", "processors")]
    return dict(zip(names, [*listing, *fingerprint]))


def seconds(action: Callable[[], Any]) -> tuple[float, float, Any]:
    """Return how long something took, how long processors were busy with it, and what it returned."""
    begin, busy = time.monotonic(), time.process_time()
    result = action()
    return time.monotonic() - begin, time.process_time() - busy, result


if __name__ == "__main__":
    main()
