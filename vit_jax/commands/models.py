"""`vit-jax models`."""

import argparse
import json
from typing import Any

from vit_jax.errors import ConfigError

HELP = "list models and published weights"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "pattern",
        nargs="?",
        default="*",
        help="a name or a pattern: 'vit_*_patch16_*', 'ViT-B*', 'timm/*', 'facebook/*'",
    )
    parser.add_argument("--pretrained", action="store_true", help="list published weights with their tags")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print the models that match."""
    from vit_jax.models.families import family_of, image_config
    from vit_jax.models.flops import forward_flops, parameter_count
    from vit_jax.models.maps import described, listed
    from vit_jax.models.names.resolve import list_models, resolve

    alone: Any = None
    if any(wildcard in arguments.pattern for wildcard in "*?["):
        names = list_models(arguments.pattern, arguments.pretrained)
        if not names:
            raise ConfigError(f"no model matches {arguments.pattern!r}; `vit-jax models` lists them all.")
    else:  # one model by any of its names, perhaps of a size that is not listed
        name = resolve(arguments.pattern)[0]
        names = (list_models(f"{name}.*", pretrained=True) if arguments.pretrained else []) or [name]
        alone = image_config(resolve(name)[1])
    levels = () if alone is None else family_of(alone).levels(alone)
    rows = []
    for name in names:
        config = resolve(name)[1]
        height, width = image_config(config).image_size
        rows.append((name, parameter_count(config), forward_flops(config) / 1e9, f"{height}x{width}"))
    if arguments.json:
        keys = ("name", "parameters", "gflops", "input_size")
        more = {"levels": [described(level) for level in levels]} if levels else {}
        print(json.dumps([dict(zip(keys, row)) | more for row in rows], indent=2))
        return 0
    width = max(len(row[0]) for row in rows)
    print(f"{'name':<{width}} {'parameters':>15} {'GFLOPs':>9} {'input':>9}")
    for name, parameters, gflops, size in rows:
        print(f"{name:<{width}} {parameters:>15,} {gflops:>9.1f} {size:>9}")
    if levels:  # what `vit_jax.load(..., levels=)` and `capture=` take
        print(f"\n{'level':<{width}} {'channels':>15} {'stride':>9} {'grid':>9}")
        for level in levels:
            stride, grid = ("x".join(map(str, pair)) for pair in (level.stride, level.grid))
            print(f"{level.name:<{width}} {level.channels:>15,} {stride:>9} {grid:>9}")
        if others := [level for level in family_of(alone).maps(alone) if level not in levels]:
            print(f"also {listed(others)}")
    return 0
