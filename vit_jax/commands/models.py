"""`vit-jax models`."""

import argparse
import json

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
    from vit_jax.models.families import image_config
    from vit_jax.models.flops import forward_flops, parameter_count
    from vit_jax.models.names.resolve import list_models, resolve

    if any(wildcard in arguments.pattern for wildcard in "*?["):
        names = list_models(arguments.pattern, arguments.pretrained)
        if not names:
            raise ConfigError(f"no model matches {arguments.pattern!r}; `vit-jax models` lists them all.")
    else:  # one model by any of its names, perhaps of a size that is not listed
        name = resolve(arguments.pattern)[0]
        names = (list_models(f"{name}.*", pretrained=True) if arguments.pretrained else []) or [name]
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
