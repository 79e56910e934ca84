"""What the TPU compiler makes of our kernels, beside what `vit-jax plan` counts for them.

python benchmarks/tpu_kernels.py --hardware v5e        # needs libtpu, no TPU; a minute

The compiler writes down the bundles of a kernel, one of which is issued in a cycle. Their number is of one image of a
program, whose images are a loop, without its start and its transfers; `vit_jax.planning.kernels` adds an allowance for
those, divided by the images here.
"""

import argparse
import os
import re
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from vit_jax.planning.chips import Hardware, parse_hardware

SHAPES = (  # tokens, heads, head dimension, windows with a bias of their own
    (64, 3, 64, 0),
    (196, 6, 64, 0),
    (197, 12, 64, 0),
    (196, 16, 64, 0),
    (256, 16, 80, 0),
    (256, 16, 88, 0),
    (256, 16, 104, 0),
    (577, 12, 64, 0),
    (98, 4, 32, 32),
    (98, 8, 32, 8),
    (98, 16, 32, 2),
    (128, 8, 32, 8),
    (144, 8, 32, 4),
    (197, 12, 64, 1),
)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hardware", default="v5e", choices=("v4", "v5e", "v5p", "v6e"))
    hardware = parser.parse_args().hardware
    with tempfile.TemporaryDirectory() as folder:
        from vit_jax.planning.topology import prepare_environment

        planned = parse_hardware({"v4": "v4-8", "v5e": "v5e-4", "v5p": "v5p-8", "v6e": "v6e-4"}[hardware])
        prepare_environment(planned)
        os.environ["LIBTPU_INIT_ARGS"] = (
            f"--xla_jf_dump_to={folder} --xla_jf_dump_llo_text=true "
            "--xla_jf_dump_llo_pass_label_regex=.*final_bundles.*"
        )
        print("tokens heads   k windows  direction  bundles  counted  heads and images in one program")
        for tokens, heads, size, windows in SHAPES:
            for file in Path(folder).iterdir():
                file.unlink()
            for direction, bundles, counted, *together in _measure(
                planned, tokens, heads, size, windows, Path(folder)
            ):
                print(
                    f"{tokens:>6} {heads:>5} {size:>3} {windows:>7}  {direction:<9} {bundles:>8,} {counted:>8,.0f}  "
                    "{:>2} {:>2}".format(*together),
                    flush=True,
                )
    return 0


def _measure(
    hardware: Hardware, tokens: int, heads: int, size: int, windows: int, folder: Path
) -> Iterator[tuple[str, int, float, int, int]]:
    import jax
    import jax.numpy as jnp
    from jax.sharding import SingleDeviceSharding

    from vit_jax.models.layers.kernels.room import (
        BACKWARD,
        FORWARD,
        heads_together,
        image_bytes,
        images_together,
    )
    from vit_jax.models.layers.kernels.short_attention import short_attention
    from vit_jax.planning.kernels import kernel_cycles
    from vit_jax.planning.topology import absent_devices

    device = SingleDeviceSharding(absent_devices(hardware)[0])
    images = 128
    x = jax.ShapeDtypeStruct((images * max(windows, 1), tokens, heads * size), jnp.bfloat16, sharding=device)
    bias = jax.ShapeDtypeStruct((windows, 1, heads, tokens, tokens), jnp.float32, sharding=device)
    given = (x, x, x, *[bias][: min(windows, 1)])

    def both(dout, *given):
        out, back = jax.vjp(partial(short_attention, heads), *given)
        return out, back(dout)

    text = jax.jit(both).lower(x, *given).compile().as_text()
    biased = heads if windows else 0
    together = heads_together(heads, size, tokens, tokens, x.dtype.itemsize, biases=(1, biased))
    programs = max(windows, 1) * heads // together
    for direction, kernel in (("forward", FORWARD), ("backward", BACKWARD)):
        call = next(
            line for line in (text or "").splitlines() if kernel in line and "tpu_custom_call" in line
        )
        counted = kernel_cycles(call)
        assert counted is not None
        file = next(folder.glob(f"*{kernel}*schedule-analysis_final_bundles.txt"))
        match = re.search(r"total scheduled bundles:\s+(\d+)", file.read_text())
        assert match is not None
        each = image_bytes(tokens, together * size, x.dtype.itemsize, kernel)
        yield (
            direction,
            int(match[1]),
            counted / (images * programs),
            together,
            images_together(images, programs, each, tokens, tokens, min(biased, together), kernel),
        )


if __name__ == "__main__":
    raise SystemExit(main())
