"""The real command in processes of its own, for doing harm to it: start, wait for an event, signal, compare."""

import hashlib
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp

from tests.multihost.jobs import ROOT, environment, free_port
from vit_jax.checkpoints.files import STATE, is_ours, read_metadata

TRAIN = (sys.executable, "-m", "vit_jax.cli", "train")
LIMIT = 240.0  # seconds for anything: nothing takes a tenth of it on an idle machine

# Saved twelve times; evaluated three times.
CONFIG = """
from vit_jax.training.config import default_config

def get_config():
    config = default_config()
    config.duration = "120 steps"
    config.model.update(name="vit_mu_patch4_8", in_channels=1, width=32, depth=2, heads=2, mlp_dim=64, unroll=1)
    config.data.update(batch_size=64, eval_batch_size=360)
    config.evaluation.update(every="40 steps")
    config.checkpoint.every = "10 steps"
    config.log.update(every="5 steps", tensorboard=False, progress=False)
    config.watchdog.update(step_limit=20.0, peer_limit=5.0)
    return config
"""


@dataclass(frozen=True)
class Ended:
    """How a process of a run ended: its exit status, seconds after the question, and what it said."""

    status: int
    seconds: float
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """What we say, without the lines of the libraries."""
        return [line for line in self.err.splitlines() if line.startswith("vit-jax: ")]


class Running:
    """The processes of a run that has been started.

    Args:
      commands: what starts each of them.
      workdir: of the run; what the processes print goes to files beside it.
      devices: simulated ones of each process.
      cache: folder for compiled programs.
    """

    def __init__(self, commands: Sequence[Sequence[str]], workdir: Path, devices: int, cache: Path | None):
        self.workdir, self.began = workdir, time.monotonic()
        self._files, self.processes = [], []
        for index, command in enumerate(commands):
            out, err = (workdir.with_name(f"{workdir.name}.{index}.{kind}") for kind in ("out", "err"))
            self._files.append((out, err))
            with out.open("w") as to_out, err.open("w") as to_err:
                self.processes.append(
                    subprocess.Popen(
                        command, cwd=ROOT, env=environment(devices, cache), stdout=to_out, stderr=to_err
                    )
                )

    def err(self, index: int = 0) -> str:
        """What a process has said so far."""
        return self._files[index][1].read_text(errors="replace")

    def worker(self, index: int = 0) -> int:
        """The process that trains: the child of the one that was started, if that is a light parent."""
        pid = self.processes[index].pid
        children = _children(pid)
        alone = len(children) == 1 and f"VIT_JAX_WORKER={pid}\0".encode() in _read(
            f"/proc/{children[0]}/environ"
        )
        return children[0] if alone else pid

    def signal(self, number: int, index: int = 0) -> None:
        """Send a signal to the training process, unless it has ended."""
        with suppress(ProcessLookupError):
            os.kill(self.worker(index), number)

    def alive(self) -> bool:
        """Whether any of the processes runs."""
        return any(process.poll() is None for process in self.processes)

    def until(self, condition: Callable[[], object], limit: float = LIMIT) -> None:
        """Wait for an event; fail if all processes end before."""
        deadline = time.monotonic() + limit
        while not condition():
            assert time.monotonic() < deadline, f"nothing for {limit} s: {self.err()[-2000:]}"
            assert self.alive(), f"ended before: {self.err()[-2000:]}"
            time.sleep(0.02)

    def step(self) -> int:
        """The last step in `metrics.jsonl`."""
        return last_step(self.workdir)

    def wait(self, limit: float = LIMIT) -> list[Ended]:
        """How the processes end, all of them within a limit."""
        asked = time.monotonic()
        ended: dict[int, float] = {}
        while len(ended) < len(self.processes):
            for index, process in enumerate(self.processes):
                if index not in ended and process.poll() is not None:
                    ended[index] = time.monotonic() - asked
            assert time.monotonic() - asked < limit, f"still running after {limit} s: {self.err()[-2000:]}"
            time.sleep(0.02)
        texts = [[path.read_text(errors="replace") for path in files] for files in self._files]
        statuses = [process.returncode for process in self.processes]
        return [Ended(status, ended[i], *texts[i]) for i, status in enumerate(statuses)]


@contextmanager
def running(
    config: Path,
    workdir: Path,
    *arguments: str,
    processes: int = 1,
    devices: int = 1,
    cache: Path | None = None,
) -> Iterator[Running]:
    """A run of `vit-jax train`; whatever still runs at the end is killed."""
    port, commands = free_port(), []
    for index in range(processes):
        flags = [
            f"--coordinator=localhost:{port}",
            f"--process-count={processes}",
            f"--process-index={index}",
        ]
        flags = flags if processes > 1 else ["--process-count=1"]
        commands.append([*TRAIN, "--config", str(config), "--workdir", str(workdir), *arguments, *flags])
    run = Running(commands, workdir, devices, cache)
    try:
        yield run
    finally:
        for index, process in enumerate(run.processes):
            if process.poll() is None:
                run.signal(signal.SIGKILL, index)
                process.kill()
            process.wait(LIMIT)


def last_step(workdir: Path) -> int:
    """The last step in the `metrics.jsonl` of a run, 0 if there is none."""
    path = workdir / "metrics.jsonl"
    whole = path.read_text().rpartition("\n")[0].splitlines() if path.exists() else []
    return json.loads(whole[-1])["step"] if whole else 0


def committed(workdir: Path) -> list[int]:
    """The steps that are saved, in order."""
    folder = workdir / "checkpoints"
    return sorted(int(path.name) for path in folder.iterdir() if is_ours(path)) if folder.is_dir() else []


def resumed(err: str) -> int:
    """The step that a run says it goes on after, 0 if it says nothing."""
    found = re.search(r"^resuming after step (\d+)", err, re.MULTILINE)
    return int(found[1]) if found else 0


def final(workdir: Path) -> dict[str, str]:
    """Every bit that a run ends with: hashes of the arrays of its last checkpoint, and its lines of metrics."""
    folder = workdir / "checkpoints" / str(committed(workdir)[-1])
    logging.getLogger("absl").setLevel(logging.ERROR)
    kept = ocp.Checkpointer(ocp.PyTreeCheckpointHandler())
    structure = kept.metadata(folder / STATE).item_metadata.tree
    state = kept.restore(folder / STATE, ocp.args.PyTreeRestore(restore_args=_as_numpy(structure)))
    hashes = {
        path: hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
        for path, array in _flat(state)
    }
    assert len(hashes) == len(read_metadata(folder)["arrays"])
    return hashes | {"metrics.jsonl": (workdir / "metrics.jsonl").read_text()}


def _as_numpy(tree):
    """An order to read every leaf of nested dicts as a NumPy array."""
    if isinstance(tree, dict):
        return {name: _as_numpy(inner) for name, inner in tree.items()}
    return ocp.RestoreArgs(restore_type=np.ndarray)


def _flat(tree, path=""):
    """Every leaf of nested dicts with its path."""
    if isinstance(tree, dict):
        for name, inner in tree.items():
            yield from _flat(inner, f"{path}/{name}")
    else:
        yield path, tree


def orphans(workdir: Path) -> list[int]:
    """Processes that still work for a run: those whose command names its workdir."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if str(workdir).encode() in command.split(b"\0"):
                found.append(int(entry.name))
    return found


def loader(pid: int) -> int:
    """The process in which Grain reads for a process: not Python's resource tracker."""
    (found,) = {child for child in _children(pid) if b"spawn_main" in _read(f"/proc/{child}/cmdline")}
    return found


def is_running(pid: int) -> bool:
    """Whether a process is there, and not only its exit status."""
    stat = _read(f"/proc/{pid}/stat")
    return bool(stat) and stat.rpartition(b")")[2].split()[0] != b"Z"


def _children(pid: int) -> list[int]:
    """The children that any thread of a process has started."""
    lists = [_read(str(path)) for path in Path(f"/proc/{pid}/task").glob("*/children")]
    return [int(child) for children in lists for child in children.split()]


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""
