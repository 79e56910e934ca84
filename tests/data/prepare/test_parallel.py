"""Workers return in order, stop when told, and neither hang nor outlive what started them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vit_jax.data.prepare.parallel import run_parallel
from vit_jax.errors import ResourceError

PARENT = """
import sys
from tests.data.prepare.test_parallel import endless
from vit_jax.data.prepare.parallel import run_parallel

if __name__ == "__main__":
    run_parallel(endless, [(sys.argv[1], 1), (sys.argv[1], 2)], 2, print)
"""


def double(number, report):
    report(1)
    return 2 * number


def endless(folder, number, report):
    (Path(folder) / f"{number}.{os.getpid()}").touch()
    while True:
        report(1)
        time.sleep(0.01)


def die(number, report):
    os._exit(9)


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order(workers):
    counts = []
    assert run_parallel(double, [(number,) for number in range(9)], workers, counts.append) == list(
        range(0, 18, 2)
    )
    assert sum(counts) == 9


def test_an_interruption_stops_them(tmp_path):
    def interrupt(count):
        if count:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_parallel(endless, [(tmp_path, 1), (tmp_path, 2)], 2, interrupt)


def test_a_killed_worker_is_an_error():
    with pytest.raises(ResourceError, match=r"a worker process was killed, .*fewer --workers"):
        run_parallel(die, [(1,), (2,)], 2, lambda count: None)


def test_they_end_with_a_killed_parent(tmp_path):
    (tmp_path / "parent.py").write_text(PARENT)
    path = os.pathsep.join(map(os.path.abspath, filter(None, sys.path)))
    command = [sys.executable, tmp_path / "parent.py", tmp_path]
    with subprocess.Popen(
        command, env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.DEVNULL
    ) as parent:
        begun = wait_until(lambda: sorted(tmp_path.glob("[12].*"))[:2], 2)
        parent.send_signal(signal.SIGKILL)
    wait_until(lambda: [file for file in begun if not alive(int(file.suffix[1:]))], 2)


def wait_until(find, count):
    """Poll, for a generous while; what is asserted is that it happens at all."""
    for _ in range(600):
        if len(found := find()) == count:
            return found
        time.sleep(0.05)
    raise AssertionError(f"only {find()}")


def alive(process):
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
