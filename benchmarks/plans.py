"""Plans of large runs on TPU slices that are not here: compiles each and writes docs/plans.md.

python benchmarks/plans.py --folder plans        # an hour and more on two cores; plans that are there stay
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from vit_jax.planning.text import short_source

ROOT = Path(__file__).parent.parent
GIB = 2**30
# The published recipes with the batch asked for; L/16 as in papers that pretrain it, without dropout.
S16 = ("--config", "configs/vit_s16_i1k.py")
L16 = (
    *("--config", "configs/augreg.py:L/16,i21k,medium2"),
    *("--config.model.dropout_rate=0.0", "--config.model.drop_path_rate=0.0"),
    "--config.data.batch_size=4096",
)
SMALL_G = ("--config", "configs/vit_g_jft_style.py:g/14", "--config.data.batch_size=4096")
LARGE_G = ("--config", "configs/vit_g_jft_style.py:G/14", "--config.data.batch_size=4096")
SQUARE = ("--config.mesh.data=16", "--config.mesh.fsdp=16")
CUBE = ("--config.mesh.data=4", "--config.mesh.fsdp=16")
NO_REMAT = "--config.model.remat=none"
L16_SQUARE = (*L16, "--hardware", "v5e-256", *SQUARE)
PLANS = {
    "S/16 on v5e-8": (*S16, "--hardware", "v5e-8"),
    "L/16 on v5e-256": L16_SQUARE,
    "g/14 on v5e-256": (*SMALL_G, "--hardware", "v5e-256", *SQUARE, NO_REMAT),
    "G/14 on v5e-256": (*LARGE_G, "--hardware", "v5e-256", *SQUARE, NO_REMAT),
    "g/14 on v5p-128": (*SMALL_G, "--hardware", "v5p-128", *CUBE, NO_REMAT),
    "G/14 on v5p-128": (*LARGE_G, "--hardware", "v5p-128", *CUBE, NO_REMAT),
}
# Of a few blocks, which compile quickly; each beside the first of its kind. Explicit attention, whose cycles the
# compiler gives, stands under all that is not about attention.
EXPLICIT = "--config.model.attention=explicit"
S16_FEW = (*S16, "--hardware", "v5e-8", "--config.model.depth=3")
FEW = "--config.model.depth=4"
L16_FEW = (*L16_SQUARE, FEW, EXPLICIT)
L16_WHOLE = (*L16, "--hardware", "v5e-256", "--config.mesh.data=256", FEW, EXPLICIT)
G_FEW = (*PLANS["g/14 on v5e-256"], FEW, EXPLICIT)
LEVERS = {
    "S/16 of 3 blocks": (*S16_FEW, EXPLICIT),
    "S/16 of 3 blocks, the kernel": S16_FEW,
    "L/16 of 4 blocks": L16_FEW,
    "L/16 of 4 blocks, the kernel": (*L16_SQUARE, FEW),
    "L/16 of 4 blocks, XLA's attention": (*L16_SQUARE, FEW, "--config.model.attention=xla"),
    "L/16 of 4 blocks, nothing beside reduce-scatters": (*L16_FEW, "--config.sharding.overlap=False"),
    "L/16 of 4 blocks, rolled": (*L16_FEW, "--config.model.unroll=1"),
    "L/16 of 4 blocks, remat dots": (*L16_FEW, "--config.model.remat=dots"),
    "L/16 of 4 blocks, mean pooling": (
        *L16_FEW,
        "--config.model.class_token=False",
        "--config.model.pool=mean",
    ),
    "L/16 of 4 blocks, parameters whole": L16_WHOLE,
    "L/16 of 4 blocks, parameters whole, ZeRO-1": (*L16_WHOLE, "--config.sharding.zero1=true"),
    "g/14 of 4 blocks": G_FEW,
    "g/14 of 4 blocks, the kernel": (*PLANS["g/14 on v5e-256"], FEW),
    "g/14 of 4 blocks, nothing beside reduce-scatters": (*G_FEW, "--config.sharding.overlap=False"),
    "g/14 of 4 blocks, remat dots": (*G_FEW, "--config.model.remat=dots"),
    "g/14 of 4 blocks, two microbatches": (*G_FEW, "--config.accumulation=2"),
}
TEXT = """# Plans

What `vit-jax plan` says of large runs, made by `python benchmarks/plans.py`. **Nothing here was run on a TPU**: times
are the cycles that XLA's TPU compiler writes on its own schedule, divided by an inferred clock, and bytes over
published link rates; MFU counts forward and backward once, whatever is computed again. "Computing" leaves communication
out, "all" is with every collective that no other work is scheduled beside. Compiler: {versions}.

## Runs

{runs}
{missing}
## Where the time goes

{hottest}

## Levers

The same step with a few blocks, one thing changed at a time:

{levers}

What cannot be switched by a configuration was compared once, while it was built, on S/16 with two blocks, 128 images a
chip of a v5e-8 (milliseconds of computing):

| change | before | after |
|---|---|---|
| weights gathered where they are used, gradients divided at once, rows kept in place (fsdp=8) | 33.2 | 24.3 |
| parameters whole on every chip instead (22 million are few) | 24.3 | 18.7 |
| queries, keys and values as three products of one stored kernel | 18.7 | 16.4 |
| explicit attention instead of XLA's, whose backward pass keeps float32 scores | 16.4 | 15.6 |
| weight gradients as products of their own, not fused with the reshape to heads (3 blocks) | 21.7 | 21.4 |
| the same, L/16 on v5e-256 (4 blocks) | 10.30 | 9.82 |
| attention with its own gradient, sums from the output, weights kept (3 blocks) | 21.7 | 27.1 |
| the same, weights computed again (3 blocks) | 21.7 | 21.5 |
| the same, sums by a column of ones (3 blocks) | 21.7 | 28.7 |
| softmax divided by its sums after the product (3 blocks) | 21.4 | 26.1 |
| norms with their own gradient (3 blocks, the kernel) | 15.23 | 14.49 |
| heads side by side as far as the kernel, no axis of 64 (3 blocks) | 14.49 | 14.00 |
| biases' gradients by products with ones, which take a sixth of the sums' time (3 blocks) | 14.00 | 13.11 |
| partners of mixup moved as bytes (3 blocks) | 13.11 | 12.31 |
| the three of them before, L/16 on v5e-256; g/14; G/14 (4 blocks) | 8.81; 20.41; 33.64 | 7.97; 19.05; 30.72 |
| G/14 on v5p-128 (4 blocks) | 53.53 | 49.30 |
| biases' gradients of norms by products too (3 blocks) | 13.11 | 13.24 |
| one product for queries, keys and values, one array for the kernel (3 blocks; L/16) | 12.31; 7.98 | 12.48; 7.79 |

Not kept were the four attentions without the kernel, and the last two. Turning off the compiler's windowed products
changes nothing once weights are gathered.

**The kernel.** Without it, half of S/16 is the scores of attention, `6 x 196 x 196` a block and image, which are
written, read and laid out anew several times. `models/short_attention.py` keeps them on the chip and takes queries,
keys and values as dense layers write them; it is the default on TPUs for bfloat16 and up to 640 tokens. It has run in
Pallas's interpreter, where it equals the explicit form, and has been compiled for v4, v5e, v5p and v6e; it has not
run on a TPU. XLA's schedule says nothing of it, so its time is counted by hand (`planning/kernels.py`): from the
instruction bundles that the compiler can be made to write down (`python benchmarks/tpu_kernels.py`), one a cycle, and
an allowance of 700 cycles a program; on chips of two cores as if one of them did it all. Of S/16's step that is
{counted} ms.

## What stands in the way of more

- S/16: the products of width 384 themselves; norms, whose statistics of rows take four times as long as reading the
  rows; and 1.1 ms to cut and mix images. With a variance made in one pass, 2.3 ms less; but it would lose digits.
- Reduce-scatters and all-reduces of gradients are synchronous in every schedule: nothing runs beside them. Of L/16's
  step that is an eighth. No option of the compiler changes it (L/16 of 4 blocks, 7.97 ms computing and 1.72 waiting):
  fusing collectives with products (`xla_tpu_enable_async_collective_fusion` and its `fuse_reduce_scatter`,
  `fuse_all_reduce`, `fuse_all_gather`, `multiple_steps`, `with_mosaic_custom_call`),
  `xla_tpu_overlap_compute_collective_tc`, `xla_tpu_enable_data_parallel_all_reduce_opt`,
  `xla_tpu_decompose_reduce_scatter_fusion`, `xla_tpu_decompose_every_reduce_scatters_hlos`,
  `xla_tpu_prefer_einsum_reduce_scatter`, windowed einsums and offloading to sparse cores leave it as it is; without
  `xla_tpu_enable_all_reduce_scatter_fusion` it waits 3.07 ms; with `xla_tpu_reduce_scatter_collective_matmul_mode` it
  waits 1.08 ms and computes 11.04. With `fsdp=256`, gradients are summed by all-reduce instead and 2.50 ms are waited.
- Of g/14 on v5e, some gradients are still summed by all-reduce (0.85 GB and 16 ms a step in the plan above), although
  each chip needs its part alone; of L/16, all by reduce-scatter. Why is not known: parts of the MLP's weights have 384
  rows, not a power of two.
- Norms and their gradients read activations from memory once more than products do.
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", required=True, metavar="DIR", help="where each plan is kept as JSON")
    parser.add_argument("--only", default="", metavar="TEXT", help="make only plans with this in their name")
    parser.add_argument("--output", default=str(ROOT / "docs" / "plans.md"), metavar="FILE")
    arguments = parser.parse_args()
    folder = Path(arguments.folder)
    folder.mkdir(parents=True, exist_ok=True)
    plans: dict[str, dict[str, Any]] = {}
    for name, options in (PLANS | LEVERS).items():
        path = folder / (name.replace("/", "").replace(",", "").replace(" ", "_") + ".json")
        if not path.exists() and arguments.only in name:
            print(f"{name} ...", flush=True)
            path.write_text(_plan(options))
        if path.exists():
            plans[name] = json.loads(path.read_text())
    Path(arguments.output).write_text(_document(plans))
    missing = [name for name in PLANS | LEVERS if name not in plans]
    print(f"{arguments.output}; missing: {', '.join(missing) or 'none'}")
    return 0


def _plan(options: tuple[str, ...]) -> str:
    command = [sys.executable, "-m", "vit_jax.cli", "plan", "--json", *options]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if process.returncode not in (0, 6):  # 6: it does not fit, which is a result too
        raise SystemExit(process.stderr)
    return process.stdout


def _document(plans: dict[str, dict[str, Any]]) -> str:
    from importlib.metadata import version

    columns = ["run", "mesh", "remat", "GiB a chip", "ms computing", "ms waiting", "MFU computing", "MFU all"]
    columns += ["images/s", "chip-hours"]
    head = f"| {' | '.join(columns)} |\n"
    rows = [_row(name, plans[name]) for name in PLANS if name in plans]
    missing = [name for name in PLANS | LEVERS if name not in plans]
    few = "| step | GiB a chip | ms computing | ms waiting | MFU computing |\n|---|---|---|---|---|\n"
    levers = [_lever(name, plans[name]) for name in LEVERS if name in plans]
    hottest = [
        f"- {name}: "
        + "; ".join(
            f"`{short_source(source)}` {seconds * 1e3:.1f} ms" for source, seconds in plans[name]["hottest"]
        )
        for name in PLANS
        if name in plans and plans[name]["fits"]
    ]
    small = plans.get("S/16 on v5e-8")
    return TEXT.format(
        counted="not known" if small is None else f"{small['counted_seconds'] * 1e3:.1f}",
        versions=f"jax {version('jax')}, libtpu {version('libtpu')}",
        missing=f"\nNot made yet: {', '.join(missing)}.\n" if missing else "",
        runs=head + "|---" * len(columns) + "|\n" + "\n".join(rows),
        hottest="\n".join(hottest),
        levers=few + "\n".join(levers),
    )


def _computing(plan: dict[str, Any]) -> float:
    return plan["mfu"] * plan["step_seconds"] / plan["compute_seconds"]


def _row(name: str, plan: dict[str, Any]) -> str:
    mesh = " ".join(f"{axis} {size}" for axis, size in plan["mesh"].items() if size > 1)
    peak = f"{plan['memory']['peak'] / GIB:.2f} of {plan['memory']['capacity'] / GIB:.2f}"
    if not plan["fits"]:
        return f"| {name} | {mesh} | {plan['remat']} | {peak}: does not fit | | | | | | |"
    return (
        f"| {name}, batch {plan['batch_size']} | {mesh} | {plan['remat']} | {peak} | "
        f"{plan['compute_seconds'] * 1e3:.1f} | {plan['exposed_seconds'] * 1e3:.1f} | {_computing(plan):.1%} | "
        f"{plan['mfu']:.1%} | {plan['images_per_second']:,.0f} | {plan['chip_hours']:,.0f} |"
    )


def _lever(name: str, plan: dict[str, Any]) -> str:
    if not plan["fits"]:
        return f"| {name} | {plan['memory']['peak'] / GIB:.2f}: does not fit | | | |"
    return (
        f"| {name} | {plan['memory']['peak'] / GIB:.2f} | {plan['compute_seconds'] * 1e3:.2f} | "
        f"{plan['exposed_seconds'] * 1e3:.2f} | {_computing(plan):.1%} |"
    )


if __name__ == "__main__":
    raise SystemExit(main())
