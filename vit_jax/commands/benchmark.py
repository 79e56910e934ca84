"""`vit-jax benchmark`."""

import argparse
import json
import os
from typing import Any

from vit_jax.commands.source import batch_sizes_of
from vit_jax.errors import ConfigError, choose
from vit_jax.models.layers.encoder_config import STORAGES

HELP = "measure a model on this machine: images per second, latency, memory"
DTYPES = ("float32", "bfloat16")
_GIB = 2**30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("model", help="model name; `vit-jax models` lists them")
    parser.add_argument(
        "--batch-sizes", default="1,8,32", metavar="N,N,...", help="batch sizes to measure (default 1,8,32)"
    )
    parser.add_argument("--train", action="store_true", help="measure training steps instead of prediction")
    parser.add_argument(
        "--dtype", default="float32", help="dtype of computation: float32 (default) or bfloat16"
    )
    parser.add_argument(
        "--storage",
        default="float32",
        help="how parameters are stored in prediction: float32 (default), bfloat16 or int8",
    )
    parser.add_argument(
        "--image-size", type=int, metavar="N", help="image size in pixels (default the model's own)"
    )
    parser.add_argument(
        "--max-patches",
        type=int,
        metavar="N",
        help="images keep their aspect ratio, in up to N patches (NaFlex)",
    )
    parser.add_argument(
        "--classes", type=int, default=1000, metavar="N", help="number of classes (default 1000)"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=5.0,
        metavar="S",
        help="seconds to measure each batch size (default 5)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Measure and print."""
    sizes = batch_sizes_of(arguments)
    choose(arguments.dtype, DTYPES, "--dtype")
    choose(arguments.storage, STORAGES, "--storage")
    if arguments.storage != "float32" and arguments.train:
        raise ConfigError(
            "--storage applies to prediction, and training keeps parameters in float32; leave out --storage or --train."
        )
    if not 0 < arguments.seconds <= 3600:
        raise ConfigError(f"--seconds is {arguments.seconds:g}; it must be above 0 and at most 3600.")
    config = _config(arguments)
    import jax

    from vit_jax.planning.measurement import measure_prediction, measure_training

    if arguments.train:
        rows = measure_training(config, sizes, seconds=arguments.seconds)
    else:
        rows = measure_prediction(config, sizes, storage=arguments.storage, seconds=arguments.seconds)
    device = jax.devices()[0]
    about = {
        "model": arguments.model,
        "what": "training step" if arguments.train else "prediction",
        "dtype": arguments.dtype,
        "storage": arguments.storage,
        "image_size": list(config.image_size),
        **({} if arguments.max_patches is None else {"max_patches": arguments.max_patches}),
        "device": device.device_kind,
        "cores": os.cpu_count(),
        "jax": jax.__version__,
    }
    if arguments.json:
        print(json.dumps(about | {"rows": [row.to_json() for row in rows]}, indent=2))
    else:
        print(_table(about, rows))
    return 0


def _config(arguments: argparse.Namespace) -> Any:
    from vit_jax.models.families import is_image_encoder
    from vit_jax.models.layers.encoder_config import replace
    from vit_jax.models.names.resolve import resolve

    name, config = resolve(arguments.model)
    if not is_image_encoder(config):
        raise ConfigError(f"model {name!r} is not an image encoder; name one that `vit-jax models` lists.")
    changes: dict[str, Any] = {"num_classes": arguments.classes, "dtype": arguments.dtype}
    if arguments.image_size is not None:
        changes["image_size"] = arguments.image_size
    if arguments.max_patches is not None:
        changes["max_patches"] = arguments.max_patches
    return replace(config, **changes)


def _table(about: dict[str, Any], rows: list[Any]) -> str:
    height, width = about["image_size"]
    size = f"up to {about['max_patches']} patches" if about.get("max_patches") else f"{height}x{width}"
    first = f"{about['model']}, {size}, {about['what']} in {about['dtype']}"
    if about["storage"] != "float32":
        first += f", parameters stored in {about['storage']}"
    lines = [
        f"{first}; {about['device']}, {about['cores']} cores, jax {about['jax']}",
        f"{'batch':>6} {'images/s':>10} {'ms p50':>10} {'ms p99':>10} {'GFLOP/s':>9} {'MFU':>6} "
        f"{'GiB':>7} {'compile s':>10}",
    ]
    for row in rows:
        late = "" if row.p99_milliseconds is None else f"{row.p99_milliseconds:.2f}"
        share = "" if row.mfu is None else f"{row.mfu:.1%}"
        lines.append(
            f"{row.batch_size:>6} {row.images_per_second:>10,.1f} {row.milliseconds:>10.2f} {late:>10} "
            f"{row.flops_per_second / 1e9:>9,.0f} {share:>6} {row.bytes / _GIB:>7.2f} {row.compile_seconds:>10.1f}"
        )
    return "\n".join(lines)
