"""Time one training step of our Vision Transformers, and of timm's or transformers' in PyTorch on the same cores.

A step is the whole update: uint8 images normalised, forward, softmax cross-entropy, backward, AdamW. Ours is
the library's own step, so its gradient norm and its check for finite numbers are in the time.
See benchmarks/README.md.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import common
import worker

LEARNING_RATE, B1, B2, EPSILON, WEIGHT_DECAY = 1e-3, 0.9, 0.999, 1e-8, 0.05
PLAIN = "plain gradient"


def ours(task: worker.Task) -> Callable[[], Any]:
    """Return our step on one batch that is on the device already."""
    import jax

    from vit_jax.compiler_options import training_options
    from vit_jax.models.families import family_of
    from vit_jax.planning.measurement import plain_buffers, random_parameters
    from vit_jax.training.config.defaults import default_config
    from vit_jax.training.optimizer import make_optimizer
    from vit_jax.training.state import TrainState
    from vit_jax.training.step import compile_step, make_step

    objective = worker.objective(task)
    section = default_config().optimizer
    section.update(b1=B1, b2=B2, epsilon=EPSILON, weight_decay=WEIGHT_DECAY, clip_norm=0.0)
    params = random_parameters(objective)

    def schedule(step: Any) -> jax.Array:
        return jax.numpy.float32(LEARNING_RATE)

    optimizer = make_optimizer(section, schedule, params)
    model = objective.model
    options = training_options(jax.default_backend(), model.dtype, family_of(model).widest(model))
    step = compile_step(make_step(objective, optimizer, schedule, seed=0), options=options)
    state = TrainState(jax.numpy.int32(0), params, plain_buffers(objective), optimizer.init(params), None)
    images, labels = jax.device_put(worker.batch(task))

    def run() -> None:
        nonlocal state
        state, metrics = step(state, {"image": images, "label": labels})
        jax.block_until_ready((state, metrics))

    return run


def ours_plain(task: worker.Task) -> Callable[[], Any]:
    """Return our step with the gradient of dense layers left to automatic differentiation."""
    import jax

    from vit_jax.models.layers import dense

    dense.matmul = jax.numpy.matmul  # pyright: ignore[reportAttributeAccessIssue]
    return ours(task)


def peer(task: worker.Task, compiled: bool) -> Callable[[], Any]:
    """Return the same step of the peers' model: eager, or with forward, loss and backward compiled."""
    import torch

    model, images, labels = worker.torch_model(task)
    worker.import_timm()
    from timm.optim import param_groups_weight_decay

    free = model.no_weight_decay() if hasattr(model, "no_weight_decay") else ()
    groups = param_groups_weight_decay(model, WEIGHT_DECAY, free)
    optimizer = torch.optim.AdamW(groups, LEARNING_RATE, (B1, B2), EPSILON, fused=True)

    def loss(images: Any, labels: Any) -> Any:
        logits = worker.torch_logits(model, images, task)
        return torch.nn.functional.cross_entropy(logits, labels)

    # fullgraph: an error instead of silently running parts of it eagerly.
    chosen = torch.compile(loss, fullgraph=True, dynamic=False) if compiled else loss

    def run() -> None:
        optimizer.zero_grad()
        chosen(images, labels).backward()
        optimizer.step()
        worker.synchronise(task)

    return run


SIDES = {
    "ours": ours,
    PLAIN: ours_plain,
    worker.EAGER: partial(peer, compiled=False),
    worker.COMPILED: partial(peer, compiled=True),
}


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument(
        "--plain-gradient",
        action="store_true",
        help="also time ours without the own gradient of dense layers (models.layers.matmul)",
    )
    arguments = parser.parse_args()
    if arguments.worker:
        worker.serve(arguments.worker, SIDES[arguments.worker])
        return
    from vit_jax.models.flops import training_flops

    sides = ("ours", PLAIN) if arguments.plain_gradient else ("ours",)
    common.measure(parser, arguments, "one training step", sides, training_flops)


if __name__ == "__main__":
    main()
