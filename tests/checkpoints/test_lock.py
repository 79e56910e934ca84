"""One run per workdir: who holds it is said, and no way of dying leaves it held."""

import errno
import fcntl
import json
import os
import re
import signal
import subprocess
import sys

import pytest

from vit_jax.checkpoints import lock
from vit_jax.checkpoints.lock import FILE, WorkdirLock
from vit_jax.errors import ResourceError, WorkdirBusy

HOLDER = """
import sys, time
from pathlib import Path
from vit_jax.checkpoints.lock import WorkdirLock
with WorkdirLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_run_is_told_who_holds_it_and_a_kill_frees_it(tmp_path, holder):
    with pytest.raises(WorkdirBusy) as caught, WorkdirLock(tmp_path):
        pass
    expected = rf"workdir .* is in use by process {holder.pid} on \S+ since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d UTC; wait"
    assert re.match(expected, str(caught.value))
    assert "\n" not in str(caught.value)
    assert caught.value.exit_status == 75
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert json.loads((tmp_path / FILE).read_text())["pid"] == holder.pid  # What it left does not matter.
    with WorkdirLock(tmp_path, watch=60):
        assert json.loads((tmp_path / FILE).read_text())["pid"] == os.getpid()
    assert (tmp_path / FILE).read_text() == ""


def test_one_process_cannot_hold_it_twice(tmp_path):
    holder, second = WorkdirLock(tmp_path), WorkdirLock(tmp_path)
    with holder, pytest.raises(WorkdirBusy, match=f"process {os.getpid()} "):
        second.__enter__()
    with WorkdirLock(tmp_path):
        pass


@pytest.fixture
def without_flock(monkeypatch):
    """A file system that has no locks."""

    def refuse(*_):
        raise OSError(errno.ENOTSUP, "no locks here")

    monkeypatch.setattr(fcntl, "flock", refuse)


def test_without_flock_a_living_holder_is_seen_by_its_beat(tmp_path, without_flock):
    holder, second = WorkdirLock(tmp_path, beat=0.05), WorkdirLock(tmp_path, watch=30)
    with holder, pytest.raises(WorkdirBusy, match=f"process {os.getpid()} "):
        second.__enter__()


def test_without_flock_a_dead_holder_is_replaced_after_watching(tmp_path, without_flock):
    # Nothing changes while the second one watches: as good as dead.
    with WorkdirLock(tmp_path, beat=60), WorkdirLock(tmp_path, beat=60, watch=0.5):
        assert json.loads((tmp_path / FILE).read_text())["beat"] == 0


def test_another_machine_that_flock_does_not_reach_is_seen_by_its_beat(tmp_path, monkeypatch):
    other = {"host": "far", "pid": 7, "since": "2026-01-01 00:00:00 UTC", "machine": "other", "beat": 3}
    path = tmp_path / FILE
    path.write_text(json.dumps(other))
    with WorkdirLock(tmp_path, watch=0.3):  # It does not move.
        pass
    path.write_text(json.dumps(other))

    def beat(_):
        path.write_text(json.dumps(other | {"beat": 4}))

    monkeypatch.setattr(lock.time, "sleep", beat)
    with (
        pytest.raises(WorkdirBusy, match="process 7 on far since 2026-01-01"),
        WorkdirLock(tmp_path, watch=30),
    ):
        pass


def test_a_workdir_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match=r"file is a file, not a folder; give another workdir"):
        WorkdirLock(tmp_path / "file").__enter__()


def test_what_is_no_entry_is_nobodys(tmp_path):
    (tmp_path / FILE).write_bytes(b"\xff[]")
    with WorkdirLock(tmp_path, watch=60):
        pass
