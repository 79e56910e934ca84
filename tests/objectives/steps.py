"""Some steps of a configuration, however the batch is divided: over devices, and one part after the other."""

import jax
import numpy as np

from tests.starts import initial
from tests.tiny import assert_trees_close
from vit_jax.training.config import default_config
from vit_jax.training.experiment import build
from vit_jax.training.step import compile_step


def configuration(objective, **model):
    """A small run of an objective on made-up grey images of 8 pixels."""
    config = default_config()
    config.duration = "4 steps"
    config.model.update(
        dict(name="vit_mu_patch2_8", in_channels=1, width=16, depth=1, heads=2, mlp_dim=32, unroll=1) | model
    )
    config.objective = dict(objective)
    config.data.update(source="synthetic", size=32, batch_size=16, eval_batch_size=16)
    config.optimizer.update(name="sgd", learning_rate=0.1)
    config.evaluation.every = config.checkpoint.every = "2 steps"
    config.checkpoint.keep_last = 4
    config.log.update(every="1 steps", tensorboard=False, progress=False)
    return config


def after_two_steps(config, devices=1, accumulation=1, start=initial, **mesh):
    """The experiment, its state after two steps, and the metrics of the second."""
    config.accumulation = accumulation
    config.sharding.update(min_size=0, max_replicated=1.0)
    config.mesh.update(mesh)
    experiment = build(config, devices=jax.devices()[:devices])
    state, frozen = start(experiment), experiment.devices.constants
    layout = experiment.devices.state_shardings, None, experiment.devices.step_options, frozen.shardings
    step = compile_step(experiment.step, *layout)

    def go_on(state, first):
        batches = experiment.data.train_batches(first)
        for _ in range(first, 2):
            between = jax.device_get(state)
            state, metrics = step(state, experiment.devices.put(next(batches)), *frozen.arguments)
        batches.close()
        return between, jax.device_get(state), {name: float(value) for name, value in metrics.items()}

    between, state, metrics = go_on(state, 0)
    _, again, _ = go_on(jax.device_put(between, experiment.devices.state_shardings), 1)
    jax.tree.map(np.testing.assert_array_equal, again, state)  # a run that stopped and goes on
    return experiment, state, metrics


def assert_divided_steps_are_whole_ones(make, metrics=("loss",)):
    """Eight devices and two microbatches give what one device and the whole batch do; returns the latter."""
    whole = after_two_steps(make())
    divided = after_two_steps(make(), 8, 2, data=2, fsdp=4)
    for name in metrics:
        np.testing.assert_allclose(divided[2][name], whole[2][name], rtol=2e-5)
    assert_trees_close(divided[1].params, whole[1].params, rtol=2e-5)
    assert_trees_close(divided[1].buffers, whole[1].buffers, rtol=2e-5)
    return whole
