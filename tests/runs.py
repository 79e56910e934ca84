"""The command line at toy size, in this process: a configuration that trains in seconds, and what a command says."""

import contextlib
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from vit_jax.cli import main

# Six steps on the digits; evaluated and saved after three and six.
CONFIG = """
from vit_jax.training.config import default_config

def get_config():
    config = default_config()
    config.duration = "6 steps"
    config.model.update(name="vit_mu_patch4_8", in_channels=1, width=16, depth=1, heads=2, mlp_dim=32)
    config.data.update(batch_size=64, eval_batch_size=360)
    config.evaluation.update(every="3 steps", illustrate=2, baselines=("nearest_neighbour",))
    config.checkpoint.every = "3 steps"
    config.log.update(every="2 steps", tensorboard=False, progress=False)
    return config
"""


BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@dataclass(frozen=True)
class Outcome:
    """What a command returned and printed."""

    status: int
    out: str
    err: str

    def json(self):
        assert self.status == 0, self.err
        return json.loads(self.out)

    def json_lines(self):
        assert self.status == 0, self.err
        return [json.loads(line) for line in self.out.splitlines()]


@dataclass(frozen=True)
class TinyRun:
    """A finished run of `CONFIG`, shared by all tests: copy the workdir to change it."""

    config: str
    workdir: str
    outcome: Outcome


class Once:
    """A jitted function that is lowered and compiled once, however often it is asked for."""

    def __init__(self, jitted):
        self._jitted, self._program = jitted, None

    def lower(self, *abstract):
        self._abstract = abstract
        return self

    def compile(self):
        if self._program is None:
            self._program = self._jitted.lower(*self._abstract).compile()
        return self._program


def run(*arguments):
    """The outcome of `vit-jax` with these arguments."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main([str(argument) for argument in arguments])
    return Outcome(status, out.getvalue(), err.getvalue())


def train_tiny(folder):
    """Train `CONFIG` in a new folder."""
    config, workdir = folder / "tiny.py", folder / "run"
    config.write_text(CONFIG)
    return TinyRun(str(config), str(workdir), run("train", "--config", config, "--workdir", workdir))


def run_benchmark(*command, environment=()):
    """The finished process of this Python with a command, which may import the benchmarks."""
    path = {"PYTHONPATH": os.pathsep.join([str(BENCHMARKS), str(BENCHMARKS.parent)])}
    return subprocess.run(
        [sys.executable, *command],
        env=os.environ | path | dict(environment),
        capture_output=True,
        text=True,
        check=False,
    )


def on_one_device():
    """The environment of a process that compiles as quickly as the tests do, for one device instead of eight."""
    flags = os.environ["XLA_FLAGS"].split()
    return {"XLA_FLAGS": " ".join(flag for flag in flags if "device_count" not in flag)}


def keeping(folder):
    """The environment of a process that keeps all its compiled programs in a folder, and takes those that are there."""
    return {
        "JAX_ENABLE_COMPILATION_CACHE": "true",
        "JAX_COMPILATION_CACHE_DIR": str(folder),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
