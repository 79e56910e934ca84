"""What the processes of a test run that no command does.

`load CONFIG STEP RESULT WORKDIR...` loads a step of each workdir on the devices there are, looks at the next
batches and makes one update; process 0 writes what it saw to RESULT.
`slowly CONFIG WORKDIR` trains with data that comes slowly.
"""

import argparse
import hashlib
import json
import sys
import time
from pathlib import Path

import jax

from vit_jax.checkpoints.checkpoints import Checkpoints
from vit_jax.checkpoints.fingerprint import fingerprint
from vit_jax.data.base import Source
from vit_jax.errors import VitError
from vit_jax.objectives.images import on_host
from vit_jax.processes import is_main
from vit_jax.training.config import load_config
from vit_jax.training.devices.distributed import initialize_distributed
from vit_jax.training.experiment import build
from vit_jax.training.loop import train
from vit_jax.training.step import compile_step

SECONDS_A_BATCH = 0.1


class Slow(Source):
    """The records of another source, after a pause."""

    def __init__(self, source):
        self._source = source
        self.class_names, self.image_shape, self.labels = (
            source.class_names,
            source.image_shape,
            source.labels,
        )

    def __len__(self):
        return len(self._source)

    def __getitem__(self, index):
        return self._source[index]

    def take(self, indices):
        time.sleep(SECONDS_A_BATCH)
        return self._source.take(indices)


def load(config, step, result, workdirs):
    """Load a step of every workdir, and make the next one."""
    experiment = build(load_config(config, ["mesh.fsdp=" + str(min(2, jax.device_count()))]))
    shardings = experiment.devices.state_shardings
    update = compile_step(experiment.step, shardings, None)
    batches = experiment.data.train_batches(step)
    ahead = [experiment.devices.put(next(batches)) for _ in range(3)]
    batches.close()
    digest = hashlib.sha256(
        b"".join(field.tobytes() for b in on_host(ahead) for _, field in sorted(b.items()))
    )
    seen = {}
    for workdir in workdirs:
        restored = Checkpoints(Path(workdir) / "checkpoints", read_only=True).restore(
            experiment.abstract_state, step
        )
        state, metadata = restored
        seen[Path(workdir).name] = {
            "fingerprint": fingerprint(state),
            "saved": metadata["fingerprint"],
            "batches": digest.hexdigest(),
            "loss": float(update(state, ahead[0])[1]["loss"]),
        }
    if is_main():
        Path(result).write_text(json.dumps(seen))


def slowly(config, workdir):
    """Train with data that comes slowly."""
    config = load_config(config, [])
    experiment = build(config)
    train(config, workdir, sources=(Slow(experiment.data.train_source), experiment.data.eval_source))


def main():
    """Do what the arguments say."""
    parser = argparse.ArgumentParser()
    parser.add_argument("task", choices=("load", "slowly"))
    parser.add_argument("arguments", nargs="+")
    parser.add_argument("--coordinator")
    parser.add_argument("--process-count", type=int)
    parser.add_argument("--process-index", type=int)
    given = parser.parse_args()
    initialize_distributed(given.coordinator, given.process_count, given.process_index)
    if given.task == "slowly":
        slowly(*given.arguments)
    else:
        config, step, result, *workdirs = given.arguments
        load(config, int(step), result, workdirs)


if __name__ == "__main__":
    try:
        main()
    except VitError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_status)
