"""Checkpoints under faults: damaged files, kills at every file operation of a save, disks that are full.

A small run is trained once without disturbance; its final state is the reference. Then

  damage    files of its checkpoints are deleted, truncated, zeroed and flipped; what is loaded must be right
  kill      the state of the disk at every file operation of a save is what a kill there would leave: each is resumed
            and must end bit for bit like the reference; and the real command is killed at some of them
  full      from a random file operation on, everything that writes fails (ENOSPC, EDQUOT, EROFS, EIO): one line,
            status 6, soon, earlier checkpoints intact; and with the disk back the run ends like the reference
  overhead  what fingerprints, checks and reading back cost

One JSON line per part; the exit status is 1 if anything was not as promised. `kill` and `full` need a C compiler.
"""

import argparse
import errno
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.faults.file_faults import Faults, compile_library, environment
from tests.runs import Once
from vit_jax.checkpoints import fingerprint
from vit_jax.checkpoints.checkpoints import Checkpoints
from vit_jax.checkpoints.files import read_metadata
from vit_jax.checkpoints.verification import verify
from vit_jax.errors import CheckpointError, ResourceError
from vit_jax.training import loop
from vit_jax.training.config import load_config

ROOT = Path(__file__).parent.parent
ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
WAYS = ("delete", "truncate", "empty", "zero", "flip")
STEPS, EVERY = 12, 4
PAUSE = 0.05  # seconds that a step takes at least, so that saves fail between steps

CONFIG = f"""
from vit_jax.training.config import default_config

def get_config():
    config = default_config()
    config.duration = "{STEPS} steps"
    config.model.update(name="vit_mu_patch4_8", in_channels=1, width=16, depth=1, heads=2, mlp_dim=32, num_classes=6)
    config.model.update(dropout_rate=0.1, unroll=1)
    config.objective.mixup = 0.4
    config.data.update(source="synthetic", size=40, batch_size=16, train_transforms="flip_lr")
    config.ema.decay = 0.9
    config.evaluation.every = {EVERY}
    config.checkpoint.every = {EVERY}
    config.log.update(every=3, tensorboard=False, progress=False)
    return config
"""


class Runs:
    """The small run, in this process: built and compiled once, however often it is started."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.file = self.folder / "config.py"
        self.file.write_text(CONFIG)
        self.config: Any = load_config(str(self.file))
        self.config.compilation.cache = str(self.folder / "compiled")
        build, compile_step = loop.build, loop.compile_step
        self.experiment = build(self.config)
        self._program = None

        def compile_once(step, *shardings):
            if self._program is None:
                self._program = Once(compile_step(step, *shardings))
            return self._program

        def built(config, *_, **__):
            return replace(self.experiment, config=config)

        loop.build, loop.compile_step = built, compile_once
        self.whole = self.folder / "whole"
        self.config.checkpoint.keep_last = STEPS  # All are there to start from; later as usual.
        self.train(self.whole)
        self.config.checkpoint.keep_last = 2
        self.reference = self.ending(self.whole)
        # The same run before its last save.
        self.before = self.folder / "before"
        shutil.copytree(self.whole, self.before)
        shutil.rmtree(self.before / "checkpoints" / str(STEPS))
        (self.before / "summary.json").unlink()

    def train(self, workdir):
        """Train, from where the workdir ends; return the final step's fingerprint."""
        error = sys.stderr
        with open(os.devnull, "w") as sys.stderr:
            try:
                loop.train(self.config, workdir)
            finally:
                sys.stderr = error

    def ending(self, workdir):
        """What must be equal in a run that was disturbed."""
        metadata = read_metadata(workdir / "checkpoints" / str(STEPS))
        return metadata["fingerprint"], (workdir / "metrics.jsonl").read_bytes()

    def copy(self, source, name="case"):
        """A copy of a workdir, in place of the one before."""
        target = self.folder / name
        shutil.rmtree(target, ignore_errors=True)
        return Path(shutil.copytree(source, target))

    def restore(self, workdir):
        """The state of a workdir and its metadata, or None; and what was reported."""
        told = []
        checkpoints = Checkpoints(workdir / "checkpoints", read_only=True, report=told.append)
        return checkpoints.restore(self.experiment.abstract_state), told


def intact(workdir):
    """Return the steps that are whole, every bit compared."""
    good = []
    for path in (workdir / "checkpoints").iterdir():
        if path.name.isdecimal():
            try:
                verify(path, read_metadata(path))
            except CheckpointError:
                continue
            good.append(int(path.name))
    return sorted(good)


# ---- damage


def damage(runs, cases, seed):
    """Damage files of the newest step, and in every tenth case of all steps."""
    chance, outcomes, bad = random.Random(seed), Counter(), []
    steps = [str(step) for step in intact(runs.whole)]
    names = sorted(
        path.relative_to(runs.whole / "checkpoints" / steps[-1])
        for path in (runs.whole / "checkpoints" / steps[-1]).rglob("*")
        if path.is_file()
    )
    truth = {step: read_metadata(runs.whole / "checkpoints" / step)["fingerprint"] for step in steps}
    for case in range(cases):
        way, name = WAYS[case % len(WAYS)], names[case // len(WAYS) % len(names)]
        everywhere = case % 10 == 9
        workdir = runs.copy(runs.whole)
        for step in steps if everywhere else steps[-1:]:
            folder = workdir / "checkpoints" / step
            path = folder / name
            if not path.exists():  # Orbax names data files at random: take the largest.
                path = max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
            harm(path, way, chance)
        try:
            restored, told = runs.restore(workdir)
        except CheckpointError as error:
            named = all(f"step {step}: " in str(error) for step in steps)
            outcome = "all damaged: refused" if everywhere and named else "REFUSED WITHOUT NEED OR NAME"
        else:
            outcome = judge(restored, told, workdir, steps, truth)
        outcomes[outcome] += 1
        if outcome.isupper():
            bad.append(f"case {case}: {way} {name}: {outcome}")
        elif case % 50 == 0 and "refused" not in outcome:
            runs.train(workdir)
            if runs.ending(workdir)[0] != runs.reference[0]:
                bad.append(f"case {case}: {way} {name}: resumed to another end")
    return {"cases": cases, "files": len(names), "outcomes": outcomes, "bad": bad}


def harm(path, way, chance):
    """Damage a file."""
    content = path.read_bytes()
    if way == "delete":
        path.unlink()
    elif way == "truncate":
        path.write_bytes(content[: chance.randrange(len(content))])
    elif way == "empty":
        path.write_bytes(b"")
    elif way == "zero":
        path.write_bytes(bytes(len(content)))
    else:
        position = chance.randrange(len(content))
        flipped = content[position] ^ (1 << chance.randrange(8))
        path.write_bytes(content[:position] + bytes([flipped]) + content[position + 1 :])


def judge(restored, told, workdir, steps, truth):
    """Return what a restored state says about the loading; capitals are broken promises."""
    if restored is None:
        return "STARTED FROM ZERO"
    state, metadata = restored
    step = str(metadata["step"])
    if fingerprint.fingerprint(state) != truth[step]:
        return "LOADED SILENTLY WRONG"
    skipped = steps[steps.index(step) + 1 :]
    if len(told) != len(skipped) or not all(
        str(workdir / "checkpoints" / s) in line for s, line in zip(reversed(skipped), told)
    ):
        return "SKIPPED WITHOUT A NAME"
    return "harmless: the right state" if not skipped else "an older step, the damaged one named"


# ---- kill

COPY = """#!/bin/sh
exec cp -a "{workdir}" "{snapshots}/$1"
"""


def kill(runs, cases, library, points):
    """Resume from the disk as it was before every file operation of a save; kill the real command at some of them."""
    bad = []
    workdir, snapshots, log = runs.copy(runs.before, "killed"), runs.folder / "snapshots", runs.folder / "log"
    snapshots.mkdir()
    script = runs.folder / "copy.sh"
    script.write_text(COPY.format(workdir=workdir, snapshots=snapshots))
    script.chmod(0o755)
    command = [
        sys.executable,
        "-m",
        "vit_jax.cli",
        "train",
        "--config",
        str(runs.file),
        "--workdir",
        str(workdir),
    ]
    command += [f"--config.compilation.cache={runs.folder / 'compiled'}"]

    def start(at, action):
        variables = environment(library, workdir, at, action, log)
        variables |= {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
        return subprocess.run(command, env=variables, capture_output=True, text=True, cwd=ROOT, check=False)

    done = start(0, f"copy:{script}")
    if done.returncode:
        return {"bad": [f"undisturbed: status {done.returncode}: {done.stderr[-1000:]}"]}
    if runs.ending(workdir) != runs.reference:
        bad.append("undisturbed: another end")
    lines = log.read_text().splitlines()
    resumed, fewest = Counter(), STEPS
    numbers = range(1, len(lines) + 1, max(1, len(lines) // points) if points else 1)
    for number in numbers:
        snapshot = snapshots / str(number)
        good = intact(snapshot)
        fewest = min(fewest, len(good))
        resumed[good[-1] if good else None] += 1
        runs.train(snapshot)
        if runs.ending(snapshot) != runs.reference:
            bad.append(f"{lines[number - 1]}: resumed to another end")
        shutil.rmtree(snapshot)
    if fewest < 2:
        bad.append(f"only {fewest} intact checkpoints at some moment")
    killed = Counter()
    for case in range(cases):
        at = 1 + case * (len(lines) - 1) // max(1, cases - 1)
        runs.copy(runs.before, "killed")
        killed[start(at, "kill").returncode] += 1
        if len(intact(workdir)) < 2:
            bad.append(f"killed at {lines[at - 1]}: {intact(workdir)} left")
        runs.train(workdir)
        if runs.ending(workdir) != runs.reference:
            bad.append(f"killed at {lines[at - 1]}: resumed to another end")
    if set(killed) - {-9}:
        bad.append(f"statuses of the killed: {dict(killed)}")
    operations = Counter(line.split()[1] for line in lines)
    return {
        "operations": len(lines),
        "resumed": len(numbers),
        "kinds": operations,
        "resumed from step": resumed,
        "fewest intact": fewest,
        "really killed": killed[-9],
        "bad": bad,
    }


# ---- full


def full(runs, cases, seed):
    """Let every operation from a random one on fail, in this process, into which the library is preloaded."""
    chance, faults, bad, late, kinds = random.Random(seed), Faults(), [], Counter(), Counter()
    check, waited = Checkpoints.check, []

    def count(checkpoints):
        time.sleep(PAUSE)
        if faults.hits:
            waited.append(any(job.done() and job.exception() for job in checkpoints._finisher._jobs))
        check(checkpoints)

    Checkpoints.check = count  # pyright: ignore[reportAttributeAccessIssue]
    workdir = runs.copy(runs.before)
    shutil.rmtree(workdir / "checkpoints" / str(2 * EVERY))
    runs.copy(workdir, "start")
    folder = workdir / "checkpoints"
    faults.arm(folder, 0, "")
    runs.train(workdir)
    operations = faults.count
    for case in range(cases):
        number, at = ERRORS[case % len(ERRORS)], chance.randrange(1, operations + 1)
        runs.copy(runs.folder / "start")
        waited.clear()
        faults.arm(folder, at, number)
        try:
            runs.train(workdir)
        except ResourceError as error:
            outcome = "one line, status 6, " + ("by the next step" if waited else "at once")
            if os.strerror(number) not in str(error) or str(folder) not in str(error) or "\n" in str(error):
                bad.append(f"case {case}: {number} at {at}: {error}")
        except Exception as error:
            outcome = f"{type(error).__name__}: {error}"[:200]
            bad.append(f"case {case}: {number} at {at}: {outcome}")
        else:
            # A full disk lets one delete; nothing may have failed.
            outcome = "nothing failed" if not faults.hits else "FAILED SILENTLY"
            if faults.hits:
                bad.append(f"case {case}: {number} at {at}: {faults.hits} failures, no error")
        faults.disarm()
        kinds[outcome] += 1
        late[sum(waited)] += 1
        if not set(intact(workdir)) & {EVERY, 2 * EVERY, STEPS}:
            bad.append(f"case {case}: {number} at {at}: {intact(workdir)} left")
        runs.train(workdir)
        if runs.ending(workdir) != runs.reference:
            bad.append(f"case {case}: {number} at {at}: resumed to another end")
    # The step that notices is the first to find the failed save.
    if set(late) - {0, 1}:
        bad.append(f"steps until a failed save was noticed: {dict(late)}")
    return {
        "cases": cases,
        "operations": operations,
        "outcomes": kinds,
        "steps until a failed save was noticed": late,
        "bad": bad,
    }


# ---- overhead


def overhead(scale, rounds):
    """Time the parts of a save of a state as large as that of a ViT-S/16 with AdamW, or a part of it."""
    width = int(384 * scale)
    shapes = {"qkv": (12, width, 3 * width), "out": (12, width, width), "up": (12, width, 4 * width)}
    shapes |= {"down": (12, 4 * width, width), "norm": (12, width)}
    keys = jax.random.split(jax.random.key(0), len(shapes))
    params = {n: jax.random.normal(key, shape) for (n, shape), key in zip(shapes.items(), keys)}
    state = {
        "params": params,
        "mu": jax.tree.map(lambda x: x / 8, params),
        "nu": jax.tree.map(jnp.square, params),
    }
    advance = jax.jit(lambda state: jax.tree.map(lambda x: x * 0.999, state))
    times, marks, examine = [], [], fingerprint.examine

    def timed(tree):
        begin = time.perf_counter()
        result = examine(tree)
        marks.append(time.perf_counter() - begin)
        return result

    with (
        tempfile.TemporaryDirectory() as folder,
        Checkpoints(folder) as checkpoints,
        mock.patch.object(fingerprint, "examine", timed),
    ):
        for step in range(rounds + 1):
            # As a step of training leaves it: memory of a virtual machine that nobody has touched for a second or
            # two can take ten times as long to read.
            state = jax.block_until_ready(advance(state))
            clock = [time.perf_counter()]
            checkpoints.save(step, state, {})
            clock.append(time.perf_counter())
            finisher = checkpoints._finisher
            assert finisher is not None
            finisher.wait_for_commit()
            clock.append(time.perf_counter())
            checkpoints.wait()
            clock.append(time.perf_counter())
            times.append([end - begin for begin, end in pairwise(clock)])
        begin = time.perf_counter()
        for _ in range(1000):
            checkpoints.check()
        per_step = (time.perf_counter() - begin) / 1000
    # The first compiles.
    columns = [*zip(*times[1:]), marks[1 : rounds + 1]]
    blocked, written, after, examined = (sorted(column)[rounds // 2] for column in columns)
    return {
        "MiB": sum(x.nbytes for x in jax.tree.leaves(state)) / 2**20,
        "fingerprint_and_check_s": examined,
        "blocking_s": blocked,
        "written_s": blocked + written,
        "read_back_s": after,
        "fingerprint_and_check_share_of_save": examined / (blocked + written),
        "fingerprint_and_check_share_of_save_and_read_back": examined / (blocked + written + after),
        "read_back_share_of_save": after / (blocked + written),
        "check_us_per_step": per_step * 1e6,
    }


def main():
    """Run the parts asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="+", choices=("damage", "kill", "full", "overhead"))
    parser.add_argument("--damages", type=int, default=500, help="damaged files; default: 500")
    parser.add_argument("--cases", type=int, help="real kills (20), full disks (100)")
    parser.add_argument("--points", type=int, default=0, help="resumed operations of kill; default: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scale", type=float, default=1.0, help="of overhead's width; default: 1")
    parser.add_argument("--rounds", type=int, default=7, help="timed saves of overhead; default: 7")
    arguments = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "file_faults.so"
        if {"kill", "full"} & set(arguments.parts):
            compile_library(folder)
        inside = "FILE_FAULTS_UNDER" in os.environ
        runs = Runs(folder) if {"damage", "kill"} & set(arguments.parts) or inside else None
        for part in arguments.parts:
            begin = time.monotonic()
            if part == "overhead":
                result = overhead(arguments.scale, arguments.rounds)
            elif part == "damage":
                result = damage(runs, arguments.damages, arguments.seed)
            elif part == "kill":
                result = kill(
                    runs, 20 if arguments.cases is None else arguments.cases, library, arguments.points
                )
            elif inside:
                result = full(runs, arguments.cases or 100, arguments.seed)
            else:  # Again, with the library.
                options = ["--cases", str(arguments.cases or 100), "--seed", str(arguments.seed)]
                variables = environment(library, "/nowhere")
                status = subprocess.run(
                    [sys.executable, __file__, part, *options], env=variables, check=False
                )
                failed |= status.returncode != 0
                continue
            failed |= bool(result.get("bad"))
            print(
                json.dumps({"part": part} | result | {"seconds": round(time.monotonic() - begin, 1)}),
                flush=True,
            )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
