"""`vit-jax models`."""

import argparse
import json

from vit_jax.errors import ConfigError

HELP = "list models"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("pattern", nargs="?", default="*", help="name, or wildcards: 'vit_*_patch16_*'")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print the models that match."""
    from vit_jax.models.flops import forward_flops, parameter_count
    from vit_jax.models.names import list_models, resolve
    from vit_jax.models.towers import image_config

    names = list_models(arguments.pattern)
    if not names and any(wildcard in arguments.pattern for wildcard in "*?["):
        raise ConfigError(f"no model matches {arguments.pattern!r}; `vit-jax models` lists all.")
    names = names or [resolve(arguments.pattern)[0]]  # an alias, or a size that is not listed
    rows = []
    for name in names:
        config = resolve(name)[1]
        height, width = image_config(config).image_size
        rows.append((name, parameter_count(config), forward_flops(config) / 1e9, f"{height}x{width}"))
    if arguments.json:
        keys = ("name", "parameters", "gflops", "input_size")
        print(json.dumps([dict(zip(keys, row)) for row in rows], indent=2))
        return 0
    width = max(len(row[0]) for row in rows)
    print(f"{'name':<{width}} {'parameters':>15} {'GFLOPs':>9} {'input':>9}")
    for name, parameters, gflops, size in rows:
        print(f"{name:<{width}} {parameters:>15,} {gflops:>9.1f} {size:>9}")
    return 0
