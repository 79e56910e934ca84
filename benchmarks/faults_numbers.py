"""Plants values that are not finite, and times what looking for them costs.

    python benchmarks/faults_numbers.py --cases 100 --json numbers.json
    python benchmarks/faults_numbers.py --overhead --rounds 30

Each case is a run with one marked record: a NaN or an infinity in its image, or a mark at which the loss, or its
gradient alone, becomes NaN. The record lies on one of 4 devices and in one of two microbatches; it comes at a random
step, which is a save step in half of the cases and more. The run must end in that step with status 5, leave no
checkpoint from it on and none that is not finite, and `replay` must find the same numbers, bit by bit, and the record.

The overhead is that of the whole training step with its checks over one without: the same program compiled with and
without them, run in turn, and the median of the ratios of each pair: of the time, and of the processors' time, which
others who use them change less. The state is checked once more where it is
saved; that is timed against the fingerprints that are computed there anyway.
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import median, quantiles
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).parent.parent))
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import numpy as np

DEVICES, STEPS, BATCH = 4, 9, 16


def case(number: int, seed: int) -> tuple[str, list[str]]:
    """Return what was planted in a case, and what went wrong with it."""
    from tests.faults import planting
    from vit_jax.checkpoints.checkpoints import Checkpoints
    from vit_jax.checkpoints.fingerprint import not_finite
    from vit_jax.errors import DivergedError
    from vit_jax.training import loop
    from vit_jax.training.guard.replay import replay

    draw = random.Random(f"{seed} {number}")
    kinds = {
        "NaN in": planting.NAN,
        "inf in": planting.INF,
        "loss": planting.LOSS,
        "gradient": planting.GRADIENT,
    }
    kind = draw.choice(list(kinds))
    every, fsdp, step = draw.choice((1, 2, 3)), draw.choice((1, 2, 4)), draw.randint(1, STEPS)
    config = configuration(every, fsdp)
    record = planting.record_at(config, step, row=draw.randrange(BATCH))
    sources = planting.Planted({record: kinds[kind]}), planting.Planted({}, size=16)
    saving = " at a save step" if step % every == 0 else ""
    wrong = []
    with tempfile.TemporaryDirectory() as workdir:
        try:
            loop.train(config, workdir, sources=sources)
            wrong.append("the run went on")
        except DivergedError as error:
            if not str(error).startswith(f"step {step}: ") or error.exit_status != 5:
                wrong.append(f"another error: {error}")
        checkpoints = Checkpoints(Path(workdir) / "checkpoints", read_only=True)
        abstract = loop.build(config, sources).abstract_state
        for saved in checkpoints.steps():
            restored = checkpoints.restore(abstract, saved)
            assert restored is not None
            if saved >= step or not_finite(restored[0]):
                wrong.append(f"checkpoint {saved}")
        found = replay(workdir, sources=sources)
        if not found.reproduced or found.step != step:
            wrong.append(f"not reproduced: {found}")
        if kind.endswith("in") and [row["record"] for row in found.records] != [record]:
            wrong.append(f"other records than {record}: {found.records}")
    return f"{kind.replace(' in', ' in the image')}{saving}", wrong


def configuration(every: int, fsdp: int) -> Any:
    """Return a tiny run on 4 devices that saves every so many steps."""
    from vit_jax.training.config import default_config, validate

    config = default_config()
    config.duration = f"{STEPS} steps"
    config.accumulation = 2
    config.model.update(name="vit_mu_patch4_8", width=16, depth=1, heads=2, mlp_dim=32, num_classes=6)
    config.model.update(in_channels=1, unroll=1, dropout_rate=0.1)
    config.data.update(source="synthetic", batch_size=BATCH)
    config.mesh.fsdp = fsdp
    config.sharding.min_size = 1
    config.ema.decay = 0.9
    config.evaluation.every = STEPS
    config.checkpoint.every = every
    config.log.update(every=1, tensorboard=False, progress=False)
    config.compilation.cache = "off"
    validate(config)
    return config


def overhead(model: str, depth: int, size: int, batch: int, rounds: int) -> dict[str, Any]:
    """Return the ratios of a step with its checks to one without."""
    from vit_jax.models.names.resolve import resolve
    from vit_jax.models.vit.config import replace
    from vit_jax.objectives.base import DataInfo
    from vit_jax.objectives.classification.options import ClassificationOptions
    from vit_jax.objectives.registry import build_objective
    from vit_jax.training import step as steps
    from vit_jax.training.config.defaults import default_config
    from vit_jax.training.guard.memory import peak_bytes
    from vit_jax.training.guard.spikes import SpikeRule
    from vit_jax.training.optimizer import make_optimizer
    from vit_jax.training.state import init_state

    config: Any = replace(resolve(model)[1], image_size=size, depth=depth)
    objective = build_objective(ClassificationOptions(), config, DataInfo(config.num_classes))
    abstract = jax.eval_shape(objective.init, jax.random.key(0))[0]

    def schedule(step: Any) -> Any:
        return jax.numpy.float32(1e-3)

    optimizer = make_optimizer(default_config().optimizer, schedule, abstract, objective.network)
    rng = np.random.default_rng(0)
    images = jax.device_put(rng.integers(0, 256, (batch, size, size, 3), np.uint8))
    labels = jax.device_put(rng.integers(0, config.num_classes, batch, np.int32))
    data = {"image": images, "label": labels}

    def program(spikes: SpikeRule | None) -> tuple[Any, Any]:
        state = jax.jit(lambda: init_state(objective, optimizer, 0, False, spikes=spikes))()
        step = steps.make_step(objective, optimizer, schedule, seed=0, spikes=spikes)
        return jax.jit(step, donate_argnums=0).lower(state, data).compile(), state

    # Without the checks: what they decide is known beforehand.
    unchecked = mock.patch.multiple(steps, _finite=lambda *_: jax.numpy.bool_(True))
    always = mock.patch.object(jax.lax, "cond", lambda condition, apply, left_out, state: apply(state))
    with unchecked, always:
        programs = {"without": program(None)}
    programs |= {"checks": program(None), "checks and spikes": program(SpikeRule(6.0, 128))}
    peaks = {name: peak_bytes(compiled) for name, (compiled, _) in programs.items()}
    costs = {name: compiled.cost_analysis() for name, (compiled, _) in programs.items()}
    compiled, states = ({name: pair[i] for name, pair in programs.items()} for i in (0, 1))
    del programs
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in compiled}
    for number in range(rounds + 2):
        for name in random.Random(number).sample(list(compiled), len(compiled)):
            began, used = time.perf_counter(), time.process_time()
            states[name], _ = jax.block_until_ready(compiled[name](states[name], data))
            if number > 1:
                times[name].append((time.perf_counter() - began, time.process_time() - used))
    result: dict[str, Any] = {
        "step seconds": median(wall for wall, _ in times["without"]),
        "peak bytes": peaks,
    }
    for name in ("checks", "checks and spikes"):
        result[name] = {
            f"{what} by XLA's count": costs[name][what] / costs["without"][what]
            for what in ("flops", "bytes accessed")
        }
        for which, unit in enumerate(("time", "processor time")):
            ratios = [a[which] / b[which] for a, b in zip(times[name], times["without"])]
            low, middle, high = quantiles(ratios, n=4)
            result[name][unit] = {"ratio": middle, "quartiles": [low, high]}
    return result


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=0, metavar="N", help="planted runs")
    parser.add_argument("--seed", type=int, default=0, help="of the cases")
    parser.add_argument("--overhead", action="store_true", help="time the checks")
    parser.add_argument("--model", default="vit_tiny_patch16_224", help="to time")
    parser.add_argument("--depth", type=int, default=12, help="its blocks")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write what was found")
    arguments = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", DEVICES if arguments.cases else 1)
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    result: dict[str, Any] = {"jax": jax.__version__}
    if arguments.cases:
        from tests.faults.planting import planted

        counts: Counter[str] = Counter()
        failed = {}
        with planted():
            for number in range(arguments.cases):
                kind, wrong = case(number, arguments.seed)
                counts[kind] += 1
                if wrong:
                    failed[number] = wrong
                print(number, kind, *(wrong or ["as it should be"]), flush=True)
        result |= {"cases": dict(sorted(counts.items())), "failed": failed}
    if arguments.overhead:
        result |= overhead(
            arguments.model, arguments.depth, arguments.image_size, arguments.batch_size, arguments.rounds
        )
    print(json.dumps(result, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    sys.exit(bool(result.get("failed")))


if __name__ == "__main__":
    main()
