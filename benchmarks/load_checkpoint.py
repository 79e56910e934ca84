"""Peak memory and time of loading a checkpoint, against reading its file.

Makes a ViT-L/16 with random weights in timm's layout (1.2 GB), then, each in a process of its own and in turn, reads
the file into fresh memory, plainly and with the safetensors library, and loads it with `vit_jax.load`. Memory is the
process's peak above what it had after its imports, in multiples of the file.

  python benchmarks/load_checkpoint.py [--model vit_large_patch16_224] [--rounds 3] [--shards 8]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.path.insert(0, str(Path(__file__).parent.parent))


def main() -> int:
    parser = argparse.ArgumentParser(description="Memory and time of loading a checkpoint.")
    parser.add_argument("--model", default="vit_large_patch16_224")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--shards", type=int, default=8, help="simulated devices that parameters are spread over"
    )
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        print(json.dumps(WORK[arguments.work](Path(arguments.folder))))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        make(arguments.model, Path(folder))
        size = (Path(folder) / "model.safetensors").stat().st_size
        print(f"{arguments.model}: {size / 2**20:.0f} MiB")
        measured: dict[str, list[dict[str, float]]] = {name: [] for name in WORK}
        for _ in range(arguments.rounds):
            for name in WORK:
                environment = dict(os.environ)
                if name == "load, sharded":
                    devices = f"--xla_force_host_platform_device_count={arguments.shards}"
                    environment["XLA_FLAGS"] = devices
                command = [sys.executable, __file__, "--work", name, "--folder", folder]
                run = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
                measured[name].append(json.loads(run.stdout.splitlines()[-1]))
        read = [row["seconds"] for row in measured["read"]]
        for name, rows in measured.items():
            ratios = [row["seconds"] / base for row, base in zip(rows, read)]
            memory = max(row["bytes"] for row in rows) / size
            print(
                f"{name:<14} {statistics.median(row['seconds'] for row in rows):6.2f} s   "
                f"{statistics.median(ratios):5.2f} of reading ({min(ratios):.2f} to {max(ratios):.2f})   "
                f"peak memory {memory:.2f} of the file"
            )
    return 0


def make(model: str, folder: Path) -> None:
    """Write a checkpoint with random weights."""
    import vit_jax

    vit_jax.save(vit_jax.create_model(model), folder, "timm")


def measure(function) -> dict[str, float]:
    """Return seconds and bytes of memory above what the process had before."""
    before = memory("VmRSS")
    start = time.perf_counter()
    kept = function()
    seconds = time.perf_counter() - start
    peak = memory("VmHWM")
    del kept
    return {"seconds": seconds, "bytes": peak - before}


def memory(entry: str) -> int:
    """Return an entry of the kernel's account of this process, in bytes."""
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith(entry))
    return int(line.split()[1]) * 1024


def read(folder: Path) -> dict[str, float]:
    """Read every array of the file into memory of its own."""
    from vit_jax.weights.formats import safetensors_format

    def run():
        tensors = safetensors_format.read(folder / "model.safetensors")
        return {name: tensor.read() for name, tensor in tensors.items()}

    return measure(run)


def read_library(folder: Path) -> dict[str, float]:
    """Read every array with the safetensors library."""
    from safetensors.numpy import load_file

    return measure(lambda: load_file(folder / "model.safetensors"))


def load(folder: Path) -> dict[str, float]:
    """Load a model."""
    import jax

    import vit_jax
    from vit_jax.weights import load as _  # noqa: F401

    jax.devices()
    return measure(lambda: jax.block_until_ready(vit_jax.load(folder, verbose=False)))


def load_sharded(folder: Path) -> dict[str, float]:
    """Load parameters spread over simulated devices."""
    import jax
    from jax.sharding import AxisType

    from vit_jax import trees
    from vit_jax.models.registry import model_functions
    from vit_jax.training.devices.sharding import RULES, parameter_specs
    from vit_jax.weights.load import open_pretrained

    auto = (AxisType.Auto,) * 3
    mesh = jax.make_mesh((1, jax.device_count(), 1), ("data", "fsdp", "tensor"), axis_types=auto)
    pretrained = open_pretrained(folder)
    abstract = jax.eval_shape(model_functions(pretrained.config).init, jax.random.key(0))
    specs = trees.flatten(parameter_specs(abstract, mesh, RULES, 2**18))
    shardings = {path: jax.sharding.NamedSharding(mesh, spec) for path, spec in specs.items()}
    return measure(lambda: jax.block_until_ready(pretrained.params(shardings)))


WORK = {"read": read, "safetensors": read_library, "load": load, "load, sharded": load_sharded}

if __name__ == "__main__":
    sys.exit(main())
