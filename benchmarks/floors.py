"""How long our programs take at least on this machine, beside how long they take.

    python benchmarks/floors.py                   # a few minutes on two cores; --predict: forward passes

Two floors: the analytic operations over the rate of one matrix product (3152x384x1536, as in the other benchmarks), and
the bytes that the program's operations read and write, as XLA counts them, over the rate of adding one to 256 MiB. A
program that kept its intermediate values in the processor's caches could be below the second; none can be below the
first by more than its products differ from that one.
"""

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
from worker import PRODUCT

from vit_jax.allocation import start_tuned
from vit_jax.compiler_options import jit, training_options
from vit_jax.models.names.resolve import resolve
from vit_jax.models.vit.config import replace
from vit_jax.planning.measurement import measure_prediction, measure_training

COUNT = 2**26  # float32


def seconds_of(function: Callable[[], Any], runs: int = 15) -> float:
    """Return the median time of a function, after two runs that are not timed."""
    times = []
    for _ in range(runs + 2):
        began = time.perf_counter()
        jax.block_until_ready(function())
        times.append(time.perf_counter() - began)
    return median(times[2:])


def product_rate(dtype: str) -> float:
    """Return the operations a second of one product."""
    m, k, n = PRODUCT
    a, b = jnp.ones((m, k), dtype), jnp.ones((k, n), dtype)
    product = jit(jnp.matmul, training_options(jax.default_backend(), dtype, n))
    return 2 * m * k * n / seconds_of(lambda: product(a, b))


def memory_rate() -> float:
    """Return the bytes a second, read and written together, of a program that does nothing else."""
    add = jax.jit(lambda x: x + 1, donate_argnums=0)
    x = jnp.zeros(COUNT)

    def run() -> jax.Array:
        nonlocal x
        x = add(x)
        return x

    return 2 * 4 * COUNT / seconds_of(run)


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    models = ["vit_tiny_patch16_224", "vit_small_patch16_224"]
    add("--models", nargs="+", default=models, metavar="NAME", help=f"default: {' '.join(models)}")
    add("--dtypes", nargs="+", default=["float32", "bfloat16"], help="default: float32 bfloat16")
    add("--batch-size", type=int, default=16, metavar="N", help="default: 16")
    add("--image-size", type=int, default=224, metavar="N", help="default: 224")
    add("--seconds", type=float, default=10.0, metavar="S", help="for each program; default: 10")
    add("--predict", action="store_true", help="forward passes, not training steps")
    arguments = parser.parse_args()
    memory = memory_rate()
    what = "forward pass" if arguments.predict else "training step"
    print(f"jax {jax.__version__}, {jax.devices()[0].device_kind}; memory {memory / 1e9:.1f} GB/s\n")
    columns = [f"{what}, batch {arguments.batch_size}", "GFLOP/s of a product", "GFLOP", "MB"]
    columns += ["products, ms", "memory, ms", "found, ms"]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for name in arguments.models:
        for dtype in arguments.dtypes:
            rate = product_rate(dtype)
            config: Any = replace(
                resolve(name)[1], image_size=arguments.image_size, num_classes=1000, dtype=dtype
            )
            measure = measure_prediction if arguments.predict else measure_training
            found = measure(config, [arguments.batch_size], seconds=arguments.seconds)[0]
            flops = found.flops_per_second * found.milliseconds / 1e3
            assert found.accessed is not None, "this backend does not count bytes"
            moved = found.accessed
            numbers = (
                f"{rate / 1e9:,.0f} | {flops / 1e9:,.2f} | {moved / 1e6:,.1f} | {flops / rate * 1e3:,.2f}"
            )
            print(
                f"| {name}, {dtype} | {numbers} | {moved / memory * 1e3:,.2f} | {found.milliseconds:,.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    start_tuned()  # as the command does
    main()
