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
# The same work for each chip.
GROWTH = {
    f"S/16 on v5e-{chips}": (*S16, "--hardware", f"v5e-{chips}", f"--config.data.batch_size={128 * chips}")
    for chips in (4, 8, 16, 64)
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
ALL = PLANS | GROWTH | LEVERS
TEXT = """# Plans

What `vit-jax plan` gives for large runs, made by `python benchmarks/plans.py`. **Nothing here was run on a TPU**: times
are the cycles that XLA's TPU compiler notes in its own schedule, divided by an inferred clock, and bytes over
published link rates; MFU counts forward and backward once, whatever is recomputed. "Computing" leaves communication
out; "all" includes every collective that no other work overlaps. Compiler: {versions}.

## Runs

{runs}
{missing}
## More chips

S/16, parameters replicated on all chips, 128 images per chip: what more chips cost is the all-reduce of gradients.

{growth}

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
| the variance of norms in one pass, for bfloat16 (3 blocks; g/14 of 4 blocks) | 12.31; 20.30 | 12.10; 19.79 |
| several images in a program of the kernel (S/16 of 12 blocks; L/16; g/14) | 44.61; 7.75; 19.79 | 43.59; 7.77; 19.83 |
| biases' gradients of norms by products too (3 blocks) | 13.11 | 13.24 |
| one product for queries, keys and values, one array for the kernel (3 blocks; L/16) | 12.31; 7.98 | 12.48; 7.79 |

Not kept were the four attentions without the kernel, and the last two. Communication, with four blocks on v5e-256
(milliseconds of computing and of waiting):

| change | before | after |
|---|---|---|
| reduce-scatters inside products, L/16 | 7.98 + 1.71 | 7.99 + 0.42 |
| the same, g/14; G/14 | 19.05 + 4.64; 30.72 + 5.79 | 20.02 + 2.49; 32.22 + 3.38 |
| weight gradients with the longer side first, g/14 (those of `fc1` had all-reduces) | 20.02 + 2.49 | 20.30 + 1.04 |
| both, all blocks: L/16; g/14 | 45.7 + 8.6; 173.1 + 35.9 | 46.3 + 2.8; 177.2 + 9.5 |
| both, all blocks, and all activations kept: G/14 | 340.2 + 66.8 | 338.5 + 16.1 (66.4 % in all) |
| instead: rings of collective-permutes, L/16 | 7.97 + 1.72 | 8.76 + 0.78 |
| instead: rings whose products are made in pieces, L/16 | 7.97 + 1.72 | 9.62 + 0.79 |

The rings were not kept. Of S/16, turning off the compiler's windowed products changes nothing once weights are
gathered.

**The kernel.** Without it, half of S/16 is the scores of attention, `6 x 196 x 196` a block and image, which are
written, read and laid out anew several times. `models/layers/kernels/short_attention.py` keeps them on the chip and
takes queries, keys and values as dense layers write them; it is the default on TPUs for bfloat16 and up to 640
tokens. It has run in Pallas's interpreter, where it equals the explicit form, and has been compiled for v4, v5e, v5p
and v6e; it has not run on a TPU. XLA's schedule says nothing of it, so its time is counted by hand
(`planning/kernels.py`): from the instruction bundles that the compiler can be made to write down (`python
benchmarks/tpu_kernels.py`), one a cycle, an allowance of 700 cycles a program, and the wait for what the first one
reads; on chips of two cores as if one of them did it all. Of S/16's step that is {counted} ms. A program takes as
many images as make starts and that wait least: of S/16 eight forward and four backward, of wide models, which have
few images a chip, one or two, which changes nothing there. Of v4 too little is counted (down to 0.56 of the bundles),
of v6e too much.

## Models in windows

Swin-B and Hiera-L on v5e-8, batch 1024 (`vit-jax plan --config configs/swin_i1k.py:base --hardware v5e-8`; for Hiera
`--config configs/swin_i1k.py --config.model.name=hiera_large_224`; jax 0.10.2, libtpu 0.0.42.1):

| step | ms | MFU | GiB a chip |
|---|---|---|---|
| Swin-B, attention as XLA makes it | 633.8 | 9.5% | 14.57 |
| the kernel with the biases of windows, two windows side by side | 314.2 | 19.1% | 11.50 |
| and blocks that keep the order of windows between them | 293.9 | 20.5% | 12.18 |
| and dense layers on rows of whole images, which the kernel cuts into windows (as it is now) | 247.3 | 24.3% | 11.61 |
| the same, `--config.accumulation=2` | 239.3 | 25.1% | 7.45 |
| Hiera-L before | 738.9 | 21.2% | 14.78 |
| mask units side by side in the kernel | 703.8 | 22.3% | 14.76 |
| the same, `--config.accumulation=2` | 513.7 | 30.5% | 15.07 |
| and queries pooled before they have an axis of heads (as it is now) | 511.8 | 30.6% | 15.02 |

Windows of 49 places fill neither rows nor lanes of a chip's tiles, and heads of 32 fill a quarter of the lanes. The
kernel runs its products over all lanes, with zeros in those of other heads; two windows are one sequence of 98 with a
bias that keeps them apart; and it is given the rows of a whole image, or of eight windows, which fill tiles, because
cutting them before would lay them out anew, which took longer than the products. Between blocks nothing but attention
asks where a place lies, so that the second block's shift is one reordering there and one back; of maps of up to 1,024
places it is a product with zeros and ones, exact and faster than moving rows.

Hiera-L of 128 images a chip does not fit as it is: the compiler computes dense layers of the third stage twice and
compresses what it keeps. With two microbatches it does not have to.

What remains of Swin-B's 244 ms, added up by hand from the compiler's schedule: dense layers and their gradients about
135 (60 at the chip's peak; of the third stage they reach 55 % of it, of the first two less: 128 and 256 columns), the
kernel 35, norms, activations and sums 35, copies that merge and reorder 25. The third stage alone is half of it.

## What stands in the way of more

- S/16: the products of width 384 themselves; 0.8 ms of cutting and mixing images, whose batch lies along the chip's
  lanes, so that taking the last image's partner reads all of them; and 0.8 ms of all-reduce, beside which the compiler
  schedules nothing, whatever it is asked (`xla_enable_async_all_reduce`, `fuse_all_reduce`).
- On v5e reduce-scatters run inside the products that follow (`sharding.overlap`, `compiler_options.py`). The compiler
  says that it supports this on no other chip, and refuses it for v5p. It takes four options: two that ask for it; one
  against combining, because combined ones wait; and a limit of 32 MiB of VMEM for a product, because at the default
  of 16 MiB one needs 16.06. The limit matters: L/16 computes 30 times as long with 16.5 MiB, 1.04 times with 24 and
  1.07 times with 64. S/16, which divides no parameters, would compute 1.07 times as long with 32 MiB: there it stays
  at 16. Where the compiler passes parts of weights around while it multiplies, and no reduce-scatter is left (B/16 on
  v5e-8 with fsdp=8), the options cost 1.2 % of the step and bring nothing; `sharding.overlap=False` leaves them out.
- L/16 still waits 1.8 ms for 46 of 98 all-gathers, beside which nothing is scheduled, and 0.8 ms for all-reduces.
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
    for name, options in ALL.items():
        path = folder / (name.replace("/", "").replace(",", "").replace(" ", "_") + ".json")
        if not path.exists() and arguments.only in name:
            print(f"{name} ...", flush=True)
            path.write_text(_plan(options))
        if path.exists():
            plans[name] = json.loads(path.read_text())
    Path(arguments.output).write_text(_document(plans))
    missing = [name for name in ALL if name not in plans]
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
    head = f"| {' | '.join(columns)} |\n" + "|---" * len(columns) + "|\n"
    rows = [_row(name, plans[name]) for name in PLANS if name in plans]
    growth = [_row(name, plans[name]) for name in GROWTH if name in plans]
    missing = [name for name in ALL if name not in plans]
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
        runs=head + "\n".join(rows),
        growth=head + "\n".join(growth),
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
