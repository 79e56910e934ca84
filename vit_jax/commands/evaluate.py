"""`vit-jax evaluate`."""

import argparse
import json

from vit_jax.commands.processes import add_processes, join_processes
from vit_jax.commands.source import add_source, add_storage, source_of

HELP = "evaluate a trained or published model exactly"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_source(parser)
    add_storage(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_processes(parser)
    parser.epilog = (
        "--config.KEY=VALUE changes a key of the saved configuration, or of the default one for a checkpoint, e.g. "
        "--config.data.source=folder --config.data.path=DIR"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the metrics."""
    from vit_jax.training.config import default_config
    from vit_jax.training.overrides import apply_override

    for override in arguments.overrides:
        apply_override(default_config(), override)
    source = source_of(arguments)
    main = join_processes(arguments)
    if isinstance(source, str):
        from vit_jax.inference.published import evaluate_checkpoint

        metrics = evaluate_checkpoint(source, arguments.overrides, storage=arguments.storage)
    else:
        from vit_jax.inference.workdir import evaluate_workdir

        metrics = evaluate_workdir(
            source,
            arguments.overrides,
            step=arguments.step,
            best=arguments.best,
            storage=arguments.storage,
        )
    if not main:
        return 0
    if arguments.json:
        print(json.dumps(metrics))
    else:
        print("\n".join(f"{name:<16} {value:.6g}" for name, value in metrics.items()))
    return 0
