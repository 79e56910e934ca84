"""Time the forward pass of our Vision Transformers, and of timm's or transformers' in PyTorch on the same cores.

A pass is uint8 images normalised, then the model, to float32 logits. See benchmarks/README.md.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import common
import worker


def ours(task: worker.Task) -> Callable[[], Any]:
    """Return our forward pass on one batch that is on the device already."""
    import jax

    from vit_jax.compiler_options import jit, prediction_options
    from vit_jax.planning.measurement import plain_buffers, random_parameters

    objective = worker.objective(task)
    params, buffers = random_parameters(objective), plain_buffers(objective)
    batch = {"image": jax.device_put(worker.batch(task)[0])}
    options = prediction_options(jax.default_backend(), objective.model.dtype)
    predict = jit(objective.logits, options)
    return lambda: predict(params, buffers, batch).block_until_ready()


def peer(task: worker.Task, compiled: bool) -> Callable[[], Any]:
    """Return the forward pass of the peers' model, eager or compiled."""
    import torch

    model, images, _ = worker.torch_model(task)
    model.eval()

    def logits(images: Any) -> Any:
        return worker.torch_logits(model, images, task)

    # fullgraph: an error instead of silently running parts of it eagerly.
    chosen = torch.compile(logits, fullgraph=True, dynamic=False) if compiled else logits

    def run() -> Any:
        with torch.inference_mode():
            result = chosen(images)
        worker.synchronise(task)
        return result

    return run


SIDES = {
    "ours": ours,
    worker.EAGER: partial(peer, compiled=False),
    worker.COMPILED: partial(peer, compiled=True),
}


def main() -> None:
    parser = common.parser(__doc__)
    arguments = parser.parse_args()
    if arguments.worker:
        worker.serve(arguments.worker, SIDES[arguments.worker])
        return
    from vit_jax.models.flops import forward_flops

    common.measure(parser, arguments, "one forward pass", ("ours",), forward_flops)


if __name__ == "__main__":
    main()
