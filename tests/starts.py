"""States to train from, without compiling their initialisation."""

import dataclasses

import jax
import jax.numpy as jnp

from tests.tiny import randomised


def initial(experiment):
    """The state of step 0 with noise in all parameters and statistics, where the experiment wants it."""
    abstract = experiment.abstract_state
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), abstract)
    noisy = {name: randomised(getattr(abstract, name)) for name in ("params", "buffers")}
    state = dataclasses.replace(zeros, **noisy)
    return jax.tree.map(lambda x, about: jax.device_put(x, about.sharding), state, abstract)
