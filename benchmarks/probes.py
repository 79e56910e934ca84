"""What probes of frozen features cost, and what they say.

    python benchmarks/probes.py                 # k-NN against 1.28 million times 384, planned and measured
    python benchmarks/probes.py --hardware v5e-8  # planned for that instead, nothing measured (needs vit-jax[plan])
    python benchmarks/probes.py --quickstart    # features of the quickstart beside those of random parameters

The bank is synthetic, in bfloat16. Planned is what the compiled program takes on each of eight devices, which are
simulated; measured is the time of a batch of queries on one device of this machine, everything compiled before.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from vit_jax.planning.chips import Hardware, parse_hardware
from vit_jax.planning.topology import absent_devices, prepare_environment

DEVICES = 8


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--records", type=int, default=1_281_167, help="rows of the bank (default: ImageNet-1k)"
    )
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--queries", type=int, default=1024, help="in a batch")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--hardware", metavar="NAME", help="plan for it, as vit-jax plan names it")
    parser.add_argument("--quickstart", action="store_true", help="compare features instead")
    parser.add_argument("--workdir", help="of a finished quickstart, instead of training one")
    parser.add_argument("--json", help="gets the numbers")
    arguments = parser.parse_args()
    hardware = None
    if arguments.hardware:  # before jax is imported
        hardware = parse_hardware(arguments.hardware)
        prepare_environment(hardware)
    elif not arguments.quickstart:
        count = f"--xla_force_host_platform_device_count={DEVICES}"
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {count}".strip()
    found = _quickstart(arguments) if arguments.quickstart else _cost(arguments, hardware)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(found, indent=2) + "\n")
    return 0


def _cost(arguments: argparse.Namespace, hardware: Hardware | None) -> dict[str, Any]:
    """Return and print planned memory and measured time of k-NN."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.sharding import NamedSharding, PartitionSpec

    from vit_jax.evaluation.probes.knn import BLOCK, compile_votes
    from vit_jax.evaluation.probes.placing import padded_length, place
    from vit_jax.training.devices.mesh import batch_sharding, make_mesh

    dtype = jnp.dtype(arguments.dtype)

    def planned(devices: Sequence[Any]) -> tuple[Any, tuple[Any, ...]]:
        """Return the compiled program and the shapes of its arguments, and print what it takes of each device."""
        mesh = make_mesh({"data": -1, "fsdp": 1, "tensor": 1}, devices)
        rows, whole = batch_sharding(mesh), NamedSharding(mesh, PartitionSpec())
        length = padded_length(arguments.records, len(devices) * BLOCK)
        vote = compile_votes((10, 20), arguments.classes, 0.07, rows)
        shapes = (
            jax.ShapeDtypeStruct((length, arguments.width), dtype, sharding=rows),
            jax.ShapeDtypeStruct((length,), jnp.bool_, sharding=rows),
            jax.ShapeDtypeStruct((arguments.records,), jnp.int32, sharding=whole),
            jax.ShapeDtypeStruct((arguments.queries, arguments.width), dtype, sharding=whole),
        )
        compiled = vote.lower(*shapes).compile()
        memory = compiled.memory_analysis()
        held = memory.argument_size_in_bytes / 2**20
        work = (memory.temp_size_in_bytes + memory.output_size_in_bytes) / 2**20
        name = f"{len(devices)} x {devices[0].device_kind}"
        found["planned_mib_per_device"][name] = {"arguments": held, "work": work}
        print(
            f"planned, {name}: {held:,.0f} MiB of bank, labels and queries, {work:,.0f} MiB to work with, on each"
        )
        return compiled, shapes

    found: dict[str, Any] = {
        name: getattr(arguments, name) for name in ("records", "width", "queries", "dtype")
    }
    found["planned_mib_per_device"] = {}
    if hardware is not None:
        planned(absent_devices(hardware))
        return found
    planned(jax.devices())
    compiled, shapes = planned(jax.devices()[:1])
    rng = np.random.default_rng(0)
    # One block of noise, moved along: noise for the whole bank takes longer than the queries.
    noise = rng.standard_normal((BLOCK, arguments.width), np.float32)

    def made(part: np.ndarray) -> np.ndarray:
        rows = np.tile(noise, (-(-len(part) // BLOCK), 1))[: len(part)] + part[:, None]
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(dtype)

    bank, valid, labels, queries = shapes
    arrays = (
        place(rng.standard_normal(arguments.records, np.float32), bank.sharding, bank.shape[0], made),
        place(np.ones(arguments.records, np.bool_), valid.sharding, valid.shape[0]),
        place(
            rng.integers(0, arguments.classes, arguments.records, np.int32),
            labels.sharding,
            arguments.records,
        ),
        place(np.zeros(arguments.queries, np.float32), queries.sharding, arguments.queries, made),
    )
    times = []
    for _ in range(arguments.rounds):
        begun = time.perf_counter()
        jax.block_until_ready(compiled(*arrays))
        times.append(time.perf_counter() - begun)
    found |= {"seconds": times, "device": jax.devices()[0].device_kind, "cores": os.cpu_count()}
    print(
        f"measured, {arguments.queries:,} queries against {arguments.records:,} x {arguments.width} {arguments.dtype}: "
        f"{min(times):.2f} s on {found['device']} ({found['cores']} cores; load {os.getloadavg()[0]:.1f})"
    )
    return found


def _quickstart(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return and print what probes say of the quickstart's features and of random ones."""
    from vit_jax.inference.probing import probe
    from vit_jax.training.config import load_config
    from vit_jax.training.loop import train

    config = str(Path(__file__).parent.parent / "configs" / "digits.py")
    found: dict[str, Any] = {}
    with TemporaryDirectory() as folder:
        quick = ["evaluation.baselines=()", "evaluation.illustrate=0", "log.progress=False"]
        workdirs = {"quickstart": arguments.workdir or f"{folder}/quickstart", "random": f"{folder}/random"}
        if not arguments.workdir:
            train(load_config(config, quick), workdirs["quickstart"])
        # One step with a rate of nothing: the parameters that every run begins with.
        still = [
            "duration=1 steps",
            "optimizer.learning_rate=1e-30",
            "ema.decay=0.0",
            "schedule.warmup=0 steps",
        ]
        train(load_config(config, [*quick, *still]), workdirs["random"])
        for name, workdir in workdirs.items():
            found[name] = probe(workdir, ("knn", "linear", "linear_sgd", "fewshot", "rank")).metrics
    print(f"| {'metric':<20} | {'quickstart':>10} | {'random':>10} |\n|{'-' * 22}|{'-' * 11}:|{'-' * 11}:|")
    for metric in found["quickstart"]:
        values = " | ".join(f"{found[name][metric]:>10.4f}" for name in found)
        print(f"| {metric:<20} | {values} |")
    return found


if __name__ == "__main__":
    sys.exit(main())
