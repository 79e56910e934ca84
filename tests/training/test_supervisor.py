"""A parent tells how the training process has ended, and starts it again while that helps."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from vit_jax.training.guard import supervisor
from vit_jax.training.guard.supervisor import newest_step, process_name, supervise

ENDS_BY = "import os, sys; os.kill(os.getpid(), int(sys.argv[1]))"
# Counts its starts in a file; makes a checkpoint in the first few, and ends with a status, at last with 0.
COUNTS = """
import pathlib, sys
folder, fruitful, status, last = pathlib.Path(sys.argv[1]), *map(int, sys.argv[2:])
starts = folder / "starts"
count = len(starts.read_text()) + 1 if starts.exists() else 1
starts.write_text("x" * count)
if count <= fruitful:
    (folder / str(10 * count)).mkdir()
sys.exit(0 if count == last else status)
"""


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(supervisor, "LONGEST_PAUSE", 0.0)
    monkeypatch.setattr(supervisor, "LOOK", 0.02)


def counted(tmp_path, fruitful, status, last=0):
    """The exit status of a supervised process that counts its starts, and how often it was started."""
    arguments = ["-c", COUNTS, *map(str, (tmp_path, fruitful, status, last))]
    result = supervise(arguments, "the toy", tmp_path, restart=True)
    return result, len((tmp_path / "starts").read_text())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT, signal.SIGSEGV])
def test_death_by_a_signal_is_one_line_and_75(tmp_path, capfd, number):
    assert supervise(["-c", ENDS_BY, str(int(number))], "process 1 of 2", tmp_path, restart=False) == 75
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"vit-jax: process 1 of 2 was ended by {number.name} (exit code -{int(number)})")


@pytest.mark.parametrize("status", [0, 1, 2, 3, 4, 5, 6])
def test_other_ends_are_passed_on_and_not_tried_again(tmp_path, capfd, status):
    assert counted(tmp_path, 0, status) == (status, 1)
    assert capfd.readouterr().err == ""


def test_it_starts_again_until_it_ends_well(tmp_path, capfd):
    assert counted(tmp_path, 2, 75, last=4) == (0, 4)
    assert capfd.readouterr().err.splitlines() == [
        "vit-jax: restart 1 of the toy in 0.0 s; the newest checkpoint is step 10.",
        "vit-jax: restart 2 of the toy in 0.0 s; the newest checkpoint is step 20.",
        "vit-jax: restart 3 of the toy in 0.0 s; the newest checkpoint is step 20.",
    ]


def test_it_gives_up_without_progress_and_only_then(tmp_path, capfd):
    # Seven checkpoints, one more than restarts without any would be: each begins the count anew.
    assert counted(tmp_path, 7, 75) == (75, 7 + supervisor.WITHOUT_PROGRESS + 1)
    assert capfd.readouterr().err.splitlines()[-1] == (
        "vit-jax: the toy was started 6 times without a new checkpoint since step 70; giving up. See its output for "
        "why it ends."
    )


def test_sigterm_is_passed_on_and_ends_it_for_good(tmp_path, capfd):
    code = (
        "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(75)); open(sys.argv[1], 'w').close(); "
        "time.sleep(60)"
    )
    ready = tmp_path / "ready"

    def ask():
        while not ready.exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=ask)
    thread.start()
    assert supervise(["-c", code, str(ready)], "the toy", tmp_path, restart=True) == 75
    thread.join(10)
    assert capfd.readouterr().err == ""


def test_a_process_without_a_sign_of_life_is_killed(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(supervisor, "MARGIN", 1.0)
    code = (
        "import os, signal; os.write(int(os.environ['VIT_JAX_BEATS']), b'0.5\\n'); "
        "os.kill(os.getpid(), signal.SIGSTOP)"
    )
    began = time.monotonic()
    assert supervise(["-c", code], "the toy", tmp_path, restart=False) == 75
    assert 1.5 <= time.monotonic() - began < 20
    assert capfd.readouterr().err.startswith("vit-jax: the toy did not respond for ")


def test_the_process_ends_with_its_parent(tmp_path):
    inner = (
        "import os, sys, time\nfrom vit_jax.training.guard.supervisor import end_with_supervisor\n"
        "end_with_supervisor()\n"
        "open(sys.argv[1] + '.new', 'w').write(str(os.getpid()))\nos.rename(sys.argv[1] + '.new', sys.argv[1])\n"
        "time.sleep(60)"
    )
    outer = (
        "import pathlib, sys\nfrom vit_jax.training.guard.supervisor import supervise\n"
        "supervise(['-c', *sys.argv[1:]], 'x', pathlib.Path('none'), restart=False)"
    )
    told = tmp_path / "pid"
    parent = subprocess.Popen([sys.executable, "-c", outer, inner, str(told)])
    while not told.exists():
        assert parent.poll() is None
        time.sleep(0.02)
    parent.kill()
    parent.wait(10)
    until = time.monotonic() + 10
    stat = Path(f"/proc/{told.read_text()}/stat")
    while stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < until
        time.sleep(0.02)


def test_progress_is_the_largest_number(tmp_path):
    assert newest_step(tmp_path / "missing") == 0
    for name in ("9", "10", "11.orbax-checkpoint-tmp", "foreign"):
        (tmp_path / name).mkdir()
    assert newest_step(tmp_path) == 10


def test_names_of_processes():
    assert process_name(4, 1, {}) == "process 1 of 4"
    assert process_name(None, None, {"SLURM_PROCID": "3", "SLURM_NTASKS": "8"}) == "process 3 of 8"
    assert process_name(None, None, {}) == "the training process"
